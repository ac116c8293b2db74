//! Tells people what a component does, as Kubernetes Events. Best effort: recording never blocks and never fails; when
//! the queue is full or the API is down, events are dropped and counted in the log. Owns the sending task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{api_code, describe, host_name, is_not_found, within};
use crate::event_correlator::{Correlated, EventCorrelator, EventIdentity};

/// Events that wait to be sent; more are dropped.
const QUEUE_LENGTH: usize = 1000;
/// Events on their way to the server at the same time.
const SENDING_MAX: usize = 8;
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// How often an event is tried when the server does not answer, and the pause between.
const SEND_ATTEMPTS: u32 = 5;
const SEND_PAUSE: Duration = Duration::from_millis(500);
/// Upstream's limit for the text of an event, in bytes.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Information.
    Normal,
    /// Something that may need attention.
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Which of upstream's two recorders an event looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStyle {
    /// `firstTimestamp`, `lastTimestamp`, `count` and `source`: controllers and the kubelet.
    Core,
    /// `eventTime`, `action`, `series` and `reportingController`: the scheduler.
    Series,
}

struct Recorded {
    regarding: ObjectReference,
    kind: EventKind,
    reason: String,
    action: String,
    message: String,
    at: jiff::Timestamp,
}

struct Shared {
    queue: mpsc::Sender<Recorded>,
    dropped: AtomicU64,
}

/// Records events for one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    shared: Arc<Shared>,
}

impl EventRecorder {
    /// Starts a recorder; `component` is what `kubectl describe` shows under From.
    pub fn start(client: Client, component: &str, style: EventStyle, shutdown: &CancellationToken) -> Self {
        Self::start_on_host(client, component, &host_name(), style, shutdown)
    }

    /// The same with a host name of its own: the kubelet gives its node's name.
    pub fn start_on_host(
        client: Client,
        component: &str,
        host: &str,
        style: EventStyle,
        shutdown: &CancellationToken,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_LENGTH);
        let sender = Sender {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            style,
            correlator: Mutex::new(EventCorrelator::default()),
            started: Instant::now(),
        };
        tokio::spawn(Arc::new(sender).run(receiver, shutdown.clone()));
        Self { shared: Arc::new(Shared { queue, dropped: AtomicU64::new(0) }) }
    }

    /// Records an event about `regarding` (from `object.object_ref(&())`). `action` is what was being done, such as
    /// `Binding`; only [`EventStyle::Series`] shows it.
    pub fn record(
        &self,
        regarding: ObjectReference,
        kind: EventKind,
        reason: impl Into<String>,
        action: impl Into<String>,
        message: impl Into<String>,
    ) {
        let event = Recorded {
            regarding,
            kind,
            reason: reason.into(),
            action: action.into(),
            message: shorten(message.into()),
            at: jiff::Timestamp::now(),
        };
        if self.shared.queue.try_send(event).is_err() {
            let dropped = self.shared.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "events are dropped: the queue to the API server is full");
            }
        }
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MESSAGE_LENGTH_MAX {
        let end = (0..=MESSAGE_LENGTH_MAX - 3).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push_str("...");
    }
    message
}

struct Sender {
    client: Client,
    component: String,
    host: String,
    style: EventStyle,
    correlator: Mutex<EventCorrelator>,
    started: Instant,
}

