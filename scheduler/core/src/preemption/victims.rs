//! Which pods of one node have to go for a pod, and on which node that does the least harm. Owns the comparison of pods and of
//! nodes.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::filtering::Filters;
use crate::framework::{Cycle, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::NAME;

/// What preemption on one node would cost.
pub struct Victims<'a> {
    /// The node.
    pub node: &'a NodeInfo,
    /// The pods that would have to go, the most important first.
    pub pods: Vec<Arc<PodInfo>>,
    /// How many of them a budget protects.
    pub violations: usize,
}

impl<'a> Victims<'a> {
    /// Puts the pods in their order.
    pub fn new(node: &'a NodeInfo, mut pods: Vec<Arc<PodInfo>>, violations: usize) -> Self {
        pods.sort_by_key(|pod| importance(pod));
        Self { node, pods, violations }
    }
}

/// More important pods have higher priority, then have run for longer.
fn importance(pod: &PodInfo) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority), pod.started)
}

/// Takes all pods of lower priority off the node and puts back as many as possible, first those that budgets protect, the most
/// important first. The filters are left as they were.
///
/// # Errors
/// The pod does not fit even without them.
pub fn select_victims<'a>(
    cycle: Cycle<'_>,
    filters: &mut Filters<'_>,
    node: &'a NodeInfo,
) -> Result<Victims<'a>, Rejection> {
    let lower = |there: &&Arc<PodInfo>| there.priority < cycle.pod.info.priority;
    let mut potential: Vec<_> = node.pods.iter().filter(lower).cloned().collect();
    if potential.is_empty() {
        return Err(Rejection::unresolvable(NAME, "No preemption victims found for incoming pod"));
    }
    let mut without = node.clone();
    for pod in &potential {
        without.remove_pod(&pod.uid);
        filters.remove_pod(pod, node);
    }
    if let Err(rejection) = filters.check_with_nominated(cycle, &without) {
        potential.iter().for_each(|pod| filters.add_pod(pod, node));
        return Err(rejection);
    }
    potential.sort_by_key(|pod| importance(pod));
    let violated = cycle.snapshot.budgets.violated(potential.iter().map(|pod| &**pod));
    let mut order: Vec<_> = potential.into_iter().zip(violated).collect();
    order.sort_by_key(|(_, violated)| !violated);
    let (mut pods, mut violations) = (Vec::new(), 0);
    for (pod, violated) in order {
        without.add_pod(Arc::clone(&pod));
        filters.add_pod(&pod, node);
        if filters.check_with_nominated(cycle, &without).is_err() {
            without.remove_pod(&pod.uid);
            filters.remove_pod(&pod, node);
            violations += usize::from(violated);
            pods.push(pod);
        }
    }
    pods.iter().for_each(|pod| filters.add_pod(pod, node));
    Ok(Victims::new(node, pods, violations))
}

/// The candidate that does the least harm: fewest protected pods, then the lowest of the highest priorities, the smallest sum
/// of priorities, the fewest pods, the latest start of the pods of highest priority; then the first.
pub fn least_harm(candidates: Vec<Victims<'_>>) -> Option<Victims<'_>> {
    let harm = |victims: &Victims<'_>| {
        let highest = victims.pods.first().map_or(i32::MIN, |pod| pod.priority);
        // Shifted, so that a few pods of negative priority do not weigh less than one of them.
        let sum: i64 = victims.pods.iter().map(|pod| i64::from(pod.priority) + (1 << 31)).sum();
        let earliest = victims.pods.iter().filter(|pod| pod.priority == highest).map(|pod| pod.started).min();
        (victims.violations, highest, sum, victims.pods.len(), Reverse(earliest.unwrap_or(i64::MAX)))
    };
    candidates.into_iter().filter(|victims| !victims.pods.is_empty()).min_by_key(harm)
}
