//! Reading the pods of a Job: their completion index, whether they are still to be counted, whether they failed, when they
//! ended. Owns no decision.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{
    COMPLETION_INDEX, INDEX_FAILURE_COUNT, INDEX_IGNORED_FAILURE_COUNT, TRACKING_FINALIZER,
    only_replaces_failed,
};
use crate::object_meta::{annotation, created};
use crate::pod_state::{condition, is_terminating, phase};

/// The pod's completion index, if it has a valid one.
pub fn completion_index(pod: &Pod) -> Option<i32> {
    annotation(&pod.metadata, COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// Whether the pod is not counted yet: it carries the tracking finalizer.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING_FINALIZER)
}

/// Whether the pod ended well.
pub fn is_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

/// Whether the pod counts as failed. A pod that is being deleted may never reach the phase Failed, so it counts at once,
/// unless only pods that have really failed are replaced.
pub fn is_failed(job: &Job, pod: &Pod) -> bool {
    phase(pod) == "Failed" || (!only_replaces_failed(job) && is_terminating(pod) && !is_succeeded(pod))
}

fn count(pod: &Pod, key: &str) -> i32 {
    annotation(&pod.metadata, key).and_then(|text| text.parse().ok()).filter(|count| *count >= 0).unwrap_or(0)
}

/// Failures of the index before this pod that count towards its limit.
pub fn index_failures(pod: &Pod) -> i32 {
    count(pod, INDEX_FAILURE_COUNT)
}

/// Failures of the index before this pod that a policy ignored.
pub fn index_failures_ignored(pod: &Pod) -> i32 {
    count(pod, INDEX_IGNORED_FAILURE_COUNT)
}

/// All failures of the index before this pod.
pub fn index_failures_all(pod: &Pod) -> i32 {
    index_failures(pod).saturating_add(index_failures_ignored(pod))
}

/// Restarts of all containers of the pod together.
pub fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let main = status.and_then(|status| status.container_statuses.as_ref());
    init.into_iter().chain(main).flatten().map(|container| container.restart_count).sum()
}

fn ended(container: &ContainerStatus) -> Option<Timestamp> {
    Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
}

/// When the last container ended; `None` unless all have. Sidecars end after the containers they serve.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let init = status.init_container_statuses.iter().flatten();
    let counted = init.filter(|container| sidecars.contains(&container.name.as_str()));
    let mut last = None;
    for container in status.container_statuses.iter().flatten().chain(counted) {
        last = last.max(Some(ended(container)?));
    }
    last
}

/// When the pod ended, by the best evidence there is: its containers, its Ready condition, its deletion, its creation.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let unready = || {
        let ready = condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        Some(at.checked_sub(grace).unwrap_or(at))
    };
    containers_ended(pod).or_else(unready).or_else(deleted).unwrap_or_else(|| created(&pod.metadata))
}
