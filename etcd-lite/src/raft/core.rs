//! One member's consensus without IO: takes ticks, messages and requests, gives what to persist, send and apply, in an order that keeps
//! every promise. The real member and the simulation drive the same code; only the [`Disk`] differs.

use raft::eraftpb::{Entry, HardState, Message};
use raft::{Config, INVALID_ID, RawNode, ReadOnlyOption, StateRole};

use super::log::RaftLog;

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
}

/// See the module.
pub struct RaftCore {
    node: RawNode<RaftLog>,
    log: RaftLog,
    incarnation: u64,
}

/// Largest append message, so that one follower's catching up does not hold up heartbeats.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Append messages under way to one follower.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Proposed but uncommitted bytes on the leader.
const UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;

impl RaftCore {
    /// Starts a member on its log.
    ///
    /// # Errors
    /// The configuration is unusable.
    pub fn new(config: CoreConfig, log: RaftLog) -> raft::Result<Self> {
        let incarnation = config.incarnation;
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
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        };
        // The library logs through slog; what matters is logged by the driver.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Ok(Self { node: RawNode::new(&config, log.clone(), &logger)?, log, incarnation })
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.node.tick();
    }

    /// A message from another member. Messages from strangers and of odd kinds are dropped.
    pub fn step(&mut self, message: Message) {
        // Fails for messages that mean nothing here, which need no answer.
        let _ = self.node.step(message);
    }

    /// Starts an election now.
    pub fn campaign(&mut self) {
        let _ = self.node.campaign();
    }

    /// Puts data into the log, or passes it on to the leader. Without one, or with too much under way, it is dropped.
    pub fn propose(&mut self, data: Vec<u8>) {
        let _ = self.node.propose(Vec::new(), data);
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

    /// Whether a leader is known.
    pub fn has_leader(&self) -> bool {
        self.leader() != INVALID_ID
    }

    /// Another voter, for handing over leadership: the one whose log is furthest.
    pub fn best_successor(&self) -> Option<u64> {
        let own = self.node.raft.id;
        let progress = self.node.raft.prs().iter().filter(|(id, _)| **id != own);
        progress.max_by_key(|(id, progress)| (progress.matched, **id)).map(|(id, _)| *id)
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
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            // A leader's appends go out while its own disk works (thesis 10.2.1); everything else waits for the disk.
            ready.take_messages().into_iter().for_each(&mut send);
            let mut reset = None;
            if !ready.snapshot().is_empty() {
                let metadata = ready.snapshot().get_metadata();
                reset = Some((metadata.index, metadata.term));
                // What was committed before is in the snapshot.
                output.committed.clear();
                output.snapshot = Some(metadata.index);
                self.log.reset(metadata.index, metadata.term);
            }
            self.log.append(ready.entries());
            if let Some(state) = ready.hs() {
                self.log.set_hard_state(state);
            }
            // A commit index alone need not be on disk: it is learnt again from the leader.
            if ready.must_sync() {
                disk.persist(reset, ready.entries(), ready.hs())?;
            }
            ready.take_persisted_messages().into_iter().for_each(&mut send);
            output.committed.extend(ready.take_committed_entries());
            output.reads.extend(
                ready
                    .take_read_states()
                    .into_iter()
                    .filter_map(|state| Some((self.read_request(&state.request_ctx)?, state.index))),
            );
            let mut light = self.node.advance_append(ready);
            light.take_messages().into_iter().for_each(&mut send);
            output.committed.extend(light.take_committed_entries());
            self.node.advance_apply();
        }
        Ok(output)
    }

    /// Drops entries up to `index` from memory.
    pub fn compact(&mut self, index: u64) {
        self.log.compact(index);
    }
}
