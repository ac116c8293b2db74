//! Which watchers want to hear of a key.
//!
//! Watchers of the same range form a group, so that the work per event is done once a group. Single keys and prefixes, which are
//! nearly all there are, are found by hashing; other ranges by a sorted list with the furthest end so far.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::key_range::{KeyRange, RangeEnd};

/// Names a group until its last watcher leaves.
pub type GroupId = usize;

/// Watchers by the range they watch. `W` names a watcher.
#[derive(Debug)]
pub struct WatchIndex<W> {
    groups: Vec<Option<BTreeSet<W>>>,
    free: Vec<GroupId>,
    single: HashMap<Bytes, GroupId>,
    prefix: HashMap<Bytes, GroupId>,
    /// How many watched prefixes have each length.
    prefix_lengths: BTreeMap<usize, usize>,
    other: OtherRanges,
}

/// Ranges that are neither a key nor a prefix, ordered by start.
#[derive(Debug, Default)]
struct OtherRanges {
    ranges: Vec<(KeyRange, GroupId)>,
    /// For each position, whether any range up to it reaches beyond a key: the furthest end so far, `None` when unbounded.
    furthest_end: Vec<Option<Bytes>>,
}

impl<W> Default for WatchIndex<W> {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            free: Vec::new(),
            single: HashMap::new(),
            prefix: HashMap::new(),
            prefix_lengths: BTreeMap::new(),
            other: OtherRanges::default(),
        }
    }
}

impl<W: Ord> WatchIndex<W> {
    /// Adds a watcher of a range.
    pub fn insert(&mut self, range: &KeyRange, watcher: W) {
        let group = self.find(range).unwrap_or_else(|| self.add_group(range));
        if let Some(Some(watchers)) = self.groups.get_mut(group) {
            watchers.insert(watcher);
        }
    }

    /// Removes a watcher that was added with this range. Whether it was there.
    pub fn remove(&mut self, range: &KeyRange, watcher: &W) -> bool {
        let Some(group) = self.find(range) else { return false };
        let Some(Some(watchers)) = self.groups.get_mut(group) else { return false };
        let was_there = watchers.remove(watcher);
        if watchers.is_empty() {
            self.remove_group(range, group);
        }
        was_there
    }

    /// Calls `visit` with each group that wants to hear of a key.
    pub fn groups_of(&self, key: &[u8], mut visit: impl FnMut(GroupId)) {
        if let Some(group) = self.single.get(key) {
            visit(*group);
        }
        for length in self.prefix_lengths.range(..=key.len()).map(|(length, _)| *length) {
            if let Some(group) = self.prefix.get(&key[..length]) {
                visit(*group);
            }
        }
        self.other.groups_of(key, visit);
    }

    /// The watchers of a group.
    pub fn watchers(&self, group: GroupId) -> impl Iterator<Item = &W> {
        self.groups.get(group).into_iter().flatten().flatten()
    }

    /// Removes all watchers.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn find(&self, range: &KeyRange) -> Option<GroupId> {
        match (range.as_prefix(), &range.end) {
            (Some(prefix), _) => self.prefix.get(prefix).copied(),
            (None, RangeEnd::Single) => self.single.get(&range.start).copied(),
            (None, _) => self.other.find(range),
        }
    }

    fn add_group(&mut self, range: &KeyRange) -> GroupId {
        let group = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.groups[group] = Some(BTreeSet::new());
        match (range.as_prefix(), &range.end) {
            (Some(prefix), _) => {
                *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
                self.prefix.insert(Bytes::copy_from_slice(prefix), group);
            }
            (None, RangeEnd::Single) => {
                self.single.insert(range.start.clone(), group);
            }
            (None, _) => self.other.insert(range.clone(), group),
        }
        group
    }

    fn remove_group(&mut self, range: &KeyRange, group: GroupId) {
        self.groups[group] = None;
        self.free.push(group);
        match (range.as_prefix(), &range.end) {
            (Some(prefix), _) => {
                self.prefix.remove(prefix);
                if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
                    *count -= 1;
                    if *count == 0 {
                        self.prefix_lengths.remove(&prefix.len());
                    }
                }
            }
            (None, RangeEnd::Single) => {
                self.single.remove(&range.start);
            }
            (None, _) => self.other.remove(range),
        }
    }
}

impl OtherRanges {
    fn find(&self, range: &KeyRange) -> Option<GroupId> {
        let first = self.ranges.partition_point(|(r, _)| r.start < range.start);
        self.ranges[first..]
            .iter()
            .take_while(|(r, _)| r.start == range.start)
            .find(|(r, _)| r == range)
            .map(|(_, g)| *g)
    }

    fn insert(&mut self, range: KeyRange, group: GroupId) {
        let position = self.ranges.partition_point(|(r, _)| r.start <= range.start);
        self.ranges.insert(position, (range, group));
        self.measure();
    }

    fn remove(&mut self, range: &KeyRange) {
        self.ranges.retain(|(r, _)| r != range);
        self.measure();
    }

    fn measure(&mut self) {
        let mut furthest: Option<Bytes> = Some(Bytes::new());
        self.furthest_end = self
            .ranges
            .iter()
            .map(|(range, _)| {
                furthest = match (furthest.take(), &range.end) {
                    (Some(furthest), RangeEnd::Before(end)) => Some(furthest.max(end.clone())),
                    _ => None,
                };
                furthest.clone()
            })
            .collect();
    }

    fn groups_of(&self, key: &[u8], mut visit: impl FnMut(GroupId)) {
        let end = self.ranges.partition_point(|(range, _)| range.start.as_ref() <= key);
        for position in (0..end).rev() {
            // Nothing at or before this position reaches beyond the key.
            if self.furthest_end[position].as_ref().is_some_and(|furthest| furthest.as_ref() <= key) {
                break;
            }
            let (range, group) = &self.ranges[position];
            if range.contains(key) {
                visit(*group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn watchers_of(index: &WatchIndex<usize>, key: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        index.groups_of(key, |group| found.extend(index.watchers(group).copied()));
        found.sort_unstable();
        found
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0_u8, b'a', b'b', 0xff]), 0..4)
    }

    proptest! {
        #[test]
        fn finds_exactly_the_watchers_whose_range_contains_the_key(
            ranges in prop::collection::vec((key(), key()), 0..20),
            removed in prop::collection::vec(any::<bool>(), 20),
            keys in prop::collection::vec(key(), 1..10),
        ) {
            let ranges: Vec<KeyRange> = ranges.into_iter().map(|(start, end)| KeyRange::new(&start.into(), &end.into())).collect();
            let mut index = WatchIndex::default();
            for (watcher, range) in ranges.iter().enumerate() {
                index.insert(range, watcher);
            }
            for (watcher, range) in ranges.iter().enumerate().filter(|(w, _)| removed[*w]) {
                prop_assert!(index.remove(range, &watcher));
                prop_assert!(!index.remove(range, &watcher));
            }
            for key in keys.iter().filter(|k| !k.is_empty()) {
                let expected: Vec<usize> = ranges.iter().enumerate()
                    .filter(|(watcher, range)| !removed[*watcher] && range.contains(key))
                    .map(|(watcher, _)| watcher)
                    .collect();
                prop_assert_eq!(watchers_of(&index, key), expected);
            }
        }
    }
}
