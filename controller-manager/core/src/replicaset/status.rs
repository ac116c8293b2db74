//! What a ReplicaSet reports: counts, the ReplicaFailure condition, and when to look again for pods that become available.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::action::{Action, ResourceId};
use crate::label_selector::matches_map;
use crate::merge_diff::merge_diff_of;
use crate::object_meta::seconds;
use crate::pod_state::{available_at, is_active, is_available, is_finished, is_ready, is_terminating};
use crate::status_report;

/// A failure of the last attempt to reach the number asked for.
#[derive(Clone, Debug)]
pub struct ReplicaFailure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// The server's text.
    pub message: String,
}

/// The status for the pods the set owns, as of `now`.
pub fn calculate(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&ReplicaFailure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let labels =
        spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let active = || owned.iter().filter(|pod| is_active(pod));
    let ready = active().filter(|pod| is_ready(pod)).count();
    let available = active().filter(|pod| is_available(pod, min_ready, now)).count();
    let full = active().filter(|pod| matches_map(&labels, pod.metadata.labels.as_ref())).count();
    let terminating = owned.iter().filter(|pod| is_terminating(pod) && !is_finished(pod)).count();
    let positive = |count: usize| (count > 0).then(|| as_count(count));
    ReplicaSetStatus {
        replicas: as_count(active().count()),
        ready_replicas: positive(ready),
        available_replicas: positive(available),
        fully_labeled_replicas: positive(full),
        terminating_replicas: Some(as_count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

fn as_count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<&ReplicaFailure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let before = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let old = before.iter().find(|condition| condition.type_ == "ReplicaFailure").cloned();
    let mut kept: Vec<_> = before.into_iter().filter(|c| c.type_ != "ReplicaFailure").collect();
    if let Some(failure) = failure {
        let same = old.filter(|old| old.status == "True" && old.reason.as_deref() == Some(failure.reason));
        kept.push(same.unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(seconds(now)),
        }));
    }
    (!kept.is_empty()).then_some(kept)
}

/// The patch that reports `status`, if it differs from what is reported. `resource` is what the set is to the API.
pub fn patch(resource: &ResourceId, set: &ReplicaSet, status: &ReplicaSetStatus) -> Option<Action> {
    let before = set.status.clone().unwrap_or_default();
    let mut change = merge_diff_of(&before, status)?;
    if set.status.is_none() || before.replicas == status.replicas {
        change["replicas"] = json!(status.replicas);
    }
    Some(status_report::patch(resource, &set.metadata, change))
}

/// When the next ready pod becomes available, if one is waiting for its `minReadySeconds`.
pub fn recheck_after(set: &ReplicaSet, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready =
        set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).filter(|seconds| *seconds > 0)?;
    let waiting = owned.iter().filter(|pod| is_active(pod)).filter_map(|pod| available_at(pod, min_ready));
    let next = waiting.filter(|at| *at > now).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::REPLICA_SETS;
    use crate::test_objects::{pod, replica_set};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    #[test]
    fn pods_become_available_after_min_ready_seconds() {
        let mut set = replica_set("web-1", "web", 2);
        if let Some(spec) = &mut set.spec {
            spec.min_ready_seconds = Some(30);
        }
        let owned =
            vec![Arc::new(pod("a", "Running", true, "n1")), Arc::new(pod("b", "Running", false, "n1"))];
        // test pods become ready at second 1,000
        let early = calculate(&set, &owned, None, at(1_010));
        assert_eq!((early.replicas, early.ready_replicas, early.available_replicas), (2, Some(1), None));
        assert_eq!(recheck_after(&set, &owned, at(1_010)), Some(Duration::from_secs(20)));
        assert_eq!(calculate(&set, &owned, None, at(1_030)).available_replicas, Some(1));
        assert_eq!(recheck_after(&set, &owned, at(1_030)), None);
    }

    #[test]
    fn the_patch_carries_preconditions_and_drops_what_became_zero() {
        let mut set = replica_set("web-1", "web", 1);
        set.metadata.resource_version = Some("5".into());
        let owned = vec![Arc::new(pod("a", "Running", true, "n1"))];
        set.status = Some(calculate(&set, &owned, None, at(2_000)));
        assert_eq!(
            patch(&REPLICA_SETS, &set, &calculate(&set, &owned, None, at(2_001))),
            None,
            "nothing changed"
        );
        let Some(Action::Patch { patch, subresource, .. }) =
            patch(&REPLICA_SETS, &set, &calculate(&set, &[], None, at(2_002)))
        else {
            panic!("must patch")
        };
        assert_eq!(subresource, "status");
        assert_eq!(patch["metadata"]["resourceVersion"], "5");
        assert_eq!(patch["status"]["replicas"], 0);
        assert!(patch["status"]["readyReplicas"].is_null());
    }

    #[test]
    fn a_failure_shows_as_a_condition_and_goes_again() {
        let mut set = replica_set("web-1", "web", 1);
        let failure = ReplicaFailure { reason: "FailedCreate", message: "quota".into() };
        set.status = Some(calculate(&set, &[], Some(&failure), at(1)));
        let shown = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        assert_eq!(shown[0].reason.as_deref(), Some("FailedCreate"));
        let still = calculate(&set, &[], Some(&failure), at(50)).conditions.unwrap_or_default();
        assert_eq!(still[0].last_transition_time, shown[0].last_transition_time);
        assert_eq!(calculate(&set, &[], None, at(60)).conditions, None);
    }
}
