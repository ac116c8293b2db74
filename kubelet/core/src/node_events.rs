//! What a kubelet tells of its own node as events: how its conditions, its boots and its schedulability have changed.
//!
//! Never here: the conditions themselves, nor whether the node is ready.

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};

/// One event about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// Whether it is a warning.
    pub warning: bool,
    /// Its reason.
    pub reason: &'static str,
    /// Its text.
    pub message: String,
}

/// Condition type, the reason when it holds, the reason when it does not.
const PRESSURES: [(&str, &str, &str); 3] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
];

/// The events of a change of status; `before` is empty for a new node, `unschedulable` what was told last.
pub fn events(
    name: &str,
    before: &NodeStatus,
    after: &NodeStatus,
    unschedulable: (bool, bool),
) -> Vec<NodeEvent> {
    let now = |reason: &'static str| NodeEvent {
        warning: false,
        reason,
        message: format!("Node {name} status is now: {reason}"),
    };
    let mut events = Vec::new();
    let boot =
        |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone()).unwrap_or_default();
    let (old_boot, new_boot) = (boot(before), boot(after));
    if !old_boot.is_empty() && old_boot != new_boot {
        let message = format!("Node {name} has been rebooted, boot id: {new_boot}");
        events.push(NodeEvent { warning: true, reason: "Rebooted", message });
    }
    for (kind, bad, good) in PRESSURES {
        let (old, new) = (value(before, kind), value(after, kind));
        if old != new {
            events.extend(new.map(|new| now(if new == "True" { bad } else { good })));
        }
    }
    match unschedulable {
        (false, true) => events.push(now("NodeNotSchedulable")),
        (true, false) => events.push(now("NodeSchedulable")),
        _ => {}
    }
    events
}

fn value<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a str> {
    let is_it = |condition: &&NodeCondition| condition.type_ == kind;
    status.conditions.iter().flatten().find(is_it).map(|condition| condition.status.as_str())
}

/// Whether pods are kept away from a node.
pub fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(memory: &str, disk: &str, boot: &str) -> NodeStatus {
        serde_json::from_value(json!({
            "conditions": [
                {"type": "MemoryPressure", "status": memory}, {"type": "DiskPressure", "status": disk},
                {"type": "Ready", "status": "True"}],
            "nodeInfo": {"architecture": "", "bootID": boot, "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": ""}}))
        .unwrap()
    }

    fn reasons(before: &NodeStatus, after: &NodeStatus, unschedulable: (bool, bool)) -> Vec<&'static str> {
        events("n", before, after, unschedulable).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn a_new_node_tells_what_it_has() {
        let events = events("n", &NodeStatus::default(), &status("False", "False", "b"), (false, false));
        let texts: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(
            texts,
            ["Node n status is now: NodeHasSufficientMemory", "Node n status is now: NodeHasNoDiskPressure"]
        );
    }

    #[test]
    fn only_changes_are_told() {
        let calm = status("False", "False", "b");
        assert!(reasons(&calm, &calm, (true, true)).is_empty());
        let short = status("True", "True", "b");
        assert_eq!(
            reasons(&calm, &short, (false, true)),
            ["NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeNotSchedulable"]
        );
        assert_eq!(
            reasons(&short, &calm, (true, false)),
            ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeSchedulable"]
        );
    }

    #[test]
    fn another_boot_is_a_warning() {
        let told =
            events("n", &status("False", "False", "b"), &status("False", "False", "c"), (false, false));
        assert_eq!(
            told,
            [NodeEvent {
                warning: true,
                reason: "Rebooted",
                message: "Node n has been rebooted, boot id: c".to_owned()
            }]
        );
    }
}
