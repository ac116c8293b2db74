//! InterPodAffinity: a pod runs near to or apart from other pods, where near means in one domain of a node label. Required terms, the
//! pod's own and those of pods that are there already, rule nodes out; preferred ones score them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain_counts::{Counted, NodeRule, Question, Selected};
use crate::framework::{
    Cycle, FilterPlugin, MAX_NODE_SCORE, NodeFilter, NodeScore, Prepared, Rejection, ScorePlugin,
};
use crate::label_selector::Labels;
use crate::node_info::NodeInfo;
use crate::pod_affinity::{AffinityTerm, PodAffinity};
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::term_index::Held;
use crate::topology::{Column, Domain};

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

/// Terms of pods that are there, of one topology key.
struct Terms<'a> {
    topology_key: Cow<'a, str>,
    column: Arc<Column>,
    /// With what a pod that has the term counts for.
    held: Vec<(i64, &'a Held)>,
    supposed: Vec<(Domain, i64)>,
}

impl Terms<'_> {
    /// The sum for the node's domain; 0 if it is in none.
    fn at(&self, node: &NodeInfo) -> i64 {
        let Some(domain) = self.column.at(node.slot) else { return 0 };
        let there: i64 = self.held.iter().map(|(weight, held)| weight * held.at(domain)).sum();
        let supposed = self.supposed.iter().filter(|(at, _)| *at == domain);
        there + supposed.map(|(_, change)| change).sum::<i64>()
    }
}

/// The terms that select the pod, by topology key; without those that no node's label makes matter.
fn that_select<'a>(cycle: Cycle<'a>, terms: impl Iterator<Item = (i64, &'a Held)>) -> Vec<Terms<'a>> {
    let Cycle { pod, snapshot, .. } = cycle;
    let namespace = pod.info.namespace();
    let namespace_labels = snapshot.namespace_labels(namespace);
    let mut keys: Vec<Terms<'a>> = Vec::new();
    for (weight, held) in terms {
        if weight == 0
            || held.is_nowhere()
            || !held.term.matches(namespace, namespace_labels, pod.info.labels())
        {
            continue;
        }
        let topology_key = held.term.topology_key.as_str();
        match keys.iter_mut().find(|known| known.topology_key == topology_key) {
            Some(known) => known.held.push((weight, held)),
            None => keys.push(Terms {
                topology_key: Cow::Borrowed(topology_key),
                column: snapshot.column(topology_key),
                held: vec![(weight, held)],
                supposed: Vec::new(),
            }),
        }
    }
    keys
}

/// The pods that all these terms select, by the domains of a topology key.
fn count(snapshot: &Snapshot, terms: &[Arc<AffinityTerm>], topology_key: &str) -> Counted {
    snapshot.count(Question {
        selected: Selected::Near(terms.to_vec()),
        rule: NodeRule::default(),
        topology_key: topology_key.to_owned(),
        by_node: false,
    })
}

struct Filter<'a> {
    cycle: Cycle<'a>,
    required: &'a [Arc<AffinityTerm>],
    required_apart: &'a [Arc<AffinityTerm>],
    /// Pods that all required terms select together, by the domains of each.
    near: Vec<Counted>,
    /// Pods that each term of required anti-affinity selects.
    apart: Vec<Counted>,
    /// Pods that have this pod in a term of their required anti-affinity.
    unwelcoming: Vec<Terms<'a>>,
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
        let Cycle { pod: mine, snapshot, .. } = self.cycle;
        let Some(node) = snapshot.node(&node.name) else { return };
        let add = |counted: &mut Counted| {
            if let Some(domain) = counted.domain(node) {
                counted.suppose(domain, change);
            }
        };
        let its_namespace = snapshot.namespace_labels(pod.namespace());
        if all_match(self.required, pod.namespace(), its_namespace, pod.labels()) {
            self.near.iter_mut().for_each(add);
        }
        for (term, counted) in self.required_apart.iter().zip(&mut self.apart) {
            if term.matches(pod.namespace(), its_namespace, pod.labels()) {
                add(counted);
            }
        }
        let my_namespace = snapshot.namespace_labels(mine.info.namespace());
        for term in pod.affinity.iter().flat_map(|affinity| &affinity.required_apart) {
            if term.matches(mine.info.namespace(), my_namespace, mine.info.labels()) {
                self.suppose_unwelcoming(&term.topology_key, node, change);
            }
        }
    }

    fn suppose_unwelcoming(&mut self, topology_key: &str, node: &NodeInfo, change: i64) {
        let known = self.unwelcoming.iter().position(|terms| terms.topology_key == topology_key);
        let at = known.unwrap_or_else(|| {
            self.unwelcoming.push(Terms {
                topology_key: Cow::Owned(topology_key.to_owned()),
                column: self.cycle.snapshot.column(topology_key),
                held: Vec::new(),
                supposed: Vec::new(),
            });
            self.unwelcoming.len() - 1
        });
        let terms = &mut self.unwelcoming[at];
        let Some(domain) = terms.column.at(node.slot) else { return };
        match terms.supposed.iter_mut().find(|(there, _)| *there == domain) {
            Some((_, sum)) => *sum += change,
            None => terms.supposed.push((domain, change)),
        }
    }
}

