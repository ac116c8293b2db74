//! Writes what became of pods that found no node: the `PodScheduled` condition and the nomination. Owns the queue of these writes: bounded, and a write that does not
//! fit is left out, since the next attempt makes it again.

use std::time::Duration;

use coracle_client::config::{describe, is_not_found, within};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WAITING_MAX: usize = 4096;
const WRITING_MAX: usize = 8;
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
const NOMINATED: &str = "nominatedNodeName";

struct Write {
    namespace: String,
    name: String,
    status: serde_json::Map<String, serde_json::Value>,
}

/// What happens to a pod's nomination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nomination<'a> {
    /// It stands as it is.
    Stands,
    /// It is void.
    Withdrawn,
    /// It is this node.
    To(&'a str),
}

impl Nomination<'_> {
    /// The field of the status, if it has to change.
    fn change(self, pod: &Pod) -> Option<serde_json::Value> {
        let status = pod.status.as_ref();
        let now = status.and_then(|status| status.nominated_node_name.as_deref()).unwrap_or_default();
        match self {
            Self::To(node) if node != now => Some(json!(node)),
            Self::Withdrawn if !now.is_empty() => Some(serde_json::Value::Null),
            _ => None,
        }
    }
}

/// Hands statuses to the writing task.
#[derive(Clone)]
pub struct StatusWriter {
    queue: mpsc::Sender<Write>,
}

impl StatusWriter {
    /// Starts the writing task.
    pub fn start(client: Client, shutdown: CancellationToken) -> Self {
        let (queue, writes) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = write_all(client, writes) => {}
            }
        });
        Self { queue }
    }

    /// Makes the pod's `PodScheduled` condition False with this reason and message, and its nomination so, unless they
    /// already are.
    pub fn not_scheduled(&self, pod: &Pod, reason: &str, message: &str, nomination: Nomination<'_>) {
        let mut status = serde_json::Map::new();
        status.extend(
            condition(pod, reason, message).map(|condition| ("conditions".to_owned(), json!([condition]))),
        );
        status.extend(nomination.change(pod).map(|name| (NOMINATED.to_owned(), name)));
        self.write(pod, status);
    }

    /// Takes the pod's nomination back.
    pub fn withdraw_nomination(&self, pod: &Pod) {
        let change = Nomination::Withdrawn.change(pod);
        self.write(pod, change.map(|name| (NOMINATED.to_owned(), name)).into_iter().collect());
    }

    fn write(&self, pod: &Pod, status: serde_json::Map<String, serde_json::Value>) {
        if status.is_empty() {
            return;
        }
        let write = Write {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            status,
        };
        if self.queue.try_send(write).is_err() {
            tracing::debug!("too many statuses wait to be written; the next attempt writes this one");
        }
    }
}

/// The `PodScheduled` condition, unless the pod already has it.
fn condition(pod: &Pod, reason: &str, message: &str) -> Option<serde_json::Value> {
    let old = current(pod);
    let same_status = old.is_some_and(|old| old.status == "False");
    let unchanged = old.is_some_and(|old| {
        same_status && old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(message)
    });
    if unchanged {
        return None;
    }
    let kept = old.filter(|_| same_status).and_then(|old| old.last_transition_time.clone());
    let transition = kept.unwrap_or_else(|| Time(jiff::Timestamp::now()));
    Some(json!({
        "type": "PodScheduled",
        "observedGeneration": pod.metadata.generation,
        "status": "False",
        "reason": reason,
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": transition,
    }))
}

fn current(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "PodScheduled")
}

async fn write_all(client: Client, mut writes: mpsc::Receiver<Write>) {
    let mut writing = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = writing.join_next() => {}
            write = writes.recv(), if writing.len() < WRITING_MAX => {
                let Some(write) = write else { return };
                let client = client.clone();
                writing.spawn(async move { patch(&client, write).await });
            }
        }
    }
}

async fn patch(client: &Client, write: Write) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &write.namespace);
    let patch = Patch::Strategic(json!({ "status": write.status }));
    match within(WRITE_DEADLINE, api.patch_status(&write.name, &PatchParams::default(), &patch)).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => {}
        Err(error) => {
            tracing::warn!(
                pod = format!("{}/{}", write.namespace, write.name),
                error = describe(&error),
                "cannot write the status"
            );
        }
    }
}
