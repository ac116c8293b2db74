//! A cluster in one thread under one seed: virtual time, a network that drops, delays, reorders, duplicates and parts, disks that tear the
//! write during which the power goes, members that crash and come back. The consensus core, the log's bytes and their replay are
//! the real ones.
//!
//! Checked all the time: all members apply the same entries; what was acknowledged is never missing; a read shows everything that was acknowledged
//! or read before it began. And at the end, with all faults gone, the cluster works again.
//! `SEED=n cargo nextest run -p etcd-lite simulation --no-capture` replays one run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use etcd_lite_core::{MemberRecord, Members};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, HardState, Message, MessageType};

use super::core::{CoreConfig, Disk, RaftCore};
use super::log::{RaftLog, SnapshotPosition};
use super::wal_disk::{records, to_entry, to_hard_state};
use crate::wal::codec::decode_file;
use crate::wal::{Replay, WalRecord};

const MEMBERS: u64 = 3;
const TICK: u64 = 10;
const ELECTION_TICKS: usize = 10;
/// Faults happen until then; from then on all has to come right.
const FAULTS_UNTIL: u64 = 8_000;
const END: u64 = FAULTS_UNTIL + 3_000;
/// Entries kept in memory behind a snapshot file: few, so that slow members need snapshots.
const ENTRIES_KEPT: usize = 5;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// The state machine: which commands were applied, in order.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    index: u64,
    term: u64,
    commands: Vec<u64>,
}

/// A member's disk: the log's bytes, the checkpoint, snapshot files.
#[derive(Clone, Default)]
struct SimDisk {
    log: Vec<u8>,
    checkpoint: State,
    snapshots: BTreeMap<u64, State>,
    /// The power goes during the next write, and this part (in 1/256) of it is kept.
    power_cut: Option<u64>,
    /// Says that it wrote, and did not.
    lies: bool,
}

struct PowerCut;

impl SimDisk {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PowerCut> {
        if self.lies {
            return Ok(());
        }
        match self.power_cut.take() {
            None => self.log.extend_from_slice(bytes),
            Some(part) => {
                self.log.extend_from_slice(&bytes[..bytes.len() * part as usize / 256]);
                return Err(PowerCut);
            }
        }
        Ok(())
    }

    /// As the log is opened after a crash: the torn tail is cut off.
    fn replay(&mut self) -> Result<Replay, String> {
        let mut replay = Replay::default();
        let mut failure = None;
        let end = decode_file(&self.log, |record| {
            if failure.is_none() {
                failure = replay.take(record, Path::new("log"), false, (0, 0)).err();
            }
        });
        match (failure, end) {
            (Some(error), _) => Err(error.to_string()),
            (None, crate::wal::codec::FileEnd::Clean) => Ok(replay),
            (None, crate::wal::codec::FileEnd::Torn { offset }) => {
                self.log.truncate(offset);
                Ok(replay)
            }
            (None, crate::wal::codec::FileEnd::Damaged { offset }) => Err(format!("damaged at {offset}")),
        }
    }
}

impl Disk for SimDisk {
    type Error = PowerCut;

    fn persist(
        &mut self,
        reset: Option<(u64, u64)>,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), PowerCut> {
        let mut bytes = Vec::new();
        WalRecord::Write { number: 0 }.encode(&mut bytes);
        records(reset, entries, hard_state).for_each(|record| record.encode(&mut bytes));
        self.write(&bytes)
    }
}

/// A member that runs.
struct Running {
    core: RaftCore,
    state: Arc<Mutex<State>>,
    /// Snapshots that raft asked for, by receiver.
    prepared: Arc<Mutex<HashMap<u64, State>>>,
    /// Commands proposed here, not acknowledged yet.
    proposed: Vec<u64>,
    /// Reads that wait: number, and what they have to show.
    reads: HashMap<u64, usize>,
    /// Reads whose index is not applied yet.
    waiting: Vec<(u64, usize)>,
    next_read: u64,
}

struct SimMember {
    disk: SimDisk,
    running: Option<Running>,
    lives: u64,
}

enum Happening {
    Tick { member: u64, life: u64 },
    Arrive { message: Box<Message>, snapshot: Option<State> },
    SnapshotSent { from: u64, life: u64, to: u64, arrived: bool },
    Write { member: u64 },
    Read { member: u64 },
    Crash { member: u64 },
    Restart { member: u64 },
    Gone { at: u64, member: u64 },
    Connected { at: u64, to: u64 },
    LoseDisk { member: u64 },
    Checkpoint { member: u64 },
    Part,
    Heal,
}

