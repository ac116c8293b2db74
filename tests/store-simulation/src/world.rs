//! The run: virtual time, members, network, clients and faults in one thread. Everything that happens is taken from one queue in order of time,
//! and leaves its mark in the trace's hash.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use etcd_lite::member::{Feed, ProposeError};
use etcd_lite::raft::driver::Input;
use etcd_lite_core::{Command, Event, Request as Proposal, Response as Answer, check};
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use store_checker::{History, Operation, Outcome, Refusal, Request, Response, Rule, Violation, Watch};
use store_clients::random::{Random, Stream, mix};
use store_clients::{Client, Keys, Watcher};

use crate::disk::{SimDisk, Snapshot};
use crate::member::{Birth, Running, TICK_MS, Work, instant, start};
use crate::plan::{CLIENTS_UNTIL, CrashPoint, END, FAULTS_UNTIL, Fault, FaultKind, Plan};

/// A client gives up after so many milliseconds.
const CLIENT_TIMEOUT_MS: u64 = 3_000;
/// After that a member does not propose what waits for a leader.
const DEADLINE_MS: u64 = 7_000;
/// Between two looks at the leases, as in the real member.
const LEASE_CHECK_MS: u64 = 500;
/// Between two flushes of the checkpoint.
const FLUSH_MS: u64 = 1_000;
/// How much faster or slower than true a member's clock may run, in thousandths.
const CLOCK_SKEW: u64 = 20;
/// The client that asks at the end whether all is well.
const LAST_CLIENT: u64 = 99;

/// What a run went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub operations: usize,
    pub answered: usize,
    pub unknown: usize,
    pub revisions: usize,
    pub expirations: usize,
    pub watched: usize,
    pub crashes: usize,
    pub snapshots_installed: usize,
    pub terms: usize,
    pub faults: usize,
    pub refused_starts: usize,
    pub happenings: usize,
}

impl Stats {
    /// Adds what another run went through.
    pub fn add(&mut self, more: &Self) {
        self.operations += more.operations;
        self.answered += more.answered;
        self.unknown += more.unknown;
        self.revisions += more.revisions;
        self.expirations += more.expirations;
        self.watched += more.watched;
        self.crashes += more.crashes;
        self.snapshots_installed += more.snapshots_installed;
        self.terms += more.terms;
        self.faults += more.faults;
        self.refused_starts += more.refused_starts;
        self.happenings += more.happenings;
    }
}

enum Happening {
    Tick { member: u64, life: u64 },
    Round { member: u64, life: u64 },
    Apply { member: u64, life: u64 },
    Tell { member: u64, life: u64 },
    Flush { member: u64, life: u64 },
    LeaseCheck { member: u64, life: u64 },
    Arrive { message: Box<Message>, snapshot: Option<Arc<Snapshot>> },
    SnapshotSent { from: u64, life: u64, to: u64, arrived: bool },
    Connected { at: u64, to: u64 },
    Gone { at: u64, member: u64 },
    Ask { client: usize },
    Request { member: u64, operation: usize },
    Answered { operation: usize, outcome: Box<Outcome> },
    GiveUp { operation: usize },
    WatchStep { watcher: usize },
    Fault { number: usize },
    FaultEnds { number: usize, member: u64 },
    Restart { member: u64 },
    Calm,
    LastWrite { attempt: u64 },
}

impl Happening {
    /// Whose process has to run for it.
    fn member(&self) -> Option<u64> {
        match self {
            Self::Tick { member, .. }
            | Self::Round { member, .. }
            | Self::Apply { member, .. }
            | Self::Tell { member, .. }
            | Self::Flush { member, .. }
            | Self::LeaseCheck { member, .. }
            | Self::Request { member, .. } => Some(*member),
            Self::Arrive { message, .. } => Some(message.to),
            Self::SnapshotSent { from, .. } => Some(*from),
            Self::Connected { at, .. } | Self::Gone { at, .. } => Some(*at),
            _ => None,
        }
    }

    fn mark(&self) -> u64 {
        let numbers = match self {
            Self::Tick { member, life } => [1, *member, *life],
            Self::Round { member, life } => [2, *member, *life],
            Self::Apply { member, life } => [3, *member, *life],
            Self::Tell { member, life } => [4, *member, *life],
            Self::Flush { member, life } => [5, *member, *life],
            Self::LeaseCheck { member, life } => [6, *member, *life],
            Self::Arrive { message, .. } => {
                let m = message.as_ref();
                [
                    7 + ((m.msg_type as u64) << 8) + (m.from << 16) + (m.to << 24),
                    m.term ^ (m.index << 20),
                    m.commit ^ (m.entries.len() as u64) << 32,
                ]
            }
            Self::SnapshotSent { from, to, arrived, .. } => [8, *from << 8 | *to, u64::from(*arrived)],
            Self::Connected { at, to } => [9, *at, *to],
            Self::Gone { at, member } => [10, *at, *member],
            Self::Ask { client } => [11, *client as u64, 0],
            Self::Request { member, operation } => [12, *member, *operation as u64],
            Self::Answered { operation, .. } => [13, *operation as u64, 0],
            Self::GiveUp { operation } => [14, *operation as u64, 0],
            Self::WatchStep { watcher } => [15, *watcher as u64, 0],
            Self::Fault { number } => [16, *number as u64, 0],
            Self::FaultEnds { number, member } => [17, *number as u64, *member],
            Self::Restart { member } => [18, *member, 0],
            Self::Calm => [19, 0, 0],
            Self::LastWrite { attempt } => [20, *attempt, 0],
        };
        numbers.into_iter().fold(0, |hash, number| mix(hash ^ number))
    }
}

