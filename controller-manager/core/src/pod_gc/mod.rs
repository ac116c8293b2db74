//! Pods that nobody else removes: of nodes that are gone, ended ones beyond a threshold, deleted ones that were never scheduled.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::json;

use crate::action::{Action, PODS, Target};
use crate::object_meta::{created, name, namespace, seconds};
use crate::pod_state::{is_finished, is_terminating, node_name};
use crate::status_report;

/// Names of nodes that pods are bound to and that `exists` does not know.
pub fn missing_nodes(pods: &[Arc<Pod>], exists: impl Fn(&str) -> bool) -> HashSet<String> {
    let bound = pods.iter().map(|pod| node_name(pod)).filter(|node| !node.is_empty());
    bound.filter(|node| !exists(node)).map(str::to_owned).collect()
}

/// What to remove. `gone` are nodes that have been missing long enough and that the server confirmed to be gone;
/// `threshold` is how many ended pods may stay (0 for all).
pub fn plan(pods: &[Arc<Pod>], gone: &HashSet<String>, threshold: usize, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    if threshold > 0 {
        let mut ended: Vec<_> = pods.iter().filter(|pod| is_finished(pod) && !is_terminating(pod)).collect();
        let surplus = ended.len().saturating_sub(threshold);
        ended.sort_by(|a, b| {
            let key = |pod: &Pod| (created(&pod.metadata), name(&pod.metadata).to_owned());
            key(a).cmp(&key(b))
        });
        actions.extend(ended.into_iter().take(surplus).map(|pod| delete(pod)));
    }
    for pod in pods.iter().filter(|pod| gone.contains(node_name(pod))) {
        if !is_finished(pod) {
            actions.push(fail(pod, now));
        }
        actions.push(delete(pod));
    }
    let unscheduled = pods.iter().filter(|pod| is_terminating(pod) && node_name(pod).is_empty());
    actions.extend(unscheduled.map(|pod| delete(pod)));
    actions
}

fn delete(pod: &Pod) -> Action {
    Action::Delete {
        target: Target::new(&PODS, namespace(&pod.metadata), name(&pod.metadata)),
        uid: pod.metadata.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: Some(0),
    }
}

fn fail(pod: &Pod, now: Timestamp) -> Action {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByPodGC".into()),
        message: Some("PodGC: node no longer exists".into()),
        last_transition_time: Some(seconds(now)),
        ..Default::default()
    });
    let status = json!({ "phase": "Failed", "conditions": conditions });
    status_report::patch_any_version(&PODS, &pod.metadata, status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;

    fn deleted(actions: &[Action]) -> Vec<&str> {
        let names = actions.iter().filter_map(|action| match action {
            Action::Delete { target, grace_seconds: Some(0), .. } => Some(target.name.as_str()),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn only_orphans_surplus_and_unscheduled_terminating_pods_go() {
        let mut unscheduled = pod("unscheduled", "Pending", false, "");
        unscheduled.metadata.deletion_timestamp = Some(seconds(Timestamp::UNIX_EPOCH));
        let pods: Vec<_> = [
            pod("fine", "Running", true, "n1"),
            pod("lost", "Running", true, "n2"),
            pod("done-1", "Succeeded", false, "n1"),
            pod("done-2", "Failed", false, "n1"),
            unscheduled,
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let missing = missing_nodes(&pods, |node| node == "n1");
        assert_eq!(missing, HashSet::from(["n2".to_owned()]));
        let actions = plan(&pods, &missing, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(deleted(&actions), ["done-1", "lost", "unscheduled"]);
    }
}
