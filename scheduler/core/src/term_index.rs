//! Which affinity terms the pods on nodes have, each counted once however many pods share it, as those of a ReplicaSet do. Owns the
//! counts by node, so that "which pods mind this one" need not look at every pod.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod_affinity::AffinityTerm;
use crate::pod_info::PodInfo;

/// A term with the nodes on which pods have it.
#[derive(Debug)]
pub struct Held {
    /// The term.
    pub term: Arc<AffinityTerm>,
    /// How many pods have it, by node slot.
    pub slots: HashMap<usize, i64>,
}

type Terms = HashMap<(i64, Arc<str>), Held>;

/// Terms of one kind by weight; 0 where there are no weights.
#[derive(Debug, Default)]
pub struct TermIndex {
    required: Terms,
    required_apart: Terms,
    preferred: Terms,
}

impl TermIndex {
    /// Counts a pod in.
    pub fn add(&mut self, pod: &PodInfo, slot: usize) {
        self.count(pod, slot, 1);
    }

    /// Counts a pod out; it must be the same object that was counted in.
    pub fn remove(&mut self, pod: &PodInfo, slot: usize) {
        self.count(pod, slot, -1);
    }

    /// Terms of required affinity.
    pub fn required(&self) -> impl Iterator<Item = &Held> {
        self.required.values()
    }

    /// Terms of required anti-affinity.
    pub fn required_apart(&self) -> impl Iterator<Item = &Held> {
        self.required_apart.values()
    }

    /// Terms of preferred affinity and, with weights below 0, anti-affinity.
    pub fn preferred(&self) -> impl Iterator<Item = (i64, &Held)> {
        self.preferred.iter().map(|((weight, _), held)| (*weight, held))
    }

    fn count(&mut self, pod: &PodInfo, slot: usize, change: i64) {
        let Some(affinity) = &pod.affinity else { return };
        for term in &affinity.required {
            count(&mut self.required, 0, term, slot, change);
        }
        for term in &affinity.required_apart {
            count(&mut self.required_apart, 0, term, slot, change);
        }
        for (weight, term) in &affinity.preferred {
            count(&mut self.preferred, *weight, term, slot, change);
        }
    }
}

fn count(terms: &mut Terms, weight: i64, term: &Arc<AffinityTerm>, slot: usize, change: i64) {
    let key = (weight, Arc::clone(&term.key));
    let held =
        terms.entry(key.clone()).or_insert_with(|| Held { term: Arc::clone(term), slots: HashMap::new() });
    let pods = held.slots.entry(slot).or_insert(0);
    *pods += change;
    if *pods == 0 {
        held.slots.remove(&slot);
    }
    if held.slots.is_empty() {
        terms.remove(&key);
    }
}