/// What a run went through.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    acknowledged: usize,
    reads: usize,
    crashes: usize,
    power_cuts: usize,
    snapshots: usize,
    leaders: usize,
}

impl Stats {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.snapshots += other.snapshots;
        self.leaders += other.leaders;
    }
}

struct Simulation {
    random: Random,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: HashMap<u64, Happening>,
    members: BTreeMap<u64, SimMember>,
    /// Members on this side do not hear those on the other.
    parted: Vec<u64>,
    /// What every index holds, as first applied anywhere: term and command (0: none).
    agreed: BTreeMap<u64, (u64, u64)>,
    /// All commands that were applied anywhere, in order.
    applied_commands: Vec<u64>,
    applied_index: u64,
    /// Commands up to here were acknowledged or seen by a read: reads begun from now on must show them.
    visible: usize,
    next_command: u64,
    last_leader: (u64, u64),
    planted: Option<Planted>,
    faults: Faults,
    stats: Stats,
}

/// Faults that break a promise: a run with one of them has to fail, or the checks are blind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Planted {
    /// Disks say that they wrote, and did not.
    LyingDisks,
    /// Reads are answered from the member's own copy.
    LocalReads,
}

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Faults {
    /// Crashes, torn writes, partitions, lost and late messages.
    Usual,
    /// One member loses its disk and comes back as a member of the existing cluster. The network is good: with one member that knows
    /// nothing, a cluster of three stands one more failure less.
    LostDisk,
}

type Checked<T = ()> = Result<T, String>;

impl Simulation {
    fn new(seed: u64, faults: Faults, planted: Option<Planted>) -> Checked<Self> {
        let lies = planted == Some(Planted::LyingDisks);
        let member = |_| SimMember { disk: SimDisk { lies, ..SimDisk::default() }, running: None, lives: 0 };
        let mut simulation = Self {
            random: Random(seed),
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            members: (1..=MEMBERS).map(|id| (id, member(id))).collect(),
            parted: Vec::new(),
            agreed: BTreeMap::new(),
            applied_commands: Vec::new(),
            applied_index: 0,
            visible: 0,
            next_command: 0,
            last_leader: (0, 0),
            planted,
            faults,
            stats: Stats::default(),
        };
        for member in 1..=MEMBERS {
            simulation.start(member)?;
        }
        simulation.plan();
        Ok(simulation)
    }

    /// Everything that a client or fate does.
    fn plan(&mut self) {
        let mut at = 300;
        while at < END - 500 {
            let member = 1 + self.random.below(MEMBERS);
            let happening =
                if self.random.one_in(3) { Happening::Read { member } } else { Happening::Write { member } };
            self.at(at, happening);
            at += 1 + self.random.below(30);
        }
        if self.faults == Faults::LostDisk {
            let at = 2_000 + self.random.below(4_000);
            let member = 1 + self.random.below(MEMBERS);
            self.at(at, Happening::LoseDisk { member });
            let back = at + 1 + self.random.below(500);
            self.at(back, Happening::Restart { member });
            for _ in 0..10 {
                let (at, member) = (self.random.below(FAULTS_UNTIL), 1 + self.random.below(MEMBERS));
                self.at(at, Happening::Checkpoint { member });
            }
            return;
        }
        let mut at = 500;
        while at < FAULTS_UNTIL {
            let member = 1 + self.random.below(MEMBERS);
            match self.random.below(5) {
                0 | 1 => {
                    let back = at + 1 + self.random.below(600);
                    self.at(at, Happening::Crash { member });
                    self.at(back, Happening::Restart { member });
                }
                2 => {
                    let until = at + 1 + self.random.below(800);
                    self.at(at, Happening::Part);
                    self.at(until, Happening::Heal);
                }
                _ => self.at(at, Happening::Checkpoint { member }),
            }
            at += 1 + self.random.below(300);
        }
        self.at(FAULTS_UNTIL, Happening::Heal);
        for member in 1..=MEMBERS {
            self.at(FAULTS_UNTIL, Happening::Restart { member });
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((time, self.order)));
        self.happenings.insert(self.order, happening);
    }

