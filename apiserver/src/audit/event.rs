//! What is recorded of one request, as `audit.k8s.io/v1` has it, and its two forms: a line of JSON or upstream's older line of text. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::policy::{Level, Stage};
use crate::server::request_info::UserInfo;

/// How an event begins that says what it is.
const TYPED: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

/// Who asked, as events have it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct User {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    /// Groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> Self {
        let UserInfo { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Plural.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Where.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Which; of a creation it is filled in from the object sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The object's own id, from what was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// API version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Of the object sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Part of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// One event. Everything but stage and its time stays the same or grows over a request's stages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    /// How much is recorded.
    pub level: Level,
    /// The same in all events of a request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// Where the request is.
    pub stage: Stage,
    /// As sent.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// API verb, or the HTTP method in lower case.
    pub verb: String,
    /// Who sent it.
    pub user: User,
    /// As whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    /// The client and the proxies between.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// Which program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// What it is about; absent for paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    /// What was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    /// What was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    /// When it came.
    pub request_received_timestamp: String,
    /// When it came to the stage.
    pub stage_timestamp: String,
    /// What authorization and admission have to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Event {
    /// The first event of a request that came at `received`.
    pub fn new(level: Level, audit_id: String, verb: String, received: jiff::Timestamp) -> Self {
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id,
            stage: Stage::RequestReceived,
            request_uri: String::new(),
            verb,
            user: User::default(),
            impersonated_user: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: micro_time(received),
            stage_timestamp: micro_time(received),
            annotations: BTreeMap::new(),
        }
    }

    /// Moves on to a stage.
    pub fn reach(&mut self, stage: Stage, now: jiff::Timestamp) {
        self.stage = stage;
        self.stage_timestamp = micro_time(now);
    }

    /// Notes the answer's code, keeping what is known of its `Status`.
    pub fn answered(&mut self, code: u16) {
        let status = self.response_status.get_or_insert_with(|| json!({"metadata": {}}));
        status["code"] = code.into();
    }

    /// Notes the answer's `Status`: the fields of bounded size.
    pub fn answered_with(&mut self, status: &Value) {
        let mut kept = json!({"metadata": {}});
        for field in ["status", "message", "reason", "details", "code"] {
            if let Some(value) = status.get(field) {
                kept[field] = value.clone();
            }
        }
        self.response_status = Some(kept);
    }

    /// Notes the object sent, and what it says of itself where the path does not.
    pub fn sent(&mut self, object: &Value) {
        if let Some(reference) = &mut self.object_ref {
            let metadata = &object["metadata"];
            for (slot, field) in [
                (&mut reference.name, "name"),
                (&mut reference.namespace, "namespace"),
                (&mut reference.uid, "uid"),
                (&mut reference.resource_version, "resourceVersion"),
            ] {
                if let (true, Some(text)) = (slot.is_empty(), metadata[field].as_str()) {
                    *slot = text.to_owned();
                }
            }
        }
    }

    /// The same without the objects, which make an event large.
    pub fn truncated(&self) -> Self {
        let mut event = Self { request_object: None, response_object: None, ..self.clone() };
        event.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
        event
    }

    /// As a line of JSON.
    pub fn json_line(&self) -> Vec<u8> {
        // Maps with text for keys always serialize.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// As an item of a list, which says for all of its items what they are.
    pub fn json_item(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        // What they are comes first in every event.
        match text.strip_prefix(TYPED) {
            Some(rest) => [b"{", rest].concat(),
            None => text,
        }
    }

    /// As upstream's older line of text.
    pub fn legacy_line(&self) -> Vec<u8> {
        let list =
            |groups: &[String]| groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>().join(",");
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let groups = if self.user.groups.is_empty() { "<none>".to_owned() } else { list(&self.user.groups) };
        let (as_user, as_groups) = match &self.impersonated_user {
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
            Some(user) => (user.username.clone(), list(&user.groups)),
        };
        let namespace = self.object_ref.as_ref().map_or("", |reference| reference.namespace.as_str());
        let response = self
            .response_status
            .as_ref()
            .map_or_else(|| "<deferred>".to_owned(), |status| status["code"].to_string());
        let mut line = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            line,
            "{} AUDIT: id={:?} stage=\"{:?}\" ip={:?} method={:?} user={:?} groups={groups} as={as_user:?} asgroups={as_groups} user-agent={:?} namespace={:?} uri={:?} response={response:?}",
            self.request_received_timestamp,
            self.audit_id,
            self.stage,
            or(self.source_ips.first().map_or("", String::as_str), "<unknown>"),
            self.verb,
            or(&self.user.username, "<none>"),
            self.user_agent,
            or(namespace, "<none>"),
            self.request_uri,
        );
        line.into_bytes()
    }
}

