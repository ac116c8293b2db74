//! Who did what when: requests are recorded as the audit policy says, at each stage of their lives, with what authorization and admission have to say
//! about them. Never decides about a request, unless it is told to refuse those that cannot be recorded.

mod event;
mod log;
pub mod options;
pub mod policy;
mod queue;
mod rotation;
mod throttle;
mod webhook;
pub mod webhook_options;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use component_base::metrics::SharedRegistry;
use http::{HeaderMap, Request};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde_json::Value;

use crate::authn::Connection;
use crate::authz::Attributes;
use crate::extension::kubeconfig::Remote;
use crate::protobuf;
use crate::registry::Registry;
use crate::server::request_info::UserInfo;
use event::{Event, ObjectRef, User};
use log::LogBackend;
use options::{AuditOptions, LogFormat, Mode};
use policy::{Level, Policy, Stage, Verdict};
use webhook::WebhookBackend;
use webhook_options::WebhookOptions;

/// How long the end of the server waits for the rest of the events.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// Text of a `User-Agent` that is recorded.
const USER_AGENT_CHARS_MAX: usize = 1024;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LevelLabels {
    level: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PluginLabels {
    plugin: &'static str,
}

/// The policy, and where events go. Without both it records nothing.
pub struct Auditor(Option<Arc<Recorder>>);

/// Where events go.
struct Sink {
    backend: Backend,
    /// A request whose arrival does not get there is refused.
    strict: bool,
    /// Bytes above which an event is cut.
    event_bytes_max: Option<usize>,
}

enum Backend {
    Log(LogBackend, LogFormat),
    Webhook(WebhookBackend),
}

impl Sink {
    fn log(path: &str, options: &AuditOptions, errors: &Errors) -> Result<Self, String> {
        let log = LogBackend::start(path, options, errors.of("log"))?;
        Ok(Self {
            backend: Backend::Log(log, options.audit_log_format),
            strict: options.audit_log_mode == Mode::BlockingStrict,
            event_bytes_max: options
                .audit_log_truncate_enabled
                .then_some(options.audit_log_truncate_max_event_size),
        })
    }

    fn webhook(
        path: &std::path::Path,
        options: &WebhookOptions,
        errors: &Errors,
        registry: &Arc<Registry>,
    ) -> Result<Self, String> {
        let remote = Remote::load(path, registry)
            .map_err(|error| format!("--audit-webhook-config-file: initializing audit webhook: {error}"))?;
        let (overflow, errors) = (errors.of("buffered"), errors.of("webhook"));
        Ok(Self {
            backend: Backend::Webhook(WebhookBackend::start(remote, options, overflow, errors)),
            strict: options.audit_webhook_mode == Mode::BlockingStrict,
            event_bytes_max: options
                .audit_webhook_truncate_enabled
                .then_some(options.audit_webhook_truncate_max_event_size),
        })
    }

    /// The event in this sink's form; `None`: it is too large even without its objects.
    fn written(&self, event: &Event) -> Option<Vec<u8>> {
        let written = |event: &Event| match &self.backend {
            Backend::Log(_, LogFormat::Json) => event.json_line(),
            Backend::Log(_, LogFormat::Legacy) => event.legacy_line(),
            Backend::Webhook(_) => event.json_item(),
        };
        let fits = |text: &Vec<u8>| self.event_bytes_max.is_none_or(|most| text.len() <= most);
        Some(written(event)).filter(fits).or_else(|| Some(written(&event.truncated())).filter(fits))
    }

    async fn write(&self, event: Vec<u8>) -> bool {
        match &self.backend {
            Backend::Log(log, _) => log.write(event).await,
            Backend::Webhook(webhook) => webhook.write(event).await,
        }
    }

    fn offer(&self, event: Vec<u8>) -> bool {
        match &self.backend {
            Backend::Log(log, _) => log.offer(event),
            Backend::Webhook(webhook) => webhook.offer(event),
        }
    }

    async fn flush(&self) {
        match &self.backend {
            Backend::Log(log, _) => log.flush().await,
            Backend::Webhook(webhook) => webhook.flush().await,
        }
    }
}

/// Counters of events that were lost, by where.
struct Errors(Family<PluginLabels, Counter>);

impl Errors {
    fn of(&self, plugin: &'static str) -> Counter {
        self.0.get_or_create_owned(&PluginLabels { plugin })
    }
}

struct Recorder {
    policy: Policy,
    sinks: Vec<Sink>,
    events: Counter,
    levels: Family<LevelLabels, Counter>,
    rejected: Counter,
    dropped: Counter,
}

impl Auditor {
    /// Reads the policy, opens the log and finds the webhook that the flags name.
    ///
    /// # Errors
    /// A text naming the flag.
    pub fn new(
        options: &AuditOptions,
        metrics: &SharedRegistry,
        registry: &Arc<Registry>,
    ) -> Result<Self, String> {
        let policy = match options.audit_policy_file.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => None,
            Some(path) => Some(
                Policy::load(path)
                    .map_err(|error| format!("--audit-policy-file: loading audit policy file: {error}"))?,
            ),
        };
        let path = options.audit_log_path.as_deref().filter(|path| !path.is_empty());
        let webhook = options.webhook.config_file();
        let policy = match (policy, path.is_some() || webhook.is_some()) {
            (Some(policy), true) => policy,
            (Some(_), false) => {
                tracing::warn!(
                    "no --audit-log-path and no --audit-webhook-config-file: nothing is recorded whatever the audit policy says"
                );
                return Ok(Self(None));
            }
            (None, true) => {
                tracing::warn!("no --audit-policy-file: nothing is recorded");
                return Ok(Self(None));
            }
            (None, false) => return Ok(Self(None)),
        };
        let (events, rejected) = (Counter::default(), Counter::default());
        let (levels, errors) = (Family::default(), Errors(Family::default()));
        let mut metrics = metrics.lock();
        metrics.register("apiserver_audit_event", "Counter of audit events generated", events.clone());
        metrics.register(
            "apiserver_audit_level",
            "Counter of policy levels for audit events",
            levels.clone(),
        );
        metrics.register("apiserver_audit_error", "Counter of audit events that failed", errors.0.clone());
        metrics.register(
            "apiserver_audit_requests_rejected",
            "Counter of requests rejected because they could not be recorded",
            rejected.clone(),
        );
        drop(metrics);
        let mut sinks = Vec::new();
        if let Some(path) = path {
            sinks.push(Sink::log(path, options, &errors)?);
        }
        if let Some(path) = webhook {
            sinks.push(Sink::webhook(path, &options.webhook, &errors, registry)?);
        }
        let dropped = errors.of("truncate");
        Ok(Self(Some(Arc::new(Recorder { policy, sinks, events, levels, rejected, dropped }))))
    }

    /// Begins the record of a request, as far as the policy wants one. `version` is the API version asked for.
    pub fn begin<B>(
        &self,
        request: &Request<B>,
        connection: &Connection,
        audit_id: &str,
        user: &UserInfo,
        (attributes, version): (&Attributes<'_>, &str),
    ) -> Trail {
        let Some(recorder) = &self.0 else { return Trail::default() };
        let Verdict { level, omit_stages, omit_managed_fields } = recorder.policy.of(user, attributes);
        recorder.levels.get_or_create(&LevelLabels { level: level_name(level) }).inc();
        if level == Level::None {
            return Trail::default();
        }
        let (verb, object_ref) = match attributes {
            Attributes::Path { verb, .. } => ((*verb).to_owned(), None),
            Attributes::Resource(asked) => {
                let reference = ObjectRef {
                    resource: asked.resource.to_owned(),
                    namespace: asked.namespace.to_owned(),
                    name: asked.name.to_owned(),
                    api_group: asked.group.to_owned(),
                    api_version: version.to_owned(),
                    subresource: asked.subresource.to_owned(),
                    ..ObjectRef::default()
                };
                (asked.verb.to_owned(), Some(reference))
            }
        };
        let mut event = Event::new(level, audit_id.to_owned(), verb, jiff::Timestamp::now());
        event.object_ref = object_ref;
        event.request_uri =
            request.uri().path_and_query().map_or_else(|| "/".to_owned(), |uri| uri.as_str().to_owned());
        event.user = User::from(user);
        event.source_ips = source_addresses(request.headers(), connection);
        event.user_agent = user_agent(request.headers());
        let recorder = Arc::clone(recorder);
        Trail(Some(Arc::new(Record {
            recorder,
            omit_stages,
            omit_managed_fields,
            event: Mutex::new(event),
            end: Mutex::default(),
        })))
    }

    /// Waits, within limits, until everything recorded so far is where it belongs.
    pub async fn flush(&self) {
        let Some(recorder) = &self.0 else { return };
        let all = futures::future::join_all(recorder.sinks.iter().map(Sink::flush));
        if tokio::time::timeout(FLUSH_DEADLINE, all).await.is_err() {
            tracing::warn!("the last audit events could not be written or posted in time");
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::None => "None",
        Level::Metadata => "Metadata",
        Level::Request => "Request",
        Level::RequestResponse => "RequestResponse",
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default();
    if agent.chars().count() <= USER_AGENT_CHARS_MAX {
        return agent.to_owned();
    }
    let mut cut: String = agent.chars().take(USER_AGENT_CHARS_MAX).collect();
    cut.push_str("...TRUNCATED");
    cut
}

/// The client as proxies name it, and who the connection is with.
fn source_addresses(headers: &HeaderMap, connection: &Connection) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for name in ["x-forwarded-for", "x-real-ip"] {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        for address in values.flat_map(|value| value.split(',')).map(str::trim) {
            // Real-IP says no more than Forwarded-For did.
            if address.parse::<std::net::IpAddr>().is_ok() && !addresses.iter().any(|one| one == address) {
                addresses.push(address.to_owned());
            }
        }
    }
    if let Some(peer) = connection.peer.map(|peer| peer.ip().to_string())
        && addresses.last() != Some(&peer)
    {
        addresses.push(peer);
    }
    addresses
}

/// The record of one request, shared by all who have something to say about it. An empty one takes everything and keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Trail(Option<Arc<Record>>);

struct Record {
    recorder: Arc<Recorder>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    event: Mutex<Event>,
    /// Held by all who still work on the answer.
    end: Mutex<Weak<EndOfAnswer>>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("id", &self.event.lock().audit_id).finish_non_exhaustive()
    }
}

impl Trail {
    fn with(&self, change: impl FnOnce(&mut Event)) {
        if let Some(record) = &self.0 {
            change(&mut record.event.lock());
        }
    }

    /// Whether the request is recorded at all.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Whether what is answered is to be looked at: it is recorded, or it may be a `Status`.
    pub fn wants_answer(&self, code: u16) -> bool {
        self.0.as_ref().is_some_and(|record| {
            let event = record.event.lock();
            event.level == Level::RequestResponse || code >= 400 || event.verb.starts_with("delete")
        })
    }

    /// Whether answers are recorded, which takes them as they are, not compressed.
    pub fn keeps_answers(&self) -> bool {
        self.0.as_ref().is_some_and(|record| record.event.lock().level == Level::RequestResponse)
    }

    /// Adds a fact. The first one of its key counts.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.with(|event| {
            if !event.annotations.contains_key(key) {
                event.annotations.insert(key.to_owned(), value.into());
            }
        });
    }

    /// Adds to the list that a fact is, as JSON.
    pub fn annotate_list(&self, key: &str, item: Value) {
        self.with(|event| {
            let known = event.annotations.get(key).and_then(|text| serde_json::from_str(text).ok());
            let mut list: Vec<Value> = known.unwrap_or_default();
            list.push(item);
            event.annotations.insert(key.to_owned(), Value::Array(list).to_string());
        });
    }

    /// Notes as whom the request is worked on.
    pub fn impersonates(&self, user: &UserInfo) {
        self.with(|event| event.impersonated_user = Some(User::from(user)));
    }

    /// Notes the object, the patch or the options sent.
    pub fn request_object(&self, object: &Value) {
        let Some(record) = &self.0 else { return };
        let mut event = record.event.lock();
        event.sent(object);
        if event.level >= Level::Request {
            event.request_object = Some(record.shown(object.clone()));
        }
    }

    /// Notes a patch, as it was sent.
    pub fn request_patch(&self, patch: &[u8]) {
        self.with(|event| {
            if event.level >= Level::Request {
                // What is no JSON is refused later.
                event.request_object = serde_json::from_slice(patch).ok();
            }
        });
    }

    /// Notes the answer's code.
    pub fn answered(&self, code: u16) {
        self.with(|event| event.answered(code));
    }

    /// Notes the error of a handler that failed.
    pub fn failed(&self, status: &Value) {
        self.with(|event| event.answered_with(status));
    }

    /// Notes why nobody is known to have sent the request.
    pub fn refused(&self, message: &str) {
        let status = serde_json::json!({"message": message, "code": 401});
        self.with(|event| event.answered_with(&status));
    }

    /// Notes what is answered.
    pub fn response(&self, content_type: &str, body: &Bytes) {
        let Some(record) = &self.0 else { return };
        let answer: Option<Value> = if content_type.starts_with("application/json") {
            serde_json::from_slice(body).ok()
        } else if content_type.starts_with("application/vnd.kubernetes.protobuf") {
            protobuf::decode(body, "v1", "Status").ok()
        } else {
            None
        };
        let Some(answer) = answer else { return };
        let mut event = record.event.lock();
        if answer["kind"] == "Status" && answer["apiVersion"] == "v1" {
            event.answered_with(&answer);
        }
        if event.level == Level::RequestResponse {
            event.response_object = Some(record.shown(answer));
        }
    }

    /// Records that the request has come to a stage, unless the policy leaves that out. Whether the request may go on.
    pub async fn reach(&self, stage: Stage) -> bool {
        let Some(record) = &self.0 else { return true };
        let mut refused = false;
        for (sink, event) in record.reached(stage) {
            let written = sink.write(event).await;
            refused |= !written && sink.strict && stage == Stage::RequestReceived;
        }
        if refused {
            record.recorder.rejected.inc();
        }
        !refused
    }

    /// The end of an answer that takes long: it is recorded when all who have asked for it have let it go.
    pub fn end(&self) -> Option<Arc<EndOfAnswer>> {
        let record = self.0.as_ref()?;
        let mut kept = record.end.lock();
        if let Some(end) = kept.upgrade() {
            return Some(end);
        }
        let end = Arc::new(EndOfAnswer(Arc::clone(record)));
        *kept = Arc::downgrade(&end);
        Some(end)
    }
}

