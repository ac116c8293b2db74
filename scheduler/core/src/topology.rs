//! Which nodes share a value of a label that constraints and affinity terms name: the domains of a topology key, as small numbers, so that
//! counting and comparing them touches no text. Owns these numbers; what is counted by them is [`crate::domain_counts`]'s and
//! [`crate::term_index`]'s.

use std::collections::HashMap;
use std::sync::Arc;

use crate::node_info::NodeInfo;

/// The number of a domain; given anew once no node is in it.
pub type Domain = u32;

const NONE: Domain = Domain::MAX;

/// The domains of one topology key.
#[derive(Clone, Debug, Default)]
pub struct Column {
    by_slot: Vec<Domain>,
    numbers: HashMap<String, Domain>,
    /// Of each domain: its value and how many nodes are in it.
    nodes: Vec<(String, usize)>,
    free: Vec<Domain>,
}

impl Column {
    /// The domains of these nodes.
    pub fn of<'n>(key: &str, nodes: impl Iterator<Item = &'n NodeInfo>) -> Self {
        let mut column = Self::default();
        nodes.for_each(|node| column.set(node.slot, node.labels().get(key).map(String::as_str)));
        column
    }

    /// The domain of the node in a slot; `None` if it lacks the label.
    pub fn at(&self, slot: usize) -> Option<Domain> {
        self.by_slot.get(slot).copied().filter(|domain| *domain != NONE)
    }

    /// Every domain is below.
    pub fn width(&self) -> usize {
        self.nodes.len()
    }

    fn set(&mut self, slot: usize, value: Option<&str>) {
        if let Some(old) = self.at(slot) {
            let (old_value, nodes) = &mut self.nodes[old as usize];
            if Some(old_value.as_str()) == value {
                return;
            }
            *nodes -= 1;
            if *nodes == 0 {
                self.numbers.remove(&std::mem::take(old_value));
                self.free.push(old);
            }
            self.by_slot[slot] = NONE;
        }
        let Some(value) = value else { return };
        let domain = self.numbers.get(value).copied().unwrap_or_else(|| {
            let domain = self.free.pop().unwrap_or_else(|| {
                self.nodes.push((String::new(), 0));
                (self.nodes.len() - 1) as Domain
            });
            self.numbers.insert(value.to_owned(), domain);
            self.nodes[domain as usize].0 = value.to_owned();
            domain
        });
        self.nodes[domain as usize].1 += 1;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, NONE);
        }
        self.by_slot[slot] = domain;
    }
}

#[derive(Debug, Default)]
struct Held {
    column: Arc<Column>,
    holders: usize,
}

/// The columns of the keys that something counts by.
#[derive(Debug, Default)]
pub struct Topology {
    keys: HashMap<String, Held>,
}

impl Topology {
    /// The column of a key, if something counts by it.
    pub fn column(&self, key: &str) -> Option<&Arc<Column>> {
        self.keys.get(key).map(|held| &held.column)
    }

    /// The domain of a slot under a key that something counts by.
    pub fn at(&self, key: &str, slot: usize) -> Option<Domain> {
        self.keys.get(key)?.column.at(slot)
    }

    /// Keeps the column of a key up to date until [`Topology::release`].
    pub fn hold(&mut self, key: &str, slots: &[NodeInfo]) -> &Arc<Column> {
        let held = self
            .keys
            .entry(key.to_owned())
            .or_insert_with(|| Held { column: Arc::new(Column::of(key, slots.iter())), holders: 0 });
        held.holders += 1;
        &held.column
    }

    /// What held a key is gone.
    pub fn release(&mut self, key: &str) {
        if let Some(held) = self.keys.get_mut(key) {
            held.holders -= 1;
            if held.holders == 0 {
                self.keys.remove(key);
            }
        }
    }

    /// Takes over what the node in a slot is labelled now.
    pub fn set_node(&mut self, node: &NodeInfo) {
        for (key, held) in &mut self.keys {
            let value = node.labels().get(key).map(String::as_str);
            if held.column.at(node.slot).is_some() || value.is_some() {
                Arc::make_mut(&mut held.column).set(node.slot, value);
            }
        }
    }
}