impl FilterPlugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let Cycle { pod, snapshot, .. } = cycle;
        let (required, required_apart): (&'a [_], &'a [_]) = match &pod.info.affinity {
            Some(affinity) => (&affinity.required, &affinity.required_apart),
            None => (&[], &[]),
        };
        let unwelcoming = that_select(cycle, snapshot.terms().required_apart().map(|held| (1, held)));
        if unwelcoming.is_empty() && required.is_empty() && required_apart.is_empty() {
            return Prepared::Skip;
        }
        let near = required.iter().map(|term| count(snapshot, required, &term.topology_key)).collect();
        let one = |term: &Arc<AffinityTerm>| count(snapshot, std::slice::from_ref(term), &term.topology_key);
        let apart = required_apart.iter().map(one).collect();
        Prepared::Check(Box::new(Filter { cycle, required, required_apart, near, apart, unwelcoming }))
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut all_near = true;
        for counted in &self.near {
            match counted.domain(node) {
                None => return Err(Rejection::unresolvable(NAME, NOT_NEAR)),
                Some(domain) => all_near &= counted.pods(domain) > 0,
            }
        }
        if !all_near {
            // The first of a group that wants to be near itself may start anywhere.
            let Cycle { pod, snapshot, .. } = self.cycle;
            let namespace = pod.info.namespace();
            let first = self.near.iter().all(|counted| counted.total() == 0)
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
        let taken = |counted: &Counted| counted.domain(node).is_some_and(|domain| counted.pods(domain) > 0);
        if self.apart.iter().any(taken) {
            return Err(Rejection::resolvable(NAME, NOT_APART));
        }
        if self.unwelcoming.iter().any(|terms| terms.at(node) > 0) {
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
    /// What the pod wishes, with weights.
    wishes: Vec<(i64, Counted)>,
    /// What pods that are there wish.
    theirs: Vec<Terms<'a>>,
}

impl ScorePlugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let Cycle { pod, snapshot, .. } = cycle;
        let wishes: &'a [_] =
            pod.info.affinity.as_deref().map_or(&[], |affinity: &PodAffinity| &affinity.preferred);
        if wishes.is_empty() && self.ignore_preferred_terms_of_existing_pods {
            return None;
        }
        let wishes = wishes
            .iter()
            .map(|(weight, term)| (*weight, count(snapshot, std::slice::from_ref(term), &term.topology_key)));
        let wishes: Vec<_> = wishes.filter(|(_, counted)| counted.total() > 0).collect();
        let hard = snapshot.terms().required().map(|held| (self.hard_pod_affinity_weight, held));
        let theirs = that_select(cycle, snapshot.terms().preferred().chain(hard));
        if wishes.is_empty() && theirs.is_empty() { None } else { Some(Box::new(Score { wishes, theirs })) }
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let there = |counted: &Counted| counted.domain(node).map_or(0, |domain| counted.pods(domain));
        let own: i64 = self.wishes.iter().map(|(weight, counted)| weight * there(counted)).sum();
        own + self.theirs.iter().map(|terms| terms.at(node)).sum::<i64>()
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
