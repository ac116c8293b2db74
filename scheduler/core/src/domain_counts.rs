//! How many pods that a question selects run in each domain of a topology key. Owns these counts: made from all nodes when a question is
//! first asked, kept up to date with every pod and node that comes, changes or goes, so that a decision costs the same
//! however many nodes and pods there are. Pods of one ReplicaSet ask the same questions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Toleration;

use crate::label_selector::{Labels, Selector};
use crate::node_info::NodeInfo;
use crate::node_selector::RequiredNodeAffinity;
use crate::plugins::taint_toleration::untolerated;
use crate::pod_affinity::AffinityTerm;
use crate::pod_index::PodIndex;
use crate::pod_info::PodInfo;
use crate::topology::{Column, Domain, Topology};

/// Questions that are remembered; the one not asked for longest is forgotten first.
const QUESTIONS_MAX: usize = 256;

/// Labels by namespace.
pub type NamespaceLabels = HashMap<String, Labels>;

/// The labels of a namespace.
pub fn labels_of<'n>(namespaces: &'n NamespaceLabels, name: &str) -> &'n Labels {
    static NONE: Labels = Labels::new();
    namespaces.get(name).unwrap_or(&NONE)
}

/// Which pods are counted.
#[derive(Clone, Debug)]
pub enum Selected {
    /// Those of a namespace that are not being deleted.
    Spread {
        /// The namespace.
        namespace: String,
        /// Which of them.
        selector: Selector,
    },
    /// Those that all these terms select.
    Near(Vec<Arc<AffinityTerm>>),
}

impl Selected {
    /// Whether pods of this namespace with these labels count, but for those being deleted.
    fn matches(&self, namespaces: &NamespaceLabels, namespace: &str, labels: &Labels) -> bool {
        match self {
            Self::Spread { namespace: wanted, selector } => wanted == namespace && selector.matches(labels),
            Self::Near(terms) => {
                let its_labels = labels_of(namespaces, namespace);
                !terms.is_empty() && terms.iter().all(|term| term.matches(namespace, its_labels, labels))
            }
        }
    }

    fn counts(&self, namespaces: &NamespaceLabels, pod: &PodInfo) -> bool {
        let gone = matches!(self, Self::Spread { .. }) && pod.is_terminating();
        !gone && self.matches(namespaces, pod.namespace(), pod.labels())
    }
}

/// Which nodes are domains, or part of one.
#[derive(Clone, Debug, Default)]
pub struct NodeRule {
    /// Labels they must have.
    pub keys: Vec<String>,
    /// What else their labels must satisfy.
    pub affinity: RequiredNodeAffinity,
    /// The tolerations that must cover their taints; `None` if taints do not matter.
    pub tolerations: Option<Vec<Toleration>>,
}

impl NodeRule {
    /// Whether a node is in.
    pub fn admits(&self, node: &NodeInfo) -> bool {
        self.keys.iter().all(|key| node.labels().contains_key(key))
            && (self.affinity.is_empty()
                || node.node.as_ref().is_some_and(|node| self.affinity.matches(node)))
            && self.tolerations.as_ref().is_none_or(|list| untolerated(node, list).is_none())
    }
}

/// What is counted, where, and by what.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which pods.
    pub selected: Selected,
    /// On which nodes.
    pub rule: NodeRule,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// Whether each node that has the label is a domain of its own, whatever the value.
    pub by_node: bool,
}

impl Question {
    /// The same for equal questions, different for others.
    pub fn key(&self) -> String {
        let NodeRule { keys, affinity, tolerations } = &self.rule;
        let mut text = match &self.selected {
            Selected::Spread { namespace, selector } => format!("spread {namespace:?} {selector:?}"),
            Selected::Near(terms) => {
                terms.iter().fold("near".to_owned(), |text, term| text + " " + &term.key)
            }
        };
        text.push_str(&format!(" | {:?} {} {keys:?}", self.topology_key, self.by_node));
        if !affinity.is_empty() {
            text.push_str(&format!(" {affinity:?}"));
        }
        if let Some(tolerations) = tolerations {
            text.push_str(&format!(" {tolerations:?}"));
        }
        text
    }

