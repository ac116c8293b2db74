//! Servers outside that have a say in decisions (upstream's extenders). Owns when they are asked and what follows from their answers; how
//! they are reached is the shell's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fit_error::FitError;
use crate::framework::{Cycle, MAX_NODE_SCORE, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::victims::Victims;

/// In whose name they refuse a pod. They do not say what would help, so that every change wakes it.
pub const NAME: &str = "Extender";
/// Their scores go from 0 to this.
const SCORE_MAX: i64 = 10;

/// Which nodes an extender lets pass, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// These do.
    pub nodes: BTreeSet<String>,
    /// These do not, for this reason; room might be made on them.
    pub failed: BTreeMap<String, String>,
    /// These do not, for this reason, whatever runs on them.
    pub unresolvable: BTreeMap<String, String>,
}

/// Whom an extender wants to go from a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Going {
    /// Their UIDs.
    pub uids: Vec<String>,
    /// How many of them a budget protects.
    pub violations: usize,
}

/// A server outside. Errors are texts for people.
pub trait Extender: Send + Sync {
    /// What it is called in the log.
    fn name(&self) -> &str;
    /// Whether decisions go on without it when it fails.
    fn is_ignorable(&self) -> bool;
    /// Whether it wants to be asked about the pod.
    fn is_interested(&self, pod: &PodInfo) -> bool;
    /// Which of the nodes will do.
    ///
    /// # Errors
    /// It did not answer, or said so.
    fn filter(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Result<Passed, String>;
    /// Scores of nodes by name, from 0 to 10 times its weight.
    ///
    /// # Errors
    /// It did not answer.
    fn prioritize(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Result<Vec<(String, i64)>, String>;
    /// Whether it judges preemption.
    fn judges_preemption(&self) -> bool;
    /// Which of the nodes may be made room on, by name, and who goes.
    ///
    /// # Errors
    /// It did not answer.
    fn preempt(&self, pod: &PodInfo, candidates: &[Victims<'_>]) -> Result<BTreeMap<String, Going>, String>;
}

/// Asks the extenders in turn which nodes will do; what they say of the others goes into `error`.
///
/// # Errors
/// One that may not be ignored failed.
pub fn pass<'a>(
    cycle: Cycle<'_>,
    mut nodes: Vec<&'a NodeInfo>,
    error: &mut FitError,
) -> Result<Vec<&'a NodeInfo>, String> {
    let pod = &cycle.pod.info;
    for extender in cycle.extenders.iter().filter(|extender| extender.is_interested(pod)) {
        if nodes.is_empty() {
            break;
        }
        let passed = match extender.filter(pod, &nodes) {
            Ok(passed) => passed,
            Err(_) if extender.is_ignorable() => continue,
            Err(error) => return Err(error),
        };
        nodes.retain(|node| {
            let name = &*node.name;
            let (unresolvable, failed) = (passed.unresolvable.get(name), passed.failed.get(name));
            if unresolvable.is_none() && passed.nodes.contains(name) {
                return true;
            }
            error.plugins.insert(NAME);
            let rejection = unresolvable
                .map(|reason| Rejection::unresolvable(NAME, reason.clone()))
                .or_else(|| failed.map(|reason| Rejection::resolvable(NAME, reason.clone())));
            error.rejected.extend(rejection.map(|rejection| (Arc::clone(&node.name), rejection)));
            false
        });
    }
    Ok(nodes)
}

/// Adds the extenders' scores, brought to the plugins' range. Those of one that fails are left out.
pub fn add_scores(cycle: Cycle<'_>, nodes: &[&NodeInfo], totals: &mut [i64]) {
    let pod = &cycle.pod.info;
    for extender in cycle.extenders.iter().filter(|extender| extender.is_interested(pod)) {
        for (name, score) in extender.prioritize(pod, nodes).unwrap_or_default() {
            if let Some(at) = nodes.iter().position(|node| *node.name == *name) {
                totals[at] = totals[at].saturating_add(score.saturating_mul(MAX_NODE_SCORE / SCORE_MAX));
            }
        }
    }
}

/// Asks the extenders in turn on which nodes room may be made, and who goes there.
///
/// # Errors
/// One that may not be ignored failed, or named pods or nodes that are not there.
pub fn agree<'a>(cycle: Cycle<'a>, mut candidates: Vec<Victims<'a>>) -> Result<Vec<Victims<'a>>, String> {
    let pod = &cycle.pod.info;
    let asked = cycle.extenders.iter().filter(|extender| extender.judges_preemption());
    for extender in asked.filter(|extender| extender.is_interested(pod)) {
        if candidates.is_empty() {
            break;
        }
        let agreed = extender.preempt(pod, &candidates).and_then(|going| {
            let found = going.into_iter().map(|(name, going)| victims(cycle, extender.name(), &name, going));
            found.collect::<Result<Vec<_>, _>>()
        });
        match agreed {
            Ok(mut agreed) => {
                if let Some(empty) = agreed.iter().find(|victims| victims.pods.is_empty())
                    && !extender.is_ignorable()
                {
                    return Err(format!("expected at least one victim pod on node {:?}", &*empty.node.name));
                }
                agreed.retain(|victims| !victims.pods.is_empty());
                candidates = agreed;
            }
            Err(_) if extender.is_ignorable() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(candidates)
}

fn victims<'a>(cycle: Cycle<'a>, extender: &str, name: &str, going: Going) -> Result<Victims<'a>, String> {
    let node =
        cycle.snapshot.node(name).ok_or_else(|| format!("nodeinfo not found for node name {name:?}"))?;
    let find = |uid: &String| {
        let found = node.pods.iter().find(|pod| *pod.uid == **uid);
        found.cloned().ok_or_else(|| {
            format!(
                "extender: {extender} claims to preempt pod (UID: {uid}) on node: {name}, but the pod is not found on that node"
            )
        })
    };
    let pods = going.uids.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    Ok(Victims::new(node, pods, going.violations))
}

#[cfg(test)]
mod tests;
