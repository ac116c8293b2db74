//! The extension points a scheduling decision is made of, and what plugins may say at each. Owns the traits, no policy.
//!
//! | kube-scheduler | here |
//! | --- | --- |
//! | QueueSort | [`crate::plugins::priority_sort`], the order of [`crate::queue`] |
//! | PreFilter, Filter | [`FilterPlugin::prepare`] returns the [`NodeFilter`] of one pod, with whatever it worked out once |
//! | PostFilter | [`PostFilterPlugin::post_filter`], see [`crate::preemption`] |
//! | PreScore, Score, NormalizeScore | [`ScorePlugin::prepare`] returns the [`NodeScore`] of one pod |
//! | Reserve | [`crate::snapshot::Snapshot::place`] |
//! | PreEnqueue | [`crate::plugins::scheduling_gates`], [`crate::gangs`] |
//! | Permit | [`crate::gangs::Gangs::permit`] |
//! | Extenders | [`crate::extender`] |
//! | Bind | the shell, with the decision |

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::extender::Extender;
use crate::filtering::Filters;
use crate::fit_error::FitError;
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, PodToSchedule};
use crate::preemption::Preemption;
use crate::snapshot::Snapshot;

/// The best score of one plugin for one node; the worst is 0.
pub const MAX_NODE_SCORE: i64 = 100;

/// What a decision is about.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    /// The pod that looks for a node.
    pub pod: &'a PodToSchedule,
    /// The cluster as it is.
    pub snapshot: &'a Snapshot,
    /// Who else is asked.
    pub extenders: &'a [Arc<dyn Extender>],
}

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The plugin that says so.
    pub plugin: &'static str,
    /// The reasons, counted over nodes in the message people see.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing pods from the node could change it.
    pub resolvable: bool,
}

impl Rejection {
    /// A rejection that holds whatever runs on the node.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: false }
    }

    /// A rejection because of what runs on the node or elsewhere.
    pub fn resolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plugin, reasons: vec![reason.into()], resolvable: true }
    }
}

/// What a filter plugin has to say about a pod before any node is looked at.
pub enum Prepared<'a> {
    /// Nothing: it does not concern this pod.
    Skip,
    /// Each node has to be checked.
    Check(Box<dyn NodeFilter + 'a>),
    /// Only these nodes, by name, can do; they have to be checked.
    Only(BTreeSet<String>, Box<dyn NodeFilter + 'a>),
    /// No node will do.
    Reject(String),
}

/// A plugin that rules nodes out.
pub trait FilterPlugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;
    /// Prepares for one pod.
    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a>;
}

/// A filter made ready for one pod.
pub trait NodeFilter {
    /// Whether the node will do.
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;
    /// Supposes that one more pod were on the node. For filters that counted pods when they were prepared.
    fn add_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
    /// Supposes that a pod were not on the node any more; what [`NodeFilter::add_pod`] does, backwards.
    fn remove_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
}

impl<F: Fn(&NodeInfo) -> Result<(), Rejection>> NodeFilter for F {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self(node)
    }
}

/// What is to be done for a pod that found no node.
#[derive(Clone, Debug)]
pub enum PostFilter {
    /// Nothing, and a nomination the pod has stands.
    Nothing(String),
    /// Nothing, and a nomination the pod has is void.
    Hopeless(String),
    /// Pods of lower priority make room.
    Preempt(Preemption),
}

/// A plugin that may help a pod that found no node.
pub trait PostFilterPlugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;
    /// What is to be done. `filters` are those that refused the pod, `seed` decides where the search begins.
    fn post_filter(
        &self,
        cycle: Cycle<'_>,
        filters: &mut Filters<'_>,
        error: &FitError,
        seed: u64,
    ) -> PostFilter;
}

/// A plugin that compares nodes that will do.
pub trait ScorePlugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;
    /// Prepares for one pod and the nodes that will do; `None` if it has no preference.
    fn prepare<'a>(&self, cycle: Cycle<'a>, nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>>;
}

/// A score made ready for one pod.
pub trait NodeScore {
    /// The raw score of a node.
    fn score(&self, node: &NodeInfo) -> i64;
    /// Brings the raw scores of all nodes into 0..=[`MAX_NODE_SCORE`], more being better.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales scores so that the highest is [`MAX_NODE_SCORE`]; reversed, the highest becomes 0.
pub fn normalize_by_highest(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if highest == 0 {
            *score = if reverse { MAX_NODE_SCORE } else { 0 };
        } else {
            let scaled = MAX_NODE_SCORE * *score / highest;
            *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
        }
    }
}
