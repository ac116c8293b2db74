//! One member against messages made by hand.

use coracle_proto::store::{MemberRemove, MembersBegin};
use etcd_lite_core::{Command, MemberRecord, Request};
use prost::Message as _;

use super::super::log::SnapshotPosition;
use super::*;

/// A disk that never fails.
struct Memory;

impl Disk for Memory {
    type Error = std::convert::Infallible;

    fn persist(
        &mut self,
        _: Option<(u64, u64)>,
        _: &[Entry],
        _: Option<&HardState>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

fn member_1_of(count: u64, entries: u64) -> RaftCore {
    member_1_with(count, entries, true, true)
}

fn member_1_with(count: u64, entries: u64, pre_vote: bool, stands_early: bool) -> RaftCore {
    let record = |id| MemberRecord { id, ..MemberRecord::default() };
    let members = Members::from_records((1..=count).map(record));
    let entry = |index| Entry { index, term: 1, ..Entry::default() };
    let state = HardState { term: 1, ..HardState::default() };
    let nothing = |_| SnapshotPosition { index: 0, term: 0, members: Members::default() };
    let log = RaftLog::new(&members, state, (0, 0), (1..=entries).map(entry).collect(), Box::new(nothing));
    RaftCore::new(config(pre_vote, stands_early), members, log).expect("a core")
}

fn config(pre_vote: bool, stands_early: bool) -> CoreConfig {
    CoreConfig {
        id: 1,
        incarnation: 1,
        election_ticks: 10,
        exact_election_ticks: None,
        heartbeat_ticks: 1,
        applied: 0,
        is_rejoining: false,
        pre_vote,
        stands_early,
    }
}

fn round(core: &mut RaftCore) -> Vec<Message> {
    let mut sent = Vec::new();
    let Ok(_) = core.process(&mut Memory, |message| sent.push(message));
    sent
}

fn answer(core: &mut RaftCore, kind: MessageType, from: u64, change: impl FnOnce(&mut Message)) {
    let mut message = Message { from, to: 1, term: core.term(), ..Message::default() };
    message.set_msg_type(kind);
    change(&mut message);
    core.step(message);
}

fn leader_of_3(entries: u64) -> RaftCore {
    let mut core = member_1_of(3, entries);
    core.campaign();
    round(&mut core);
    answer(&mut core, MessageType::MsgRequestPreVoteResponse, 2, |message| message.term += 1);
    round(&mut core);
    answer(&mut core, MessageType::MsgRequestVoteResponse, 2, |_| {});
    assert!(core.is_leader());
    round(&mut core);
    core
}

/// The library would put the entries that the rejection asks for into the message without entries that tells of the commit, whose place is
/// a later one. The follower would acknowledge entries it never got.
#[test]
fn a_commit_and_a_rejection_in_one_round_do_not_mix_up_the_log() {
    let mut core = leader_of_3(4);
    for from in [2, 3] {
        answer(&mut core, MessageType::MsgAppendResponse, from, |message| message.index = 5);
        round(&mut core);
    }
    core.propose(vec![Bytes::from_static(b"6")]);
    round(&mut core);
    // Member 2 has it, so it is committed; member 3 was away, and has less than it is given.
    answer(&mut core, MessageType::MsgAppendResponse, 2, |message| message.index = 6);
    answer(&mut core, MessageType::MsgAppendResponse, 3, |message| {
        (message.index, message.reject, message.reject_hint) = (6, true, 5);
    });
    let appends = round(&mut core);
    let appends: Vec<_> = appends.iter().filter(|m| m.get_msg_type() == MessageType::MsgAppend).collect();
    assert!(appends.iter().any(|message| !message.entries.is_empty()), "{appends:?}");
    for message in appends {
        let first = message.entries.first().map_or(message.index + 1, |entry| entry.index);
        assert_eq!(first, message.index + 1, "{message:?}");
    }
}

#[test]
fn a_leader_that_was_removed_outlives_what_followers_still_answer() {
    let mut core = leader_of_3(0);
    answer(&mut core, MessageType::MsgAppendResponse, 2, |message| message.index = 1);
    round(&mut core);
    let remove = Request::MemberRemove(MemberRemove { id: 1 });
    assert!(core.propose_change(Command { id: 7, request: Some(remove) }.encode_to_vec().into()));
    core.propose(vec![Bytes::from_static(b"behind it")]);
    round(&mut core);
    answer(&mut core, MessageType::MsgAppendResponse, 2, |message| message.index = 2);
    round(&mut core);
    assert!(core.members().is_removed(1));
    for from in [2, 3] {
        answer(&mut core, MessageType::MsgAppendResponse, from, |message| message.index = 3);
        round(&mut core);
    }
}

/// What it acknowledged in an earlier life may stand at the log's end, not known to be committed.
#[test]
fn a_member_alone_is_sure_of_what_is_committed_only_after_its_first_entry() {
    let mut core = member_1_of(1, 4);
    assert!(core.is_leader() && !core.is_alone());
    round(&mut core);
    assert!(core.is_alone());
    assert_eq!(core.commit(), 5);
}

/// The first message that asks for a vote, with the tick it is sent after.
fn first_vote_asked(core: &mut RaftCore) -> (u32, MessageType) {
    (1..100)
        .find_map(|tick| {
            core.tick();
            round(core).first().map(|message| (tick, message.get_msg_type()))
        })
        .expect("it stands for election")
}

/// A member's first start, with the entry that tells who the members are.
fn first_start_of_3(pre_vote: bool, stands_early: bool) -> RaftCore {
    let member = |id| MemberRecord { id, ..MemberRecord::default() };
    let begin = Request::MembersBegin(MembersBegin { members: (1..=3).map(member).collect() });
    let data = Command { id: 0, request: Some(begin) }.encode_to_vec().into();
    let entry = Entry { index: 1, term: 1, entry_type: EntryType::EntryConfChange, data, ..Entry::default() };
    let state = HardState { term: 1, commit: 1, ..HardState::default() };
    let nothing = |_| SnapshotPosition { index: 0, term: 0, members: Members::default() };
    let log = RaftLog::new(&Members::default(), state, (0, 0), vec![entry], Box::new(nothing));
    RaftCore::new(config(pre_vote, stands_early), Members::default(), log).expect("a core")
}

#[test]
fn when_and_how_a_member_stands_is_as_told() {
    assert_eq!(first_vote_asked(&mut member_1_of(3, 4)), (1, MessageType::MsgRequestPreVote));
    let (tick, kind) = first_vote_asked(&mut member_1_with(3, 4, true, false));
    assert!(tick >= 10 && kind == MessageType::MsgRequestPreVote, "{tick} {kind:?}");
    assert_eq!(first_vote_asked(&mut first_start_of_3(true, true)), (2, MessageType::MsgRequestPreVote));
    let (tick, kind) = first_vote_asked(&mut first_start_of_3(true, false));
    assert!(tick >= 10 && kind == MessageType::MsgRequestPreVote, "at the first start: {tick} {kind:?}");
    // Without a pre-vote to stand early would end a healthy leader's term.
    let (tick, kind) = first_vote_asked(&mut member_1_with(3, 4, false, true));
    assert!(tick >= 10 && kind == MessageType::MsgRequestVote, "{tick} {kind:?}");
}