/// With microseconds, as `metav1.MicroTime` is written.
fn micro_time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Takes `metadata.managedFields` out of an object, or of each of a list's.
pub fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_managed_fields(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let received = "2024-01-02T03:04:05.678901Z".parse().expect("a time");
        let mut event = Event::new(Level::Request, "id-1".into(), "create".into(), received);
        event.user = User { username: "a".into(), groups: vec!["g".into(), "h".into()], ..User::default() };
        event.object_ref =
            Some(ObjectRef { resource: "pods".into(), namespace: "n".into(), ..ObjectRef::default() });
        event.source_ips = vec!["10.0.0.1".into()];
        event.request_uri = "/api/v1/namespaces/n/pods".into();
        event
    }

    #[test]
    fn events_have_upstreams_fields() {
        let mut event = event();
        event.sent(&json!({"metadata": {"name": "x", "namespace": "other"}}));
        event.answered(201);
        let value: Value = serde_json::from_slice(&event.json_line()).expect("JSON");
        assert_eq!(
            value,
            json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "id-1",
            "stage": "RequestReceived", "requestURI": "/api/v1/namespaces/n/pods", "verb": "create",
            "user": {"username": "a", "groups": ["g", "h"]}, "sourceIPs": ["10.0.0.1"],
            "objectRef": {"resource": "pods", "namespace": "n", "name": "x"},
            "responseStatus": {"metadata": {}, "code": 201},
            "requestReceivedTimestamp": "2024-01-02T03:04:05.678901Z", "stageTimestamp": "2024-01-02T03:04:05.678901Z"})
        );
    }

    #[test]
    fn items_of_lists_do_not_say_what_they_are() {
        let item: Value = serde_json::from_slice(&event().json_item()).expect("JSON");
        let mut line: Value = serde_json::from_slice(&event().json_line()).expect("JSON");
        let fields = line.as_object_mut().expect("an object");
        assert!(fields.remove("kind").is_some() && fields.remove("apiVersion").is_some());
        assert_eq!(item, line);
    }

    #[test]
    fn the_older_form_is_one_line_of_text() {
        let mut event = event();
        event.reach(Stage::ResponseComplete, "2024-01-02T03:04:06Z".parse().expect("a time"));
        assert_eq!(
            String::from_utf8(event.legacy_line()).expect("text"),
            "2024-01-02T03:04:05.678901Z AUDIT: id=\"id-1\" stage=\"ResponseComplete\" ip=\"10.0.0.1\" method=\"create\" user=\"a\" groups=\"g\",\"h\" as=\"<self>\" asgroups=<lookup> user-agent=\"\" namespace=\"n\" uri=\"/api/v1/namespaces/n/pods\" response=\"<deferred>\"\n"
        );
    }

    #[test]
    fn managed_fields_are_dropped_from_lists_too() {
        let mut list = json!({"items": [{"metadata": {"name": "a", "managedFields": []}}]});
        drop_managed_fields(&mut list);
        assert_eq!(list, json!({"items": [{"metadata": {"name": "a"}}]}));
    }
}