    fn domain(&self, column: &Column, slot: usize) -> Option<Domain> {
        column.at(slot).map(|domain| if self.by_node { slot as Domain } else { domain })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    pods: u32,
    nodes: u32,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct DomainCounts {
    question: Question,
    by_domain: Vec<Count>,
    /// How many domains have that many pods.
    levels: BTreeMap<u32, u32>,
    /// How many domains there are.
    domains: usize,
    /// Pods in all of them.
    pods: u64,
}

impl DomainCounts {
    /// Counts from scratch.
    fn new(
        question: Question,
        column: &Column,
        slots: &[NodeInfo],
        index: &PodIndex,
        namespaces: &NamespaceLabels,
    ) -> Self {
        let mut counts =
            Self { question, by_domain: Vec::new(), levels: BTreeMap::new(), domains: 0, pods: 0 };
        let mut domain_of = vec![None; slots.len()];
        for node in slots.iter().filter(|node| node.node.is_some()) {
            if let Some(domain) = counts.domain_of_counted(column, node) {
                counts.change(domain, 0, 1);
                domain_of[node.slot] = Some(domain);
            }
        }
        let selected = counts.question.selected.clone();
        let only = match &selected {
            Selected::Spread { namespace, .. } => Some(namespace.as_str()),
            Selected::Near(_) => None,
        };
        index.visit(
            only,
            |namespace, labels| selected.matches(namespaces, namespace, labels),
            |slot, all, terminating| {
                let gone = if matches!(selected, Selected::Spread { .. }) { terminating } else { 0 };
                if let Some(domain) = domain_of[slot] {
                    counts.change(domain, i64::from(all - gone), 0);
                }
            },
        );
        counts
    }

    fn domain_of_counted(&self, column: &Column, node: &NodeInfo) -> Option<Domain> {
        self.question.domain(column, node.slot).filter(|_| self.question.rule.admits(node))
    }

    fn change(&mut self, domain: Domain, pods: i64, nodes: i64) {
        let at = domain as usize;
        if self.by_domain.len() <= at {
            self.by_domain.resize(at + 1, Count::default());
        }
        let before = self.by_domain[at];
        let add = |to: u32, change: i64| (i64::from(to) + change) as u32;
        let after = Count { pods: add(before.pods, pods), nodes: add(before.nodes, nodes) };
        self.by_domain[at] = after;
        self.pods = (self.pods as i64 + pods) as u64;
        if before.nodes > 0 && after.nodes > 0 && before.pods == after.pods {
            return;
        }
        if before.nodes > 0 {
            self.domains -= 1;
            if let Some(level) = self.levels.get_mut(&before.pods) {
                *level -= 1;
                if *level == 0 {
                    self.levels.remove(&before.pods);
                }
            }
        }
        if after.nodes > 0 {
            self.domains += 1;
            *self.levels.entry(after.pods).or_insert(0) += 1;
        }
    }

    /// Pods in a domain; `None` if no node that counts is in it.
    pub fn at(&self, domain: Domain) -> Option<i64> {
        let count = self.by_domain.get(domain as usize).filter(|count| count.nodes > 0)?;
        Some(i64::from(count.pods))
    }

    /// How many domains there are.
    pub fn domains(&self) -> usize {
        self.domains
    }

    /// Pods in all domains.
    pub fn pods(&self) -> u64 {
        self.pods
    }
}

/// An answer as one decision uses it, with pods that it supposes to come and go.
#[derive(Clone, Debug)]
pub struct Counted {
    counts: Arc<DomainCounts>,
    column: Arc<Column>,
    supposed: Vec<(Domain, i64)>,
}

impl Counted {
    /// The domain of a node; `None` if it lacks the label.
    pub fn domain(&self, node: &NodeInfo) -> Option<Domain> {
        self.counts.question.domain(&self.column, node.slot)
    }

    /// The answer as it is.
    pub fn counts(&self) -> &DomainCounts {
        &self.counts
    }

    /// What was asked.
    pub fn question(&self) -> &Question {
        &self.counts.question
    }

    /// Pods in a domain.
    pub fn pods(&self, domain: Domain) -> i64 {
        self.counts.at(domain).unwrap_or(0) + self.supposed_in(domain)
    }

    /// Pods in all domains.
    pub fn total(&self) -> i64 {
        self.counts.pods as i64 + self.supposed.iter().map(|(_, change)| change).sum::<i64>()
    }

    /// Pods in the emptiest domain; 0 if there is none.
    pub fn fewest(&self) -> i64 {
        if self.supposed.is_empty() {
            return self.counts.levels.keys().next().map_or(0, |pods| i64::from(*pods));
        }
        let there =
            || self.supposed.iter().filter_map(|(domain, change)| Some((self.counts.at(*domain)?, change)));
        let untouched = self.counts.levels.iter().find(|(pods, domains)| {
            there().filter(|(before, _)| *before == i64::from(**pods)).count() < **domains as usize
        });
        let touched = there().map(|(before, change)| before + change).min();
        let untouched = untouched.map(|(pods, _)| i64::from(*pods));
        touched.into_iter().chain(untouched).min().unwrap_or(0)
    }

    /// Supposes that more pods were in a domain, or fewer.
    pub fn suppose(&mut self, domain: Domain, change: i64) {
        match self.supposed.iter_mut().find(|(known, _)| *known == domain) {
            Some((_, sum)) => *sum += change,
            None => self.supposed.push((domain, change)),
        }
    }

    fn supposed_in(&self, domain: Domain) -> i64 {
        self.supposed.iter().find(|(known, _)| *known == domain).map_or(0, |(_, change)| *change)
    }
}

struct Answer {
    counts: Arc<DomainCounts>,
    asked: u64,
}

/// The answers to all questions that are remembered.
#[derive(Default)]
pub struct Answers {
    /// The domains they count by.
    pub topology: Topology,
    known: HashMap<String, Answer>,
    asked: u64,
}

/// What answers are made from.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Nodes by slot.
    pub slots: &'a [NodeInfo],
    /// Pods.
    pub index: &'a PodIndex,
    /// Namespaces.
    pub namespaces: &'a NamespaceLabels,
}

impl Answers {
    /// The answer to a question.
    pub fn ask(&mut self, question: Question, facts: Facts<'_>) -> Counted {
        self.asked += 1;
        let key = question.key();
        let column = match self.known.get_mut(&key) {
            Some(answer) => {
                answer.asked = self.asked;
                self.topology.column(&question.topology_key).cloned()
            }
            None => None,
        };
        let column = column.unwrap_or_else(|| {
            self.make_room();
            let column = Arc::clone(self.topology.hold(&question.topology_key, facts.slots));
            let Facts { slots, index, namespaces } = facts;
            let counts = Arc::new(DomainCounts::new(question, &column, slots, index, namespaces));
            self.known.insert(key.clone(), Answer { counts, asked: self.asked });
            column
        });
        Counted { counts: Arc::clone(&self.known[&key].counts), column, supposed: Vec::new() }
    }