impl Record {
    fn shown(&self, mut object: Value) -> Value {
        if self.omit_managed_fields {
            event::drop_managed_fields(&mut object);
        }
        object
    }

    /// The event of a stage for each sink, as far as it is to be recorded there.
    fn reached(&self, stage: Stage) -> Vec<(&Sink, Vec<u8>)> {
        if self.omit_stages.contains(&stage) {
            return Vec::new();
        }
        let recorder = &self.recorder;
        recorder.events.inc();
        let mut event = self.event.lock();
        event.reach(stage, jiff::Timestamp::now());
        let written = |sink| match Sink::written(sink, &event) {
            Some(text) => Some((sink, text)),
            None => {
                recorder.dropped.inc();
                None
            }
        };
        recorder.sinks.iter().filter_map(written).collect()
    }
}

/// Lives as long as anybody works on an answer.
pub struct EndOfAnswer(Arc<Record>);

impl Drop for EndOfAnswer {
    fn drop(&mut self) {
        // There is no waiting here: what finds the queue full is lost and counted.
        for (sink, event) in self.0.reached(Stage::ResponseComplete) {
            sink.offer(event);
        }
    }
}

/// What a request without a known sender tried, in upstream's words.
pub fn attempted_methods(headers: &HeaderMap) -> String {
    let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let mut methods = Vec::new();
    if authorization.is_some_and(|value| value.to_ascii_lowercase().starts_with("basic ")) {
        methods.push("basic");
    }
    if authorization.is_some_and(|value| value.to_ascii_lowercase().starts_with("bearer ")) {
        methods.push("bearer");
    }
    if headers.contains_key("x-remote-user") {
        methods.push("requestheader");
    }
    if methods.is_empty() {
        "Authentication failed, no credentials provided".to_owned()
    } else {
        format!("Authentication failed, attempted: {}", methods.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_request_are_the_proxies_words_and_the_peer() {
        let mut headers = HeaderMap::new();
        let peer = Connection::new(Some("10.0.0.9:4000".parse().expect("an address")), Vec::new());
        assert_eq!(source_addresses(&headers, &peer), ["10.0.0.9"]);
        headers.insert("x-forwarded-for", "1.2.3.4, nonsense, 5.6.7.8".parse().expect("a header"));
        headers.insert("x-real-ip", "1.2.3.4".parse().expect("a header"));
        assert_eq!(source_addresses(&headers, &peer), ["1.2.3.4", "5.6.7.8", "10.0.0.9"]);
    }

    #[test]
    fn what_was_tried_is_named() {
        let mut headers = HeaderMap::new();
        assert_eq!(attempted_methods(&headers), "Authentication failed, no credentials provided");
        headers.insert("authorization", "Bearer x".parse().expect("a header"));
        assert_eq!(attempted_methods(&headers), "Authentication failed, attempted: bearer");
    }
}
