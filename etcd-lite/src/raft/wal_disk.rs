//! The write-ahead log as the core's disk: translates between the library's types and the log's records.

use etcd_lite_core::mutant;
use raft::eraftpb::{Entry, EntryType, HardState};

use super::core::Disk;
use crate::wal::{Wal, WalEntry, WalError, WalHardState, WalRecord};

/// What is written for one round, in order.
pub fn records<'a>(
    reset: Option<(u64, u64)>,
    entries: &'a [Entry],
    hard_state: Option<&'a HardState>,
) -> impl Iterator<Item = WalRecord> + 'a {
    let reset = reset.map(|(index, term)| WalRecord::Reset { index, term });
    let entries = entries.iter().map(|entry| {
        WalRecord::Entry(WalEntry {
            index: entry.index,
            term: entry.term,
            kind: entry.entry_type as u8,
            data: entry.data.clone(),
        })
    });
    let state = hard_state.map(|state| {
        let vote = if mutant!(VoteNotPersisted) { 0 } else { state.vote };
        WalRecord::HardState(WalHardState { term: state.term, vote, commit: state.commit })
    });
    reset.into_iter().chain(entries).chain(state)
}

/// The whole write-ahead log, as the driver uses it.
pub trait Log: Disk<Error: std::fmt::Display> {
    /// Adds a record; on disk with the next round.
    fn append(&mut self, record: &WalRecord);

    /// A snapshot file holds everything up to here; what comes before may go.
    ///
    /// # Errors
    /// As [`Disk::persist`].
    fn release(&mut self, index: u64, term: u64) -> Result<(), Self::Error>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

impl Log for Wal {
    fn append(&mut self, record: &WalRecord) {
        Self::append(self, record);
    }

    fn release(&mut self, index: u64, term: u64) -> Result<(), WalError> {
        Self::release(self, index, term)
    }

    fn disk_bytes(&self) -> u64 {
        Self::disk_bytes(self)
    }
}

impl Disk for Wal {
    type Error = WalError;

    fn persist(
        &mut self,
        reset: Option<(u64, u64)>,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), WalError> {
        records(reset, entries, hard_state).for_each(|record| self.append(&record));
        self.sync()
    }
}

/// An entry of the log as the library has it.
pub fn to_entry(entry: WalEntry) -> Entry {
    let entry_type = match entry.kind {
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => EntryType::EntryNormal,
    };
    Entry { entry_type, index: entry.index, term: entry.term, data: entry.data, ..Entry::default() }
}

/// The hard state as the library has it. What is applied is committed, even if that was not written down in time.
pub fn to_hard_state(state: WalHardState, applied: u64) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit.max(applied),
        ..HardState::default()
    }
}
