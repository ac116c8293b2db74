//! One decision: which node runs this pod, or why none does and what may be done about it. Owns the order of the steps (filters,
//! sampling, scores, tie-break);
//! it changes nothing and is the same for the same arguments.

use std::sync::Arc;

use crate::extender;
use crate::filtering::{Filters, Preparation};
use crate::fit_error::FitError;
use crate::framework::{Cycle, PostFilter};
use crate::node_info::NodeInfo;
use crate::plugins::volume_binding::{self, VolumeStep};
use crate::pod_info::PodToSchedule;
use crate::preemption::Preemption;
use crate::profile::Profile;
use crate::snapshot::Snapshot;

/// Below this many nodes all are looked at.
const FEASIBLE_NODES_MIN: usize = 100;
const PERCENTAGE_MIN: usize = 5;

/// What came out.
#[derive(Clone, Debug)]
pub enum Decision {
    /// A node will do and none is better.
    Assigned(Assignment),
    /// No node will do.
    Unschedulable(FitError, Relief),
    /// Nobody knows: an extender that must be asked failed, with this text.
    Failed(String),
}

/// What is done for a pod that found no node.
#[derive(Clone, Debug)]
pub enum Relief {
    /// Nothing; a nomination it has stands.
    None,
    /// Nothing; a nomination it has is void.
    WithdrawNomination,
    /// Room is made for it.
    Preempt(Preemption),
}

/// A node for a pod.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Its name.
    pub node: Arc<str>,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them would have done.
    pub feasible: usize,
    /// What has to be done about volumes before the pod is bound.
    pub volumes: Vec<VolumeStep>,
}

/// What varies from one decision to the next though pod and cluster are the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Decides between equally good nodes.
    pub seed: u64,
    /// Where in the order of nodes to begin; each decision should go on where the last one stopped
    /// ([`next_start`]).
    pub start: usize,
}

/// Where the next decision begins after one that looked at `evaluated` nodes.
pub fn next_start(turn: Turn, evaluated: usize, node_count: usize) -> usize {
    if node_count == 0 { 0 } else { (turn.start + evaluated) % node_count }
}

/// How many nodes that will do are enough to compare.
pub fn nodes_to_find(node_count: usize, percentage: Option<u32>) -> usize {
    if node_count < FEASIBLE_NODES_MIN {
        return node_count;
    }
    let percentage = match percentage {
        Some(given) if given > 0 => given as usize,
        _ => 50usize.saturating_sub(node_count / 125).max(PERCENTAGE_MIN),
    };
    if percentage >= 100 {
        return node_count;
    }
    (node_count * percentage / 100).max(FEASIBLE_NODES_MIN)
}

/// Decides for one pod.
pub fn schedule(profile: &Profile, pod: &PodToSchedule, snapshot: &Snapshot, turn: Turn) -> Decision {
    let cycle = Cycle { pod, snapshot, extenders: &profile.extenders };
    let mut error = FitError { node_count: snapshot.node_count(), ..FitError::default() };
    if error.node_count == 0 {
        return Decision::Unschedulable(error, Relief::None);
    }
    let mut filters = match Filters::prepare(profile, cycle) {
        Preparation::Ready(filters) => filters,
        Preparation::Rejected { plugins, message } => {
            error.pre_filter = Some(message);
            error.plugins = plugins;
            return refuse(profile, cycle, &mut Filters::default(), error, turn);
        }
    };
    let (feasible, evaluated) = match find_feasible(profile, cycle, &mut filters, turn, &mut error) {
        Ok(found) => found,
        Err(error) => return Decision::Failed(error),
    };
    let node = match feasible.as_slice() {
        [] => return refuse(profile, cycle, &mut filters, error, turn),
        [only] => Arc::clone(&only.name),
        several => Arc::clone(&several[best(&total_scores(profile, cycle, several), turn.seed)].name),
    };
    let minds_volumes = profile.filters.iter().any(|plugin| plugin.name() == volume_binding::NAME);
    let volumes = if minds_volumes { volume_binding::steps(cycle, &node) } else { Vec::new() };
    Decision::Assigned(Assignment { node, evaluated, feasible: feasible.len(), volumes })
}

