//! Pods that were to be disrupted and were not: the condition that said so is taken back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::json;

use crate::action::{Action, PODS};
use crate::object_meta::seconds;
use crate::pod_state::{condition, is_finished, is_terminating};
use crate::status_report;

const TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionTarget";

/// In what time the pod's condition is stale; `None` if it has none that can be. What the kubelet says of a pod that it ends holds
/// as long as it takes.
pub fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let found = condition(pod, CONDITION)?;
    if found.status != "True"
        || is_terminating(pod)
        || is_finished(pod)
        || found.reason.as_deref() == Some("TerminationByKubelet")
    {
        return None;
    }
    let since = found.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let left = TIMEOUT.checked_sub(now.duration_since(since)).unwrap_or_default();
    Some(Duration::try_from(left).unwrap_or_default())
}

/// Takes the condition back.
pub fn reset_stale(pod: &Pod, now: Timestamp) -> Action {
    let meta = &pod.metadata;
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for known in conditions.iter_mut().filter(|condition| condition.type_ == CONDITION) {
        *known = PodCondition {
            type_: CONDITION.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(seconds(now)),
            ..PodCondition::default()
        };
    }
    status_report::patch(&PODS, meta, json!({ "conditions": conditions }))
}
