//! One member's consensus without IO: takes ticks, messages and requests, gives what to persist, send and apply, in an order that keeps
//! every promise. The real member and the simulation drive the same code; only the [`Disk`] differs.

use std::collections::VecDeque;

use bytes::Bytes;
use etcd_lite_core::{Command, Members, Suffrage, mutant};
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType, HardState, Message, MessageType};
use raft::{Config, INVALID_ID, RawNode, ReadOnlyOption, Ready, StateRole};

use super::election::Eagerness;
use super::log::{RaftLog, decode_members};

#[cfg(test)]
mod tests;

/// A member says that it lost its log. A kind that the library has for its own use and that is never sent otherwise.
const LOG_LOST: MessageType = MessageType::MsgUnreachable;

/// What has to be on disk. Implemented by the write-ahead log and by the simulation's disks.
pub trait Disk {
    /// Why persisting failed.
    type Error;

    /// Adds entries (replacing from the first one's index on) and the hard state, after a snapshot that replaces the whole log if there is
    /// one. All of it is on disk when this returns.
    ///
    /// # Errors
    /// The disk's state is unknown afterwards; the member must not go on.
    fn persist(
        &mut self,
        reset: Option<(u64, u64)>,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), Self::Error>;
}

/// What came out of one round.
#[derive(Default)]
pub struct Output {
    /// A snapshot to load before applying `committed`: its index.
    pub snapshot: Option<u64>,
    /// To apply, in order.
    pub committed: Vec<Entry>,
    /// Reads that may be answered once the index is applied: request, index.
    pub reads: Vec<(u64, u64)>,
    /// The members after this round, if they changed in it.
    pub members: Option<Members>,
}

/// Fixed properties of a member's consensus.
#[derive(Clone, Copy, Debug)]
pub struct CoreConfig {
    /// Member id.
    pub id: u64,
    /// A number that no earlier life of this member had, so that an answer to a question of that life is not taken for one to a new question.
    pub incarnation: u64,
    /// Ticks without a leader before a campaign; the library adds up to as many again by chance.
    pub election_ticks: usize,
    /// Fixes the campaign's ticks, for simulations.
    pub exact_election_ticks: Option<usize>,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Index already applied to the store.
    pub applied: u64,
    /// This member has no log while the others have one: it takes no part in elections until it has caught up, so that what it promised in
    /// an earlier life cannot be undone by the vote of a member that forgot.
    pub is_rejoining: bool,
    /// Whether an election begins by asking whether it could be won, which ends nobody's term.
    pub pre_vote: bool,
    /// Whether to stand for election at start without waiting for the whole election timeout. Needs `pre_vote`.
    pub stands_early: bool,
}

/// See the module.
pub struct RaftCore {
    node: RawNode<RaftLog>,
    log: RaftLog,
    incarnation: u64,
    /// As of the last committed entry.
    members: Members,
    /// Changes of the members that wait until the one under way is committed. Leader only.
    deferred: VecDeque<Message>,
    election_ticks: usize,
    stands_early: bool,
    eagerness: Option<Eagerness>,
    is_rejoining: bool,
    log_loss_is_told: bool,
    /// Messages of this module's own.
    outbox: Vec<Message>,
    /// What [`RaftCore::begin`] took from the library.
    begun: Option<Ready>,
}

/// Largest append message, so that one follower's catching up does not hold up heartbeats.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Append messages under way to one follower.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Changes of the members that may wait for one under way.
const DEFERRED_MAX: usize = 64;
/// How much of the leader's log a learner has to have before it may vote, as in etcd.
const LEARNER_READY: f64 = 0.9;
/// Proposed but uncommitted bytes on the leader.
const UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;