/// Asks the plugins that may help a pod that found no node, until one does.
fn refuse(
    profile: &Profile,
    cycle: Cycle<'_>,
    filters: &mut Filters<'_>,
    mut error: FitError,
    turn: Turn,
) -> Decision {
    let mut messages = Vec::new();
    let mut relief = Relief::None;
    for plugin in &profile.post_filters {
        match plugin.post_filter(cycle, filters, &error, turn.seed) {
            PostFilter::Nothing(message) => messages.push(message),
            PostFilter::Hopeless(message) => {
                messages.push(message);
                relief = Relief::WithdrawNomination;
            }
            PostFilter::Preempt(preemption) => {
                return Decision::Unschedulable(error, Relief::Preempt(preemption));
            }
        }
    }
    error.post_filter = (!messages.is_empty()).then(|| messages.join(", "));
    Decision::Unschedulable(error, relief)
}

/// The nodes that will do and how many were looked at in turn. A node that room was made on is taken if it will do.
///
/// # Errors
/// An extender failed.
fn find_feasible<'a>(
    profile: &Profile,
    cycle: Cycle<'a>,
    filters: &mut Filters<'a>,
    turn: Turn,
    error: &mut FitError,
) -> Result<(Vec<&'a NodeInfo>, usize), String> {
    let nominated = cycle.snapshot.nominations.node_of(&cycle.pod.info.uid);
    if let Some(node) = nominated.and_then(|name| cycle.snapshot.node(name))
        && filters.only.as_ref().is_none_or(|only| only.names.contains(&*node.name))
        && filters.check_with_nominated(cycle, node).is_ok()
        && extender::pass(cycle, vec![node], &mut FitError::default()).is_ok_and(|nodes| !nodes.is_empty())
    {
        return Ok((vec![node], 0));
    }
    let wanted = nodes_to_find(error.node_count, profile.percentage_of_nodes_to_score);
    let mut feasible = Vec::new();
    let mut evaluated = 0;
    let only = filters.only.take();
    let mut look = |node: &'a NodeInfo, feasible: &mut Vec<&'a NodeInfo>| match filters
        .check_with_nominated(cycle, node)
    {
        Ok(()) => feasible.push(node),
        Err(rejection) => {
            error.plugins.insert(rejection.plugin);
            error.rejected.push((Arc::clone(&node.name), rejection));
        }
    };
    if let Some(only) = only {
        for node in only.names.iter().filter_map(|name| cycle.snapshot.node(name)) {
            evaluated += 1;
            look(node, &mut feasible);
        }
        error.absent_reason = Some(only.reason());
        error.plugins.extend(only.plugins);
    } else {
        let count = cycle.snapshot.node_count();
        while evaluated < count && feasible.len() < wanted {
            let node = cycle.snapshot.node_at((turn.start + evaluated) % count);
            evaluated += 1;
            look(node, &mut feasible);
        }
    }
    Ok((extender::pass(cycle, feasible, error)?, evaluated))
}

/// The weighted sum of all plugins' and extenders' scores for each node.
fn total_scores<'a>(profile: &Profile, cycle: Cycle<'a>, nodes: &[&'a NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for weighted in &profile.scores {
        let Some(plugin) = weighted.plugin.prepare(cycle, nodes) else { continue };
        let mut scores: Vec<_> = nodes.iter().map(|node| plugin.score(node)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * weighted.weight;
        }
    }
    extender::add_scores(cycle, nodes, &mut totals);
    totals
}

/// The index of a highest score; among equals the seed decides, each with the same chance.
fn best(scores: &[i64], seed: u64) -> usize {
    let highest = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<_> = (0..scores.len()).filter(|at| scores[*at] == highest).collect();
    ties[(mix(seed) % ties.len() as u64) as usize]
}

/// Spreads seeds that follow each other over the whole range (splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
