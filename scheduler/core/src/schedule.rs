//! One decision: which node runs this pod, or why none does. Owns the order of the steps (filters, sampling, scores, tie-break);
//! it changes nothing and is the same for the same arguments.

use std::sync::Arc;

use crate::fit_error::FitError;
use crate::framework::{Cycle, NodeFilter, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodToSchedule;
use crate::preemption;
use crate::profile::Profile;
use crate::snapshot::Snapshot;

/// Below this many nodes all are looked at.
const FEASIBLE_NODES_MIN: usize = 100;
const PERCENTAGE_MIN: usize = 5;

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A node will do and none is better.
    Assigned(Assignment),
    /// No node will do.
    Unschedulable(FitError),
}

/// A node for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub node: Arc<str>,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them would have done.
    pub feasible: usize,
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
    let cycle = Cycle { pod, snapshot };
    let mut error = FitError { node_count: snapshot.node_count(), ..FitError::default() };
    if error.node_count == 0 {
        return Decision::Unschedulable(error);
    }
    let (feasible, evaluated) = find_feasible(profile, cycle, turn, &mut error).unwrap_or_default();
    let node = match feasible.as_slice() {
        [] => {
            error.post_filter = preemption::explain(cycle, &error);
            return Decision::Unschedulable(error);
        }
        [only] => Arc::clone(&only.name),
        several => Arc::clone(&several[best(&total_scores(profile, cycle, several), turn.seed)].name),
    };
    Decision::Assigned(Assignment { node, evaluated, feasible: feasible.len() })
}

/// The nodes that will do and how many were looked at; `None` if a plugin ruled out all at once.
fn find_feasible<'a>(
    profile: &Profile,
    cycle: Cycle<'a>,
    turn: Turn,
    error: &mut FitError,
) -> Option<(Vec<&'a NodeInfo>, usize)> {
    let mut filters: Vec<Box<dyn NodeFilter + 'a>> = Vec::with_capacity(profile.filters.len());
    let mut only: Option<std::collections::BTreeSet<String>> = None;
    for plugin in &profile.filters {
        match plugin.prepare(cycle) {
            Prepared::Skip => {}
            Prepared::Check(filter) => filters.push(filter),
            Prepared::Only(names, filter) => {
                filters.push(filter);
                only = Some(only.map_or(names.clone(), |only| only.intersection(&names).cloned().collect()));
                error.absent_reason = Some(format!("node(s) didn't satisfy plugin(s) [{}]", plugin.name()));
                error.plugins.insert(plugin.name());
            }
            Prepared::Reject(message) => {
                error.pre_filter = Some(message);
                error.plugins.insert(plugin.name());
                return None;
            }
        }
    }
    let wanted = nodes_to_find(error.node_count, profile.percentage_of_nodes_to_score);
    let mut feasible = Vec::new();
    let mut evaluated = 0;
    let mut look = |node: &'a NodeInfo, feasible: &mut Vec<&'a NodeInfo>| match check(&filters, node) {
        Ok(()) => feasible.push(node),
        Err(rejection) => {
            error.plugins.insert(rejection.plugin);
            error.rejected.push((Arc::clone(&node.name), rejection));
        }
    };
    if let Some(names) = only {
        for node in names.iter().filter_map(|name| cycle.snapshot.node(name)) {
            evaluated += 1;
            look(node, &mut feasible);
        }
    } else {
        let count = cycle.snapshot.node_count();
        while evaluated < count && feasible.len() < wanted {
            let node = cycle.snapshot.node_at((turn.start + evaluated) % count);
            evaluated += 1;
            look(node, &mut feasible);
        }
    }
    Some((feasible, evaluated))
}

fn check(filters: &[Box<dyn NodeFilter + '_>], node: &NodeInfo) -> Result<(), Rejection> {
    filters.iter().try_for_each(|filter| filter.filter(node))
}

/// The weighted sum of all plugins' scores for each node.
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
    totals
}

/// The index of a highest score; among equals the seed decides, each with the same chance.
fn best(scores: &[i64], seed: u64) -> usize {
    let highest = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<_> = (0..scores.len()).filter(|at| scores[*at] == highest).collect();
    ties[(mix(seed) % ties.len() as u64) as usize]
}

/// Spreads seeds that follow each other over the whole range (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
