//! Which change in the cluster may help which waiting pod. Owns the table "event, plugin" (upstream's queueing hints, coarse): a
//! pod is woken only if a plugin that refused it could change its mind.

use k8s_openapi::api::core::v1::Node;

use crate::extender;
use crate::plugins::{
    inter_pod_affinity, node_affinity, node_name, node_ports, node_resources_fit, node_unschedulable,
    node_volume_limits, pod_topology_spread, taint_toleration, volume_binding, volume_restrictions,
    volume_zone,
};

/// Something that happened to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A new node.
    NodeAdded,
    /// A node went away: domains of spread constraints change.
    NodeDeleted,
    /// A node can take more or less.
    NodeAllocatable,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints changed, or it was cordoned or uncordoned.
    NodeTaints,
    /// A pod has its node, or its labels changed.
    PodPlaced,
    /// A pod freed its room.
    PodRemoved,
    /// A claim, a volume, a storage class, the drivers of a node or the room that a driver has changed.
    Volumes,
    /// Nothing in particular: the pod has waited long enough.
    Timeout,
}

/// Whether the event may change the mind of a plugin that refused a pod.
pub fn may_help(event: ClusterEvent, plugin: &str) -> bool {
    use ClusterEvent::{
        NodeAdded, NodeAllocatable, NodeDeleted, NodeLabels, NodeTaints, PodPlaced, PodRemoved, Timeout,
        Volumes,
    };
    match event {
        NodeAdded | Timeout => true,
        _ if plugin == extender::NAME => true,
        Volumes => {
            [volume_binding::NAME, volume_zone::NAME, volume_restrictions::NAME, node_volume_limits::NAME]
                .contains(&plugin)
        }
        NodeDeleted => plugin == pod_topology_spread::NAME,
        NodeAllocatable => plugin == node_resources_fit::NAME,
        NodeLabels => [
            node_affinity::NAME,
            node_name::NAME,
            pod_topology_spread::NAME,
            inter_pod_affinity::NAME,
            volume_binding::NAME,
            volume_zone::NAME,
        ]
        .contains(&plugin),
        NodeTaints => {
            [taint_toleration::NAME, node_unschedulable::NAME, pod_topology_spread::NAME].contains(&plugin)
        }
        PodPlaced => [pod_topology_spread::NAME, inter_pod_affinity::NAME].contains(&plugin),
        PodRemoved => [
            node_resources_fit::NAME,
            node_ports::NAME,
            pod_topology_spread::NAME,
            inter_pod_affinity::NAME,
            volume_restrictions::NAME,
            node_volume_limits::NAME,
        ]
        .contains(&plugin),
    }
}

/// What the difference between two versions of a node amounts to.
pub fn node_events(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        events.push(ClusterEvent::NodeAllocatable);
    }
    if old.metadata.labels != new.metadata.labels {
        events.push(ClusterEvent::NodeLabels);
    }
    let keeps_off = |node: &Node| {
        let spec = node.spec.as_ref();
        (
            spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        )
    };
    if keeps_off(old) != keeps_off(new) {
        events.push(ClusterEvent::NodeTaints);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node_from;
    use serde_json::json;

    #[test]
    fn a_heartbeat_wakes_nobody_and_a_change_wakes_those_it_concerns() {
        let plain = node_from("n", json!({}));
        let beat = node_from("n", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        assert!(node_events(&plain, &beat).is_empty());
        let cordoned = node_from("n", json!({"spec": {"unschedulable": true}}));
        assert_eq!(node_events(&plain, &cordoned), [ClusterEvent::NodeTaints]);
        assert!(may_help(ClusterEvent::NodeTaints, "NodeUnschedulable"));
        assert!(!may_help(ClusterEvent::NodeTaints, "NodeResourcesFit"));
        assert!(may_help(ClusterEvent::PodRemoved, "NodeResourcesFit"));
    }
}
