//! Counts pods by namespace, label set and node, so that "how many pods that this selector matches run where" need not look at
//! every pod: pods of one ReplicaSet share one label set. As upstream, terminating pods count for affinity and not for spreading.

use std::collections::HashMap;

use crate::label_selector::Labels;
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

    /// Visits the node slots of all pods of the selected label sets, of one namespace or of all, with how many there are and how many of
    /// these are terminating.
    pub fn visit(
        &self,
        only: Option<&str>,
        select: impl Fn(&str, &Labels) -> bool,
        mut visit: impl FnMut(usize, u32, u32),
    ) {
        let one = only.map(|name| self.namespaces.get_key_value(name));
        let all = self.namespaces.iter().filter(|_| only.is_none());
        for (namespace, sets) in one.flatten().into_iter().chain(all) {
            for (_, nodes) in sets.iter().filter(|(labels, _)| select(namespace, labels)) {
                nodes.iter().for_each(|(slot, count)| visit(*slot, count.all, count.terminating));
            }
        }
    }
}
