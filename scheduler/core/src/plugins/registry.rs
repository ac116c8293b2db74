//! The plugins by name: at which extension points each one works and how it is made from its arguments. Owns the table that
//! configurations are read against.

use crate::framework::{FilterPlugin, PostFilterPlugin, ScorePlugin};
use crate::gangs;
use crate::plugins::image_locality::ImageLocality;
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_name::NodeName;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
use crate::plugins::node_resources_fit::NodeResourcesFit;
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::node_volume_limits::NodeVolumeLimits;
use crate::plugins::pod_topology_spread::PodTopologySpread;
use crate::plugins::taint_toleration::TaintToleration;
use crate::plugins::unsupported::DynamicResources;
use crate::plugins::volume_binding::VolumeBinding;
use crate::plugins::volume_restrictions::VolumeRestrictions;
use crate::plugins::volume_zone::VolumeZone;
use crate::preemption::DefaultPreemption;

/// A place in a decision where plugins are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtensionPoint {
    /// Whether a pod may enter the queue.
    PreEnqueue,
    /// The order of the queue.
    QueueSort,
    /// What can be said before any node is looked at.
    PreFilter,
    /// Whether a node will do.
    Filter,
    /// What helps a pod that found no node.
    PostFilter,
    /// What can be worked out for all nodes that will do.
    PreScore,
    /// Which node is better.
    Score,
    /// What is set aside for a pod.
    Reserve,
    /// Whether a pod may be bound now.
    Permit,
    /// What comes before binding.
    PreBind,
    /// Binding.
    Bind,
    /// What comes after binding.
    PostBind,
}

use ExtensionPoint as At;

const GANGS: &[ExtensionPoint] = &[At::PreEnqueue, At::Reserve, At::Permit];

/// The default plugins in their order, with their extension points and weights.
pub const DEFAULTS: &[(&str, &[ExtensionPoint], i64)] = &[
    ("SchedulingGates", &[At::PreEnqueue], 0),
    (gangs::NAME, GANGS, 0),
    ("PrioritySort", &[At::QueueSort], 0),
    ("NodeUnschedulable", &[At::Filter], 0),
    ("NodeName", &[At::Filter], 0),
    ("TaintToleration", &[At::Filter, At::PreScore, At::Score], 3),
    ("NodeAffinity", &[At::PreFilter, At::Filter, At::PreScore, At::Score], 2),
    ("NodePorts", &[At::PreFilter, At::Filter], 0),
    ("NodeResourcesFit", &[At::PreFilter, At::Filter, At::PreScore, At::Score], 1),
    ("VolumeRestrictions", &[At::PreFilter, At::Filter], 0),
    ("NodeVolumeLimits", &[At::PreFilter, At::Filter], 0),
    ("VolumeBinding", &[At::PreFilter, At::Filter, At::Reserve, At::PreBind], 0),
    ("VolumeZone", &[At::PreFilter, At::Filter], 0),
    ("DynamicResources", &[At::PreFilter, At::Filter, At::PostFilter], 0),
    ("PodTopologySpread", &[At::PreFilter, At::Filter, At::PreScore, At::Score], 2),
    ("InterPodAffinity", &[At::PreFilter, At::Filter, At::PreScore, At::Score], 2),
    ("DefaultPreemption", &[At::PostFilter], 0),
    ("NodeResourcesBalancedAllocation", &[At::PreScore, At::Score], 1),
    ("ImageLocality", &[At::Score], 1),
    ("DefaultBinder", &[At::Bind], 0),
];

/// The extension points of a plugin; `None` if there is none of that name.
pub fn points(name: &str) -> Option<&'static [ExtensionPoint]> {
    DEFAULTS.iter().find(|(known, _, _)| *known == name).map(|(_, points, _)| *points)
}

/// What a profile tells its plugins.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// NodeResourcesFit's.
    pub fit: NodeResourcesFit,
    /// NodeResourcesBalancedAllocation's.
    pub balanced: NodeResourcesBalancedAllocation,
    /// NodeAffinity's.
    pub node_affinity: NodeAffinity,
    /// PodTopologySpread's.
    pub spread: PodTopologySpread,
    /// InterPodAffinity's.
    pub inter_pod_affinity: InterPodAffinity,
    /// DefaultPreemption's.
    pub preemption: DefaultPreemption,
}

/// Makes a plugin that rules nodes out.
pub fn filter(name: &str, arguments: &Arguments) -> Option<Box<dyn FilterPlugin>> {
    Some(match name {
        "NodeUnschedulable" => Box::new(NodeUnschedulable),
        "NodeName" => Box::new(NodeName),
        "TaintToleration" => Box::new(TaintToleration),
        "NodeAffinity" => Box::new(arguments.node_affinity.clone()),
        "NodePorts" => Box::new(NodePorts),
        "NodeResourcesFit" => Box::new(arguments.fit.clone()),
        "VolumeRestrictions" => Box::new(VolumeRestrictions),
        "NodeVolumeLimits" => Box::new(NodeVolumeLimits),
        "VolumeBinding" => Box::new(VolumeBinding),
        "VolumeZone" => Box::new(VolumeZone),
        "DynamicResources" => Box::new(DynamicResources),
        "PodTopologySpread" => Box::new(arguments.spread.clone()),
        "InterPodAffinity" => Box::new(arguments.inter_pod_affinity),
        _ => return None,
    })
}

/// Makes a plugin that may help a pod that found no node.
pub fn post_filter(name: &str, arguments: &Arguments) -> Option<Box<dyn PostFilterPlugin>> {
    Some(match name {
        "DynamicResources" => Box::new(DynamicResources),
        "DefaultPreemption" => Box::new(arguments.preemption),
        _ => return None,
    })
}

/// Makes a plugin that compares nodes.
pub fn score(name: &str, arguments: &Arguments) -> Option<Box<dyn ScorePlugin>> {
    Some(match name {
        "TaintToleration" => Box::new(TaintToleration),
        "NodeAffinity" => Box::new(arguments.node_affinity.clone()),
        "NodeResourcesFit" => Box::new(arguments.fit.clone()),
        "PodTopologySpread" => Box::new(arguments.spread.clone()),
        "InterPodAffinity" => Box::new(arguments.inter_pod_affinity),
        "NodeResourcesBalancedAllocation" => Box::new(arguments.balanced.clone()),
        "ImageLocality" => Box::new(ImageLocality),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_can_be_made_at_the_points_it_names() {
        let arguments = Arguments::default();
        for (name, points, weight) in DEFAULTS {
            assert_eq!(filter(name, &arguments).is_some(), points.contains(&At::Filter), "{name}");
            assert_eq!(post_filter(name, &arguments).is_some(), points.contains(&At::PostFilter), "{name}");
            assert_eq!(score(name, &arguments).is_some(), points.contains(&At::Score), "{name}");
            assert_eq!(*weight > 0, points.contains(&At::Score), "{name}");
        }
    }
}
