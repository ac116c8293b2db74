//! PodTopologySpread: keeps the pods a constraint selects even over zones, hosts or any other node label. Hard constraints rule
//! nodes out, soft ones score them; pods that say nothing are spread by upstream's defaults.

use std::collections::HashMap;

use crate::framework::{
    Cycle, FilterPlugin, MAX_NODE_SCORE, NodeFilter, NodeScore, Prepared, Rejection, ScorePlugin,
};
use crate::node_info::NodeInfo;
use crate::plugins::taint_toleration::untolerated;
use crate::pod_info::{PodInfo, SpreadConstraint};
use crate::spread_defaults::system_defaults;

/// The plugin's name.
pub const NAME: &str = "PodTopologySpread";
const HOSTNAME: &str = "kubernetes.io/hostname";
const TOO_MANY: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
/// The score of a node that has to be left out of the comparison.
const IGNORED: i64 = -1;

/// The plugin with its arguments.
#[derive(Clone, Debug, Default)]
pub struct PodTopologySpread {
    /// The constraints of pods that have none; `None` for upstream's.
    pub defaults: Option<Vec<DefaultConstraint>>,
}

/// A constraint of pods that have none; which pods it counts are their siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultConstraint {
    /// The node label.
    pub topology_key: String,
    /// Highest tolerated difference between a domain and the emptiest one.
    pub max_skew: i64,
    /// Whether it must hold.
    pub hard: bool,
}

impl PodTopologySpread {
    /// The constraints that hold for a pod, and whether nodes that lack one of the labels are left out.
    fn constraints(&self, cycle: Cycle<'_>, hard: bool) -> (Vec<SpreadConstraint>, bool) {
        let pod = cycle.pod;
        if !pod.spread_hard.is_empty() || !pod.spread_soft.is_empty() {
            return (if hard { pod.spread_hard.clone() } else { pod.spread_soft.clone() }, true);
        }
        if self.defaults.as_ref().map_or(hard, |defaults| defaults.iter().all(|default| default.hard != hard))
        {
            return (Vec::new(), false);
        }
        let Some(selector) = cycle.snapshot.selectors.siblings(&pod.info) else { return (Vec::new(), false) };
        match &self.defaults {
            None => (system_defaults(&selector), false),
            Some(defaults) => {
                let chosen = defaults.iter().filter(|default| default.hard == hard);
                let made = chosen.map(|default| {
                    SpreadConstraint::by_default(&default.topology_key, default.max_skew, &selector)
                });
                (made.collect(), true)
            }
        }
    }
}

/// Whether a node's domain counts for a constraint, under its node inclusion policies.
fn counts(cycle: Cycle<'_>, constraint: &SpreadConstraint, node: &NodeInfo) -> bool {
    let affinity = !constraint.honor_affinity
        || node.node.as_ref().is_some_and(|node| cycle.pod.required_affinity.matches(node));
    let tolerations = cycle.pod.spec().tolerations.as_deref().unwrap_or_default();
    affinity && (!constraint.honor_taints || untolerated(node, tolerations).is_none())
}

fn has_all_keys(node: &NodeInfo, constraints: &[SpreadConstraint]) -> bool {
    constraints.iter().all(|constraint| node.labels().contains_key(&constraint.topology_key))
}

struct Domains<'a> {
    constraint: SpreadConstraint,
    /// Matching pods by topology value.
    pods: HashMap<&'a str, i64>,
    fewest: i64,
    /// 1 if the pod itself is selected.
    own: i64,
}

impl Domains<'_> {
    fn count_fewest(&mut self) {
        let enough = self.pods.len() as i64 >= self.constraint.min_domains;
        self.fewest = if enough { self.pods.values().copied().min().unwrap_or(0) } else { 0 };
    }
}

struct Filter<'a> {
    cycle: Cycle<'a>,
    domains: Vec<Domains<'a>>,
}

impl Filter<'_> {
    /// Counts a pod that is supposed to come to a node or to leave it.
    fn suppose(&mut self, pod: &PodInfo, node: &NodeInfo, change: i64) {
        let all_keys =
            self.domains.iter().all(|domains| node.labels().contains_key(&domains.constraint.topology_key));
        if pod.is_terminating() || pod.namespace() != self.cycle.pod.info.namespace() || !all_keys {
            return;
        }
        for domains in &mut self.domains {
            let constraint = &domains.constraint;
            if !constraint.selector.matches(pod.labels()) || !counts(self.cycle, constraint, node) {
                continue;
            }
            if let Some(there) = domains.pods.get_mut(node.labels()[&constraint.topology_key].as_str()) {
                *there += change;
                domains.count_fewest();
            }
        }
    }
}

