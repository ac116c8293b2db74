//! AdmissionReviews: what a webhook is sent, what its answer means, and the error that clients see when it says no. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::kinds::access::{boolean, items, present, text};
use coracle_api::meta;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::{Map, Value, json};

use crate::admission::matching::{Attributes, Operation};
use crate::extension::review::Version;
use crate::server::request_info::{FieldValidation, RequestInfo};

const GROUP: &str = "admission.k8s.io";
const JSON_PATCH: &str = "JSONPatch";

/// What a webhook that knows the object as one of `known_as` is sent. `objects` are the new one and the old one.
pub(super) fn review(
    version: Version,
    uid: &str,
    attributes: &Attributes<'_>,
    known_as: &'static Resource,
    objects: [Option<&Value>; 2],
) -> Value {
    let mut body = admission_request(attributes, known_as);
    body["uid"] = uid.into();
    body["object"] = objects[0].cloned().unwrap_or_default();
    body["oldObject"] = objects[1].cloned().unwrap_or_default();
    json!({"kind": "AdmissionReview", "apiVersion": version.api_version(GROUP), "request": body})
}

/// The request of a review, without its objects.
pub(in crate::admission) fn admission_request(
    attributes: &Attributes<'_>,
    known_as: &'static Resource,
) -> Value {
    let request = attributes.request;
    let kind = |row: &Resource| match request.subresource.filter(|part| part.kind != request.resource.kind) {
        Some(part) => json!({"group": part.group, "version": part.version, "kind": part.kind}),
        None => json!({"group": row.group, "version": row.version, "kind": row.kind}),
    };
    let resource =
        |row: &Resource| json!({"group": row.group, "version": row.version, "resource": row.plural});
    let mut body = json!({
        "kind": kind(known_as),
        "resource": resource(known_as),
        "requestKind": kind(request.resource),
        "requestResource": resource(request.resource),
        "operation": attributes.operation.as_str(),
        "userInfo": user(request),
        "dryRun": request.dry_run,
        "options": options(attributes),
    });
    for (field, value) in [
        ("subResource", request.subresource().unwrap_or_default()),
        ("requestSubResource", request.subresource().unwrap_or_default()),
        ("name", attributes.name()),
        ("namespace", attributes.namespace()),
    ] {
        if !value.is_empty() {
            body[field] = value.into();
        }
    }
    body
}

