//! From a node's conditions to its taints, the scheduling ones at once, the evicting ones when allowed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use super::{Readiness, condition, readiness};
use crate::action::{Action, NODES, Target};
use crate::object_meta::{list_or_null, name, preconditions, seconds};

/// Key of the taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Key of the taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are True, and the taint for each.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// What may happen to taints that evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicting {
    /// Add the one that belongs to the node's state.
    Add,
    /// Leave those that are there; take off those that no longer fit.
    Keep,
    /// Take all off: too much is broken to blame the nodes.
    Remove,
}

/// The key of the evicting taint that the node's state calls for.
pub fn evicting_key(node: &Node) -> Option<&'static str> {
    match readiness(node) {
        Readiness::Ready => None,
        Readiness::NotReady => Some(NOT_READY),
        Readiness::Unknown => Some(UNREACHABLE),
    }
}

/// Whether the node still lacks the evicting taint it should have.
pub fn lacks_evicting(node: &Node) -> bool {
    let present = |key: &str| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.into_iter().any(|taint| taint.key == key && taint.effect == NO_EXECUTE)
    };
    evicting_key(node).is_some_and(|key| !present(key))
}

/// The patch that gives the node the taints its state calls for; `None` if it has them.
pub fn plan(node: &Node, evicting: Evicting, now: Timestamp) -> Option<Action> {
    let before: Vec<Taint> = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut scheduling: Vec<&str> = evicting_key(node).into_iter().collect();
    let pressed = |kind: &str| condition(node, kind).is_some_and(|condition| condition.status == "True");
    scheduling.extend(PRESSURES.iter().filter(|(kind, _)| pressed(kind)).map(|(_, key)| *key));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        scheduling.push(UNSCHEDULABLE);
    }
    let ours = |taint: &Taint| {
        let key = taint.key.as_str();
        match taint.effect.as_str() {
            NO_SCHEDULE => {
                [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
                    || PRESSURES.iter().any(|(_, k)| *k == key)
            }
            NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&key),
            _ => false,
        }
    };
    let fits = |taint: &Taint| match taint.effect.as_str() {
        NO_SCHEDULE => scheduling.contains(&taint.key.as_str()),
        _ => evicting != Evicting::Remove && evicting_key(node) == Some(taint.key.as_str()),
    };
    let mut after: Vec<Taint> = before.iter().filter(|taint| !ours(taint) || fits(taint)).cloned().collect();
    // A change between not-ready and unreachable moves the evicting taint too, without asking for permission again.
    let moved = before.iter().any(|taint| ours(taint) && taint.effect == NO_EXECUTE);
    let mut add = |key: &str, effect: &str| {
        if !after.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = Some(seconds(now));
            after.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    };
    for key in scheduling {
        add(key, NO_SCHEDULE);
    }
    if let Some(key) = evicting_key(node)
        && (evicting == Evicting::Add || (evicting == Evicting::Keep && moved))
    {
        add(key, NO_EXECUTE);
    }
    if after == before {
        return None;
    }
    let patch = json!({ "metadata": preconditions(&node.metadata, true), "spec": { "taints": list_or_null(&after) } });
    Some(Action::Patch { target: Target::new(&NODES, "", name(&node.metadata)), subresource: "", patch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus};

    fn node(ready: &str, taints: &[(&str, &str)]) -> Node {
        Node {
            spec: Some(NodeSpec {
                taints: Some(
                    taints
                        .iter()
                        .map(|(key, effect)| Taint {
                            key: (*key).into(),
                            effect: (*effect).into(),
                            ..Default::default()
                        })
                        .collect(),
                ),
                ..Default::default()
            }),
            status: Some(NodeStatus {
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".into(),
                    status: ready.into(),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn taints(node: &Node, evicting: Evicting) -> Option<Vec<String>> {
        let Action::Patch { patch, .. } = plan(node, evicting, Timestamp::UNIX_EPOCH)? else { return None };
        let text =
            |taint: &serde_json::Value, field: &str| taint[field].as_str().unwrap_or_default().to_owned();
        let list = patch["spec"]["taints"].as_array().cloned().unwrap_or_default();
        Some(
            list.iter()
                .map(|t| {
                    format!(
                        "{}:{}",
                        text(t, "key").trim_start_matches("node.kubernetes.io/"),
                        text(t, "effect")
                    )
                })
                .collect(),
        )
    }

    #[test]
    fn taints_follow_readiness() {
        let other = ("mine", NO_SCHEDULE);
        assert_eq!(
            taints(
                &node("True", &[other, (NOT_READY, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
                Evicting::Keep
            ),
            Some(vec!["mine:NoSchedule".into()])
        );
        assert_eq!(
            taints(&node("Unknown", &[]), Evicting::Keep),
            Some(vec!["unreachable:NoSchedule".into()])
        );
        assert_eq!(
            taints(&node("Unknown", &[]), Evicting::Add),
            Some(vec!["unreachable:NoSchedule".into(), "unreachable:NoExecute".into()])
        );
        assert_eq!(
            taints(&node("False", &[(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]), Evicting::Keep),
            Some(vec!["not-ready:NoSchedule".into(), "not-ready:NoExecute".into()])
        );
        assert_eq!(
            taints(
                &node("Unknown", &[(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
                Evicting::Remove
            ),
            Some(vec!["unreachable:NoSchedule".into()])
        );
        assert_eq!(taints(&node("True", &[other]), Evicting::Add), None);
    }

    #[test]
    fn a_cordoned_node_is_tainted() {
        let mut cordoned = node("True", &[]);
        cordoned.spec.as_mut().expect("spec").unschedulable = Some(true);
        assert_eq!(taints(&cordoned, Evicting::Keep), Some(vec!["unschedulable:NoSchedule".into()]));
    }
}
