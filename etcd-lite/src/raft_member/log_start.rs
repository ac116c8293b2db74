//! What goes into a log before consensus starts on it: the members a cluster begins with, or that it goes on with one.

use anyhow::bail;
use bytes::Bytes;
use coracle_proto::store::{MembersBegin, MembersReduce};
use etcd_lite_core::{Command, MemberRecord, Members, Request};
use prost::Message as _;

use super::MemberConfig;
use crate::bootstrap::Beginning;
use crate::raft::wal_disk::Log;
use crate::wal::{Replay, Wal, WalEntry, WalHardState, WalRecord};

/// An entry that changes the members, in the library's numbering.
const CHANGE: u8 = 1;
/// The term of the first entry, which no leader has written.
const FIRST_TERM: u64 = 1;

/// Makes the members of a new cluster entry 1 of an empty log. All of them write the same, and count it as committed. On disk after the next
/// sync.
pub fn begin(wal: &mut impl Log, replay: &mut Replay, beginning: &Beginning) {
    let is_empty = replay.entries.is_empty() && replay.snapshot.0 == 0;
    let Some(members) = beginning.members.as_ref().filter(|_| is_empty) else { return };
    let request = Request::MembersBegin(MembersBegin { members: members.clone() });
    append_committed(wal, replay, request);
}

/// Adds an entry with which this member is the only one. Everything in the log counts as committed from here on: some of it may have been
/// acknowledged, and nobody is left to ask.
///
/// # Errors
/// There is no data to go on with.
pub fn reduce(
    wal: &mut Wal,
    replay: &mut Replay,
    applied: &Members,
    config: &MemberConfig,
) -> anyhow::Result<()> {
    if replay.entries.is_empty() && replay.snapshot.0 == 0 {
        bail!(
            "--force-new-cluster goes on with the data there is, but {} has none; start without it",
            config.data_dir.display()
        );
    }
    let mut members = applied.clone();
    for entry in replay.entries.iter().filter(|entry| entry.kind == CHANGE) {
        if let Ok(Command { request: Some(request), .. }) = Command::decode(entry.data.clone()) {
            // Those that are applied already are refused.
            let _ = members.apply(&request);
        }
    }
    let id = config.beginning.id;
    let survivor = match members.get(id) {
        Some(own) => MemberRecord::clone(own),
        None => MemberRecord {
            id,
            name: config.name.clone(),
            peer_urls: config.peer_urls.clone(),
            ..MemberRecord::default()
        },
    };
    tracing::warn!("going on as the only member (--force-new-cluster); all others are removed");
    append_committed(wal, replay, Request::MembersReduce(MembersReduce { survivor: Some(survivor) }));
    Ok(())
}

fn append_committed(wal: &mut impl Log, replay: &mut Replay, request: Request) {
    let (last_index, last_term) =
        replay.entries.last().map_or(replay.snapshot, |entry| (entry.index, entry.term));
    let term = replay.hard_state.term.max(last_term).max(FIRST_TERM);
    let data: Bytes = Command { id: 0, request: Some(request) }.encode_to_vec().into();
    let entry = WalEntry { index: last_index + 1, term, kind: CHANGE, data };
    replay.hard_state = WalHardState { term, commit: entry.index, ..replay.hard_state };
    wal.append(&WalRecord::Entry(entry.clone()));
    wal.append(&WalRecord::HardState(replay.hard_state));
    replay.entries.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_is_the_same_for_all_members_and_written_once() {
        let dir = tempfile::tempdir().expect("dir");
        let members = vec![MemberRecord { id: 7, ..MemberRecord::default() }];
        let beginning = Beginning { cluster_id: 1, id: 7, members: Some(members), ..Beginning::default() };
        let mut first = Vec::new();
        for _ in 0..2 {
            let (mut wal, mut replay) = Wal::open(dir.path(), 1, 7).expect("open");
            begin(&mut wal, &mut replay, &beginning);
            wal.sync().expect("sync");
            assert_eq!((replay.entries.len(), replay.hard_state.commit), (1, 1));
            first.push(replay.entries[0].clone());
        }
        assert_eq!(first[0], first[1]);
        assert_eq!((first[0].index, first[0].term, first[0].kind), (1, 1, CHANGE));
    }
}
