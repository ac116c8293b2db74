//! Going through all keys in steps, so that the store's lock is never held for long; and a copy of the whole state taken that way.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;
use crate::hash::HashScope;
use crate::key_range::KeyRange;
use crate::records::Record;
use crate::store::Store;
use crate::version::Version;

/// Keys looked at in one step: a fraction of a millisecond.
pub const KEYS_AT_ONCE: usize = 2048;

/// How far a walk over all keys has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Walk {
    /// Nothing was looked at yet.
    #[default]
    Start,
    /// Everything up to and including this key was looked at.
    After(Bytes),
    /// Everything was looked at.
    Done,
}

impl Store {
    /// Looks at the next keys of a walk, each with its versions that compaction leaves, oldest first.
    pub(crate) fn walk_versions<'a>(
        &'a self,
        walk: &mut Walk,
        mut each: impl FnMut(&mut dyn Iterator<Item = &'a Arc<Version>>),
    ) {
        let start = match walk {
            Walk::Start => Bytes::from_static(&[0]),
            Walk::After(key) => [key.as_ref(), &[0]].concat().into(),
            Walk::Done => return,
        };
        let to_the_end = KeyRange::new(&start, &Bytes::from_static(&[0]));
        let (mut count, mut last) = (0, None);
        for versions in self.index.range(&to_the_end).take(KEYS_AT_ONCE) {
            each(&mut versions.reachable(self.compacted_revision()));
            (count, last) = (count + 1, Some(versions.newest()));
        }
        *walk = match last {
            Some(last) if count == KEYS_AT_ONCE => Walk::After(Bytes::copy_from_slice(last.key())),
            _ => Walk::Done,
        };
    }
}

/// The state as it was at one log index: shared handles, cheap to keep.
#[derive(Debug)]
pub struct StateCopy {
    scope: HashScope,
    records: Vec<Record>,
    versions: Vec<Arc<Version>>,
}

impl StateCopy {
    /// Begins a copy of the state as it is now. What is small is copied at once.
    pub fn begin(store: &Store) -> Self {
        let scope = HashScope { revision: store.revision(), compacted_revision: store.compacted_revision() };
        Self { scope, records: store.records_but_versions().collect(), versions: Vec::new() }
    }

    /// Takes in the next [`KEYS_AT_ONCE`] keys. What is written in between does not get into the copy.
    ///
    /// # Errors
    /// `Compacted` when the store was compacted since the copy was begun: begin again.
    pub fn add(&mut self, store: &Store, walk: &mut Walk) -> Result<(), StoreError> {
        if store.compacted_revision() != self.scope.compacted_revision {
            return Err(StoreError::Compacted);
        }
        let revision = self.scope.revision;
        store.walk_versions(walk, |versions| {
            self.versions.extend(versions.take_while(|v| v.revision.main <= revision).map(Arc::clone));
        });
        Ok(())
    }

    /// The last revision in it, and the compacted one.
    pub fn scope(&self) -> HashScope {
        self.scope
    }

    /// All records but those of versions, and the versions in order of revisions.
    pub fn finish(self) -> (Vec<Record>, Vec<Arc<Version>>) {
        let mut versions: Vec<_> = self.versions.into_iter().map(|v| (v.revision, v)).collect();
        versions.sort_unstable_by_key(|(revision, _)| *revision);
        (self.records, versions.into_iter().map(|(_, version)| version).collect())
    }
}