    fn run(&mut self) -> Checked {
        while let Some(Reverse((time, order))) = self.queue.pop() {
            if time > END {
                break;
            }
            self.now = time;
            if let Some(happening) = self.happenings.remove(&order) {
                self.happen(happening)?;
            }
        }
        self.check_end()
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Tick { member, life } => {
                if let Some(running) = self.running(member, life) {
                    running.core.tick();
                    self.at(self.now + TICK, Happening::Tick { member, life });
                    self.work(member)?;
                }
            }
            Happening::Arrive { message, snapshot } => self.arrive(*message, snapshot)?,
            Happening::SnapshotSent { from, life, to, arrived } => {
                if let Some(running) = self.running(from, life) {
                    running.core.report_snapshot(to, arrived);
                    self.work(from)?;
                }
            }
            Happening::Write { member } => {
                let command = self.next_command + 1;
                if let Some(running) = self.members.get_mut(&member).and_then(|m| m.running.as_mut())
                    && running.core.has_leader()
                {
                    self.next_command = command;
                    running.proposed.push(command);
                    running.core.propose(vec![command.to_le_bytes().to_vec().into()]);
                    self.work(member)?;
                }
            }
            Happening::Read { member } => {
                let visible = self.visible;
                let is_local = self.planted == Some(Planted::LocalReads);
                if let Some(running) = self.members.get_mut(&member).and_then(|m| m.running.as_mut()) {
                    if is_local {
                        running.waiting.push((0, visible));
                    }
                    running.next_read += 1;
                    running.reads.insert(running.next_read, visible);
                    running.core.read_index(running.next_read);
                    self.work(member)?;
                }
            }
            Happening::Crash { member } => {
                if self.random.one_in(2) {
                    // Not now, but in the middle of the next write.
                    let part = self.random.below(257);
                    self.disk(member).power_cut = Some(part);
                } else {
                    self.crash(member);
                }
            }
            Happening::Restart { member } => {
                self.disk(member).power_cut = None;
                if self.members.get(&member).is_some_and(|m| m.running.is_none()) {
                    self.start(member)?;
                    self.work(member)?;
                }
            }
            Happening::LoseDisk { member } => {
                self.crash(member);
                *self.disk(member) = SimDisk::default();
            }
            Happening::Gone { at, member } => {
                let is_gone = self.members.get(&member).is_some_and(|m| m.running.is_none());
                if is_gone && let Some(running) = self.members.get_mut(&at).and_then(|m| m.running.as_mut()) {
                    running.core.gone(member);
                    self.work(at)?;
                }
            }
            Happening::Connected { at, to } => {
                let is_there = self.members.get(&to).is_some_and(|m| m.running.is_some());
                if is_there && let Some(running) = self.members.get_mut(&at).and_then(|m| m.running.as_mut())
                {
                    running.core.connected(to);
                    self.work(at)?;
                }
            }
            Happening::Checkpoint { member } => self.checkpoint(member),
            Happening::Part => {
                // Often the leader: the others elect a new one, and it does not know.
                let alone = if self.random.one_in(2) { self.last_leader.1 } else { 0 };
                self.parted = vec![if alone == 0 { 1 + self.random.below(MEMBERS) } else { alone }];
            }
            Happening::Heal => self.parted.clear(),
        }
        Ok(())
    }

    fn running(&mut self, member: u64, life: u64) -> Option<&mut Running> {
        self.members.get_mut(&member).filter(|m| m.lives == life)?.running.as_mut()
    }

    fn disk(&mut self, member: u64) -> &mut SimDisk {
        &mut self.members.get_mut(&member).expect("a member").disk
    }

    fn crash(&mut self, member: u64) {
        let chance = self.random.next();
        let Some(sim) = self.members.get_mut(&member) else { return };
        let Some(running) = sim.running.take() else { return };
        self.stats.crashes += 1;
        // The checkpoint is written behind: it is anywhere between where it was and where the state was.
        let state = running.state.lock().clone();
        if chance.is_multiple_of(2) && state.index > sim.disk.checkpoint.index {
            sim.disk.checkpoint = state;
        }
        for at in (1..=MEMBERS).filter(|at| *at != member) {
            let later = self.now + 1 + self.random.below(60);
            self.at(later, Happening::Gone { at, member });
        }
    }

    /// A snapshot file is written, so the log before it may go.
    fn checkpoint(&mut self, member: u64) {
        let Some(sim) = self.members.get_mut(&member) else { return };
        let Some(running) = &mut sim.running else { return };
        let state = running.state.lock().clone();
        if state.index == 0 {
            return;
        }
        let mut bytes = Vec::new();
        WalRecord::Write { number: 0 }.encode(&mut bytes);
        WalRecord::Snapshot { index: state.index, term: state.term }.encode(&mut bytes);
        sim.disk.snapshots.insert(state.index, state.clone());
        running.core.trim(state.index, ENTRIES_KEPT, usize::MAX);
        if sim.disk.write(&bytes).is_err() {
            self.stats.power_cuts += 1;
            self.crash(member);
        }
    }

    fn start(&mut self, member: u64) -> Checked {
        let extra = self.random.below(3) as usize;
        let log_may_be_lost = self.planted == Some(Planted::LyingDisks);
        let sim = self.members.get_mut(&member).expect("a member");
        sim.lives += 1;
        let replay = sim.disk.replay().map_err(|error| format!("member {member} does not start: {error}"))?;
        let last = replay.entries.last().map_or(replay.snapshot.0, |entry| entry.index);
        let fits = |state: &&State| (replay.snapshot.0..=last).contains(&state.index);
        let candidates = std::iter::once(&sim.disk.checkpoint).chain(sim.disk.snapshots.values());
        let state = match candidates.filter(fits).max_by_key(|state| state.index) {
            Some(state) => state.clone(),
            None if log_may_be_lost => return Err("the log is lost".into()),
            None => {
                return Err(format!(
                    "member {member} has no state for a log from {} to {last}",
                    replay.snapshot.0
                ));
            }
        };
        let is_rejoining = self.faults == Faults::LostDisk && sim.lives > 1;
        let applied = state.index;
        let state = Arc::new(Mutex::new(state));
        let prepared: Arc<Mutex<HashMap<u64, State>>> = Arc::default();
        let (source, outbox) = (Arc::clone(&state), Arc::clone(&prepared));
        let members =
            Members::from_records((1..=MEMBERS).map(|id| MemberRecord { id, ..MemberRecord::default() }));
        let snapshot_members = members.clone();
        let log = RaftLog::new(
            &members,
            to_hard_state(replay.hard_state, applied),
            replay.snapshot,
            replay.entries.into_iter().map(to_entry).collect(),
            Box::new(move |to| {
                let state = source.lock().clone();
                let position = SnapshotPosition {
                    index: state.index,
                    term: state.term,
                    members: snapshot_members.clone(),
                };
                outbox.lock().insert(to, state);
                position
            }),
        );
        let config = CoreConfig {
            id: member,
            incarnation: sim.lives,
            election_ticks: ELECTION_TICKS,
            // Never the same for two members.
            exact_election_ticks: Some(ELECTION_TICKS + 3 * member as usize + extra),
            heartbeat_ticks: 1,
            applied,
            is_rejoining,
        };
        let core =
            RaftCore::new(config, members, log).map_err(|error| format!("member {member}: {error}"))?;
        let life = sim.lives;
        sim.running = Some(Running {
            core,
            state,
            prepared,
            proposed: Vec::new(),
            reads: HashMap::new(),
            waiting: Vec::new(),
            next_read: 0,
        });
        for other in (1..=MEMBERS).filter(|other| *other != member) {
            let later = self.now + 1 + self.random.below(60);
            self.at(later, Happening::Connected { at: member, to: other });
            self.at(later, Happening::Connected { at: other, to: member });
        }
        let first = self.now + 1 + self.random.below(TICK);
        self.at(first, Happening::Tick { member, life });
        Ok(())
    }

    fn arrive(&mut self, message: Message, snapshot: Option<State>) -> Checked {
        let (from, to) = (message.from, message.to);
        let is_apart = self.parted.contains(&from) != self.parted.contains(&to);
        let is_up = self.members.get(&to).is_some_and(|m| m.running.is_some());
        let arrives = !is_apart && is_up;
        if let Some(state) = &snapshot {
            if arrives {
                self.disk(to).snapshots.insert(state.index, state.clone());
            }
            let life = self.members.get(&from).map_or(0, |m| m.lives);
            let later = self.now + 1 + self.random.below(50);
            self.at(later, Happening::SnapshotSent { from, life, to, arrived: arrives });
        }
        if arrives && let Some(running) = self.members.get_mut(&to).and_then(|m| m.running.as_mut()) {
            running.core.step(message);
            self.work(to)?;
        }
        Ok(())
    }

    fn send(&mut self, message: Message, snapshot: Option<State>) {
        let kind = message.get_msg_type();
        let is_calm = self.now >= FAULTS_UNTIL || self.faults == Faults::LostDisk;
        if !is_calm && self.random.one_in(20) {
            if kind == MessageType::MsgSnapshot {
                let (from, to) = (message.from, message.to);
                let life = self.members.get(&from).map_or(0, |m| m.lives);
                self.at(self.now + 20, Happening::SnapshotSent { from, life, to, arrived: false });
            }
            return;
        }
        // Streams between members never deliver a message twice on purpose, and a forwarded proposal would be applied twice; all else may come
        // again.
        let copies =
            if !is_calm && kind != MessageType::MsgPropose && self.random.one_in(20) { 2 } else { 1 };
        for _ in 0..copies {
            let delay_max = match self.random.below(200) {
                _ if is_calm => 8,
                0 => 2_000,
                1..13 => 300,
                _ => 8,
            };
            let delay = self.random.below(delay_max);
            self.at(
                self.now + 1 + delay,
                Happening::Arrive { message: Box::new(message.clone()), snapshot: snapshot.clone() },
            );
        }
    }

    /// Has a member work off what is ready, as the driver does.
    fn work(&mut self, member: u64) -> Checked {
        let Some(sim) = self.members.get_mut(&member) else { return Ok(()) };
        let Some(running) = &mut sim.running else { return Ok(()) };
        let mut messages = Vec::new();
        let result = running.core.process(&mut sim.disk, |message| messages.push(message));
        let messages: Vec<_> = messages
            .into_iter()
            .map(|message| {
                let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
                let snapshot = if is_snapshot { running.prepared.lock().remove(&message.to) } else { None };
                (message, snapshot)
            })
            .collect();
        let leader = (running.core.term(), running.core.leader());
        for (message, snapshot) in messages {
            self.send(message, snapshot);
        }
        if leader.1 != 0 && leader > self.last_leader {
            self.last_leader = leader;
            self.stats.leaders += 1;
        }
        let Ok(output) = result else {
            self.stats.power_cuts += 1;
            self.crash(member);
            return Ok(());
        };
        if let Some(index) = output.snapshot {
            self.install(member, index)?;
        }
        for entry in output.committed {
            self.apply(member, &entry)?;
        }
        if let Some(running) = self.members.get_mut(&member).and_then(|m| m.running.as_mut()) {
            for (number, index) in output.reads {
                if let Some(must_show) = running.reads.remove(&number) {
                    running.waiting.push((index, must_show));
                }
            }
        }
        self.answer_reads(member)
    }

    fn install(&mut self, member: u64, index: u64) -> Checked {
        self.stats.snapshots += 1;
        let sim = self.members.get_mut(&member).expect("a member");
        let snapshot = sim.disk.snapshots.get(&index).cloned();
        let snapshot =
            snapshot.ok_or_else(|| format!("member {member} installs snapshot {index}, which it has not"))?;
        let count = snapshot.commands.len();
        if self.applied_commands.get(..count) != Some(&snapshot.commands[..]) {
            return Err(format!("the snapshot at {index} is not what was applied"));
        }
        if let Some(running) = &mut sim.running {
            *running.state.lock() = snapshot;
        }
        Ok(())
    }

    fn apply(&mut self, member: u64, entry: &Entry) -> Checked {
        let command = entry.data.as_ref().try_into().map_or(0, u64::from_le_bytes);
        let agreed = *self.agreed.entry(entry.index).or_insert((entry.term, command));
        if agreed != (entry.term, command) {
            return Err(format!(
                "member {member} applies {command} of term {} at {}, another had {} of term {}",
                entry.term, entry.index, agreed.1, agreed.0
            ));
        }
        if entry.index > self.applied_index {
            if entry.index != self.applied_index + 1 {
                return Err(format!("entry {} is applied before {}", entry.index, self.applied_index + 1));
            }
            self.applied_index = entry.index;
            if command != 0 {
                self.applied_commands.push(command);
            }
        }
        let Some(running) = self.members.get_mut(&member).and_then(|m| m.running.as_mut()) else {
            return Ok(());
        };
        let mut state = running.state.lock();
        if entry.index <= state.index {
            return Ok(());
        }
        if entry.index != state.index + 1 {
            return Err(format!("member {member} applies {} after {}", entry.index, state.index));
        }
        state.index = entry.index;
        state.term = entry.term;
        if command == 0 {
            return Ok(());
        }
        if state.commands.contains(&command) {
            return Err(format!("command {command} is applied twice"));
        }
        state.commands.push(command);
        if let Some(position) = running.proposed.iter().position(|proposed| *proposed == command) {
            running.proposed.swap_remove(position);
            self.stats.acknowledged += 1;
            self.visible = self.visible.max(state.commands.len());
        }
        Ok(())
    }

    fn answer_reads(&mut self, member: u64) -> Checked {
        let Some(running) = self.members.get_mut(&member).and_then(|m| m.running.as_mut()) else {
            return Ok(());
        };
        let (index, shown) = {
            let state = running.state.lock();
            (state.index, state.commands.len())
        };
        let ready: Vec<usize> =
            running.waiting.extract_if(.., |(at, _)| *at <= index).map(|(_, must)| must).collect();
        for must_show in ready {
            if shown < must_show {
                return Err(format!(
                    "a read at member {member} shows {shown} commands, {must_show} were there before it"
                ));
            }
            self.stats.reads += 1;
            self.visible = self.visible.max(shown);
        }
        Ok(())
    }

    fn check_end(&mut self) -> Checked {
        let states: Vec<State> = self
            .members
            .values()
            .filter_map(|member| member.running.as_ref())
            .map(|running| running.state.lock().clone())
            .collect();
        if states.len() as u64 != MEMBERS {
            return Err("not all members run at the end".into());
        }
        if states.iter().any(|state| *state != states[0]) {
            let indexes: Vec<u64> = states.iter().map(|state| state.index).collect();
            return Err(format!("the members do not agree at the end: applied {indexes:?}"));
        }
        if states[0].commands.len() < self.visible {
            return Err("acknowledged commands are missing at the end".into());
        }
        let waiting =
            self.members.values().filter_map(|m| m.running.as_ref()).map(|r| r.waiting.len()).sum::<usize>();
        if waiting > 0 {
            return Err(format!("{waiting} reads still wait for entries"));
        }
        Ok(())
    }
}

