//! The picture of the cluster that decisions are made from: nodes, what is placed on them, and how Services and owners select
//! pods. Owns that picture and changes it in place, one small step a change. A pod is placed as soon as its node is decided
//! (assumed), before the API confirms it. What decisions ask for is remembered and kept up to date; that is not seen from outside.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::disruption_budgets::DisruptionBudgets;
use crate::domain_counts::{Answers, Counted, Facts, NamespaceLabels, Question, labels_of};
use crate::label_selector::Labels;
use crate::node_info::NodeInfo;
use crate::nominations::Nominations;
use crate::pod_index::PodIndex;
use crate::pod_info::PodInfo;
use crate::spread_defaults::OwnerSelectors;
use crate::term_index::TermIndex;
use crate::topology::Column;
use crate::volumes::Volumes;

struct Placed {
    info: Arc<PodInfo>,
    slot: usize,
}

/// Where an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageState {
    /// Size in bytes as last reported.
    pub size_bytes: i64,
    /// How many nodes have it.
    pub nodes: usize,
}

/// All nodes and all pods that take up room on them.
#[derive(Default)]
pub struct Snapshot {
    slots: Vec<NodeInfo>,
    free: Vec<usize>,
    by_name: HashMap<Arc<str>, usize>,
    /// Slots of existing nodes, taken from the zones in turn; worked out when it is first asked for after a change.
    order: OnceCell<Vec<usize>>,
    node_count: usize,
    pods: HashMap<Arc<str>, Placed>,
    index: PodIndex,
    terms: TermIndex,
    answers: RefCell<Answers>,
    namespaces: NamespaceLabels,
    images: HashMap<String, ImageState>,
    /// How Services and owners select pods, for spreading pods that say nothing themselves.
    pub selectors: OwnerSelectors,
    /// Pods that wait for room to be made for them on a node.
    pub nominations: Nominations,
    /// Claims and volumes.
    pub volumes: Volumes,
    /// How many pods may be disrupted.
    pub budgets: DisruptionBudgets,
}

impl Snapshot {
    /// The nodes in the order in which they are to be tried.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeInfo> {
        self.order().iter().map(|slot| &self.slots[*slot])
    }

    /// The node at a position of that order.
    pub fn node_at(&self, position: usize) -> &NodeInfo {
        &self.slots[self.order()[position]]
    }

    /// How many nodes exist.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// The node of this name, if it exists.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|slot| &self.slots[*slot]).filter(|info| info.node.is_some())
    }

    /// Affinity terms of the pods on nodes.
    pub fn terms(&self) -> &TermIndex {
        &self.terms
    }

    /// How many pods run in each domain. Asked for the first time it costs a look at all nodes, later it is known.
    pub fn count(&self, question: Question) -> Counted {
        let facts = Facts { slots: &self.slots, index: &self.index, namespaces: &self.namespaces };
        self.answers.borrow_mut().ask(question, facts)
    }

    /// The domains of a node label. Known for what [`Snapshot::count`] and [`Snapshot::terms`] count by, else worked out.
    pub fn column(&self, key: &str) -> Arc<Column> {
        let known = self.answers.borrow().topology.column(key).cloned();
        known.unwrap_or_else(|| Arc::new(Column::of(key, self.slots.iter())))
    }

    /// How many answers are kept up to date.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.answers.borrow().len()
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> &Labels {
        labels_of(&self.namespaces, name)
    }

    /// Takes over a namespace's labels.
    pub fn set_namespace(&mut self, name: &str, labels: Labels) {
        if *self.namespace_labels(name) != labels {
            self.answers.get_mut().forget_near();
        }
        self.namespaces.insert(name.to_owned(), labels);
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some_and(|labels| !labels.is_empty()) {
            self.answers.get_mut().forget_near();
        }
    }

    /// How many pods are placed.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// The node on which a pod is placed.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.pods.get(uid).map(|placed| &self.slots[placed.slot].name)
    }

    /// Where an image is, by the name a node reports.
    pub fn image(&self, name: &str) -> Option<ImageState> {
        self.images.get(name).copied()
    }

    /// Adds a node or takes over its new version.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let slot = self.slot_of(name);
        let old = self.slots[slot].node.clone();
        if old.as_deref().map(image_names) != Some(image_names(&node)) {
            self.count_images(old.as_deref(), Some(&node));
        }
        if old.as_deref().is_some_and(|old| same_to_counts(old, &node)) {
            // A heartbeat, most often.
            return self.slots[slot].set_node(node);
        }
        self.node_count += usize::from(old.is_none());
        self.count_node(slot, -1);
        self.slots[slot].set_node(node);
        self.count_node(slot, 1);
        self.order.take();
    }

    /// Removes a node. Pods placed on it stay until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        self.count_node(slot, -1);
        let Some(old) = self.slots[slot].node.take() else { return };
        self.count_node(slot, 1);
        self.count_images(Some(&old), None);
        self.node_count -= 1;
        self.order.take();
        self.free_if_unused(slot);
    }

    /// Places a pod on a node, or takes over a new version of a pod, also if its node differs from the one assumed.
    pub fn place(&mut self, info: Arc<PodInfo>, node_name: &str) {
        self.remove_pod(&info.uid.clone());
        self.nominations.remove(&info.uid);
        let slot = self.slot_of(node_name);
        self.slots[slot].add_pod(Arc::clone(&info));
        self.index.add(&info, slot);
        self.count_pod(&info, slot, 1);
        self.volumes.add_user(&info);
        self.pods.insert(Arc::clone(&info.uid), Placed { info, slot });
    }

    /// Takes a pod away: it ended, was deleted, or could not be bound. True if it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else { return false };
        self.slots[placed.slot].remove_pod(uid);
        self.index.remove(&placed.info, placed.slot);
        self.count_pod(&placed.info, placed.slot, -1);
        self.volumes.remove_user(&placed.info);
        self.free_if_unused(placed.slot);
        true
    }

    fn count_pod(&mut self, pod: &PodInfo, slot: usize, change: i64) {
        let answers = self.answers.get_mut();
        self.terms.count_pod(pod, slot, change, &mut answers.topology, &self.slots);
        answers.count_pod(pod, &self.slots[slot], change, &self.namespaces);
    }

    /// Counts a node with its pods in (1) or out (-1) wherever its labels and taints matter.
    fn count_node(&mut self, slot: usize, change: i64) {
        let answers = self.answers.get_mut();
        if change > 0 {
            answers.topology.set_node(&self.slots[slot]);
        }
        self.terms.count_node(slot, change, &answers.topology);
        answers.count_node(&self.slots[slot], change, &self.namespaces);
    }

    fn slot_of(&mut self, name: &str) -> usize {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(NodeInfo::default());
            self.slots.len() - 1
        });
        let name: Arc<str> = Arc::from(name);
        self.slots[slot] = NodeInfo { slot, name: Arc::clone(&name), ..NodeInfo::default() };
        self.by_name.insert(name, slot);
        slot
    }

    fn free_if_unused(&mut self, slot: usize) {
        let info = &self.slots[slot];
        if info.node.is_none() && info.pods.is_empty() {
            self.by_name.remove(&info.name);
            self.slots[slot] = NodeInfo { slot, ..NodeInfo::default() };
            self.free.push(slot);
        }
    }

    /// The nodes zone by zone in turn, so that a search that stops early still sees all zones.
    fn order(&self) -> &[usize] {
        self.order.get_or_init(|| {
            let mut zones: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
            for info in self.slots.iter().filter(|info| info.node.is_some()) {
                zones.entry(info.zone()).or_default().push(info.slot);
            }
            let longest = zones.values().map(Vec::len).max().unwrap_or(0);
            let mut order = Vec::with_capacity(self.node_count);
            for at in 0..longest {
                order.extend(zones.values().filter_map(|slots| slots.get(at)));
            }
            order
        })
    }

    fn count_images(&mut self, old: Option<&Node>, new: Option<&Node>) {
        for (name, _) in old.map(image_names).unwrap_or_default() {
            if let Some(state) = self.images.get_mut(name) {
                state.nodes -= 1;
                if state.nodes == 0 {
                    self.images.remove(name);
                }
            }
        }
        for (name, size_bytes) in new.map(image_names).unwrap_or_default() {
            let state = self.images.entry(name.to_owned()).or_default();
            state.nodes += 1;
            state.size_bytes = size_bytes;
        }
    }
}

