//! Counts pods by namespace, label set and node, so that "how many pods that this selector matches run where" need not look at
//! every pod: pods of one ReplicaSet share one label set. As upstream, terminating pods count for affinity and not for spreading.

use std::collections::HashMap;

use crate::label_selector::{Labels, Selector};
use crate::pod_info::PodInfo;

#[derive(Debug, Default)]
struct Count {
    all: u32,
    terminating: u32,
}

/// Pods per label set and node slot.
#[derive(Debug, Default)]
pub struct PodIndex {
    namespaces: HashMap<String, HashMap<Labels, HashMap<usize, Count>>>,
}

impl PodIndex {
    /// Counts a pod in.
    pub fn add(&mut self, pod: &PodInfo, slot: usize) {
        let sets = match self.namespaces.get_mut(pod.namespace()) {
            Some(sets) => sets,
            None => self.namespaces.entry(pod.namespace().to_owned()).or_default(),
        };
        let nodes = match sets.get_mut(pod.labels()) {
            Some(nodes) => nodes,
            None => sets.entry(pod.labels().clone()).or_default(),
        };
        let count = nodes.entry(slot).or_default();
        count.all += 1;
        count.terminating += u32::from(pod.is_terminating());
    }

    /// Counts a pod out; it must be the same object that was counted in.
    pub fn remove(&mut self, pod: &PodInfo, slot: usize) {
        let Some(sets) = self.namespaces.get_mut(pod.namespace()) else { return };
        let Some(nodes) = sets.get_mut(pod.labels()) else { return };
        if let Some(count) = nodes.get_mut(&slot) {
            count.all -= 1;
            count.terminating -= u32::from(pod.is_terminating());
            if count.all == 0 {
                nodes.remove(&slot);
            }
        }
        if nodes.is_empty() {
            sets.remove(pod.labels());
        }
        if sets.is_empty() {
            self.namespaces.remove(pod.namespace());
        }
    }

    /// Visits the node slots of all pods of the selected namespaces and label sets, with how many there are, terminating ones
    /// included.
    pub fn visit(&self, select: impl Fn(&str, &Labels) -> bool, mut visit: impl FnMut(usize, i64)) {
        for (namespace, sets) in &self.namespaces {
            for (_, nodes) in sets.iter().filter(|(labels, _)| select(namespace, labels)) {
                nodes.iter().for_each(|(slot, count)| visit(*slot, i64::from(count.all)));
            }
        }
    }

    /// How many pods of a namespace that the selector matches run in each node slot; as long as `slots`. Without terminating
    /// ones.
    pub fn count_by_slot(&self, namespace: &str, selector: &Selector, slots: usize) -> Vec<u32> {
        let mut counts = vec![0; slots];
        for (labels, nodes) in self.namespaces.get(namespace).into_iter().flatten() {
            if selector.matches(labels) {
                for (slot, count) in nodes {
                    counts[*slot] += count.all - count.terminating;
                }
            }
        }
        counts
    }
}