/// One run; a panic of the library counts as a failure.
fn run(seed: u64, faults: Faults, planted: Option<Planted>) -> Checked<Stats> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = Simulation::new(seed, faults, planted)?;
        simulation.run()?;
        Ok(simulation.stats)
    }));
    outcome.unwrap_or_else(|_| Err("it panicked (see above)".into()))
}

fn seeds() -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..200).collect(),
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_reads_are_linearizable() {
    let seeds = seeds();
    let outcomes: Vec<(u64, Checked<Stats>)> = std::thread::scope(|scope| {
        let work = |seeds: &[u64]| -> Vec<_> {
            seeds.iter().map(|seed| (*seed, run(*seed, Faults::Usual, None))).collect()
        };
        let halves: Vec<_> =
            seeds.chunks(seeds.len().div_ceil(2)).map(|half| scope.spawn(move || work(half))).collect();
        halves.into_iter().flat_map(|half| half.join().expect("a run never panics")).collect()
    });
    let mut total = Stats::default();
    for (seed, outcome) in outcomes {
        match outcome {
            Ok(stats) => total.add(stats),
            Err(what) => panic!(
                "seed {seed}: {what}\nreplay it with: SEED={seed} cargo nextest run -p etcd-lite simulation --no-capture"
            ),
        }
    }
    eprintln!("{} runs: {total:?}", seeds.len());
    if seeds.len() > 1 {
        let runs = seeds.len();
        assert!(total.acknowledged > 50 * runs && total.reads > 20 * runs, "too little happened: {total:?}");
        assert!(total.crashes > 5 * runs && total.power_cuts > runs, "too few faults: {total:?}");
        assert!(total.snapshots > runs / 2 && total.leaders > 3 * runs, "too little trouble: {total:?}");
    }
}

#[test]
fn lying_disks_and_reads_of_a_members_own_copy_are_found_out() {
    for planted in [Planted::LyingDisks, Planted::LocalReads] {
        let found = (0..10).filter(|seed| run(*seed, Faults::Usual, Some(planted)).is_err()).count();
        assert!(found > 7, "only {found} of 10 runs noticed {planted:?}");
    }
}

#[test]
fn a_member_that_lost_its_disk_is_rebuilt_by_the_leader() {
    let mut installed = 0;
    for seed in 0..40 {
        match run(seed, Faults::LostDisk, None) {
            Ok(stats) => installed += stats.snapshots,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(installed > 20, "only {installed} of 40 members needed a snapshot");
}