    /// Counts a pod in (1) or out (-1) of the node it is on.
    pub fn count_pod(&mut self, pod: &PodInfo, node: &NodeInfo, change: i64, namespaces: &NamespaceLabels) {
        if node.node.is_none() {
            return;
        }
        for answer in self.known.values_mut() {
            if !answer.counts.question.selected.counts(namespaces, pod) {
                continue;
            }
            let Some(column) = self.topology.column(&answer.counts.question.topology_key) else { continue };
            if let Some(domain) = answer.counts.domain_of_counted(column, node) {
                Arc::make_mut(&mut answer.counts).change(domain, change, 0);
            }
        }
    }

    /// Counts a node with its pods in (1) or out (-1). Its labels and taints have to be those of its column and of the last time.
    pub fn count_node(&mut self, node: &NodeInfo, change: i64, namespaces: &NamespaceLabels) {
        if node.node.is_none() {
            return;
        }
        for answer in self.known.values_mut() {
            let question = &answer.counts.question;
            let Some(column) = self.topology.column(&question.topology_key) else { continue };
            if let Some(domain) = answer.counts.domain_of_counted(column, node) {
                let selected = |pod: &&Arc<PodInfo>| question.selected.counts(namespaces, pod);
                let pods = node.pods.iter().filter(selected).count() as i64;
                Arc::make_mut(&mut answer.counts).change(domain, pods * change, change);
            }
        }
    }

    /// Forgets the answers that depend on the labels of namespaces.
    pub fn forget_near(&mut self) {
        self.forget(|answer| matches!(answer.counts.question.selected, Selected::Near(_)));
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    fn make_room(&mut self) {
        if self.known.len() >= QUESTIONS_MAX {
            let oldest = self.known.values().map(|answer| answer.asked).min();
            self.forget(|answer| Some(answer.asked) == oldest);
        }
    }

    fn forget(&mut self, goes: impl Fn(&Answer) -> bool) {
        let topology = &mut self.topology;
        self.known.retain(|_, answer| {
            let goes = goes(answer);
            if goes {
                topology.release(&answer.counts.question.topology_key);
            }
            !goes
        });
    }
}

#[cfg(test)]
mod tests;
