//! The write-ahead log as the core's disk: translates between the library's types and the log's records.

use raft::eraftpb::{Entry, EntryType, HardState};

use super::core::Disk;
use crate::wal::{Wal, WalEntry, WalError, WalHardState, WalRecord};

impl Disk for Wal {
    type Error = WalError;

    fn persist(
        &mut self,
        reset: Option<(u64, u64)>,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), WalError> {
        if let Some((index, term)) = reset {
            self.append(&WalRecord::Reset { index, term });
        }
        for entry in entries {
            self.append(&WalRecord::Entry(WalEntry {
                index: entry.index,
                term: entry.term,
                kind: entry.entry_type as u8,
                data: entry.data.clone(),
            }));
        }
        if let Some(state) = hard_state {
            self.append(&WalRecord::HardState(WalHardState {
                term: state.term,
                vote: state.vote,
                commit: state.commit,
            }));
        }
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
