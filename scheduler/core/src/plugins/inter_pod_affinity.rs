//! InterPodAffinity: a pod runs near to or apart from other pods, where near means in one domain of a node label. Required terms, the
//! pod's own and those of pods that are there already, rule nodes out; preferred ones score them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::{
    Cycle, FilterPlugin, MAX_NODE_SCORE, NodeFilter, NodeScore, Prepared, Rejection, ScorePlugin,
};
use crate::label_selector::Labels;
use crate::node_info::NodeInfo;
use crate::pod_affinity::{AffinityTerm, PodAffinity};
use crate::pod_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "InterPodAffinity";
const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const NOT_APART: &str = "node(s) didn't match pod anti-affinity rules";
const NOT_WELCOME: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// The plugin with its arguments.
#[derive(Clone, Copy, Debug)]
pub struct InterPodAffinity {
    /// What a required affinity of a pod that is there counts as a preference of its node.
    pub hard_pod_affinity_weight: i64,
    /// Whether a pod without preferences of its own leaves those of others unheard.
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// Amounts by topology key and value.
#[derive(Default)]
struct Tally<'a> {
    keys: HashMap<String, HashMap<&'a str, i64>>,
}

impl<'a> Tally<'a> {
    fn add(&mut self, key: &str, node: &'a NodeInfo, amount: i64) {
        let Some(value) = node.labels().get(key) else { return };
        let values = match self.keys.get_mut(key) {
            Some(values) => values,
            None => self.keys.entry(key.to_owned()).or_default(),
        };
        *values.entry(value).or_insert(0) += amount;
    }

    /// The amount of the node's domain; `None` if the node is in none.
    fn at(&self, key: &str, node: &NodeInfo) -> Option<i64> {
        let value = node.labels().get(key)?;
        Some(self.keys.get(key).and_then(|values| values.get(value.as_str())).copied().unwrap_or(0))
    }

    fn is_empty(&self) -> bool {
        self.keys.values().flat_map(HashMap::values).all(|amount| *amount == 0)
    }
}

struct Filter<'a> {
    cycle: Cycle<'a>,
    required: &'a [Arc<AffinityTerm>],
    required_apart: &'a [Arc<AffinityTerm>],
    /// Pods that all required terms select together, by the domains of each.
    near: Tally<'a>,
    /// Pods that a term of required anti-affinity selects.
    apart: Tally<'a>,
    /// Pods that have this pod in a term of their required anti-affinity.
    unwelcoming: Tally<'a>,
}

fn all_match(
    terms: &[Arc<AffinityTerm>],
    namespace: &str,
    namespace_labels: &Labels,
    labels: &Labels,
) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(namespace, namespace_labels, labels))
}

impl Filter<'_> {
    /// Counts a pod that is supposed to come to a node or to leave it.
    fn suppose(&mut self, pod: &PodInfo, node: &NodeInfo, change: i64) {
        let Cycle { pod: mine, snapshot } = self.cycle;
        let Some(node) = snapshot.node(&node.name) else { return };
        let its_namespace = snapshot.namespace_labels(pod.namespace());
        if all_match(self.required, pod.namespace(), its_namespace, pod.labels()) {
            self.required.iter().for_each(|term| self.near.add(&term.topology_key, node, change));
        }
        for term in self.required_apart {
            if term.matches(pod.namespace(), its_namespace, pod.labels()) {
                self.apart.add(&term.topology_key, node, change);
            }
        }
        let my_namespace = snapshot.namespace_labels(mine.info.namespace());
        for term in pod.affinity.iter().flat_map(|affinity| &affinity.required_apart) {
            if term.matches(mine.info.namespace(), my_namespace, mine.info.labels()) {
                self.unwelcoming.add(&term.topology_key, node, change);
            }
        }
    }
}

