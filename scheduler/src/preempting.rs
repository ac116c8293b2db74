//! Makes room for a pod as decided: deletes the victims, each marked first with why it goes, and takes nominations back from pods
//! that are outranked. Owns the order of these calls; which pods have to go is `scheduler-core`'s.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::config::{describe, is_conflict, is_not_found, within};
use coracle_client::event_recorder::{EventKind, EventRecorder};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource};
use scheduler_core::pod_info::PodInfo;
use scheduler_core::preemption::Preemption;
use serde_json::json;
use tokio::task::JoinSet;

use crate::pod_status::StatusWriter;

const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Victims that are deleted at the same time.
const DELETING_MAX: usize = 16;

/// What it takes to make room.
#[derive(Clone)]
pub struct Executor {
    /// The API.
    pub client: Client,
    /// Where victims and people are told.
    pub events: EventRecorder,
    /// Takes nominations back.
    pub status: StatusWriter,
}

impl Executor {
    /// Carries a preemption out. The last victim goes when all others have been deleted, so that its deletion, which may let the
    /// pod be tried again, says that all is done.
    ///
    /// # Errors
    /// A victim could not be marked or deleted.
    pub async fn run(self, preemptor: Arc<PodInfo>, preemption: Preemption) -> Result<(), kube::Error> {
        for outranked in &preemption.outranked {
            self.status.withdraw_nomination(&outranked.pod);
        }
        let mut victims: Vec<_> =
            preemption.victims.iter().filter(|victim| !victim.is_terminating()).collect();
        let last = victims.pop();
        let mut deleting = JoinSet::new();
        for victim in victims {
            if deleting.len() >= DELETING_MAX
                && let Some(ended) = deleting.join_next().await
            {
                outcome(ended)?;
            }
            let (executor, preemptor) = (self.clone(), Arc::clone(&preemptor));
            let (victim, node) = (Arc::clone(victim), Arc::clone(&preemption.node));
            deleting.spawn(async move { executor.delete(&preemptor, &victim, &node).await });
        }
        while let Some(ended) = deleting.join_next().await {
            outcome(ended)?;
        }
        match last {
            Some(last) => self.delete(&preemptor, last, &preemption.node).await,
            None => Ok(()),
        }
    }

    async fn delete(&self, preemptor: &PodInfo, victim: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), victim.namespace());
        let spec = preemptor.pod.spec.as_ref();
        let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or_default();
        let condition = json!({
            "type": "DisruptionTarget",
            "observedGeneration": victim.pod.metadata.generation,
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastProbeTime": null,
            "lastTransitionTime": Time(jiff::Timestamp::now()),
        });
        // The UID keeps a pod of the same name that has come meanwhile from being marked.
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": &*victim.uid }, "status": { "conditions": [condition] },
        }));
        match within(CALL_DEADLINE, api.patch_status(victim.name(), &PatchParams::default(), &patch)).await {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(victim.uid.to_string()), resource_version: None }),
            ..DeleteParams::default()
        };
        match within(CALL_DEADLINE, api.delete(victim.name(), &params)).await {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        tracing::info!(
            preemptor = format!("{}/{}", preemptor.namespace(), preemptor.name()),
            victim = format!("{}/{}", victim.namespace(), victim.name()),
            node,
            "preempted"
        );
        self.events.record(
            victim.pod.object_ref(&()),
            EventKind::Normal,
            "Preempted",
            "Preempting",
            format!("Preempted by pod {} on node {node}", preemptor.uid),
        );
        Ok(())
    }
}

/// Whether the victim is not there any more, or a pod of its name is another one.
fn is_gone(error: &kube::Error) -> bool {
    is_not_found(error) || is_conflict(error)
}

fn outcome(ended: Result<Result<(), kube::Error>, tokio::task::JoinError>) -> Result<(), kube::Error> {
    ended.unwrap_or_else(|error| Err(kube::Error::Service(error.into())))
}

/// Says in the log that room could not be made.
pub fn log_failure(preemptor: &PodInfo, error: &kube::Error) {
    tracing::warn!(
        pod = format!("{}/{}", preemptor.namespace(), preemptor.name()),
        error = describe(error),
        "preemption failed"
    );
}