struct Scheduled {
    at: u64,
    order: u64,
    happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Order {
        // The heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

struct Slot {
    disk: Arc<Mutex<SimDisk>>,
    running: Option<Running>,
    lives: u64,
    paused_until: u64,
    is_rejoining: bool,
    /// Where the power goes in its next life.
    next_cut: Option<CrashPoint>,
    /// Clock rate in thousandths.
    rate: u64,
}

type Checked<T = ()> = Result<T, Violation>;

/// A run under way.
pub struct World {
    plan: Plan,
    now: u64,
    order: u64,
    queue: BinaryHeap<Scheduled>,
    slots: Vec<Slot>,
    /// Who does not hear whom: from, to.
    cut: Vec<(u64, u64)>,
    storm: bool,
    is_calm: bool,
    network: Random,
    schedule: Random,
    disk_random: Random,
    clients: Vec<Client>,
    watchers: Vec<Watcher>,
    next_stream: u64,
    history: History,
    is_done: Vec<bool>,
    last_term: u64,
    has_recovered: bool,
    trace: u64,
    stats: Stats,
    is_verbose: bool,
}

/// What came out of a run.
pub struct Finished {
    /// What it went through.
    pub stats: Stats,
    /// Equal for equal runs.
    pub trace: u64,
    /// What was found, if anything.
    pub violation: Option<Violation>,
}

/// Runs a plan to its end and judges it; prints what happens if asked to.
pub fn run(plan: Plan, is_verbose: bool) -> Finished {
    let mut world = World::new(plan, is_verbose);
    let violation = world.run().err();
    Finished { stats: world.stats, trace: world.trace, violation }
}

macro_rules! told {
    ($world:expr, $($text:tt)*) => {
        if $world.is_verbose {
            println!("{:>6} {}", $world.now, format_args!($($text)*));
        }
    };
}

impl World {
    fn new(plan: Plan, is_verbose: bool) -> Self {
        let seed = plan.seed;
        let stream = |stream, number| Random::new(seed, stream, number);
        let mut schedule = stream(Stream::Schedule, 0);
        let slots = (0..plan.members).map(|_| Slot {
            disk: Arc::default(),
            running: None,
            lives: 0,
            paused_until: 0,
            is_rejoining: false,
            next_cut: None,
            rate: schedule.between(1000 - CLOCK_SKEW, 1000 + CLOCK_SKEW),
        });
        let slots = slots.collect();
        let keys = Keys { hot: plan.keys, cold: 0 };
        let client = |n| Client::new(n, stream(Stream::Client, n), keys, plan.operations);
        let watcher = |n| Watcher::new(n, stream(Stream::Watcher, n), plan.keys);
        Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            slots,
            cut: Vec::new(),
            storm: false,
            is_calm: false,
            network: stream(Stream::Network, 0),
            schedule,
            disk_random: stream(Stream::Disk, 0),
            clients: (1..=plan.clients).map(client).collect(),
            watchers: (1..=plan.watchers).map(watcher).collect(),
            next_stream: 0,
            history: History { lease_tolerance_ms: 300, ..History::default() },
            is_done: Vec::new(),
            last_term: 0,
            has_recovered: false,
            trace: 0,
            stats: Stats::default(),
            is_verbose,
            plan,
        }
    }

    fn run(&mut self) -> Checked {
        for member in 1..=self.plan.members {
            self.restart(member)?;
        }
        for client in 0..self.clients.len() {
            let at = 200 + self.clients[client].pause();
            self.at(at, Happening::Ask { client });
        }
        for watcher in 0..self.watchers.len() {
            let at = 250 + self.watchers[watcher].random.below(1_000);
            self.at(at, Happening::WatchStep { watcher });
        }
        for (number, fault) in self.plan.faults.clone().into_iter().enumerate() {
            self.at(fault.at, Happening::Fault { number });
        }
        self.at(FAULTS_UNTIL, Happening::Calm);
        self.at(CLIENTS_UNTIL + 500, Happening::LastWrite { attempt: 0 });
        while let Some(Scheduled { at, happening, .. }) = self.queue.pop() {
            if at > END {
                break;
            }
            self.now = at;
            if let Some(member) = happening.member()
                && let Some(slot) = self.slots.get(member as usize - 1)
                && slot.paused_until > at
            {
                // What comes meanwhile waits in the system's buffers.
                let until = slot.paused_until;
                self.at(until, happening);
                continue;
            }
            if self.is_verbose {
                self.tell_message(&happening);
            }
            self.trace = mix(self.trace ^ at) ^ happening.mark();
            self.stats.happenings += 1;
            self.happen(happening)?;
        }
        self.finish()
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Scheduled { at, order: self.order, happening });
    }

    fn soon(&mut self, within: u64, happening: Happening) {
        let at = self.now + 1 + self.schedule.below(within);
        self.at(at, happening);
    }

    fn slot(&mut self, member: u64) -> &mut Slot {
        &mut self.slots[member as usize - 1]
    }

    fn running(&mut self, member: u64) -> Option<&mut Running> {
        self.slots[member as usize - 1].running.as_mut()
    }

    fn life(&mut self, member: u64, life: u64) -> Option<&mut Running> {
        self.running(member).filter(|running| running.life == life)
    }

