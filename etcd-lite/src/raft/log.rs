//! The log as the consensus library reads it: the tail of entries in memory. The same entries are in the write-ahead log on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::limit_size;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Where a snapshot for a lagging follower comes from: notes what is to be sent to the follower and returns index and term of it.
pub type SnapshotSource = Box<dyn Fn(u64) -> (u64, u64) + Send + Sync>;

/// Shared between the library, which reads, and the driver, which writes.
#[derive(Clone)]
pub struct RaftLog {
    inner: Arc<Mutex<Inner>>,
    source: Arc<SnapshotSource>,
}

struct Inner {
    hard_state: HardState,
    voters: ConfState,
    /// Index and term of the entry before the first one held.
    start: (u64, u64),
    entries: VecDeque<Entry>,
}

impl Inner {
    fn last_index(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }
}

impl RaftLog {
    /// A log whose first entry follows on `start` (index, term).
    pub fn new(
        voters: Vec<u64>,
        hard_state: HardState,
        start: (u64, u64),
        entries: Vec<Entry>,
        source: SnapshotSource,
    ) -> Self {
        let voters = ConfState { voters, ..ConfState::default() };
        let inner = Inner { hard_state, voters, start, entries: entries.into() };
        Self { inner: Arc::new(Mutex::new(inner)), source: Arc::new(source) }
    }

    /// Adds entries, replacing what is there from the first one's index on.
    pub fn append(&self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let mut inner = self.inner.lock();
        let keep = first.index.saturating_sub(inner.start.0 + 1) as usize;
        inner.entries.truncate(keep);
        inner.entries.extend(entries.iter().cloned());
    }

    /// Takes over the hard state.
    pub fn set_hard_state(&self, state: &HardState) {
        self.inner.lock().hard_state = state.clone();
    }

    /// A snapshot took the place of the log.
    pub fn reset(&self, index: u64, term: u64) {
        let mut inner = self.inner.lock();
        inner.entries.clear();
        inner.start = (index, term);
        inner.hard_state.commit = inner.hard_state.commit.max(index);
    }

    /// Drops entries up to `index` from memory; those after the last one stay.
    pub fn compact(&self, index: u64) {
        let mut inner = self.inner.lock();
        while inner.start.0 < index.min(inner.last_index()) {
            let Some(entry) = inner.entries.pop_front() else { return };
            inner.start = (entry.index, entry.term);
        }
    }
}

impl Storage for RaftLog {
    fn initial_state(&self) -> Result<RaftState> {
        let inner = self.inner.lock();
        Ok(RaftState { hard_state: inner.hard_state.clone(), conf_state: inner.voters.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let inner = self.inner.lock();
        if low <= inner.start.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > inner.last_index() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let first = inner.start.0 + 1;
        let mut entries: Vec<Entry> =
            inner.entries.range((low - first) as usize..(high - first) as usize).cloned().collect();
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        let inner = self.inner.lock();
        if index == inner.start.0 {
            return Ok(inner.start.1);
        }
        if index < inner.start.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let entry = inner.entries.get((index - inner.start.0 - 1) as usize);
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.inner.lock().start.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.inner.lock().last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let (index, term) = (self.source)(to);
        if index < request_index || index == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(self.inner.lock().voters.clone());
        Ok(snapshot)
    }
}
