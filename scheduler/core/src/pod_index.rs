//! Counts pods by namespace, label set and node, so that "how many pods that this selector matches run where" need not look at
//! every pod: pods of one ReplicaSet share one label set. Terminating pods are not counted, as upstream.

use std::collections::HashMap;

use crate::label_selector::{Labels, Selector};
use crate::pod_info::PodInfo;

/// Pods per label set and node slot.
#[derive(Debug, Default)]
pub struct PodIndex {
    namespaces: HashMap<String, HashMap<Labels, HashMap<usize, u32>>>,
}

impl PodIndex {
    /// Counts a pod in.
    pub fn add(&mut self, pod: &PodInfo, slot: usize) {
        if pod.is_terminating() {
            return;
        }
        let sets = match self.namespaces.get_mut(pod.namespace()) {
            Some(sets) => sets,
            None => self.namespaces.entry(pod.namespace().to_owned()).or_default(),
        };
        let nodes = match sets.get_mut(pod.labels()) {
            Some(nodes) => nodes,
            None => sets.entry(pod.labels().clone()).or_default(),
        };
        *nodes.entry(slot).or_insert(0) += 1;
    }

    /// Counts a pod out; it must be the same object that was counted in.
    pub fn remove(&mut self, pod: &PodInfo, slot: usize) {
        if pod.is_terminating() {
            return;
        }
        let Some(sets) = self.namespaces.get_mut(pod.namespace()) else { return };
        let Some(nodes) = sets.get_mut(pod.labels()) else { return };
        if let Some(count) = nodes.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
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

    /// How many pods of a namespace that the selector matches run in each node slot; as long as `slots`.
    pub fn count_by_slot(&self, namespace: &str, selector: &Selector, slots: usize) -> Vec<u32> {
        let mut counts = vec![0; slots];
        for (labels, nodes) in self.namespaces.get(namespace).into_iter().flatten() {
            if selector.matches(labels) {
                for (slot, count) in nodes {
                    counts[*slot] += count;
                }
            }
        }
        counts
    }
}
