//! PodTopologySpread: keeps the pods a constraint selects even over zones, hosts or any other node label. Hard constraints rule
//! nodes out, soft ones score them; pods that say nothing are spread by upstream's defaults.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::domain_counts::{Counted, NodeRule, Question, Selected};
use crate::framework::{
    Cycle, FilterPlugin, MAX_NODE_SCORE, NodeFilter, NodeScore, Prepared, Rejection, ScorePlugin,
};
use crate::node_info::NodeInfo;
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
    fn constraints<'a>(&self, cycle: Cycle<'a>, hard: bool) -> (Cow<'a, [SpreadConstraint]>, bool) {
        let pod = cycle.pod;
        if !pod.spread_hard.is_empty() || !pod.spread_soft.is_empty() {
            return (Cow::Borrowed(if hard { &pod.spread_hard } else { &pod.spread_soft }), true);
        }
        let none = (Cow::Borrowed(&[] as &[_]), false);
        if self.defaults.as_ref().map_or(hard, |defaults| defaults.iter().all(|default| default.hard != hard))
        {
            return none;
        }
        let Some(selector) = cycle.snapshot.selectors.siblings(&pod.info) else { return none };
        match &self.defaults {
            None => (Cow::Owned(system_defaults(&selector)), false),
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

/// The pods that a constraint is about, by domain. Only nodes that have all the labels count, and those that the constraint's node
/// inclusion policies admit.
fn count(cycle: Cycle<'_>, constraint: &SpreadConstraint, keys: Vec<String>) -> Counted {
    let affinity =
        if constraint.honor_affinity { cycle.pod.required_affinity.clone() } else { Default::default() };
    let tolerations = || cycle.pod.spec().tolerations.clone().unwrap_or_default();
    cycle.snapshot.count(Question {
        selected: selected(cycle, constraint),
        rule: NodeRule { keys, affinity, tolerations: constraint.honor_taints.then(tolerations) },
        topology_key: constraint.topology_key.clone(),
        by_node: false,
    })
}

/// The same by node, whatever the node.
fn count_by_node(cycle: Cycle<'_>, constraint: &SpreadConstraint) -> Counted {
    cycle.snapshot.count(Question {
        selected: selected(cycle, constraint),
        rule: NodeRule::default(),
        topology_key: constraint.topology_key.clone(),
        by_node: true,
    })
}

fn selected(cycle: Cycle<'_>, constraint: &SpreadConstraint) -> Selected {
    let namespace = cycle.pod.info.namespace().to_owned();
    Selected::Spread { namespace, selector: constraint.selector.clone() }
}

fn keys(constraints: &[SpreadConstraint]) -> Vec<String> {
    constraints.iter().map(|constraint| constraint.topology_key.clone()).collect()
}

struct Domains {
    max_skew: i64,
    min_domains: i64,
    counted: Counted,
    fewest: i64,
    /// 1 if the pod itself is selected.
    own: i64,
}

impl Domains {
    fn count_fewest(&mut self) {
        let enough = self.counted.counts().domains() as i64 >= self.min_domains;
        self.fewest = if enough { self.counted.fewest() } else { 0 };
    }
}

struct Filter {
    namespace: String,
    domains: Vec<Domains>,
}

impl Filter {
    /// Counts a pod that is supposed to come to a node or to leave it.
    fn suppose(&mut self, pod: &PodInfo, node: &NodeInfo, change: i64) {
        if pod.is_terminating() || pod.namespace() != self.namespace {
            return;
        }
        for domains in &mut self.domains {
            let Question { selected: Selected::Spread { selector, .. }, rule, .. } =
                domains.counted.question()
            else {
                continue;
            };
            if !selector.matches(pod.labels()) || !rule.admits(node) {
                continue;
            }
            if let Some(domain) = domains.counted.domain(node) {
                domains.counted.suppose(domain, change);
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
        let domains = constraints.iter().map(|constraint| {
            let mut domains = Domains {
                max_skew: constraint.max_skew,
                min_domains: constraint.min_domains,
                counted: count(cycle, constraint, keys(&constraints)),
                fewest: 0,
                own: i64::from(constraint.selector.matches(cycle.pod.info.labels())),
            };
            domains.count_fewest();
            domains
        });
        let namespace = cycle.pod.info.namespace().to_owned();
        Prepared::Check(Box::new(Filter { namespace, domains: domains.collect() }))
    }
}

impl NodeFilter for Filter {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for domains in &self.domains {
            let Some(domain) = domains.counted.domain(node) else {
                return Err(Rejection::unresolvable(NAME, NO_LABEL));
            };
            if domains.counted.pods(domain) + domains.own - domains.fewest > domains.max_skew {
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

struct Soft {
    weight: f64,
    max_skew: i64,
    /// Matching pods by domain; for the host name, which is as good as one value a node, by node.
    counted: Counted,
}

struct Score {
    soft: Vec<Soft>,
    /// Whether a node without one of the labels is left out (not with the defaults).
    demand_labels: bool,
}

/// In how many domains these nodes are.
fn different<'a>(counted: &Counted, nodes: impl Iterator<Item = &'a NodeInfo>) -> usize {
    nodes.filter_map(|node| counted.domain(node)).collect::<HashSet<_>>().len()
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
        let demanded = if explicit { keys(&constraints) } else { Vec::new() };
        let counted = constraints.iter().map(|constraint| match constraint.topology_key.as_str() {
            HOSTNAME => count_by_node(cycle, constraint),
            _ => count(cycle, constraint, demanded.clone()),
        });
        let counted: Vec<_> = counted.collect();
        let compared = || {
            nodes
                .iter()
                .copied()
                .filter(|node| !explicit || counted.iter().all(|one| one.domain(node).is_some()))
        };
        let sizes: Vec<_> = constraints
            .iter()
            .zip(&counted)
            .map(|(constraint, counted)| match constraint.topology_key.as_str() {
                HOSTNAME => compared().count(),
                _ => different(counted, compared()),
            })
            .collect();
        let soft = constraints.iter().zip(counted).zip(sizes).map(|((constraint, counted), size)| Soft {
            weight: ((size + 2) as f64).ln(),
            max_skew: constraint.max_skew,
            counted,
        });
        Some(Box::new(Score { soft: soft.collect(), demand_labels: explicit }))
    }
}

impl NodeScore for Score {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut score = 0.0;
        for soft in &self.soft {
            let Some(domain) = soft.counted.domain(node) else {
                if self.demand_labels {
                    return IGNORED;
                }
                continue;
            };
            score += soft.counted.pods(domain) as f64 * soft.weight + (soft.max_skew - 1) as f64;
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
