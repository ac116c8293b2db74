//! Which pods go first when there are too many: upstream's order for ReplicaSets. Owns the order only.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::object_meta::{annotation, created};
use crate::pod_state::{is_active, node_name, phase, ready_since, restarts_max};

/// The annotation by which a user marks cheap pods.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete, the first to go first. `related` are the pods whose crowding on a node counts.
pub fn first_to_go(
    mut pods: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count < pods.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|pod| is_active(pod)) {
            *on_node.entry(node_name(pod)).or_default() += 1;
        }
        pods.sort_by(|a, b| compare(a, b, &on_node, now));
    }
    pods.truncate(count);
    pods
}

/// The order in which active pods are dispensable, where neither crowding nor cost counts: the least advanced first.
pub fn active_order(a: &Pod, b: &Pod) -> Ordering {
    let mut order = node_name(b).is_empty().cmp(&node_name(a).is_empty());
    order = order.then(phase_rank(a).cmp(&phase_rank(b)));
    order = order.then(ready_since(a).is_some().cmp(&ready_since(b).is_some()));
    order = order.then(ready_since(b).cmp(&ready_since(a)));
    order = order.then(restarts_max(b).cmp(&restarts_max(a)));
    order.then(created(&b.metadata).cmp(&created(&a.metadata)))
}

fn compare(a: &Pod, b: &Pod, on_node: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let crowd = |pod: &Pod| on_node.get(node_name(pod)).copied().unwrap_or(0);
    let by = |a: Ordering, next: Ordering| a.then(next);
    let mut order = node_name(b).is_empty().cmp(&node_name(a).is_empty());
    order = by(order, phase_rank(a).cmp(&phase_rank(b)));
    order = by(order, ready_since(a).is_some().cmp(&ready_since(b).is_some()));
    order = by(order, cost(a).cmp(&cost(b)));
    order = by(order, crowd(b).cmp(&crowd(a)));
    if let (Some(a_since), Some(b_since)) = (ready_since(a), ready_since(b)) {
        order = by(order, age_rank(a_since, now).cmp(&age_rank(b_since, now)));
    }
    order = by(order, restarts_max(b).cmp(&restarts_max(a)));
    by(order, age_rank(created(&a.metadata), now).cmp(&age_rank(created(&b.metadata), now)))
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn cost(pod: &Pod) -> i32 {
    annotation(&pod.metadata, DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Ages compared by powers of two, as upstream: pods of about the same age count as equal, so that a zone whose pods all
/// started a little later does not lose all of them. An unknown time goes first.
fn age_rank(since: Timestamp, now: Timestamp) -> u32 {
    if since == Timestamp::UNIX_EPOCH {
        return 0;
    }
    let nanoseconds = u64::try_from((now.as_nanosecond() - since.as_nanosecond()).max(0)).unwrap_or(u64::MAX);
    // The younger the pod, the lower the rank.
    1 + nanoseconds.checked_ilog2().map_or(0, |log| log + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    fn order(pods: Vec<Pod>, related: &[Arc<Pod>]) -> Vec<String> {
        let count = pods.len() - 1;
        let pods = pods.into_iter().map(Arc::new).collect();
        let gone = first_to_go(pods, related, count, at(100_000));
        gone.iter().map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn unassigned_then_pending_then_unready_go_before_ready() {
        let pods = vec![
            pod("ready", "Running", true, "n1"),
            pod("unready", "Running", false, "n1"),
            pod("pending", "Pending", false, "n1"),
            pod("unassigned", "Pending", false, ""),
        ];
        assert_eq!(order(pods, &[]), ["unassigned", "pending", "unready"]);
    }

    #[test]
    fn among_ready_pods_cost_then_crowding_then_age_decide() {
        let mut cheap = pod("cheap", "Running", true, "n1");
        cheap.metadata.annotations = Some([(DELETION_COST.to_owned(), "-5".to_owned())].into());
        let crowded = pod("crowded", "Running", true, "n2");
        let mut young = pod("young", "Running", true, "n1");
        young.metadata.creation_timestamp = Some(Time(at(99_990)));
        let mut old = pod("old", "Running", true, "n1");
        old.metadata.creation_timestamp = Some(Time(at(1_000)));
        let related: Vec<_> =
            (0..3).map(|n| Arc::new(pod(&format!("r{n}"), "Running", true, "n2"))).collect();
        assert_eq!(order(vec![old, young, crowded, cheap], &related), ["cheap", "crowded", "young"]);
    }
}