impl Sender {
    async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<Recorded>, shutdown: CancellationToken) {
        let mut sending = JoinSet::new();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(_) = sending.join_next() => continue,
                event = queue.recv(), if sending.len() < SENDING_MAX => event,
            };
            let Some(event) = event else { return };
            let sender = Arc::clone(&self);
            sending.spawn(async move { sender.send(event).await });
        }
    }

    async fn send(&self, event: Recorded) {
        let identity = EventIdentity {
            object: object_identity(&event.regarding),
            kind: event.kind.as_str(),
            reason: event.reason.clone(),
            action: event.action.clone(),
            message: event.message.clone(),
        };
        let (identity, decision) = self.correlator.lock().correlate(identity, self.started.elapsed());
        // Events about cluster-scoped objects live in the default namespace.
        let namespace = event.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match decision {
            Correlated::Drop => {}
            Correlated::New { message } => self.create(&api, &event, message, &identity, namespace).await,
            Correlated::Repeat { object_name, count, message } => {
                let patch = repeat_patch(self.style, count, &message, event.at);
                let params = PatchParams::default();
                let patch = Patch::Strategic(patch);
                let result = attempt(|| api.patch(&object_name, &params, &patch)).await;
                match result {
                    Ok(_) => {}
                    Err(error) if is_not_found(&error) => {
                        self.correlator.lock().failed(&identity);
                        self.create(&api, &event, message, &identity, namespace).await;
                    }
                    Err(error) => tracing::debug!(error = describe(&error), "an event could not be updated"),
                }
            }
        }
    }

    async fn create(
        &self,
        api: &Api<Event>,
        event: &Recorded,
        message: String,
        identity: &EventIdentity,
        namespace: String,
    ) {
        let object = self.object(event, message, namespace);
        let params = PostParams::default();
        let name = object.metadata.name.clone().unwrap_or_default();
        match attempt(|| api.create(&params, &object)).await {
            Ok(_) => self.correlator.lock().sent(identity, name),
            Err(error) => {
                self.correlator.lock().failed(identity);
                tracing::debug!(
                    error = describe(&error),
                    reason = event.reason,
                    "an event could not be stored"
                );
            }
        }
    }

    fn object(&self, event: &Recorded, message: String, namespace: String) -> Event {
        let about = event.regarding.name.as_deref().unwrap_or("unknown");
        let mut object = Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{:x}", event.at.as_nanosecond())),
                namespace: Some(namespace),
                ..Default::default()
            },
            involved_object: event.regarding.clone(),
            reason: Some(event.reason.clone()),
            message: Some(message),
            type_: Some(event.kind.as_str().to_owned()),
            reporting_component: Some(self.component.clone()),
            ..Default::default()
        };
        match self.style {
            EventStyle::Core => {
                object.first_timestamp = Some(Time(event.at));
                object.last_timestamp = Some(Time(event.at));
                object.count = Some(1);
                object.reporting_instance = Some(self.host.clone());
                object.source = Some(EventSource {
                    component: Some(self.component.clone()),
                    host: Some(self.host.clone()),
                });
            }
            EventStyle::Series => {
                object.event_time = Some(MicroTime(event.at));
                object.action = Some(event.action.clone());
                object.reporting_instance = Some(format!("{}-{}", self.component, self.host));
            }
        }
        object
    }
}

fn object_identity(object: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let field = part(&object.field_path);
    format!(
        "{}/{}/{}/{}/{field}",
        part(&object.kind),
        part(&object.namespace),
        part(&object.name),
        part(&object.uid)
    )
}

fn repeat_patch(style: EventStyle, count: i32, message: &str, at: jiff::Timestamp) -> serde_json::Value {
    match style {
        EventStyle::Core => {
            serde_json::json!({ "count": count, "lastTimestamp": Time(at), "message": message })
        }
        EventStyle::Series => {
            serde_json::json!({ "series": { "count": count, "lastObservedTime": MicroTime(at) }, "message": message })
        }
    }
}

/// Tries a call again while the server cannot be reached; an answer, good or bad, is final.
async fn attempt<T, Fut>(call: impl Fn() -> Fut) -> Result<T, kube::Error>
where
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let mut tries = 1;
    loop {
        match within(SEND_DEADLINE, call()).await {
            Err(error) if tries < SEND_ATTEMPTS && api_code(&error).is_none_or(|code| code >= 500) => {
                tries += 1;
                tokio::time::sleep(SEND_PAUSE).await;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character_and_marked() {
        let cut = shorten("ü".repeat(1000));
        assert!(cut.len() <= MESSAGE_LENGTH_MAX && cut.ends_with("ü..."));
        assert_eq!(shorten("short".into()), "short");
    }

    #[test]
    fn repeats_update_what_each_style_counts_with() {
        let at = jiff::Timestamp::from_second(1_000).expect("valid");
        let core = repeat_patch(EventStyle::Core, 3, "m", at);
        assert_eq!(core["count"], 3);
        assert_eq!(core["lastTimestamp"], "1970-01-01T00:16:40Z");
        let series = repeat_patch(EventStyle::Series, 3, "m", at);
        assert_eq!(series["series"]["count"], 3);
    }
}
