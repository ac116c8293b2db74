//! DefaultPreemption: makes room for a pod that found no node by deleting pods of lower priority. Owns when that is allowed,
//! which nodes are tried and which is taken; which pods of a node have to go is [`victims`]. It decides only: nothing is deleted here.

pub mod victims;

use std::borrow::Cow;
use std::sync::Arc;

use crate::extender;
use crate::filtering::Filters;
use crate::fit_error::{FitError, histogram};
use crate::framework::{Cycle, PostFilter, PostFilterPlugin, Rejection};
use crate::pod_info::PodInfo;
use crate::preemption::victims::{Victims, select_victims};
use crate::schedule::mix;

/// The plugin's name.
pub const NAME: &str = "DefaultPreemption";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Which pods have to go so that a pod can run on a node.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The node the pod is nominated to.
    pub node: Arc<str>,
    /// The pods that have to go, the most important first. Some may be going already.
    pub victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority that lose their nomination to this node.
    pub outranked: Vec<Arc<PodInfo>>,
}

/// The plugin with its arguments.
#[derive(Clone, Copy, Debug)]
pub struct DefaultPreemption {
    /// How many of the nodes are tried at least, in percent.
    pub min_candidate_nodes_percentage: usize,
    /// How many nodes are tried at least.
    pub min_candidate_nodes_absolute: usize,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

impl PostFilterPlugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        NAME
    }

    fn post_filter(
        &self,
        cycle: Cycle<'_>,
        filters: &mut Filters<'_>,
        error: &FitError,
        seed: u64,
    ) -> PostFilter {
        if let Some(reason) = not_eligible(cycle, error) {
            return PostFilter::Nothing(format!("preemption: {reason}"));
        }
        let potential: Vec<_> = error.rejected.iter().filter(|(_, rejection)| rejection.resolvable).collect();
        let wanted = (potential.len() * self.min_candidate_nodes_percentage / 100)
            .max(self.min_candidate_nodes_absolute)
            .min(potential.len());
        let start = if potential.is_empty() { 0 } else { (mix(seed) % potential.len() as u64) as usize };
        let (mut peaceful, mut violating): (Vec<Victims<'_>>, Vec<Victims<'_>>) = (Vec::new(), Vec::new());
        let mut hopeless: Vec<Rejection> = Vec::new();
        for at in 0..potential.len() {
            let (name, _) = potential[(start + at) % potential.len()];
            let Some(node) = cycle.snapshot.node(name) else { continue };
            match select_victims(cycle, filters, node) {
                Ok(victims) if victims.violations == 0 => peaceful.push(victims),
                Ok(victims) => violating.push(victims),
                Err(rejection) => hopeless.push(rejection),
            }
            if !peaceful.is_empty() && peaceful.len() + violating.len() >= wanted {
                break;
            }
        }
        peaceful.append(&mut violating);
        let candidates = match extender::agree(cycle, peaceful) {
            Ok(candidates) => candidates,
            Err(error) => return PostFilter::Nothing(format!("preemption: {error}")),
        };
        match victims::least_harm(candidates) {
            Some(chosen) => PostFilter::Preempt(Preemption {
                node: Arc::clone(&chosen.node.name),
                outranked: cycle
                    .snapshot
                    .nominations
                    .behind(&cycle.pod.info, &chosen.node.name)
                    .cloned()
                    .collect(),
                victims: chosen.pods,
            }),
            None => PostFilter::Hopeless(format!("preemption: {}", explain(error.node_count, &hopeless))),
        }
    }
}

/// Why the pod may not preempt others, if it may not.
fn not_eligible(cycle: Cycle<'_>, error: &FitError) -> Option<&'static str> {
    let pod = &cycle.pod.info;
    if cycle.pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let name = cycle.snapshot.nominations.node_of(&pod.uid)?;
    let gone_bad = error.rejected.iter().any(|(node, rejection)| node == name && !rejection.resolvable);
    if gone_bad {
        return None;
    }
    let node = cycle.snapshot.node(name)?;
    let waits = |there: &&Arc<PodInfo>| there.priority < pod.priority && there.is_terminating_by_preemption();
    node.pods.iter().find(waits).map(|_| "not eligible due to a terminating pod on the nominated node.")
}

fn explain(node_count: usize, hopeless: &[Rejection]) -> String {
    let tried =
        hopeless.iter().flat_map(|rejection| &rejection.reasons).map(|reason| (Cow::Borrowed(&**reason), 1));
    let rest = node_count.saturating_sub(hopeless.len());
    let rest = (rest > 0).then_some((Cow::Borrowed(NOT_HELPFUL), rest));
    histogram(node_count, tried.chain(rest))
}

#[cfg(test)]
mod tests;