impl FilterPlugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let Cycle { pod, snapshot } = cycle;
        let info = &pod.info;
        let mut unwelcoming = Tally::default();
        let namespace_labels = snapshot.namespace_labels(info.namespace());
        for held in snapshot.terms().required_apart() {
            if held.term.matches(info.namespace(), namespace_labels, info.labels()) {
                for (slot, pods) in &held.slots {
                    unwelcoming.add(&held.term.topology_key, snapshot.node_in(*slot), *pods);
                }
            }
        }
        let (required, required_apart): (&'a [_], &'a [_]) = match &info.affinity {
            Some(affinity) => (&affinity.required, &affinity.required_apart),
            None => (&[], &[]),
        };
        if unwelcoming.is_empty() && required.is_empty() && required_apart.is_empty() {
            return Prepared::Skip;
        }
        let (mut near, mut apart) = (Tally::default(), Tally::default());
        if !required.is_empty() {
            snapshot.pod_index().visit(
                |namespace, labels| {
                    all_match(required, namespace, snapshot.namespace_labels(namespace), labels)
                },
                |slot, pods| {
                    let node = snapshot.node_in(slot);
                    required.iter().for_each(|term| near.add(&term.topology_key, node, pods));
                },
            );
        }
        for term in required_apart {
            snapshot.pod_index().visit(
                |namespace, labels| term.matches(namespace, snapshot.namespace_labels(namespace), labels),
                |slot, pods| apart.add(&term.topology_key, snapshot.node_in(slot), pods),
            );
        }
        Prepared::Check(Box::new(Filter { cycle, required, required_apart, near, apart, unwelcoming }))
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut all_near = true;
        for term in self.required {
            match self.near.at(&term.topology_key, node) {
                None => return Err(Rejection::unresolvable(NAME, NOT_NEAR)),
                Some(pods) => all_near &= pods > 0,
            }
        }
        if !all_near {
            // The first of a group that wants to be near itself may start anywhere.
            let Cycle { pod, snapshot } = self.cycle;
            let namespace = pod.info.namespace();
            let first = self.near.is_empty()
                && all_match(
                    self.required,
                    namespace,
                    snapshot.namespace_labels(namespace),
                    pod.info.labels(),
                );
            if !first {
                return Err(Rejection::unresolvable(NAME, NOT_NEAR));
            }
        }
        if self
            .required_apart
            .iter()
            .any(|term| self.apart.at(&term.topology_key, node).is_some_and(|pods| pods > 0))
        {
            return Err(Rejection::resolvable(NAME, NOT_APART));
        }
        if self.unwelcoming.keys.keys().any(|key| self.unwelcoming.at(key, node).is_some_and(|pods| pods > 0))
        {
            return Err(Rejection::resolvable(NAME, NOT_WELCOME));
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.suppose(pod, node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.suppose(pod, node, -1);
    }
}

struct Score<'a> {
    tally: Tally<'a>,
}

impl ScorePlugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let Cycle { pod, snapshot } = cycle;
        let info = &pod.info;
        let wishes: &'a [_] =
            info.affinity.as_deref().map_or(&[], |affinity: &PodAffinity| &affinity.preferred);
        if wishes.is_empty() && self.ignore_preferred_terms_of_existing_pods {
            return None;
        }
        let mut tally = Tally::default();
        for (weight, term) in wishes {
            snapshot.pod_index().visit(
                |namespace, labels| term.matches(namespace, snapshot.namespace_labels(namespace), labels),
                |slot, pods| tally.add(&term.topology_key, snapshot.node_in(slot), pods * weight),
            );
        }
        let hard = snapshot.terms().required().map(|held| (self.hard_pod_affinity_weight, held));
        let namespace_labels = snapshot.namespace_labels(info.namespace());
        for (weight, held) in snapshot.terms().preferred().chain(hard) {
            if weight != 0 && held.term.matches(info.namespace(), namespace_labels, info.labels()) {
                for (slot, pods) in &held.slots {
                    tally.add(&held.term.topology_key, snapshot.node_in(*slot), pods * weight);
                }
            }
        }
        if tally.keys.is_empty() { None } else { Some(Box::new(Score { tally })) }
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.tally.keys.keys().filter_map(|key| self.tally.at(key, node)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) =
            (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = match most - least {
                0 => 0,
                range => (MAX_NODE_SCORE as f64 * ((*score - least) as f64 / range as f64)) as i64,
            };
        }
    }
}

#[cfg(test)]
mod tests;
