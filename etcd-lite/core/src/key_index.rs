//! All keys in order, each with its kept versions.
//!
//! Worked example: put(1), put(2), delete(3), put(5) of one key leaves the versions 1, 2, 3†, 5. A read at 2 finds 2, at 3
//! and 4 nothing, at 5 the key created anew. Compaction at 4 leaves 5 alone; compaction at 2 leaves 2, 3†, 5: the
//! newest version at or below the compacted revision stays, because a read at exactly that revision is still allowed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::key_range::KeyRange;
use crate::live_counts::{LiveCounts, SECTION_MAX};
use crate::mutant;
use crate::version::Version;

/// The versions of one key. There is at least one.
#[derive(Clone, Debug)]
pub(crate) struct KeyVersions {
    newest: Arc<Version>,
    /// Copy of `!newest.tombstone`, so that counting keys does not touch the versions.
    live: bool,
    /// Ascending by revision; empty for most keys most of the time.
    older: Vec<Arc<Version>>,
}

/// What compaction left of a key.
enum Pruned {
    /// The key is still there.
    Kept,
    /// No version is left; the key is to be removed.
    Gone,
}

impl KeyVersions {
    pub(crate) fn new(version: Arc<Version>) -> Self {
        Self { live: !version.tombstone, newest: version, older: Vec::new() }
    }

    pub(crate) fn newest(&self) -> &Arc<Version> {
        &self.newest
    }

    /// The newest version, unless the key is deleted.
    pub(crate) fn live(&self) -> Option<&Arc<Version>> {
        self.live.then_some(&self.newest)
    }

    /// The version a read at this revision finds.
    pub(crate) fn at(&self, revision: i64) -> Option<&Arc<Version>> {
        if self.newest.revision.main <= revision {
            return self.live();
        }
        self.older.iter().rev().find(|v| v.revision.main <= revision).filter(|v| !v.tombstone)
    }

    pub(crate) fn push(&mut self, version: Arc<Version>) {
        self.live = !version.tombstone;
        self.older.push(std::mem::replace(&mut self.newest, version));
    }

    /// All kept versions, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.older.iter().chain(std::iter::once(&self.newest))
    }

    /// How many of the versions, oldest first, no read at `compacted` or later and no watch from `compacted` on can need.
    fn unreachable_count(&self, compacted: i64) -> usize {
        let drops_deletion =
            mutant!(CompactionDropsDeletion) && self.newest.revision.main == compacted && !self.live;
        if self.newest.revision.main < compacted || drops_deletion {
            return self.older.len() + usize::from(!self.live);
        }
        // What was written at exactly `compacted` stays for watchers; else the version in force then stays for readers.
        let first_at = self.older.partition_point(|v| v.revision.main < compacted);
        let is_written_at = self.older.get(first_at).unwrap_or(&self.newest).revision.main == compacted;
        match first_at.checked_sub(1) {
            Some(base) if !is_written_at && !self.older[base].tombstone => base,
            _ => first_at,
        }
    }

    /// The versions that compaction at `compacted` leaves, whether it is done with this key or not.
    pub(crate) fn reachable(&self, compacted: i64) -> impl Iterator<Item = &Arc<Version>> {
        self.iter().skip(self.unreachable_count(compacted))
    }

    /// Drops what compaction makes unreachable; tells each dropped version.
    fn prune(&mut self, compacted: i64, mut dropped: impl FnMut(&Arc<Version>)) -> Pruned {
        let count = self.unreachable_count(compacted);
        let older_count = count.min(self.older.len());
        if older_count > 0 {
            self.older.drain(..older_count).for_each(|v| dropped(&v));
            self.older.shrink_to_fit();
        }
        if count > older_count {
            dropped(&self.newest);
            return Pruned::Gone;
        }
        Pruned::Kept
    }
}

/// The ordered index. Deleted keys stay in it until compaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyIndex {
    keys: BTreeMap<Box<[u8]>, KeyVersions>,
    live: LiveCounts,
}

impl KeyIndex {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyVersions> {
        self.keys.get(key)
    }

    /// Keys that are not deleted.
    pub(crate) fn live_count(&self) -> usize {
        self.live.total()
    }

