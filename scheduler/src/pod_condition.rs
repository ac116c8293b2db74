//! Writes the `PodScheduled` condition of pods that found no node. Owns the queue of these writes: bounded, and a write that does not
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

struct Write {
    namespace: String,
    name: String,
    condition: serde_json::Value,
}

/// Hands conditions to the writing task.
#[derive(Clone)]
pub struct ConditionWriter {
    queue: mpsc::Sender<Write>,
}

impl ConditionWriter {
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

    /// Makes the pod's `PodScheduled` condition False with this reason and message, unless it already is.
    pub fn not_scheduled(&self, pod: &Pod, reason: &str, message: &str) {
        let old = current(pod);
        let same_status = old.is_some_and(|old| old.status == "False");
        let unchanged = old.is_some_and(|old| {
            same_status && old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(message)
        });
        if unchanged {
            return;
        }
        let kept = old.filter(|_| same_status).and_then(|old| old.last_transition_time.clone());
        let transition = kept.unwrap_or_else(|| Time(jiff::Timestamp::now()));
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": transition,
        });
        let write = Write {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            condition,
        };
        if self.queue.try_send(write).is_err() {
            tracing::debug!("too many conditions wait to be written; the next attempt writes this one");
        }
    }
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
    let patch = Patch::Strategic(json!({ "status": { "conditions": [write.condition] } }));
    match within(WRITE_DEADLINE, api.patch_status(&write.name, &PatchParams::default(), &patch)).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => {}
        Err(error) => {
            tracing::warn!(
                pod = format!("{}/{}", write.namespace, write.name),
                error = describe(&error),
                "cannot write the PodScheduled condition"
            );
        }
    }
}