    /// Who leads, if anybody: with the highest term.
    fn leader(&self) -> Option<u64> {
        let leaders = (1..).zip(&self.slots).filter_map(|(id, slot)| {
            let running = slot.running.as_ref().filter(|running| running.is_leader())?;
            Some((running.driver.core.term(), id))
        });
        leaders.max().map(|(_, id)| id)
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Tick { member, life } => {
                let kept = self.plan.entries_kept;
                if let Some(running) = self.life(member, life) {
                    running.driver.tick(&mut running.waiting, kept);
                    let at = self.now + TICK_MS * 1000 / self.slot(member).rate;
                    self.at(at, Happening::Tick { member, life });
                    self.round(member)?;
                }
            }
            Happening::Round { member, life } => {
                if let Some(running) = self.life(member, life) {
                    running.has_round = false;
                    self.round(member)?;
                }
            }
            Happening::Apply { member, life } => {
                if let Some(running) = self.life(member, life) {
                    running.has_apply = false;
                    self.apply(member)?;
                }
            }
            Happening::Tell { member, life } => {
                if let Some(running) = self.life(member, life) {
                    running.has_tell = false;
                    running.watch.tell();
                }
            }
            Happening::Flush { member, life } => self.flush(member, life),
            Happening::LeaseCheck { member, life } => self.check_leases(member, life),
            Happening::Arrive { message, snapshot } => self.arrive(*message, snapshot),
            Happening::SnapshotSent { from, life, to, arrived } => {
                if self.life(from, life).is_some() {
                    self.input(from, Input::SnapshotSent { to, arrived });
                }
            }
            Happening::Connected { at, to } => {
                if self.running(to).is_some() && !self.is_cut(at, to) {
                    self.input(at, Input::Connected(to));
                }
            }
            Happening::Gone { at, member } => {
                if self.running(member).is_none() && !self.is_cut(at, member) {
                    self.input(at, Input::Gone(member));
                }
            }
            Happening::Ask { client } => self.ask(client),
            Happening::Request { member, operation } => self.request(member, operation)?,
            Happening::Answered { operation, outcome } => self.answered(operation, *outcome),
            Happening::GiveUp { operation } => self.done(operation, Outcome::Unknown),
            Happening::WatchStep { watcher } => self.watch_step(watcher)?,
            Happening::Fault { number } => self.fault(number),
            Happening::FaultEnds { number, member } => self.fault_ends(number, member),
            Happening::Restart { member } => self.restart(member)?,
            Happening::Calm => self.calm(),
            Happening::LastWrite { attempt } => self.last_write(attempt),
        }
        Ok(())
    }

    fn tell_message(&self, happening: &Happening) {
        if let Happening::Arrive { message: m, .. } = happening {
            let kind = m.get_msg_type();
            let entries = m.entries.len();
            told!(
                self,
                "{kind:?} {}->{} term {} log term {} index {} commit {} entries {entries} reject {}",
                m.from,
                m.to,
                m.term,
                m.log_term,
                m.index,
                m.commit,
                m.reject
            );
        }
    }

    // --- members

    fn restart(&mut self, member: u64) -> Checked {
        if self.running(member).is_some() {
            return Ok(());
        }
        let extra_ticks = self.schedule.below(3) as usize;
        let plan = self.plan.clone();
        let slot = self.slot(member);
        slot.lives += 1;
        let birth = Birth { id: member, life: slot.lives, is_rejoining: slot.is_rejoining, extra_ticks };
        let disk = Arc::clone(&slot.disk);
        let is_damaged = disk.lock().is_damaged;
        let started = start(&plan, &disk, &birth);
        told!(
            self,
            "member {member} starts, life {}: {:?}",
            birth.life,
            started.as_ref().map(|r| r.store.read().applied_index())
        );
        match started {
            Ok(_) if is_damaged => {
                let what = format!("member {member} starts on a log with a flipped bit");
                return Err(Violation::new(Rule::DamageIsRefused, what));
            }
            Err(_) if is_damaged => {
                // Its operator moves the data aside and has it start over.
                self.stats.refused_starts += 1;
                let slot = self.slot(member);
                slot.disk = Arc::default();
                slot.is_rejoining = true;
                let again = self.now + 200;
                self.at(again, Happening::Restart { member });
                return Ok(());
            }
            Err(error) => {
                let what = format!("member {member} does not start after an ordinary end: {error}");
                return Err(Violation::new(Rule::Recovers, what));
            }
            Ok(running) => {
                let life = running.life;
                let slot = self.slot(member);
                slot.is_rejoining = false;
                running.fuse.lock().armed = slot.next_cut.take();
                slot.running = Some(running);
                self.soon(TICK_MS, Happening::Tick { member, life });
                self.soon(FLUSH_MS, Happening::Flush { member, life });
                self.soon(LEASE_CHECK_MS, Happening::LeaseCheck { member, life });
                for other in (1..=self.plan.members).filter(|other| *other != member) {
                    let later = self.now + 1 + self.network.below(60);
                    self.at(later, Happening::Connected { at: member, to: other });
                    self.at(later, Happening::Connected { at: other, to: member });
                }
            }
        }
        let wait = self.schedule.below(20);
        let Some(running) = self.running(member) else { return Ok(()) };
        running.has_round = true;
        let life = running.life;
        self.at(self.now + wait, Happening::Round { member, life });
        Ok(())
    }

    /// The process ends now; its system tells the others that nobody listens any more.
    fn crash(&mut self, member: u64, back_after: u64) {
        if self.running(member).is_none() {
            return;
        }
        self.vanish(member, back_after);
        for at in (1..=self.plan.members).filter(|at| *at != member) {
            let later = self.now + 1 + self.network.below(60);
            self.at(later, Happening::Gone { at, member });
        }
    }

    /// The whole machine ends now, so that nobody tells the others.
    fn vanish(&mut self, member: u64, back_after: u64) {
        let Some(mut running) = self.slot(member).running.take() else { return };
        self.stats.crashes += 1;
        told!(self, "member {member} ends, applied {}", running.store.read().applied_index());
        let disk = Arc::clone(&self.slot(member).disk);
        running.take_jobs(&disk);
        {
            let mut disk = disk.lock();
            // The checkpoint is anywhere between its last flush and now.
            if self.disk_random.one_in(2) && !running.fuse.lock().is_blown {
                disk.flush(std::mem::take(&mut running.unflushed));
            }
            disk.power_cut(&mut self.disk_random);
        }
        let whose = running
            .proposals
            .iter()
            .map(|(.., whose)| *whose)
            .chain(running.reads.iter().map(|(.., whose)| *whose));
        for operation in whose.filter(|whose| *whose != u64::MAX).collect::<Vec<_>>() {
            self.answer(operation as usize, Outcome::Unknown);
        }
        self.slot(member).paused_until = 0;
        let back = self.now + back_after.max(1);
        self.at(back, Happening::Restart { member });
    }

    fn input(&mut self, member: u64, input: Input) {
        let wait = self.schedule.below(3);
        let now = self.now;
        let Some(running) = self.running(member) else { return };
        running.inputs.push_back(input);
        if !std::mem::replace(&mut running.has_round, true) {
            let life = running.life;
            self.at(now + wait, Happening::Round { member, life });
        }
    }

    /// Has the driver work off everything that waits for it.
    fn round(&mut self, member: u64) -> Checked {
        let now = self.now;
        let is_prompt = self.schedule.one_in(2);
        let rate = self.slot(member).rate;
        let Some(running) = self.running(member) else { return Ok(()) };
        running.clock.store(now * rate / 1000, Ordering::Relaxed);
        running.is_prompt.store(is_prompt, Ordering::Relaxed);
        let mut result = Ok(false);
        while let Some(input) = running.inputs.pop_front() {
            result = running.driver.take(input, &mut running.waiting);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|_| running.driver.work(&mut running.waiting, instant(now)));
        let messages = running.take_messages();
        let has_just_voted = {
            let mut fuse = running.fuse.lock();
            let has_voted = std::mem::take(&mut fuse.has_voted) && !fuse.is_blown;
            has_voted && fuse.burns(|point| point == CrashPoint::AfterVote)
        };
        let has_power = result.is_ok() && !running.fuse.lock().is_blown;
        let term = running.driver.core.term();
        if term > self.last_term {
            self.last_term = term;
            self.stats.terms += 1;
            told!(self, "term {term} at member {member}");
        }
        for (message, snapshot) in messages {
            self.send(message, snapshot);
        }
        self.after_apply(member)?;
        if !has_power {
            let back = if has_just_voted { 0 } else { 50 + self.disk_random.below(1_000) };
            self.crash(member, back);
            return Ok(());
        }
        self.plan_apply(member);
        Ok(())
    }

    fn plan_apply(&mut self, member: u64) {
        let Some(running) = self.running(member) else { return };
        if !running.has_apply && !running.work.lock().is_empty() {
            running.has_apply = true;
            let life = running.life;
            // Now and then it takes long, and reads and watchers of this member fall behind.
            let within = if self.schedule.one_in(10) { 200 } else { 5 };
            self.soon(within, Happening::Apply { member, life });
        }
    }

    /// One turn of the applier.
    fn apply(&mut self, member: u64) -> Checked {
        let most = self.schedule.between(1, 8) as usize;
        let Some(running) = self.running(member) else { return Ok(()) };
        let fuse = Arc::clone(&running.fuse);
        if fuse.lock().burns(|point| point == CrashPoint::BeforeApply) {
            return self.lose_power(member);
        }
        let work = running.work.lock().pop_front();
        match work {
            None => {}
            Some(Work::Snapshot(index)) => {
                let disk = Arc::clone(&self.slot(member).disk);
                let snapshot = disk.lock().snapshots.get(&index).cloned();
                let loaded = snapshot.ok_or_else(|| "it is not there".to_owned()).and_then(|s| s.load());
                let loaded = loaded.map_err(|error| {
                    Violation::new(
                        Rule::Recovers,
                        format!("member {member} cannot load snapshot {index}: {error}"),
                    )
                })?;
                told!(self, "member {member} loads snapshot {index}, revision {}", loaded.revision());
                self.stats.snapshots_installed += 1;
                if let Some(running) = self.running(member) {
                    running.applier.replace(index, loaded);
                }
            }
            Some(Work::Committed(mut entries)) => {
                if entries.len() > most {
                    let rest = entries.split_off(most);
                    running.work.lock().push_front(Work::Committed(rest));
                }
                let point = fuse.lock().armed;
                if let Some(CrashPoint::AfterEntries(count)) = point
                    && entries.len() as u64 > count
                {
                    entries.truncate(count as usize);
                    running.applier.apply_all(entries);
                    fuse.lock().burns(|point| matches!(point, CrashPoint::AfterEntries(_)));
                    self.after_apply(member)?;
                    return self.lose_power(member);
                }
                running.applier.apply_all(entries);
            }
        }
        if fuse.lock().burns(|point| point == CrashPoint::BeforeAnswer) {
            self.see_changes(member)?;
            return self.lose_power(member);
        }
        self.after_apply(member)?;
        self.plan_apply(member);
        Ok(())
    }

    fn lose_power(&mut self, member: u64) -> Checked {
        let back = 50 + self.disk_random.below(1_000);
        self.crash(member, back);
        Ok(())
    }

    /// Compares what a member has applied with what others had, then answers whoever waited for it.
    fn after_apply(&mut self, member: u64) -> Checked {
        self.see_changes(member)?;
        let disk = Arc::clone(&self.slot(member).disk);
        let Some(running) = self.running(member) else { return Ok(()) };
        if running.fuse.lock().is_blown {
            return Ok(());
        }
        running.take_jobs(&disk);
        let mut answers = Vec::new();
        running.proposals.retain_mut(|(_, receiver, whose)| match receiver.try_recv() {
            Ok(answer) => {
                answers.push((*whose, outcome_of(answer)));
                false
            }
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => true,
            Err(tokio::sync::oneshot::error::TryRecvError::Closed) => false,
        });
        let applied = *running.applied.borrow();
        let mut readers = Vec::new();
        running.reads.retain_mut(|(receiver, index, whose)| {
            if index.is_none() {
                *index = receiver.try_recv().ok();
            }
            let is_ready = index.is_some_and(|index| applied >= index);
            if is_ready {
                readers.push(*whose);
            }
            !is_ready
        });
        for whose in readers {
            let outcome = self.read(member, whose as usize);
            answers.push((whose, outcome));
        }
        for (whose, outcome) in answers.into_iter().filter(|(whose, _)| *whose != u64::MAX) {
            self.answer(whose as usize, outcome);
        }
        Ok(())
    }

    fn see_changes(&mut self, member: u64) -> Checked {
        let mut seen = Vec::new();
        let Some(running) = self.running(member) else { return Ok(()) };
        let mut has_news = false;
        loop {
            match running.feed.try_recv() {
                Ok(Feed::Applied { events, .. }) => {
                    has_news = true;
                    seen.push(events);
                }
                Ok(Feed::Replaced) => has_news = true,
                Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        let revision = running.store.read().revision();
        running.seen_revision = revision;
        if has_news && !std::mem::replace(&mut running.has_tell, true) {
            let life = running.life;
            let within = if self.schedule.one_in(10) { 150 } else { 4 };
            self.soon(within, Happening::Tell { member, life });
        }
        for events in seen {
            self.compare(member, &events)?;
        }
        Ok(())
    }

    /// The first member to apply a revision decides; all others must have the same.
    fn compare(&mut self, member: u64, events: &[Event]) -> Checked {
        let Some(first) = events.first() else { return Ok(()) };
        let revision = first.version.revision.main;
        let last = self.history.events.last().map_or(1, |event| event.kv.mod_revision);
        let seen = Some(self.now);
        let events: Vec<store_checker::Event> = events
            .iter()
            .map(|event| store_checker::Event {
                kv: event.version.to_key_value(),
                is_deletion: event.version.tombstone,
                seen,
            })
            .collect();
        if revision > last {
            if revision != last + 1 {
                let what = format!(
                    "member {member} applies revision {revision}, but {} was applied nowhere",
                    last + 1
                );
                return Err(Violation::new(Rule::RevisionsFollow, what).at(revision));
            }
            told!(self, "revision {revision} at member {member}: {}", describe(&events));
            self.history.events.extend(events);
            return Ok(());
        }
        let start = self.history.events.partition_point(|event| event.kv.mod_revision < revision);
        let known = self.history.events[start..].iter().take_while(|event| event.kv.mod_revision == revision);
        let known: Vec<_> = known.map(|event| (&event.kv, event.is_deletion)).collect();
        let found: Vec<_> = events.iter().map(|event| (&event.kv, event.is_deletion)).collect();
        if known != found {
            let what = format!("member {member} has {found:?} at revision {revision}, another had {known:?}");
            return Err(Violation::new(Rule::MembersAgree, what).at(revision));
        }
        Ok(())
    }

    fn flush(&mut self, member: u64, life: u64) {
        let disk = Arc::clone(&self.slot(member).disk);
        let Some(running) = self.life(member, life) else { return };
        if running.fuse.lock().burns(|point| point == CrashPoint::BeforeFlush) {
            let back = 50 + self.disk_random.below(1_000);
            return self.crash(member, back);
        }
        disk.lock().flush(std::mem::take(&mut running.unflushed));
        self.soon(2 * FLUSH_MS, Happening::Flush { member, life });
    }

    /// A snapshot file is written; then the log may let go of what it covers.
    fn write_snapshot(&mut self, member: u64) {
        let disk = Arc::clone(&self.slot(member).disk);
        let Some(running) = self.running(member) else { return };
        let (snapshot, term) = {
            let store = running.store.read();
            (Snapshot::new(store.applied_index(), store.records()), store.applied_term())
        };
        let index = snapshot.index;
        if index == 0 {
            return;
        }
        disk.lock().keep_snapshot(Arc::new(snapshot));
        if running.fuse.lock().burns(|point| point == CrashPoint::BeforeRelease) {
            let back = 50 + self.disk_random.below(1_000);
            return self.crash(member, back);
        }
        self.input(member, Input::Covered { index, term });
    }

    /// As the lease keeper's task does it.
    fn check_leases(&mut self, member: u64, life: u64) {
        let now = self.now;
        let rate = self.slot(member).rate;
        let Some(running) = self.life(member, life) else { return };
        running.clock.store(now * rate / 1000, Ordering::Relaxed);
        let expired = running.leases.expired();
        for expired in expired {
            told!(self, "member {member} finds lease {} over", expired.id);
            self.propose(member, Proposal::LeaseExpire(expired), u64::MAX);
        }
        self.soon(2 * LEASE_CHECK_MS, Happening::LeaseCheck { member, life });
    }

    // --- network

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    fn send(&mut self, message: Message, snapshot: Option<Arc<Snapshot>>) {
        let Plan { lost, repeated, late, .. } = self.plan;
        let (lost, repeated, late) = if self.is_calm { (0, 0, 0) } else { (lost, repeated, late) };
        let lost = if self.storm { 50 } else { lost };
        let kind = message.get_msg_type();
        let (from, to) = (message.from, message.to);
        if to == 0 || to > self.plan.members {
            return;
        }
        let is_lost = self.network.below(100) < lost || self.is_cut(from, to);
        let is_repeated = self.network.below(100) < repeated;
        if is_lost {
            if kind == MessageType::MsgSnapshot {
                let life = self.slot(from).lives;
                let later = self.now + 20;
                self.at(later, Happening::SnapshotSent { from, life, to, arrived: false });
            }
            return;
        }
        // Connections never deliver twice, and a proposal that is forwarded twice is applied twice; all else may come again.
        let copies = if is_repeated && kind != MessageType::MsgPropose { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.network.below(100) < late {
                self.network.below(2_500)
            } else {
                self.network.below(20)
            };
            let at = self.now + 1 + delay;
            self.at(at, Happening::Arrive { message: Box::new(message.clone()), snapshot: snapshot.clone() });
        }
    }

    fn arrive(&mut self, message: Message, snapshot: Option<Arc<Snapshot>>) {
        let (from, to) = (message.from, message.to);
        let arrives = !self.is_cut(from, to) && self.running(to).is_some();
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let life = self.slot(from).lives;
            let later = self.now + 1 + self.network.below(50);
            self.at(later, Happening::SnapshotSent { from, life, to, arrived: arrives });
            if let Some(snapshot) = snapshot.filter(|_| arrives) {
                self.slot(to).disk.lock().keep_snapshot(snapshot);
            }
        }
        if arrives {
            self.input(to, Input::Step(Box::new(message)));
        }
    }

    // --- clients

    fn ask(&mut self, number: usize) {
        if self.now > CLIENTS_UNTIL {
            return;
        }
        let members = self.plan.members;
        let client = &mut self.clients[number];
        if client.left == 0 || client.current.is_some() {
            return;
        }
        client.left -= 1;
        let (request, member) = (client.next_request(), client.choose(members));
        // Renewing is the leader's business, and clients find it in the end.
        let member = match &request {
            Request::LeaseKeepAlive(_) => {
                let leaders = (1..)
                    .zip(&self.slots)
                    .filter(|(_, s)| s.running.as_ref().is_some_and(Running::is_leader));
                let leaders: Vec<u64> = leaders.map(|(id, _)| id).collect();
                if leaders.contains(&member) { member } else { leaders.first().copied().unwrap_or(member) }
            }
            _ => member,
        };
        let operation = self.begin(self.clients[number].number, member, request);
        self.clients[number].current = Some(operation);
    }

    fn begin(&mut self, client: u64, member: u64, request: Request) -> usize {
        let operation = self.history.operations.len();
        self.history.operations.push(Operation {
            client,
            member,
            invoked: self.now,
            completed: self.now,
            request,
            outcome: Outcome::Unknown,
        });
        self.is_done.push(false);
        self.stats.operations += 1;
        let arrival = self.now + self.network.below(4);
        self.at(arrival, Happening::Request { member, operation });
        let late = self.now + CLIENT_TIMEOUT_MS;
        self.at(late, Happening::GiveUp { operation });
        operation
    }

    /// A request reaches a member.
    fn request(&mut self, member: u64, operation: usize) -> Checked {
        if self.is_done[operation] {
            return Ok(());
        }
        let rate = self.slot(member).rate;
        let now = self.now;
        let Some(running) = self.running(member) else {
            self.answer(operation, Outcome::Failed);
            return Ok(());
        };
        running.clock.store(now * rate / 1000, Ordering::Relaxed);
        let whose = operation as u64;
        let proposal = match self.history.operations[operation].request.clone() {
            Request::Range(range) if range.serializable => {
                let outcome = self.read(member, operation);
                self.answer(operation, outcome);
                return Ok(());
            }
            Request::Range(_) => return self.read_index(member, operation),
            Request::Txn(txn) if check::txn_is_read_only(&txn) => {
                if check::txn_is_serializable(&txn) {
                    let outcome = self.read(member, operation);
                    self.answer(operation, outcome);
                    return Ok(());
                }
                return self.read_index(member, operation);
            }
            Request::LeaseKeepAlive(keep) => {
                let Some(running) = self.running(member) else { return Ok(()) };
                let Ok(led) = running.leases.keep_alive(keep.id) else {
                    self.answer(operation, Outcome::Failed);
                    return Ok(());
                };
                running.renewals.insert(operation, led);
                return self.read_index(member, operation);
            }
            Request::Put(put) => Proposal::Put(put),
            Request::DeleteRange(delete) => Proposal::DeleteRange(delete),
            Request::Txn(txn) => Proposal::Txn(txn),
            Request::Compact(compact) => Proposal::Compact(compact),
            Request::LeaseGrant(grant) => Proposal::LeaseGrant(grant),
            Request::LeaseRevoke(revoke) => Proposal::LeaseRevoke(revoke),
        };
        self.propose(member, proposal, whose);
        Ok(())
    }

    fn read_index(&mut self, member: u64, operation: usize) -> Checked {
        let Some(running) = self.running(member) else { return Ok(()) };
        let view = *running.view.lock();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let known = view.is_alone.then_some(view.commit);
        running.reads.push((receiver, known, operation as u64));
        if view.is_alone {
            return self.after_apply(member);
        }
        self.input(member, Input::ReadIndex(sender));
        Ok(())
    }

    fn propose(&mut self, member: u64, request: Proposal, whose: u64) {
        let deadline = instant(self.now + DEADLINE_MS);
        let Some(running) = self.running(member) else { return };
        let id = running.unique_id();
        let data = Command { id, request: Some(request) }.encode_to_vec().into();
        let receiver = running.waiters.wait(id);
        running.proposals.push((id, receiver, whose));
        self.input(member, Input::Propose { id, data, deadline });
    }

    /// Reads a member's store, or what it said of a lease, as it is.
    fn read(&mut self, member: u64, operation: usize) -> Outcome {
        let Some(running) = self.slots[member as usize - 1].running.as_mut() else { return Outcome::Unknown };
        if let Some(led) = running.renewals.remove(&operation) {
            if !running.leases.leads_in(led.term) {
                return Outcome::Failed;
            }
            let Request::LeaseKeepAlive(keep) = &self.history.operations[operation].request else {
                return Outcome::Unknown;
            };
            let response =
                pb::LeaseKeepAliveResponse { id: keep.id, ttl: led.says.unwrap_or(0), ..Default::default() };
            return Outcome::Answered(Response::LeaseKeepAlive(response));
        }
        let store = running.store.read();
        let answer = match &self.history.operations[operation].request {
            Request::Range(range) => store.range(range).map(|found| Response::Range(found.to_response())),
            Request::Txn(txn) => store.read_txn(txn).map(Response::Txn),
            _ => return Outcome::Unknown,
        };
        match answer {
            Ok(response) => Outcome::Answered(response),
            Err(error) => Outcome::Refused(Refusal::of_text(&error.to_string())),
        }
    }

    /// An answer is on its way to the client.
    fn answer(&mut self, operation: usize, outcome: Outcome) {
        if self.is_done[operation] {
            return;
        }
        let at = self.now + self.network.below(4);
        self.at(at, Happening::Answered { operation, outcome: Box::new(outcome) });
    }

    fn answered(&mut self, operation: usize, outcome: Outcome) {
        self.done(operation, outcome);
    }

    fn done(&mut self, operation: usize, outcome: Outcome) {
        if std::mem::replace(&mut self.is_done[operation], true) {
            return;
        }
        let now = self.now;
        let record = &mut self.history.operations[operation];
        record.completed = now;
        record.outcome = outcome;
        told!(self, "operation {operation} done: {:?}", self.history.operations[operation]);
        let record = &self.history.operations[operation];
        self.trace = mix(self.trace ^ operation as u64 ^ mark(&record.outcome));
        let client = record.client;
        if client == LAST_CLIENT {
            self.has_recovered |= matches!(record.outcome, Outcome::Answered(_));
            return;
        }
        let client = client as usize - 1;
        if let Some(asking) = self.clients.get_mut(client) {
            if let Outcome::Answered(response) = &record.outcome {
                asking.answered(response);
            }
            asking.current = None;
            let at = now + 1 + asking.pause();
            self.at(at, Happening::Ask { client });
        }
    }

    /// After all faults the store has to take writes again, soon.
    fn last_write(&mut self, attempt: u64) {
        if self.has_recovered || attempt > 6 {
            return;
        }
        let member = 1 + attempt % self.plan.members;
        let put = pb::PutRequest {
            key: "last".into(),
            value: format!("last-{attempt}").into(),
            ..Default::default()
        };
        self.begin(LAST_CLIENT, member, Request::Put(put));
        let again = self.now + 700;
        self.at(again, Happening::LastWrite { attempt: attempt + 1 });
    }

    // --- watchers

    fn watch_step(&mut self, number: usize) -> Checked {
        let now = self.now;
        let members = self.plan.members;
        let watcher = &mut self.watchers[number];
        let within = if watcher.random.one_in(8) { 800 } else { 60 };
        let next = 5 + watcher.random.below(within);
        if now < END - 100 {
            self.at(now + next, Happening::WatchStep { watcher: number });
        }
        let watcher = &mut self.watchers[number];
        if let Some((member, life)) = watcher.stream {
            let slot = &self.slots[member as usize - 1];
            let is_there = slot.running.as_ref().is_some_and(|running| running.life == life);
            let leaves = now < CLIENTS_UNTIL && watcher.random.one_in(25);
            if is_there && slot.paused_until > now {
                return Ok(());
            }
            if !is_there || leaves {
                self.end_stream(number);
            } else {
                return self.watch_on(number, member);
            }
        }
        let member = self.watchers[number].random.between(1, members);
        self.open_stream(number, member);
        Ok(())
    }

    fn open_stream(&mut self, number: usize, member: u64) {
        if self.slots[member as usize - 1].paused_until > self.now {
            return;
        }
        let frames_max = self.plan.frames_max;
        let Some(running) = self.slots[member as usize - 1].running.as_mut() else { return };
        self.next_stream += 1;
        let watcher = &mut self.watchers[number];
        watcher.stream = Some((member, running.life));
        let stream = watcher.number;
        running.watch.close(stream);
        running.watch.open(stream, frames_max);
        for (watch_id, mut create) in (1..).zip(std::mem::take(&mut watcher.wanted)) {
            create.watch_id = watch_id;
            let request =
                pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
            running.watch.request(stream, request);
            watcher.watches.insert(watch_id, self.history.watches.len());
            self.history.watches.push(Watch {
                client: watcher.number,
                member,
                create,
                responses: Vec::new(),
                complete_through: None,
            });
        }
        running.watch.advance(stream);
        told!(self, "watcher {stream} opens a stream at member {member}");
    }

    /// The stream is gone; each of its watches goes on elsewhere with the first revision it has not seen, or there is something new to watch.
    fn end_stream(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        let Some((member, life)) = watcher.stream.take() else { return };
        let mut watches: Vec<(i64, usize)> = watcher.watches.drain().collect();
        watches.sort_unstable();
        for (_, place) in watches {
            let revision = self.history.events.last().map_or(1, |event| event.kv.mod_revision);
            let next = self.history.watches[place].next_revision();
            let create = match next {
                Some(next) if watcher.random.below(4) > 0 => pb::WatchCreateRequest {
                    start_revision: next,
                    watch_id: 0,
                    ..self.history.watches[place].create.clone()
                },
                _ => watcher.create(revision),
            };
            watcher.wanted.push(create);
        }
        let stream = watcher.number;
        if let Some(running) = self.running(member).filter(|running| running.life == life) {
            running.watch.close(stream);
        }
    }

    /// The stream goes on, and its client reads.
    fn watch_on(&mut self, number: usize, member: u64) -> Checked {
        let now = self.now;
        let watcher = &mut self.watchers[number];
        let stream = watcher.number;
        let Some(running) = self.slots[member as usize - 1].running.as_mut() else { return Ok(()) };
        match watcher.random.below(6) {
            0 => {
                let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                running.watch.request(stream, pb::WatchRequest { request_union: Some(progress) });
            }
            1 => running.watch.notify_progress(stream),
            _ => {}
        }
        running.watch.advance(stream);
        let most = if watcher.random.one_in(5) { 1 } else { 20 };
        let responses = running.watch.read(stream, most).map_err(|status| {
            Violation::new(Rule::WatchReliable, format!("a watch stream ended by itself: {status}"))
        })?;
        for response in responses {
            self.watched(number, response, now);
        }
        Ok(())
    }

    fn watched(&mut self, number: usize, response: pb::WatchResponse, now: u64) {
        let header = response.header.map_or(0, |header| header.revision);
        self.trace = mix(self.trace ^ header.unsigned_abs() ^ (response.events.len() as u64) << 40);
        told!(
            self,
            "watcher {number} gets for {} at {header}: {:?}",
            response.watch_id,
            response
                .events
                .iter()
                .filter_map(|e| e.kv.as_ref())
                .map(|kv| (kv.mod_revision, kv.key.clone()))
                .collect::<Vec<_>>()
        );
        let watcher = &mut self.watchers[number];
        if response.watch_id == -1 {
            // Progress of the whole stream.
            for place in watcher.watches.values() {
                self.history.watches[*place].responses.push((now, response.clone()));
            }
            return;
        }
        let Some(place) = watcher.watches.get(&response.watch_id).copied() else { return };
        let is_over = response.canceled;
        let compacted = response.compact_revision;
        self.history.watches[place].responses.push((now, response));
        if is_over {
            watcher.watches.retain(|_, kept| *kept != place);
            let create = self.history.watches[place].create.clone();
            // Exactly where the compaction was: nothing is missing from there on.
            watcher.wanted.push(pb::WatchCreateRequest { start_revision: compacted, watch_id: 0, ..create });
            if watcher.watches.is_empty() {
                self.end_stream(number);
            }
        }
    }

    // --- faults

    fn fault(&mut self, number: usize) {
        let Fault { member, lasts, kind, .. } = self.plan.faults[number];
        let member = if member == 0 { self.leader().unwrap_or(1) } else { member };
        told!(self, "{kind:?} at member {member} for {lasts} ms");
        self.stats.faults += 1;
        let until = (self.now + lasts).min(FAULTS_UNTIL);
        let others: Vec<u64> = (1..=self.plan.members).filter(|other| *other != member).collect();
        match kind {
            FaultKind::Kill => self.crash(member, lasts),
            FaultKind::PowerCut(point) => {
                if let Some(running) = self.running(member) {
                    running.fuse.lock().armed = Some(point);
                }
                if point == CrashPoint::BeforeRelease {
                    self.write_snapshot(member);
                }
            }
            FaultKind::Pause => self.slot(member).paused_until = until,
            FaultKind::Election => {
                self.vanish(member, lasts);
                self.slot(member).next_cut = Some(CrashPoint::AfterVote);
            }
            FaultKind::Part | FaultKind::Mute | FaultKind::Deaf => {
                for other in others {
                    if kind != FaultKind::Deaf {
                        self.cut.push((member, other));
                    }
                    if kind != FaultKind::Mute {
                        self.cut.push((other, member));
                    }
                }
                self.at(until, Happening::FaultEnds { number, member });
            }
            FaultKind::Storm => {
                self.storm = true;
                self.at(until, Happening::FaultEnds { number, member });
            }
            FaultKind::Snapshot => self.write_snapshot(member),
            FaultKind::Transfer => {
                if let Some(to) = self.network.pick(&others) {
                    self.input(member, Input::TransferLeader(to));
                }
            }
            FaultKind::LoseDisk => {
                self.vanish(member, lasts);
                let slot = self.slot(member);
                slot.disk = Arc::default();
                slot.is_rejoining = true;
            }
            FaultKind::FlipBit => {
                self.crash(member, lasts);
                let disk = Arc::clone(&self.slot(member).disk);
                disk.lock().flip_bit(&mut self.disk_random);
            }
        }
    }

    fn fault_ends(&mut self, number: usize, member: u64) {
        match self.plan.faults[number].kind {
            FaultKind::Storm => self.storm = false,
            _ => {
                self.cut.retain(|(from, to)| *from != member && *to != member);
                for other in (1..=self.plan.members).filter(|other| *other != member) {
                    let later = self.now + 1 + self.network.below(60);
                    self.at(later, Happening::Connected { at: member, to: other });
                    self.at(later, Happening::Connected { at: other, to: member });
                }
            }
        }
    }

    /// From here on nothing goes wrong any more.
    fn calm(&mut self) {
        told!(self, "calm");
        self.is_calm = true;
        self.storm = false;
        self.cut.clear();
        for member in 1..=self.plan.members {
            self.slot(member).next_cut = None;
            if let Some(running) = self.running(member) {
                running.fuse.lock().armed = None;
            } else {
                let later = self.now + 200;
                self.at(later, Happening::Restart { member });
            }
        }
    }

    // --- the end

    fn finish(&mut self) -> Checked {
        self.now = END;
        if !self.has_recovered {
            return Err(Violation::new(Rule::Recovers, "no write succeeds although all faults are over"));
        }
        let mut first: Option<(u64, u32, i64)> = None;
        for (id, slot) in (1_u64..).zip(&self.slots) {
            let Some(running) = &slot.running else {
                return Err(Violation::new(Rule::Recovers, format!("member {id} does not run at the end")));
            };
            let store = running.store.read();
            let found = (store.applied_index(), store.hash_all(), store.revision());
            let expected = *first.get_or_insert(found);
            if found != expected {
                let rule = if found.0 == expected.0 { Rule::MembersAgree } else { Rule::Recovers };
                let what = format!(
                    "at the end member {id} has index, hash and revision {found:?}, member 1 has {expected:?}"
                );
                return Err(Violation::new(rule, what));
            }
        }
        for number in 0..self.watchers.len() {
            self.drain_watcher(number)?;
        }
        // What is still under way stays unknown.
        self.stats.unknown =
            self.history.operations.iter().filter(|op| op.outcome == Outcome::Unknown).count();
        let summary = store_checker::check(&self.history)?;
        self.stats.answered = summary.answered;
        self.stats.revisions = summary.revisions;
        self.stats.expirations = summary.expirations;
        self.stats.watched = summary.watched;
        Ok(())
    }

    /// Gives a watcher all the time it needs.
    fn drain_watcher(&mut self, number: usize) -> Checked {
        let Some((member, life)) = self.watchers[number].stream else { return Ok(()) };
        let (now, stream) = (self.now, self.watchers[number].number);
        if let Some(running) = self.life(member, life) {
            while running.has_tell {
                running.watch.tell();
                running.has_tell = false;
            }
            // Once more: the feed may have been longer than one turn takes.
            running.watch.tell();
        }
        for _ in 0..200 {
            let Some(running) = self.life(member, life) else { return Ok(()) };
            running.watch.advance(stream);
            let responses = running.watch.read(stream, 1_000).map_err(|status| {
                Violation::new(Rule::WatchReliable, format!("a watch stream ended by itself: {status}"))
            })?;
            for response in responses {
                self.watched(number, response, now);
            }
        }
        let through = self.history.events.last().map(|event| event.kv.mod_revision);
        for place in self.watchers[number].watches.values() {
            self.history.watches[*place].complete_through = through;
        }
        Ok(())
    }
}