fn user(request: &RequestInfo) -> Value {
    let user = &request.user;
    let mut info = Map::new();
    for (field, value) in [("username", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            info.insert(field.into(), value.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

/// The options of the request. Connections have none.
fn options(attributes: &Attributes<'_>) -> Value {
    let request = attributes.request;
    let kind = match attributes.operation {
        Operation::Connect => return Value::Null,
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if attributes.operation == Operation::Delete {
        if let (Some(own), Some(all)) = (request.delete_options.as_object(), options.as_object_mut()) {
            all.extend(own.clone());
        }
        return options;
    }
    if request.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if let Some(manager) = request.query.get("fieldManager").filter(|manager| !manager.is_empty()) {
        options["fieldManager"] = manager.into();
    }
    if request.query.get("fieldValidation").is_some_and(|wanted| !wanted.is_empty()) {
        options["fieldValidation"] = match request.field_validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        }
        .into();
    }
    options
}

/// What a webhook says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The status of its refusal; null when it gives none. Absent: it allows.
    pub(super) denied: Option<Value>,
    /// What to tell the client.
    pub(super) warnings: Vec<String>,
    /// A JSON patch, decoded.
    pub(super) patch: Option<Value>,
    /// What to tell those who audit.
    pub(super) annotations: Vec<(String, String)>,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub(super) fn verdict(version: Version, uid: &str, mutating: bool, answer: &[u8]) -> Result<Verdict, String> {
    let undecodable = |error: &dyn std::fmt::Display| format!("failed to call webhook: {error}");
    let invalid = |text: String| Err(format!("received invalid webhook response: {text}"));
    let answer: Value = serde_json::from_slice(answer).map_err(|error| {
        undecodable(&format_args!("couldn't get version/kind; json parse error: {error}"))
    })?;
    let Some(response) = present(&answer, "response").filter(|response| response.is_object()) else {
        return invalid("webhook response was absent".to_owned());
    };
    let bytes = match present(response, "patch") {
        None => Vec::new(),
        Some(patch) => {
            let patch = patch.as_str().ok_or_else(|| undecodable(&"response.patch is no text"))?;
            STANDARD.decode(patch).map_err(|error| undecodable(&error))?
        }
    };
    let patch_type = present(response, "patchType").and_then(Value::as_str);
    if version == Version::V1 {
        if text(response, "uid") != uid {
            return invalid(format!("expected response.uid={uid:?}, got {:?}", text(response, "uid")));
        }
        let found = (text(&answer, "apiVersion"), text(&answer, "kind"));
        if found != (version.api_version(GROUP).as_str(), "AdmissionReview") {
            let (group, name) = meta::split_api_version(found.0);
            return invalid(format!(
                "expected webhook response of {GROUP}/v1, Kind=AdmissionReview, got {group}/{name}, Kind={}",
                found.1
            ));
        }
        match (mutating, bytes.is_empty(), patch_type) {
            (true, false, None) => {
                return invalid("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) => {
                return invalid("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, _, Some("")) => {
                return invalid("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            (false, false, _) => {
                return invalid("validating webhook may not return response.patch".to_owned());
            }
            (false, _, Some(_)) => {
                return invalid("validating webhook may not return response.patchType".to_owned());
            }
            _ => {}
        }
    }
    let warnings = items(response, "warnings").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let told = present(response, "auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    let annotations =
        told.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    if !boolean(response, "allowed") {
        let status = present(response, "status").cloned().unwrap_or(Value::Null);
        return Ok(Verdict { denied: Some(status), warnings, patch: None, annotations });
    }
    if !mutating || bytes.is_empty() {
        return Ok(Verdict { warnings, annotations, ..Verdict::default() });
    }
    match patch_type.unwrap_or(JSON_PATCH) {
        JSON_PATCH => {}
        other => return Err(format!("unsupported patch type {other:?}")),
    }
    let patch = serde_json::from_slice(&bytes)
        .map_err(|error| format!("received undecodable patch in webhook response: {error}"))?;
    Ok(Verdict { denied: None, warnings, patch: Some(patch), annotations })
}

/// The error of a refusal: the webhook's own status where it gives one.
pub(super) fn denial(webhook: &str, status: &Value) -> ApiError {
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (text(status, "message"), text(status, "reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let mut own = status.clone();
    if !own.is_object() {
        own = json!({});
    }
    own["message"] = message.into();
    ApiError::of_status(code, own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::{Query, Verb};
    use coracle_api::resource::lookup;

    #[test]
    fn a_review_says_who_does_what_to_which_object() {
        let row = |version| lookup("autoscaling", version, "horizontalpodautoscalers").expect("in the table");
        let (v1, v2) = (row("v1"), row("v2"));
        let mut request = RequestInfo::internal(Verb::Create, v2, Some("a"), None);
        request.query = Query::parse(Some("fieldManager=me&dryRun=All"));
        request.dry_run = true;
        let object = json!({"metadata": {"name": "x"}});
        let attributes = Attributes::new(&request, Some(&object), None);
        let review = review(Version::V1, "u", &attributes, v1, [Some(&object), None]);
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        let body = &review["request"];
        assert_eq!(
            (&body["kind"]["version"], &body["requestKind"]["version"], &body["resource"]["resource"]),
            (&json!("v1"), &json!("v2"), &json!("horizontalpodautoscalers"))
        );
        assert_eq!(
            (&body["operation"], &body["name"], &body["namespace"], &body["oldObject"], &body["dryRun"]),
            (&json!("CREATE"), &json!("x"), &json!("a"), &Value::Null, &json!(true))
        );
        assert_eq!(
            body["options"],
            json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"})
        );
        assert_eq!(body["userInfo"]["username"], "system:apiserver");
        assert!(body.get("subResource").is_none());
    }

    fn read(mutating: bool, response: Value) -> Result<Verdict, String> {
        let answer =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        verdict(Version::V1, "u", mutating, answer.to_string().as_bytes())
    }

    #[test]
    fn answers_are_checked() {
        let patch = STANDARD.encode("[]");
        let cases = [
            (true, json!(null), "received invalid webhook response: webhook response was absent"),
            (
                true,
                json!({"uid": "v"}),
                "received invalid webhook response: expected response.uid=\"u\", got \"v\"",
            ),
            (
                true,
                json!({"uid": "u", "allowed": true, "patch": patch}),
                "received invalid webhook response: webhook returned response.patch but not response.patchType",
            ),
            (
                false,
                json!({"uid": "u", "allowed": true, "patch": patch}),
                "received invalid webhook response: validating webhook may not return response.patch",
            ),
            (
                true,
                json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "Merge"}),
                "unsupported patch type \"Merge\"",
            ),
        ];
        for (mutating, response, text) in cases {
            assert_eq!(read(mutating, response), Err(text.to_owned()));
        }
        assert_eq!(
            verdict(Version::V1, "u", true, br#"{"response": {"uid": "u"}}"#),
            Err("received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=".to_owned())
        );
        let allowed = read(
            true,
            json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch", "warnings": ["w"]}),
        );
        assert_eq!(
            allowed,
            Ok(Verdict { warnings: vec!["w".into()], patch: Some(json!([])), ..Verdict::default() })
        );
        let older = verdict(Version::V1Beta1, "u", false, br#"{"response": {"allowed": true}}"#);
        assert_eq!(older, Ok(Verdict::default()));
    }

    #[test]
    fn a_refusal_is_the_webhooks_own_status() {
        let error = denial("a.b.c", &json!({"message": "no", "code": 403, "reason": "Forbidden"}));
        assert_eq!((error.code(), error.reason()), (403, "Forbidden"));
        assert_eq!(error.message(), "admission webhook \"a.b.c\" denied the request: no");
        let silent = denial("a.b.c", &Value::Null);
        assert_eq!(
            silent.to_status(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "admission webhook \"a.b.c\" denied the request without explanation", "code": 400})
        );
        assert_eq!(denial("a", &json!({"code": 200, "reason": "Why"})).to_status()["code"], 400);
    }
}
