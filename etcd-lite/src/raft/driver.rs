//! The thread that drives consensus: takes inputs, ticks the core, persists and sends what comes out. Everything waiting in the queue goes
//! into one round, so many proposals share one disk sync.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use raft::eraftpb::Message;
use tokio::sync::{oneshot, watch};

use super::applier::Work;
use super::core::RaftCore;
use crate::lease_keeper::LeaseKeeper;
use crate::wal::Wal;

/// Proposals kept while there is no leader to take them.
const HELD_MAX: usize = 4096;
/// Inputs taken into one round.
const ROUND: usize = 1024;
/// A read that got no answer is asked again after this many ticks: the leader may have been too new to know.
const READ_RETRY_TICKS: u32 = 5;
/// Entries kept in memory for followers that lag.
const CATCH_UP_ENTRIES: u64 = 5000;

/// What the driver is asked.
pub enum Input {
    /// Put this command into the log; dropped unheard when nobody waits for it any more.
    Propose {
        /// Encoded command.
        data: Vec<u8>,
        /// Not proposed after this.
        deadline: Instant,
    },
    /// Answer with the index that a read has to wait for.
    ReadIndex(oneshot::Sender<u64>),
    /// A message from another member.
    Step(Box<Message>),
    /// A member's connection broke.
    Unreachable(u64),
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
}

/// The driver and what it acts on.
pub struct Driver {
    /// Consensus.
    pub core: RaftCore,
    /// The log on disk.
    pub wal: Wal,
    /// Length of a tick.
    pub tick: Duration,
    /// Sends a message to the member it names.
    pub send: Box<dyn FnMut(Message) + Send>,
    /// Takes committed entries.
    pub applier: SyncSender<Work>,
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
}

#[derive(Default)]
struct Reads {
    /// Not asked yet.
    fresh: Vec<oneshot::Sender<u64>>,
    /// Asked together, under one number.
    asked: VecDeque<(u64, u32, Vec<oneshot::Sender<u64>>)>,
    next: u64,
    ticks: u32,
}

impl Reads {
    fn answer(&mut self, request: u64, index: u64) {
        // An answer also covers everyone who asked earlier.
        while self.asked.front().is_some_and(|(number, ..)| *number <= request) {
            let Some((_, _, waiting)) = self.asked.pop_front() else { return };
            for reader in waiting {
                // The reader may have given up.
                let _ = reader.send(index);
            }
        }
    }

    fn retry(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        while self
            .asked
            .front()
            .is_some_and(|(_, since, _)| self.ticks.wrapping_sub(*since) >= READ_RETRY_TICKS)
        {
            let Some((_, _, waiting)) = self.asked.pop_front() else { return };
            self.fresh.extend(waiting.into_iter().filter(|reader| !reader.is_closed()));
        }
    }
}

impl Driver {
    /// Runs until stopped. A failing disk ends the process: what was promised cannot be told from what was not.
    pub fn run(mut self, inputs: &Receiver<Input>) {
        let mut held: VecDeque<(Vec<u8>, Instant)> = VecDeque::new();
        let mut reads = Reads::default();
        let mut next_tick = Instant::now() + self.tick;
        let mut stopping = false;
        self.publish();
        while !stopping {
            let mut input = match inputs.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut taken = 0;
            while let Some(current) = input.take() {
                stopping |= self.take(current, &mut held, &mut reads);
                taken += 1;
                if taken < ROUND {
                    input = inputs.try_recv().ok();
                }
            }
            let now = Instant::now();
            if now >= next_tick {
                self.core.tick();
                reads.retry();
                // After a pause (a stopped process) one tick counts, not all that were missed: others may be alive and well.
                next_tick = now + self.tick;
            }
            self.propose_held(&mut held, now);
            if !reads.fresh.is_empty() && self.core.has_leader() {
                reads.next += 1;
                let number = reads.next;
                self.core.read_index(number);
                let waiting = std::mem::take(&mut reads.fresh);
                reads.asked.push_back((number, reads.ticks, waiting));
            }
            self.round(&mut reads);
        }
        if self.core.is_leader()
            && let Some(successor) = self.core.best_successor()
        {
            self.core.transfer_leader(successor);
            self.round(&mut reads);
        }
        // The applier ends after what was committed.
        let _ = self.applier.send(Work::Stop);
    }

    /// Takes one input; `true` to stop.
    fn take(&mut self, input: Input, held: &mut VecDeque<(Vec<u8>, Instant)>, reads: &mut Reads) -> bool {
        match input {
            Input::Propose { data, deadline } => {
                // Over the limit the proposer's deadline answers.
                if held.len() < HELD_MAX {
                    held.push_back((data, deadline));
                }
            }
            Input::ReadIndex(reader) => reads.fresh.push(reader),
            Input::Step(message) => self.core.step(*message),
            Input::Unreachable(id) => self.core.report_unreachable(id),
            Input::SnapshotSent { to, arrived } => self.core.report_snapshot(to, arrived),
            Input::Covered { index, term } => {
                self.core.compact(index.saturating_sub(CATCH_UP_ENTRIES));
                if let Err(error) = self.wal.release(index, term) {
                    end_on_disk_failure(&error);
                }
                self.wal_bytes.store(self.wal.disk_bytes(), Ordering::Relaxed);
            }
            Input::Stop => return true,
        }
        false
    }

    fn propose_held(&mut self, held: &mut VecDeque<(Vec<u8>, Instant)>, now: Instant) {
        while let Some((data, deadline)) = held.pop_front() {
            if deadline <= now {
                continue;
            }
            if !self.core.has_leader() {
                held.push_front((data, deadline));
                return;
            }
            // Refused only while leadership is handed over or far too much is under way; the proposer's deadline answers.
            self.core.propose(data);
        }
    }

    fn round(&mut self, reads: &mut Reads) {
        let output = match self.core.process(&mut self.wal, &mut self.send) {
            Ok(output) => output,
            Err(error) => end_on_disk_failure(&error),
        };
        self.publish();
        if let Some(index) = output.snapshot {
            // The applier lives as long as the driver.
            let _ = self.applier.send(Work::Snapshot(index));
        }
        if !output.committed.is_empty() {
            let _ = self.applier.send(Work::Committed(output.committed));
        }
        for (request, index) in output.reads {
            reads.answer(request, index);
        }
    }

    fn publish(&mut self) {
        let term = if self.core.is_leader() { self.core.term() } else { 0 };
        if self.leading_term.swap(term, Ordering::AcqRel) != 0 && term == 0 {
            self.leases.follow();
        }
        let leader = self.core.leader();
        let mut view = self.view.lock();
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
    }
}

fn end_on_disk_failure(error: &crate::wal::WalError) -> ! {
    tracing::error!(%error, "the log cannot be written; ending rather than going on with doubtful state. Check the disk's space and health");
    std::process::exit(1);
}