    /// Every key's versions in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &KeyVersions> {
        self.keys.values()
    }

    /// Adds a version as its key's newest.
    pub(crate) fn insert(&mut self, version: Arc<Version>) {
        let written = Arc::clone(&version);
        let was_live = match self.keys.get_mut(written.key()) {
            Some(versions) => {
                let was_live = versions.live;
                versions.push(version);
                was_live
            }
            None => {
                self.keys.insert(written.key().into(), KeyVersions::new(version));
                false
            }
        };
        match (was_live, !written.tombstone) {
            (false, true) => self.count_in(written.key()),
            (true, false) => self.live.remove(written.key()),
            _ => {}
        }
    }

    fn count_in(&mut self, key: &[u8]) {
        const HALF: usize = SECTION_MAX / 2;
        let Some(full) = self.live.add(key) else { return };
        let from = (Bound::Included(&*full), Bound::Unbounded);
        let mut live = self.keys.range::<[u8], _>(from).filter(|(_, versions)| versions.live);
        if let Some((middle, _)) = live.nth(HALF) {
            self.live.split(&full, HALF, middle);
        }
    }

    /// How many keys of a range are not deleted.
    pub(crate) fn live_count_in(&self, range: &KeyRange) -> usize {
        if range.is_empty() {
            return 0;
        }
        let (start, end) = range.bounds();
        let one_by_one = |start, end| {
            self.keys.range::<[u8], _>((start, end)).filter(|(_, versions)| versions.live).count()
        };
        let mut sections = self.live.within((start, end));
        let Some((first, _)) = sections.clone().next() else { return one_by_one(start, end) };
        let last = sections.next_back().map_or(first, |(last, _)| last);
        one_by_one(start, Bound::Excluded(first))
            + sections.map(|(_, count)| count).sum::<usize>()
            + one_by_one(Bound::Included(last), end)
    }

    /// Keys in a range in order, deleted ones included.
    pub(crate) fn range<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = &'a KeyVersions> + use<'a> {
        let inside = (!range.is_empty()).then(|| self.keys.range::<[u8], _>(range.bounds()));
        inside.into_iter().flatten().map(|(_, versions)| versions)
    }

    /// Drops the versions of one key that compaction made unreachable.
    pub(crate) fn prune(&mut self, key: &[u8], compacted: i64, dropped: impl FnMut(&Arc<Version>)) {
        if let Some(versions) = self.keys.get_mut(key)
            && matches!(versions.prune(compacted, dropped), Pruned::Gone)
        {
            self.keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::version::{Life, Revision};

    fn version(main: i64, tombstone: bool) -> Arc<Version> {
        let revision = Revision { main, sub: 0 };
        Arc::new(if tombstone {
            Version::tombstone(revision, b"k")
        } else {
            Version::put(revision, b"k", b"", Life::default())
        })
    }

    fn example() -> KeyVersions {
        let mut versions = KeyVersions::new(version(1, false));
        for (main, tombstone) in [(2, false), (3, true), (5, false)] {
            versions.push(version(main, tombstone));
        }
        versions
    }

    fn left(versions: &KeyVersions) -> Vec<i64> {
        versions.iter().map(|v| v.revision.main).collect()
    }

    #[test]
    fn a_read_finds_the_newest_version_not_above_its_revision() {
        let found: Vec<Option<i64>> = (0..=6).map(|r| example().at(r).map(|v| v.revision.main)).collect();
        assert_eq!(found, [None, Some(1), Some(2), None, None, Some(5), Some(5)]);
    }

    #[test]
    fn compaction_keeps_what_a_read_at_the_compacted_revision_needs() {
        for (compacted, expected) in [
            (1, vec![1, 2, 3, 5]),
            (2, vec![2, 3, 5]),
            (3, vec![3, 5]),
            (4, vec![5]),
            (5, vec![5]),
            (9, vec![5]),
        ] {
            let mut versions = example();
            versions.prune(compacted, |_| {});
            assert_eq!(left(&versions), expected, "compacted at {compacted}");
        }
    }

    proptest! {
        #[test]
        fn counting_a_range_is_counting_its_live_keys(
            writes in prop::collection::vec((0..2000_u16, prop::bool::weighted(0.3)), 0..3000),
            ranges in prop::collection::vec((0..2100_u16, 0..2100_u16), 20),
        ) {
            let name = |number: u16| Bytes::copy_from_slice(&number.to_be_bytes());
            let mut index = KeyIndex::default();
            for (revision, (number, tombstone)) in (2..).zip(writes) {
                let revision = Revision { main: revision, sub: 0 };
                let key = name(number);
                index.insert(Arc::new(if tombstone {
                    Version::tombstone(revision, &key)
                } else {
                    Version::put(revision, &key, b"", Life::default())
                }));
            }
            let ends = ranges.into_iter().map(|(start, end)| (name(start), name(end)));
            let to_the_end = (name(300), Bytes::from_static(&[0]));
            let single = (name(301), Bytes::new());
            for (start, end) in ends.chain([to_the_end, single]) {
                let range = KeyRange::new(&start, &end);
                let expected = index.range(&range).filter(|versions| versions.live).count();
                prop_assert_eq!(index.live_count_in(&range), expected);
            }
        }
    }

    #[test]
    fn a_deleted_key_goes_with_the_compaction_after_its_deletion() {
        let mut index = KeyIndex::default();
        index.insert(version(2, false));
        index.insert(version(3, true));
        assert_eq!(index.live_count(), 0);
        index.prune(b"k", 3, |_| {});
        assert_eq!(index.get(b"k").map(left), Some(vec![3]));
        let mut dropped = Vec::new();
        index.prune(b"k", 4, |v| dropped.push(v.revision.main));
        assert!(index.get(b"k").is_none());
        assert_eq!(dropped, [3]);
    }
}