impl FilterPlugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let (constraints, _) = self.constraints(cycle, true);
        if constraints.is_empty() {
            return Prepared::Skip;
        }
        let info = &cycle.pod.info;
        let domains = constraints.iter().map(|constraint| {
            let by_slot = cycle.snapshot.pod_index().count_by_slot(
                info.namespace(),
                &constraint.selector,
                cycle.snapshot.slot_count(),
            );
            let mut pods = HashMap::new();
            for node in cycle.snapshot.nodes() {
                if has_all_keys(node, &constraints) && counts(cycle, constraint, node) {
                    let value = node.labels()[&constraint.topology_key].as_str();
                    *pods.entry(value).or_insert(0) += i64::from(by_slot[node.slot]);
                }
            }
            let own = i64::from(constraint.selector.matches(info.labels()));
            let mut domains = Domains { constraint: constraint.clone(), pods, fewest: 0, own };
            domains.count_fewest();
            domains
        });
        Prepared::Check(Box::new(Filter { cycle, domains: domains.collect() }))
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for domains in &self.domains {
            let Some(value) = node.labels().get(&domains.constraint.topology_key) else {
                return Err(Rejection::unresolvable(NAME, NO_LABEL));
            };
            let there = domains.pods.get(value.as_str()).copied().unwrap_or(0);
            if there + domains.own - domains.fewest > domains.constraint.max_skew {
                return Err(Rejection::resolvable(NAME, TOO_MANY));
            }
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

struct Soft<'a> {
    constraint: SpreadConstraint,
    weight: f64,
    /// Matching pods by topology value; for the host name, which is as good as one value a node, by slot.
    by_value: HashMap<&'a str, i64>,
    by_slot: Vec<u32>,
}

struct Score<'a> {
    soft: Vec<Soft<'a>>,
    /// Whether a node without one of the labels is left out (not with the defaults).
    demand_labels: bool,
}

impl ScorePlugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let (constraints, explicit) = self.constraints(cycle, false);
        if constraints.is_empty() {
            return None;
        }
        let compared: Vec<_> =
            nodes.iter().copied().filter(|node| !explicit || has_all_keys(node, &constraints)).collect();
        let soft = constraints.iter().map(|constraint| {
            let by_slot = cycle.snapshot.pod_index().count_by_slot(
                cycle.pod.info.namespace(),
                &constraint.selector,
                cycle.snapshot.slot_count(),
            );
            let mut by_value: HashMap<&'a str, i64> = HashMap::new();
            let mut size = compared.len();
            if constraint.topology_key != HOSTNAME {
                let value =
                    |node: &'a NodeInfo| node.labels().get(&constraint.topology_key).map(String::as_str);
                for node in &compared {
                    if let Some(value) = value(node) {
                        by_value.insert(value, 0);
                    }
                }
                for node in cycle.snapshot.nodes() {
                    if (explicit && !has_all_keys(node, &constraints)) || !counts(cycle, constraint, node) {
                        continue;
                    }
                    if let Some(total) = value(node).and_then(|value| by_value.get_mut(value)) {
                        *total += i64::from(by_slot[node.slot]);
                    }
                }
                size = by_value.len();
            }
            Soft { constraint: constraint.clone(), weight: ((size + 2) as f64).ln(), by_value, by_slot }
        });
        Some(Box::new(Score { soft: soft.collect(), demand_labels: explicit }))
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut score = 0.0;
        for soft in &self.soft {
            let Some(value) = node.labels().get(&soft.constraint.topology_key) else {
                if self.demand_labels {
                    return IGNORED;
                }
                continue;
            };
            let there = if soft.constraint.topology_key == HOSTNAME {
                i64::from(soft.by_slot[node.slot])
            } else {
                soft.by_value.get(value.as_str()).copied().unwrap_or(0)
            };
            score += there as f64 * soft.weight + (soft.constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let compared = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (fewest, most) = (compared().min().unwrap_or(0), compared().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if most == 0 => MAX_NODE_SCORE,
                score => MAX_NODE_SCORE * (most + fewest - score) / most,
            };
        }
    }
}
