//! Whether a pod that was bound to this node may run here: its selector, and what is left of the node.
//!
//! Never here: scheduling; this is the node's own last check, as for pods that name their node themselves.

use std::collections::BTreeMap;

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
) -> Result<(), Waiting> {
    let refuse = |reason: &str, message: String| Err(Waiting { reason: reason.to_owned(), message });
    let selector = pod_view::spec(pod).node_selector.iter().flatten();
    for (key, value) in selector {
        if node_labels.get(key) != Some(value) {
            let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
            return refuse("NodeAffinity", message.to_owned());
        }
    }
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
                "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return refuse(&format!("OutOf{name}"), message);
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
        assert_eq!(admit(&small, &[], node, &labels), Ok(()));
        let refused = admit(&small, &[&big], node, &labels).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert!(
            refused.message.ends_with("cpu, requested: 300, used: 800, capacity: 1000"),
            "{}",
            refused.message
        );
        let none = pod("0");
        assert_eq!(admit(&none, &[&none, &none], node, &labels).unwrap_err().reason, "OutOfpods");
        assert_eq!(admit(&small, &[], node, &BTreeMap::new()).unwrap_err().reason, "NodeAffinity");
    }
}