fn describe(events: &[store_checker::Event]) -> String {
    let told = |e: &store_checker::Event| {
        let what = if e.is_deletion { "deleted".to_owned() } else { format!("{:?}", e.kv.value) };
        format!("{:?} {what}", e.kv.key)
    };
    events.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn mark(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Answered(response) => 1 << 32 | response.revision().unsigned_abs(),
        Outcome::Refused(_) => 2 << 32,
        Outcome::Failed => 3 << 32,
        Outcome::Unknown => 4 << 32,
    }
}

fn outcome_of(answer: Result<Answer, ProposeError>) -> Outcome {
    let response = match answer {
        Ok(Answer::Put(r)) => Response::Put(r),
        Ok(Answer::DeleteRange(r)) => Response::DeleteRange(r),
        Ok(Answer::Txn(r)) => Response::Txn(r),
        Ok(Answer::Compact(r)) => Response::Compact(r),
        Ok(Answer::LeaseGrant(r)) => Response::LeaseGrant(r),
        Ok(Answer::LeaseRevoke(r)) => Response::LeaseRevoke(r),
        Err(ProposeError::Store(error)) => return Outcome::Refused(Refusal::of_text(&error.to_string())),
        Ok(_) | Err(_) => return Outcome::Unknown,
    };
    Outcome::Answered(response)
}
