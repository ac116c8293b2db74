//! Drives consensus: takes inputs, ticks the core, persists and sends what comes out. Everything waiting in the queue goes into one round, so
//! many proposals share one disk sync.
//!
//! It is a task on a thread of its own, which it shares with the connections to the other members alone: a message from a peer is read, worked
//! off and answered without waking another thread. It blocks this thread for as long as the disk syncs; nothing could be answered before that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_lite_core::{Members, mutant};
use raft::eraftpb::Message;
use tokio::sync::{mpsc, oneshot, watch};

use super::applier::{Apply, Applying};
use super::core::RaftCore;
use super::reads::Reads;
use super::waiters::Waiters;
use super::wal_disk::Log;
use crate::lease_keeper::LeaseKeeper;
use crate::metrics::ConsensusMetrics;
use crate::wal::Wal;

/// Proposals kept while there is no leader to take them.
const HELD_MAX: usize = 4096;
/// Inputs taken into one round.
const ROUND: usize = 1024;
/// Bytes and number of commands proposed together.
const PROPOSAL_BYTES: usize = 1 << 20;
const PROPOSALS: usize = 512;
/// Entries kept in memory for followers that lag, and the bytes they may take.
const CATCH_UP_ENTRIES: usize = 5000;
const CATCH_UP_BYTES: usize = 16 << 20;

/// Turns that a message takes from here through the tasks of its connection to the socket.
const SENDING_TURNS: usize = 4;

/// For the connections to send the last messages.
const FAREWELL: Duration = Duration::from_millis(20);

/// Gets the index that a read has to wait for.
type Reader = oneshot::Sender<u64>;

/// What the driver is asked.
pub enum Input {
    /// Put this command into the log; dropped unheard when nobody waits for it any more.
    Propose {
        /// The command's id.
        id: u64,
        /// Encoded command.
        data: Bytes,
        /// Not proposed after this.
        deadline: Instant,
    },
    /// Put this command, which changes the members, into the log.
    ProposeChange {
        /// The command's id.
        id: u64,
        /// Encoded command.
        data: Bytes,
        /// Not proposed after this.
        deadline: Instant,
    },
    /// Answer whether a learner has enough of the log to vote; `None` if this member does not lead.
    IsLearnerReady(u64, oneshot::Sender<Option<bool>>),
    /// Hand leadership to this member.
    TransferLeader(u64),
    /// Answer with the index that a read has to wait for.
    ReadIndex(Reader),
    /// A message from another member.
    Step(Box<Message>),
    /// A member's connection broke.
    Unreachable(u64),
    /// A connection to a member was made.
    Connected(u64),
    /// Nobody listens at a member's address.
    Gone(u64),
    /// A snapshot was sent to a member, or not.
    SnapshotSent {
        /// Which member.
        to: u64,
        /// Whether it arrived.
        arrived: bool,
    },
    /// A snapshot file covers the log up to here.
    Covered {
        /// Index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// Hand over leadership if there is any, then end.
    Stop,
}

/// What others may see of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Leader, 0 for none.
    pub leader: u64,
    /// Term.
    pub term: u64,
    /// Committed index.
    pub commit: u64,
    /// Times the leader was seen to change.
    pub leader_changes: u64,
    /// Whether this member has no vote yet.
    pub is_learner: bool,
    /// Whether this member leads and nobody else has a vote: whatever was acknowledged to anybody is committed here.
    pub is_alone: bool,
}

/// The driver and what it acts on. What it decides is the same in a member and in a simulation; those differ in log, applier and clock.
pub struct Driver<L = Wal, A = Applying> {
    /// Consensus.
    pub core: RaftCore,
    /// The log on disk.
    pub wal: L,
    /// Length of a tick.
    pub tick: Duration,
    /// Sends a message to the member it names.
    pub send: Box<dyn FnMut(Message) + Send>,
    /// Told the members whenever they change.
    pub members_changed: Box<dyn FnMut(&Members) + Send>,
    /// Takes committed entries.
    pub applying: A,
    /// Tells who leads.
    pub leader: watch::Sender<u64>,
    /// Tells the rest.
    pub view: Arc<parking_lot::Mutex<View>>,
    /// The term this member leads in, 0 while it does not.
    pub leading_term: Arc<AtomicU64>,
    /// Lease timers, stopped when this member does not lead any more.
    pub leases: Arc<LeaseKeeper>,
    /// Bytes of the log on disk.
    pub wal_bytes: Arc<AtomicU64>,
    /// Who waits for proposals.
    pub waiters: Arc<Waiters>,
    /// How far the store is.
    pub applied: watch::Receiver<u64>,
    /// Told of heartbeats that come late.
    pub metrics: ConsensusMetrics,
}

