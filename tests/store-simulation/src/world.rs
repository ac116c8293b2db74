//! The run: virtual time, members, network, clients and faults in one thread. Everything that happens is taken from one queue in order of time,
//! and leaves its mark in the trace's hash.

use std::collections::BinaryHeap;
use std::sync::Arc;

use etcd_lite::raft::driver::Input;
use parking_lot::Mutex;
use store_checker::{History, Outcome, Rule, Violation};
use store_clients::random::{Random, Stream, mix};
use store_clients::{Client, Keys, Watcher};

use crate::disk::SimDisk;
use crate::member::{Running, TICK_MS};
use crate::plan::{CLIENTS_UNTIL, CrashPoint, END, END_AT_LATEST, FAULTS_UNTIL, Plan};

/// Says what happens, if asked to.
macro_rules! told {
    ($world:expr, $($text:tt)*) => {
        if $world.is_verbose {
            println!("{:>6} {}", $world.now, format_args!($($text)*));
        }
    };
}

mod applying;
mod clients;
mod faults;
mod happening;
mod members;
mod network;
mod stats;
mod watchers;

use happening::{Happening, Scheduled};
pub use stats::Stats;

/// How much faster or slower than true a member's clock may run, in thousandths.
const CLOCK_SKEW: u64 = 20;

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
            if at > END && (at > END_AT_LATEST || self.is_at_rest()) {
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

    /// Whether all members have applied the same.
    fn is_at_rest(&self) -> bool {
        let mut applied =
            self.slots.iter().map(|slot| Some(slot.running.as_ref()?.store.read().applied_index()));
        let first = applied.next().flatten();
        applied.all(|index| index == first)
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
            Happening::Answered { operation, outcome } => self.done(operation, *outcome),
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

    fn finish(&mut self) -> Checked {
        self.now = self.now.max(END);
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
}
