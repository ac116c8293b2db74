//! Which affinity terms the pods on nodes have, each counted once however many pods share it, as those of a ReplicaSet do. Owns the
//! counts by node and by domain, so that "which pods mind this one" need not look at every pod.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::node_info::NodeInfo;
use crate::pod_affinity::AffinityTerm;
use crate::pod_info::PodInfo;
use crate::topology::{Domain, Topology};

/// A term with the nodes on which pods have it.
#[derive(Debug)]
pub struct Held {
    /// The term.
    pub term: Arc<AffinityTerm>,
    /// How many pods have it, by node slot.
    slots: HashMap<usize, i64>,
    /// The same by domain of its topology key, without nodes that are in none.
    domains: HashMap<Domain, i64>,
}

impl Held {
    /// Whether no node with the term's label has such a pod.
    pub fn is_nowhere(&self) -> bool {
        self.domains.is_empty()
    }

    /// How many pods in a domain have it.
    pub fn at(&self, domain: Domain) -> i64 {
        self.domains.get(&domain).copied().unwrap_or(0)
    }

    fn count(&mut self, domain: Option<Domain>, change: i64) {
        if let Some(domain) = domain {
            add(&mut self.domains, domain, change);
        }
    }
}

fn add<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, i64>, key: K, change: i64) {
    match counts.entry(key) {
        Entry::Occupied(mut there) => {
            *there.get_mut() += change;
            if *there.get() == 0 {
                there.remove();
            }
        }
        Entry::Vacant(place) => {
            place.insert(change);
        }
    }
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
    /// Counts a pod in (1) or out (-1), the same object in both cases.
    pub fn count_pod(
        &mut self,
        pod: &PodInfo,
        slot: usize,
        change: i64,
        topology: &mut Topology,
        slots: &[NodeInfo],
    ) {
        let Some(affinity) = &pod.affinity else { return };
        let mut count = |terms: &mut Terms, weight, term: &Arc<AffinityTerm>| {
            let key = (weight, Arc::clone(&term.key));
            let mut held = match terms.entry(key) {
                Entry::Occupied(held) => held,
                Entry::Vacant(place) => {
                    topology.hold(&term.topology_key, slots);
                    let held =
                        Held { term: Arc::clone(term), slots: HashMap::new(), domains: HashMap::new() };
                    place.insert_entry(held)
                }
            };
            add(&mut held.get_mut().slots, slot, change);
            held.get_mut().count(topology.at(&term.topology_key, slot), change);
            if held.get().slots.is_empty() {
                held.remove();
                topology.release(&term.topology_key);
            }
        };
        affinity.required.iter().for_each(|term| count(&mut self.required, 0, term));
        affinity.required_apart.iter().for_each(|term| count(&mut self.required_apart, 0, term));
        affinity.preferred.iter().for_each(|(weight, term)| count(&mut self.preferred, *weight, term));
    }

    /// Counts what is held on a node by domain in (1) or out (-1), as the node is labelled now.
    pub fn count_node(&mut self, slot: usize, change: i64, topology: &Topology) {
        let all = [&mut self.required, &mut self.required_apart, &mut self.preferred];
        for held in all.into_iter().flat_map(HashMap::values_mut) {
            if let Some(pods) = held.slots.get(&slot).copied() {
                held.count(topology.at(&held.term.topology_key, slot), pods * change);
            }
        }
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
}
