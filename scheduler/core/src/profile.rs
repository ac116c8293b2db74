//! A set of plugins under a scheduler name. Owns upstream's default set, its order and its weights, and how a configuration
//! changes it.

use crate::framework::{FilterPlugin, PostFilterPlugin, ScorePlugin};
use crate::plugins::image_locality::ImageLocality;
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_name::NodeName;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
use crate::plugins::node_resources_fit::NodeResourcesFit;
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::pod_topology_spread::PodTopologySpread;
use crate::plugins::taint_toleration::TaintToleration;
use crate::plugins::unsupported::{DynamicResources, VolumeBinding};
use crate::preemption::DefaultPreemption;

/// The name pods ask for if they ask for none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// A plugin with its weight among the scores.
pub struct Weighted {
    /// The plugin.
    pub plugin: Box<dyn ScorePlugin>,
    /// How much its score counts.
    pub weight: i64,
}

/// The plugins that decide for pods with this `spec.schedulerName`.
pub struct Profile {
    /// `spec.schedulerName` of the pods it serves.
    pub scheduler_name: String,
    /// Filters in the order in which they are asked; the first that objects names the reason.
    pub filters: Vec<Box<dyn FilterPlugin>>,
    /// What may help a pod that found no node, in the order in which it is tried.
    pub post_filters: Vec<Box<dyn PostFilterPlugin>>,
    /// Scores.
    pub scores: Vec<Weighted>,
    /// How many of the nodes are compared, in percent; `None` lets it shrink as the cluster grows.
    pub percentage_of_nodes_to_score: Option<u32>,
}

impl Profile {
    /// Upstream's default plugins.
    pub fn new(scheduler_name: &str) -> Self {
        let scored = |plugin: Box<dyn ScorePlugin>, weight| Weighted { plugin, weight };
        Self {
            scheduler_name: scheduler_name.to_owned(),
            filters: vec![
                Box::new(NodeUnschedulable),
                Box::new(NodeName),
                Box::new(TaintToleration),
                Box::new(NodeAffinity),
                Box::new(NodePorts),
                Box::new(NodeResourcesFit),
                Box::new(VolumeBinding),
                Box::new(DynamicResources),
                Box::new(PodTopologySpread),
                Box::new(InterPodAffinity::default()),
            ],
            post_filters: vec![Box::new(DynamicResources), Box::new(DefaultPreemption::default())],
            scores: vec![
                scored(Box::new(TaintToleration), 3),
                scored(Box::new(NodeAffinity), 2),
                scored(Box::new(NodeResourcesFit), 1),
                scored(Box::new(PodTopologySpread), 2),
                scored(Box::<InterPodAffinity>::default(), 2),
                scored(Box::new(NodeResourcesBalancedAllocation), 1),
                scored(Box::new(ImageLocality), 1),
            ],
            percentage_of_nodes_to_score: None,
        }
    }

    /// Turns off a plugin's filter. `*` turns off all. False if there is none of that name.
    pub fn disable_filter(&mut self, name: &str) -> bool {
        let before = self.filters.len();
        self.filters.retain(|plugin| name != "*" && plugin.name() != name);
        self.filters.len() < before
    }

    /// Turns off what a plugin does for pods that found no node. `*` turns off all. False if there is none of that name.
    pub fn disable_post_filter(&mut self, name: &str) -> bool {
        let before = self.post_filters.len();
        self.post_filters.retain(|plugin| name != "*" && plugin.name() != name);
        self.post_filters.len() < before
    }

    /// Turns off a plugin's score. `*` turns off all. False if there is none of that name.
    pub fn disable_score(&mut self, name: &str) -> bool {
        let before = self.scores.len();
        self.scores.retain(|scored| name != "*" && scored.plugin.name() != name);
        self.scores.len() < before
    }

    /// Changes the weight of a plugin's score. False if there is none of that name.
    pub fn set_weight(&mut self, name: &str, weight: i64) -> bool {
        let found = self.scores.iter_mut().find(|scored| scored.plugin.name() == name);
        found.map(|scored| scored.weight = weight).is_some()
    }
}
