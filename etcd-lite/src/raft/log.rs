//! The log as the consensus library reads it: the tail of entries in memory. The same entries are in the write-ahead log on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use coracle_proto::store::MembersBegin;
use etcd_lite_core::{MemberRecord, Members, Suffrage, mutant};
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::limit_size;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Where a snapshot for a lagging follower comes from: notes what is to be sent to the follower and says what it is.
pub type SnapshotSource = Box<dyn Fn(u64) -> SnapshotPosition + Send + Sync>;

/// The state that a snapshot holds.
pub struct SnapshotPosition {
    /// Index of the last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// The members as of that entry.
    pub members: Members,
}

/// The library's word for who votes and who learns.
pub fn conf_state(members: &Members) -> ConfState {
    ConfState { voters: members.voters(), learners: members.learners(), ..ConfState::default() }
}

/// Members as a snapshot's data.
fn encode_members(members: &Members) -> Vec<u8> {
    MembersBegin { members: members.records().map(|member| MemberRecord::clone(member)).collect() }
        .encode_to_vec()
}

/// The members that come with a snapshot; `None` if it is not one of this program.
pub fn decode_members(data: &[u8]) -> Option<Members> {
    Some(Members::from_records(MembersBegin::decode(data).ok()?.members))
}

/// Shared between the library, which reads, and the driver, which writes.
#[derive(Clone)]
pub struct RaftLog {
    inner: Arc<Mutex<Inner>>,
    source: Arc<SnapshotSource>,
}

struct Inner {
    hard_state: HardState,
    /// As it was at the start; the library keeps the current one.
    conf_state: ConfState,
    /// Index and term of the entry before the first one held.
    start: (u64, u64),
    entries: VecDeque<Entry>,
    /// Of all entries.
    bytes: usize,
}

/// What an entry takes in memory, about.
fn size_bytes(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len()
}

impl Inner {
    fn truncate(&mut self, keep: usize) {
        while self.entries.len() > keep {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, size_bytes);
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size_bytes(&entry);
            self.start = (entry.index, entry.term);
        }
    }

    fn last_index(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }
}

impl RaftLog {
    /// A log whose first entry follows on `start` (index, term).
    pub fn new(
        members: &Members,
        mut hard_state: HardState,
        start: (u64, u64),
        entries: Vec<Entry>,
        source: SnapshotSource,
    ) -> Self {
        if mutant!(CommitsOwnLogAtStart) {
            hard_state.commit = start.0 + entries.len() as u64;
        }
        let conf_state = conf_state(members);
        let bytes = entries.iter().map(size_bytes).sum();
        let inner = Inner { hard_state, conf_state, start, entries: entries.into(), bytes };
        Self { inner: Arc::new(Mutex::new(inner)), source: Arc::new(source) }
    }

    /// Adds entries, replacing what is there from the first one's index on.
    pub fn append(&self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let mut inner = self.inner.lock();
        let keep = first.index.saturating_sub(inner.start.0 + 1) as usize;
        inner.truncate(keep);
        inner.bytes += entries.iter().map(size_bytes).sum::<usize>();
        inner.entries.extend(entries.iter().cloned());
    }

    /// Takes over the hard state.
    pub fn set_hard_state(&self, state: &HardState) {
        self.inner.lock().hard_state = state.clone();
    }

    /// A snapshot took the place of the log.
    pub fn reset(&self, index: u64, term: u64) {
        let mut inner = self.inner.lock();
        inner.truncate(0);
        inner.start = (index, term);
        inner.hard_state.commit = inner.hard_state.commit.max(index);
    }

    /// Drops old entries from memory when there are more than `entries_max`, or more than `bytes_max` of them; those after `applied` stay.
    /// A follower that needs what was dropped gets a snapshot.
    pub fn trim(&self, applied: u64, entries_max: usize, bytes_max: usize) {
        let mut inner = self.inner.lock();
        while inner.start.0 < applied.min(inner.last_index())
            && (inner.entries.len() > entries_max || inner.bytes > bytes_max)
        {
            inner.drop_first();
        }
    }
}

impl Storage for RaftLog {
    fn initial_state(&self) -> Result<RaftState> {
        let inner = self.inner.lock();
        Ok(RaftState { hard_state: inner.hard_state.clone(), conf_state: inner.conf_state.clone() })
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
        let SnapshotPosition { index, term, members } = (self.source)(to);
        // A member that was added just now may not be in the state yet, and would not take such a snapshot.
        if index < request_index || index == 0 || members.suffrage(to) == Suffrage::None {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(conf_state(&members));
        snapshot.data = encode_members(&members).into();
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: u64) -> RaftLog {
        let entry = |index| Entry { index, term: 2, data: vec![7; 100].into(), ..Entry::default() };
        let entries = (11..11 + entries).map(entry).collect();
        let nothing = |_| SnapshotPosition { index: 0, term: 0, members: Members::default() };
        RaftLog::new(&Members::default(), HardState::default(), (10, 1), entries, Box::new(nothing))
    }

    #[test]
    fn old_entries_leave_memory_but_never_unapplied_ones() {
        let trimmed = |applied, entries_max, bytes_max| {
            let log = log(10);
            log.trim(applied, entries_max, bytes_max);
            assert_eq!(log.last_index().expect("last"), 20);
            log.first_index().expect("first")
        };
        assert_eq!(trimmed(20, 10, usize::MAX), 11);
        assert_eq!(trimmed(20, 4, usize::MAX), 17);
        assert_eq!(trimmed(13, 4, usize::MAX), 14);
        assert_eq!(trimmed(20, 10, 0), 21);
        assert_eq!(trimmed(12, 10, 0), 13);
    }

    #[test]
    fn the_last_dropped_entrys_term_is_known() {
        let log = log(10);
        log.trim(15, 1, usize::MAX);
        assert_eq!(log.term(15).expect("term"), 2);
        assert!(log.term(14).is_err());
    }
}