impl RaftCore {
    /// Starts a member on its log, with the members as of the applied index (none before entry 1).
    ///
    /// # Errors
    /// The configuration is unusable.
    pub fn new(config: CoreConfig, members: Members, log: RaftLog) -> raft::Result<Self> {
        let CoreConfig { id, incarnation, election_ticks, is_rejoining, pre_vote, stands_early, .. } = config;
        let voters = members.voters();
        let config = Config {
            id: config.id,
            election_tick: config.election_ticks,
            min_election_tick: config.exact_election_ticks.unwrap_or(0),
            max_election_tick: config.exact_election_ticks.map_or(0, |ticks| ticks + 1),
            heartbeat_tick: config.heartbeat_ticks,
            applied: config.applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote,
            read_only_option: ReadOnlyOption::Safe,
            // The library adds entries to a waiting message without entries whatever place that speaks of: the follower then acknowledges entries it
            // does not have.
            batch_append: mutant!(BatchAppend),
            ..Config::default()
        };
        // The library logs through slog; what matters is logged by the driver.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut core = Self {
            node: RawNode::new(&config, log.clone(), &logger)?,
            log,
            incarnation,
            stands_early: pre_vote && stands_early,
            eagerness: None,
            is_rejoining: is_rejoining && voters != [id],
            members,
            deferred: VecDeque::new(),
            election_ticks,
            log_loss_is_told: false,
            outbox: Vec::new(),
            begun: None,
        };
        core.be_eager_to_begin();
        core.campaign_if_alone();
        Ok(core)
    }

    /// As long as nobody leads since this member started: stands for election early, if it is to.
    fn be_eager_to_begin(&mut self) {
        if self.stands_early {
            self.be_eager(None);
        }
    }

    fn be_eager(&mut self, gone: Option<u64>) {
        let own = self.node.raft.id;
        self.eagerness = Some(Eagerness::new(own, &self.members.voters(), gone, self.election_ticks));
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.node.tick();
        if self.has_leader() {
            self.eagerness = None;
        } else if let Some(eagerness) = &mut self.eagerness {
            match eagerness.tick() {
                Some(true) => self.campaign(),
                Some(false) => {}
                None => self.eagerness = None,
            }
        }
    }

    /// A message from another member, perhaps one that was added after the last entry known here. Messages from removed members and of odd
    /// kinds are dropped.
    pub fn step(&mut self, message: Message) {
        if self.members.is_removed(message.from) || message.to != self.node.raft.id {
            return;
        }
        let last_index = self.node.raft.raft_log.last_index();
        match message.get_msg_type() {
            LOG_LOST => return self.start_over_with(message.from),
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote | MessageType::MsgTimeoutNow
                if self.is_rejoining && !mutant!(RejoiningMemberVotes) =>
            {
                return;
            }
            // The leader remembers that this member had more, to which the library has no answer but to give up.
            MessageType::MsgHeartbeat if message.commit > last_index => {
                return self.tell_log_loss(message.from, message.commit, last_index);
            }
            MessageType::MsgAppend if message.commit > 0 && message.commit <= last_index => {
                self.is_rejoining = false;
                self.log_loss_is_told = false;
            }
            MessageType::MsgSnapshot if decode_members(&message.get_snapshot().data).is_none() => return,
            // The library looks at what the leader itself has, and gives up when it is no member any more.
            MessageType::MsgAppendResponse if self.members.is_removed(message.to) => return,
            MessageType::MsgPropose if self.has_to_wait(&message) => return self.defer(message),
            _ => {}
        }
        // Fails for messages that mean nothing here, which need no answer.
        let _ = self.node.step(message);
    }

    fn tell_log_loss(&mut self, leader: u64, committed: u64, last_index: u64) {
        if !std::mem::replace(&mut self.log_loss_is_told, true) {
            tracing::error!(
                committed,
                last_index,
                "this member's log was lost: the leader knows of entries it had. It takes everything from the leader, and no part in elections until then"
            );
        }
        self.is_rejoining = true;
        let mut message = Message::default();
        message.set_msg_type(LOG_LOST);
        message.from = self.node.raft.id;
        message.to = leader;
        self.outbox.push(message);
    }

    /// Forgets what a member that lost its log had.
    fn start_over_with(&mut self, id: u64) {
        if self.is_leader()
            && let Some(progress) = self.node.raft.mut_prs().get_mut(id)
        {
            progress.matched = 0;
            progress.become_probe();
        }
    }

    /// Starts an election now.
    pub fn campaign(&mut self) {
        if !self.is_rejoining && self.node.raft.promotable() {
            let _ = self.node.campaign();
        }
    }

    fn campaign_if_alone(&mut self) {
        if !self.is_leader() && self.members.voters() == [self.node.raft.id] {
            self.campaign();
        }
    }

    /// Whether this is a change of the members while another one is under way, which the library would drop.
    fn has_to_wait(&self, message: &Message) -> bool {
        self.is_leader()
            && self.node.raft.has_pending_conf()
            && message.entries.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal)
    }

    /// Beyond the limit the proposer's deadline answers.
    fn defer(&mut self, message: Message) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back(message);
        }
    }

    /// The next change of the members, if there is one and none is under way any more.
    fn propose_deferred(&mut self) {
        if !self.is_leader() {
            self.deferred.clear();
        } else if !self.node.raft.has_pending_conf()
            && let Some(message) = self.deferred.pop_front()
        {
            // Dropped if leadership is being handed over.
            let _ = self.node.raft.step(message);
        }
    }

    /// A connection to a member was made; what was sent before may be lost.
    pub fn connected(&mut self, id: u64) {
        self.node.report_unreachable(id);
        if !self.has_leader() && self.eagerness.is_some_and(|eagerness| eagerness.is_first()) {
            self.campaign();
        }
    }

    /// Nobody listens at a member's address: its process is gone. If it led, the others need not wait for the election timeout. Forgetting it
    /// allows votes at once; if it leads after all, its next heartbeat puts things right.
    pub fn gone(&mut self, id: u64) {
        self.node.report_unreachable(id);
        if self.leader() == id && !self.is_leader() {
            let term = self.term();
            self.node.raft.become_follower(term, INVALID_ID);
            if self.node.raft.pre_vote {
                self.be_eager(Some(id));
            }
        }
    }

    /// Puts commands into the log, or passes them on to the leader. `false` if they were not taken: there is no leader, leadership is being
    /// handed over, or too much is under way.
    pub fn propose(&mut self, commands: Vec<Bytes>) -> bool {
        let entries = commands.into_iter().map(|data| Entry { data, ..Entry::default() }).collect();
        let message = self.proposal(entries);
        self.node.raft.step(message).is_ok()
    }

    /// Puts a command that changes the members into the log, or passes it on to the leader, where it waits for its turn. `false` as for
    /// [`RaftCore::propose`].
    pub fn propose_change(&mut self, data: Bytes) -> bool {
        // The library parses the data as its own ConfChange, in which our fields are unknown ones, and only looks whether it is one.
        let message =
            self.proposal(vec![Entry { entry_type: EntryType::EntryConfChange, data, ..Entry::default() }]);
        if self.has_to_wait(&message) {
            self.defer(message);
            return true;
        }
        self.node.raft.step(message).is_ok()
    }

    fn proposal(&self, entries: Vec<Entry>) -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.set_entries(entries.into());
        message
    }

    /// Whether a learner has enough of the log to vote; `None` if this member does not lead, and cannot know.
    pub fn is_learner_ready(&self, id: u64) -> Option<bool> {
        if !self.is_leader() {
            return None;
        }
        let matched = |id| self.node.raft.prs().get(id).map(|progress| progress.matched as f64);
        let own = matched(self.node.raft.id)?;
        // A member that is not there is refused when the change is applied.
        Some(matched(id).is_none_or(|matched| matched >= own * LEARNER_READY))
    }

    /// The members as of the last committed entry.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether this member has no vote yet.
    pub fn is_learner(&self) -> bool {
        self.members.suffrage(self.node.raft.id) == Suffrage::Learner
    }

    /// This member's id.
    pub fn id(&self) -> u64 {
        self.node.raft.id
    }

    /// Whether asking for a read makes sense: there is a leader, and if it is this member, it knows what is committed.
    pub fn can_read(&self) -> bool {
        self.has_leader() && (!self.is_leader() || self.node.raft.commit_to_current_term())
    }

    /// Asks for the index a read has to wait for; the answer comes in [`Output::reads`] with the same number, or never.
    pub fn read_index(&mut self, request: u64) {
        self.node.read_index(self.read_context(request).to_vec());
    }

    /// What a question for a read carries: no two questions of any members and lives are alike, because the leader takes like ones for one.
    fn read_context(&self, request: u64) -> [u8; 24] {
        let mut context = [0; 24];
        context[..8].copy_from_slice(&self.node.raft.id.to_be_bytes());
        context[8..16].copy_from_slice(&self.incarnation.to_be_bytes());
        context[16..].copy_from_slice(&request.to_be_bytes());
        context
    }

    fn read_request(&self, context: &[u8]) -> Option<u64> {
        let request = u64::from_be_bytes(context.get(16..24)?.try_into().ok()?);
        (self.read_context(request) == context).then_some(request)
    }

    /// Hands leadership to another member.
    pub fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(to);
    }

    /// A member cannot be reached; the leader sends less to it until it answers.
    pub fn report_unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    /// Whether sending a snapshot to a member worked.
    pub fn report_snapshot(&mut self, id: u64, sent: bool) {
        let status = if sent { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.node.report_snapshot(id, status);
    }

    /// The leader's id, 0 for none.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Highest committed index.
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether this member leads, nobody else has a vote, and it knows all that is committed: after a start the end of its own log is not yet.
    pub fn is_alone(&self) -> bool {
        let raft = &self.node.raft;
        let knows_committed = raft.commit_to_current_term() || mutant!(AloneReadsBeforeCommit);
        self.is_leader() && raft.prs().is_singleton() && raft.promotable() && knows_committed
    }

    /// Whether a leader is known.
    pub fn has_leader(&self) -> bool {
        self.leader() != INVALID_ID
    }

    /// Another voter, for handing over leadership: the one whose log is furthest.
    pub fn best_successor(&self) -> Option<u64> {
        let own = self.node.raft.id;
        let can_lead = |id| id != own && self.members.suffrage(id) == Suffrage::Voter;
        let progress = self.node.raft.prs().iter().filter(|(id, _)| can_lead(**id));
        progress.max_by_key(|(id, progress)| (progress.matched, **id)).map(|(id, _)| *id)
    }

    /// Sends what may go before the disk: a leader's appends, so that its followers' disks work while its own does (thesis 10.2.1). Whether there
    /// was any, and work for the disk. [`Self::process`] goes on from here, and has to be the next call.
    pub fn begin(&mut self, mut send: impl FnMut(Message)) -> bool {
        self.propose_deferred();
        self.outbox.drain(..).for_each(&mut send);
        if self.begun.is_some() || !self.node.has_ready() {
            return false;
        }
        let mut ready = self.node.ready();
        let messages = ready.take_messages();
        let both = ready.must_sync() && !messages.is_empty();
        messages.into_iter().for_each(&mut send);
        self.begun = Some(ready);
        both
    }

    /// Works off everything that is ready: sends what may go before the disk, persists, sends the rest. `send` gets each message once.
    ///
    /// # Errors
    /// The disk failed; nothing that depended on it was sent.
    pub fn process<D: Disk>(
        &mut self,
        disk: &mut D,
        mut send: impl FnMut(Message),
    ) -> Result<Output, D::Error> {
        let mut output = Output::default();
        loop {
            self.begin(&mut send);
            let Some(mut ready) = self.begun.take() else { return Ok(output) };
            let mut reset = None;
            if !ready.snapshot().is_empty() {
                let metadata = ready.snapshot().get_metadata();
                reset = Some((metadata.index, metadata.term));
                // What was committed before is in the snapshot.
                output.committed.clear();
                output.snapshot = Some(metadata.index);
                self.is_rejoining = false;
                self.log_loss_is_told = false;
                self.log.reset(metadata.index, metadata.term);
                // Checked when it came in.
                self.members = decode_members(&ready.snapshot().data).unwrap_or_default();
                output.members = Some(self.members.clone());
            }
            self.log.append(ready.entries());
            if let Some(state) = ready.hs() {
                self.log.set_hard_state(state);
            }
            if mutant!(AckBeforeFsync) {
                ready.take_persisted_messages().into_iter().for_each(&mut send);
            }
            // A commit index alone need not be on disk: it is learnt again from the leader.
            if ready.must_sync() && !(mutant!(AloneAcksWithoutFsync) && self.is_alone()) {
                disk.persist(reset, ready.entries(), ready.hs())?;
            }
            ready.take_persisted_messages().into_iter().for_each(&mut send);
            let committed = ready.take_committed_entries();
            let mut has_changed = self.change_members(&committed);
            output.committed.extend(committed);
            output.reads.extend(
                ready
                    .take_read_states()
                    .into_iter()
                    .filter_map(|state| Some((self.read_request(&state.request_ctx)?, state.index))),
            );
            let mut light = self.node.advance_append(ready);
            light.take_messages().into_iter().for_each(&mut send);
            let committed = light.take_committed_entries();
            has_changed |= self.change_members(&committed);
            output.committed.extend(committed);
            self.node.advance_apply();
            if has_changed {
                output.members = Some(self.members.clone());
                self.campaign_if_alone();
            }
        }
    }

    /// Takes over the changes of the members among committed entries; whether there are any. From here on majorities are those of the new
    /// members.
    fn change_members(&mut self, committed: &[Entry]) -> bool {
        let mut has_changed = false;
        for entry in committed.iter().filter(|entry| entry.get_entry_type() != EntryType::EntryNormal) {
            // What cannot be read here cannot be applied either, where the process ends for it.
            let Some(request) = Command::decode(entry.data.clone()).ok().and_then(|command| command.request)
            else {
                continue;
            };
            let before = self.members.clone();
            // Refused ones change nothing; the store refuses them too, and tells the proposer.
            let Ok(changed) = self.members.apply(&request) else { continue };
            has_changed = true;
            for member in changed {
                let (was, is) = (before.suffrage(member.id), self.members.suffrage(member.id));
                let kind = match is {
                    _ if is == was => continue,
                    Suffrage::Voter => ConfChangeType::AddNode,
                    Suffrage::Learner => ConfChangeType::AddLearnerNode,
                    Suffrage::None => ConfChangeType::RemoveNode,
                };
                let mut change = ConfChange { node_id: member.id, ..ConfChange::default() };
                change.set_change_type(kind);
                if let Err(error) = self.node.apply_conf_change(&change) {
                    panic!("the consensus library refuses a change of the members that was checked: {error}");
                }
            }
        }
        if has_changed && !self.has_leader() {
            self.be_eager_to_begin();
        }
        has_changed
    }

    /// Keeps the log in memory within bounds; entries after `applied` stay.
    pub fn trim(&mut self, applied: u64, entries_max: usize, bytes_max: usize) {
        self.log.trim(applied, entries_max, bytes_max);
    }
}
