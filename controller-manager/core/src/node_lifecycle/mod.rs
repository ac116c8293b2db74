//! Node lifecycle: a node whose kubelet has been silent becomes Unknown, its conditions become taints, its pods not ready.
//! Silence is measured by when *we* saw its Lease or status change, so clocks of two machines are never compared. Evicting
//! pods is [`crate::taint_eviction`]'s.

pub mod taints;
pub mod zones;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use serde_json::json;

use crate::action::{Action, NODES, PODS};
use crate::object_meta::{created, object_reference, seconds};
use crate::status_report;

/// How patiently nodes are watched.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silence after which a node is Unknown (`--node-monitor-grace-period`).
    pub grace: SignedDuration,
    /// The same for a node that has never reported (`--node-startup-grace-period`).
    pub startup_grace: SignedDuration,
}

/// The last sign of life of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct SignOfLife {
    heartbeat: Option<Timestamp>,
    renewed: Option<Timestamp>,
    /// When we saw it.
    pub seen: Timestamp,
}

/// The Ready condition, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// True.
    Ready,
    /// False.
    NotReady,
    /// Unknown, or absent.
    Unknown,
}

/// One condition of a node.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// The node's readiness as reported.
pub fn readiness(node: &Node) -> Readiness {
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("False") => Readiness::NotReady,
        _ => Readiness::Unknown,
    }
}

/// Takes note of a sign of life, if there is a new one.
pub fn observe(
    before: Option<&SignOfLife>,
    node: &Node,
    lease: Option<&Lease>,
    now: Timestamp,
) -> SignOfLife {
    let heartbeat =
        condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0);
    match before {
        Some(before) if before.heartbeat == heartbeat && (renewed.is_none() || before.renewed == renewed) => {
            before.clone()
        }
        None if heartbeat.is_none() && renewed.is_none() => {
            SignOfLife { heartbeat, renewed, seen: created(&node.metadata).min(now) }
        }
        _ => SignOfLife { heartbeat, renewed, seen: now },
    }
}

/// Marks a silent node: Ready and the pressures become Unknown. `None` while it is within its grace, or if marked already.
pub fn mark_silent(node: &Node, sign: &SignOfLife, patience: Patience, now: Timestamp) -> Option<Action> {
    let grace = if condition(node, "Ready").is_some() { patience.grace } else { patience.startup_grace };
    if now.duration_since(sign.seen) <= grace {
        return None;
    }
    let mut conditions =
        node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => continue,
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(seconds(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(seconds(now)),
            }),
        }
        changed = true;
    }
    changed.then(|| status_report::patch(&NODES, &node.metadata, json!({ "conditions": conditions })))
}

/// Marks a pod of a lost node not ready, so that no traffic goes there. `None` if it is marked already.
pub fn mark_pod_not_ready(pod: &Pod, now: Timestamp) -> Option<[Action; 2]> {
    let mut conditions = pod.status.as_ref()?.conditions.clone()?;
    let ready =
        conditions.iter_mut().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.status = "False".into();
    ready.last_transition_time = Some(seconds(now));
    let event = Action::Event {
        regarding: Box::new(object_reference(&PODS, &pod.metadata)),
        warning: true,
        reason: "NodeNotReady",
        message: "Node is not ready".into(),
    };
    Some([status_report::patch(&PODS, &pod.metadata, json!({ "conditions": conditions })), event])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;
    use k8s_openapi::api::core::v1::NodeStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    fn node(heartbeat: i64) -> Node {
        Node {
            metadata: ObjectMeta { name: Some("n1".into()), ..Default::default() },
            status: Some(NodeStatus {
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".into(),
                    status: "True".into(),
                    last_heartbeat_time: Some(Time(at(heartbeat))),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_silent_node_becomes_unknown_only_after_its_grace_by_our_clock() {
        let patience =
            Patience { grace: SignedDuration::from_secs(40), startup_grace: SignedDuration::from_secs(60) };
        // The node's clock is far off: it does not matter.
        let sign = observe(None, &node(5), None, at(1_000));
        assert_eq!(observe(Some(&sign), &node(5), None, at(1_030)), sign);
        assert!(mark_silent(&node(5), &sign, patience, at(1_040)).is_none());
        let Some(Action::Patch { patch, .. }) = mark_silent(&node(5), &sign, patience, at(1_041)) else {
            panic!("must mark")
        };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "NodeStatusUnknown");
        assert_eq!(patch["status"]["conditions"][0]["message"], "Kubelet stopped posting node status.");
        assert_eq!(observe(Some(&sign), &node(6), None, at(1_041)).seen, at(1_041));
    }

    #[test]
    fn only_ready_pods_are_marked() {
        assert!(mark_pod_not_ready(&pod("a", "Running", true, "n1"), at(1)).is_some());
        assert!(mark_pod_not_ready(&pod("a", "Running", false, "n1"), at(1)).is_none());
    }
}
