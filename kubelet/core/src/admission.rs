//! Whether a pod that was bound to this node may run here: its selector, and what is left of the node.
//!
//! Never here: scheduling; this is the node's own last check, as for pods that name their node themselves.

use std::collections::BTreeMap;

use coracle_api::selector::node;
use k8s_openapi::api::core::v1::Pod;

use crate::pod_status::Waiting;
use crate::{pod_view, resources};

/// What the node offers to pods.
#[derive(Clone, Copy, Debug)]
pub struct Allocatable {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// How many pods.
    pub pods: i64,
}

/// Checks a pod against the other pods that run or will run here.
///
/// # Errors
/// Reason and message of the pod's failure, as upstream words them.
pub fn admit(
    pod: &Pod,
    others: &[&Pod],
    allocatable: Allocatable,
    node_labels: &BTreeMap<String, String>,
    node_name: &str,
) -> Result<(), Waiting> {
    let refuse = |reason: String, message: String| {
        Err(Waiting { reason, message: format!("Pod was rejected: {message}") })
    };
    let spec = pod_view::spec(pod);
    if !node::is_demanded(spec, node_name, Some(node_labels)) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return refuse("NodeAffinity".to_owned(), message.to_owned());
    }
    fits(pod, others, allocatable).or_else(|(name, message)| refuse(format!("OutOf{name}"), message))
}

/// Checks what a pod asks for against what the others leave.
///
/// # Errors
/// The first resource that is short, and a text with the numbers.
pub fn fits(pod: &Pod, others: &[&Pod], allocatable: Allocatable) -> Result<(), (&'static str, String)> {
    let used =
        |resource: &str| others.iter().map(|other| resources::pod_request(other, resource)).sum::<i64>();
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    for (name, requested, used, capacity) in [
        ("pods", 1, count, allocatable.pods),
        ("cpu", resources::pod_request(pod, "cpu"), used("cpu"), allocatable.milli_cpu),
        ("memory", resources::pod_request(pod, "memory"), used("memory"), allocatable.memory),
    ] {
        if requested > 0 && requested > capacity - used {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err((name, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Pod {
        serde_json::from_value(json!({"spec": {"nodeSelector": {"disk": "fast"},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}))
        .unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let labels = BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
        let node = Allocatable { milli_cpu: 1000, memory: 1 << 30, pods: 2 };
        let (big, small) = (pod("800m"), pod("300m"));
        assert_eq!(admit(&small, &[], node, &labels, "n"), Ok(()));
        let refused = admit(&small, &[&big], node, &labels, "n").unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert!(
            refused.message.ends_with("cpu, requested: 300, used: 800, capacity: 1000"),
            "{}",
            refused.message
        );
        let none = pod("0");
        assert_eq!(admit(&none, &[&none, &none], node, &labels, "n").unwrap_err().reason, "OutOfpods");
        assert_eq!(admit(&small, &[], node, &BTreeMap::new(), "n").unwrap_err().reason, "NodeAffinity");
    }
}