/// Whether both versions of a node are in the same domains, for the same pods.
fn same_to_counts(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    old.metadata.labels == new.metadata.labels && taints(old) == taints(new)
}

fn image_names(node: &Node) -> HashSet<(&str, i64)> {
    let images = node.status.as_ref().and_then(|status| status.images.as_ref());
    images
        .into_iter()
        .flatten()
        .flat_map(|image| {
            image.names.iter().flatten().map(|name| (name.as_str(), image.size_bytes.unwrap_or(0)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn placing_twice_counts_once_and_removing_gives_everything_back() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("a", "4", "zone-a"));
        snapshot.set_node(node("b", "4", "zone-b"));
        let info = Arc::new(PodInfo::new(pod("web", "500m")));
        snapshot.place(Arc::clone(&info), "a");
        snapshot.place(Arc::clone(&info), "b");
        assert_eq!(snapshot.node("a").expect("a").requested.milli_cpu, 0);
        assert_eq!(snapshot.node("b").expect("b").requested.milli_cpu, 500);
        assert!(snapshot.remove_pod(&info.uid));
        assert_eq!(snapshot.node("b").expect("b").requested, Default::default());
        assert!(!snapshot.remove_pod(&info.uid));
    }

    #[test]
    fn a_pod_may_arrive_before_its_node_and_outlive_it() {
        let mut snapshot = Snapshot::default();
        let info = Arc::new(PodInfo::new(pod("web", "500m")));
        snapshot.place(Arc::clone(&info), "late");
        assert_eq!(snapshot.node_count(), 0);
        snapshot.set_node(node("late", "4", "z"));
        assert_eq!(snapshot.node("late").expect("late").requested.milli_cpu, 500);
        snapshot.remove_node("late");
        assert!(snapshot.node("late").is_none());
        assert!(snapshot.remove_pod(&info.uid));
        snapshot.set_node(node("other", "4", "z"));
        assert_eq!(snapshot.slots.len(), 1, "the slot is used again");
    }

    #[test]
    fn nodes_are_taken_from_the_zones_in_turn() {
        let mut snapshot = Snapshot::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")] {
            snapshot.set_node(node(name, "1", zone));
        }
        let names: Vec<_> = snapshot.nodes().map(|info| info.name.to_string()).collect();
        assert_eq!(names, ["a1", "b1", "c1", "a2", "a3"]);
    }
}