/// What waits for a leader or its word.
#[derive(Default)]
pub struct Waiting {
    commands: VecDeque<Held>,
    /// Those that change the members.
    changes: VecDeque<Held>,
    reads: Reads<Reader>,
}

struct Held {
    id: u64,
    data: Bytes,
    deadline: Instant,
}

impl<L: Log, A: Apply> Driver<L, A> {
    /// Runs until stopped. A failing disk ends the process: what was promised cannot be told from what was not.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut waiting = Waiting::default();
        let mut next_tick = tokio::time::Instant::now() + self.tick;
        let mut tick = std::pin::pin!(tokio::time::sleep_until(next_tick));
        let mut stopping = false;
        self.publish();
        while !stopping {
            let mut input = tokio::select! {
                biased;
                input = inputs.recv() => match input {
                    None => break,
                    some => some,
                },
                () = &mut tick => None,
            };
            let mut taken = 0;
            while let Some(current) = input.take() {
                stopping |=
                    self.take(current, &mut waiting).unwrap_or_else(|error| end_on_disk_failure(&error));
                taken += 1;
                if taken < ROUND {
                    input = inputs.try_recv().ok();
                }
            }
            let now = tokio::time::Instant::now();
            if now >= next_tick {
                if self.core.is_leader() && now - next_tick > self.tick {
                    self.metrics.heartbeats_late.inc();
                    tracing::warn!(
                        late = format!("{:?}", now - next_tick),
                        "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
                    );
                }
                self.tick(&mut waiting, CATCH_UP_ENTRIES);
                // After a pause (a stopped process) one tick counts, not all that were missed: others may be alive and well.
                next_tick = now + self.tick;
                tick.as_mut().reset(next_tick);
            }
            if self.begin(&mut waiting, now.into_std()) {
                for _ in 0..SENDING_TURNS {
                    tokio::task::yield_now().await;
                }
            }
            self.round(&mut waiting.reads).unwrap_or_else(|error| end_on_disk_failure(&error));
            // The connections' turn: to send, and to read what came meanwhile.
            tokio::task::yield_now().await;
        }
        if self.core.is_leader()
            && let Some(successor) = self.core.best_successor()
        {
            self.core.transfer_leader(successor);
            self.round(&mut waiting.reads).unwrap_or_else(|error| end_on_disk_failure(&error));
            tokio::time::sleep(FAREWELL).await;
        }
        // The applier ends after what was committed.
        self.applying.stop();
    }

    /// Time passes. `entries_max` of the log stay in memory for followers that lag.
    pub fn tick(&mut self, waiting: &mut Waiting, entries_max: usize) {
        self.core.tick();
        waiting.reads.tick(oneshot::Sender::is_closed);
        self.core.trim(*self.applied.borrow(), entries_max, CATCH_UP_BYTES);
    }

    /// Works off what was taken: proposes, asks for reads, persists, sends, hands over what is committed.
    ///
    /// # Errors
    /// The log cannot be written: the process must end.
    pub fn work(&mut self, waiting: &mut Waiting, now: Instant) -> Result<(), L::Error> {
        self.begin(waiting, now);
        self.round(&mut waiting.reads)
    }

    /// The part of it that comes before the disk; whether messages went out that others can work on while the disk does.
    fn begin(&mut self, waiting: &mut Waiting, now: Instant) -> bool {
        self.propose_held(&mut waiting.commands, now);
        self.propose_changes(&mut waiting.changes, now);
        if self.core.can_read()
            && let Some(number) = waiting.reads.next_question()
        {
            self.core.read_index(number);
        }
        self.core.begin(&mut self.send)
    }

    /// Takes one input; `true` to stop.
    ///
    /// # Errors
    /// As [`Driver::work`].
    pub fn take(&mut self, input: Input, waiting: &mut Waiting) -> Result<bool, L::Error> {
        match input {
            Input::Propose { id, data, deadline } => {
                // Over the limit the proposer's deadline answers.
                if waiting.commands.len() < HELD_MAX {
                    waiting.commands.push_back(Held { id, data, deadline });
                }
            }
            Input::ProposeChange { id, data, deadline } => {
                if waiting.changes.len() < HELD_MAX {
                    waiting.changes.push_back(Held { id, data, deadline });
                }
            }
            Input::IsLearnerReady(id, sender) => {
                // The asker may have given up.
                let _ = sender.send(self.core.is_learner_ready(id));
            }
            Input::TransferLeader(to) => self.core.transfer_leader(to),
            Input::ReadIndex(reader) if mutant!(ReadWithoutReadIndex) => {
                let _ = reader.send(self.core.commit());
            }
            Input::ReadIndex(reader) => waiting.reads.add(reader),
            Input::Step(message) => self.core.step(*message),
            Input::Unreachable(id) => self.core.report_unreachable(id),
            Input::Connected(id) => self.core.connected(id),
            Input::Gone(id) => self.core.gone(id),
            Input::SnapshotSent { to, arrived } => self.core.report_snapshot(to, arrived),
            Input::Covered { index, term } => {
                self.wal.release(index, term)?;
                self.wal_bytes.store(self.wal.disk_bytes(), Ordering::Relaxed);
            }
            Input::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// Proposes what waits, many commands at once.
    fn propose_held(&mut self, held: &mut VecDeque<Held>, now: Instant) {
        while !held.is_empty() && self.core.has_leader() {
            held.retain(|command| command.deadline > now);
            let mut bytes = 0;
            let count = held
                .iter()
                .take(PROPOSALS)
                .take_while(|command| {
                    let is_first = bytes == 0;
                    bytes += command.data.len();
                    is_first || bytes <= PROPOSAL_BYTES
                })
                .count();
            let commands: Vec<Bytes> = held.iter().take(count).map(|command| command.data.clone()).collect();
            if count == 0 || !self.core.propose(commands) {
                // Leadership is being handed over, or far too much is under way.
                return;
            }
            if mutant!(ProposesTwice) {
                self.core.propose(vec![held[0].data.clone()]);
            }
            let ids: Vec<u64> = held.drain(..count).map(|command| command.id).collect();
            self.waiters.proposed(&ids, self.core.term());
        }
    }

    /// Proposes changes of the members that wait; consensus takes them one at a time.
    fn propose_changes(&mut self, held: &mut VecDeque<Held>, now: Instant) {
        held.retain(|change| change.deadline > now);
        while self.core.has_leader()
            && let Some(change) = held.front()
            && self.core.propose_change(change.data.clone())
        {
            self.waiters.proposed(&[change.id], self.core.term());
            held.pop_front();
        }
    }

    fn round(&mut self, reads: &mut Reads<Reader>) -> Result<(), L::Error> {
        let output = self.core.process(&mut self.wal, &mut self.send)?;
        if self.publish() {
            reads.leader_changed();
        }
        if let Some(members) = output.members {
            (self.members_changed)(&members);
            // The leader was removed: the others need not wait for its end.
            if self.core.is_leader()
                && members.is_removed(self.core.id())
                && let Some(successor) = self.core.best_successor()
            {
                self.core.transfer_leader(successor);
            }
        }
        if let Some(index) = output.snapshot {
            self.applying.snapshot(index);
        }
        if !output.committed.is_empty() {
            self.applying.committed(output.committed);
        }
        for (request, index) in output.reads {
            for reader in reads.answered(request) {
                // The reader may have given up.
                let _ = reader.send(index);
            }
        }
        Ok(())
    }

    /// Tells everybody how things stand; whether there is another leader or another term.
    pub fn publish(&mut self) -> bool {
        let term = if self.core.is_leader() { self.core.term() } else { 0 };
        let led = self.leading_term.swap(term, Ordering::AcqRel);
        if led != 0 && led != term {
            self.leases.follow();
        }
        let leader = self.core.leader();
        let mut view = self.view.lock();
        let has_changed = view.leader != leader || view.term != self.core.term();
        if view.leader != leader {
            if leader != 0 {
                view.leader_changes += 1;
                tracing::info!(leader = format!("{leader:x}"), term = self.core.term(), "has a leader");
            } else {
                tracing::info!(term = self.core.term(), "lost its leader");
            }
            view.leader = leader;
            self.leader.send_replace(leader);
        }
        view.term = self.core.term();
        view.commit = self.core.commit();
        view.is_learner = self.core.is_learner();
        view.is_alone = self.core.is_alone();
        has_changed
    }
}

fn end_on_disk_failure(error: &impl std::fmt::Display) -> ! {
    tracing::error!(%error, "the log cannot be written; ending rather than going on with doubtful state. Check the disk's space and health");
    std::process::exit(1);
}
