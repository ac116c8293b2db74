//! What a run is made of, decided by its seed before it begins: members, clients, faults. What is left out of it (to find the shortest run that
//! fails) changes nothing of the rest.

use store_clients::random::{Random, Stream};

/// Milliseconds of virtual time in which faults begin.
pub const FAULTS_UNTIL: u64 = 9_000;
/// When clients stop asking.
pub const CLIENTS_UNTIL: u64 = 11_500;
/// When the last leases end, so that all members have applied that by the end.
pub const LEASES_UNTIL: u64 = 17_000;
/// When all has come to rest, but for a lease that a late leader has prolonged.
pub const END: u64 = 18_000;
/// When that is over too.
pub const END_AT_LATEST: u64 = 20_000;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Members of the cluster: 1, 3 or 5.
    pub members: u64,
    /// Clients that read and write.
    pub clients: u64,
    /// Clients that watch.
    pub watchers: u64,
    /// Operations of each client at most.
    pub operations: u64,
    /// Keys there are.
    pub keys: u64,
    /// Log entries kept in memory for those that lag.
    pub entries_kept: usize,
    /// Whether all members campaign after the same time, so that several do at once.
    pub is_crowded: bool,
    /// Events that a watcher which is behind gets on by at a time.
    pub history_scan_max: usize,
    /// Changes a watch hub may lag behind.
    pub feed_capacity: usize,
    /// Responses that may wait for a watcher.
    pub frames_max: usize,
    /// In percent: messages lost, repeated, late, while faults last.
    pub lost: u64,
    /// See `lost`.
    pub repeated: u64,
    /// See `lost`.
    pub late: u64,
    /// Whether a member loses its disk: then nothing else goes wrong, since a cluster of three with a member that knows nothing stands one
    /// failure less.
    pub loses_disk: bool,
    /// In order of time.
    pub faults: Vec<Fault>,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// When.
    pub at: u64,
    /// To whom: a member, or 0 for whoever leads then.
    pub member: u64,
    /// How long, in milliseconds.
    pub lasts: u64,
    /// What.
    pub kind: FaultKind,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The process ends now, and is started again later.
    Kill,
    /// The power goes at the next such point, and comes back later.
    PowerCut(CrashPoint),
    /// The process stands still.
    Pause,
    /// The member and all others do not hear each other.
    Part,
    /// Others do not hear the member.
    Mute,
    /// The member does not hear others.
    Deaf,
    /// Half of all messages are lost.
    Storm,
    /// A snapshot file is written, and what it covers leaves the log.
    Snapshot,
    /// Leadership is handed on.
    Transfer,
    /// The machine is off, and comes back while others campaign; right after its vote it is off again, for a moment only.
    Election,
    /// The disk is lost; the member comes back as one of the existing cluster.
    LoseDisk,
    /// While the member is down a bit of its log flips.
    FlipBit,
}

/// Where a power cut strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Before a write reaches the disk.
    BeforeWrite,
    /// In the middle of a write: a part of it is there.
    DuringWrite,
    /// In the middle of a write, whose sectors reach the disk in any order.
    SectorsMissing,
    /// After a write is synced, before anything is sent on account of it.
    AfterSync,
    /// After so many messages of a round.
    AfterSends(u64),
    /// After a vote for another is written down and told.
    AfterVote,
    /// Before what was committed is applied.
    BeforeApply,
    /// After so many entries.
    AfterEntries(u64),
    /// After applying, before anybody is answered.
    BeforeAnswer,
    /// Before the checkpoint is flushed.
    BeforeFlush,
    /// After a snapshot file is written, before the log knows.
    BeforeRelease,
}

impl Plan {
    /// The run of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, Stream::Plan, 0);
        let members = match random.below(12) {
            0 => 1,
            1 | 2 => 5,
            _ => 3,
        };
        let is_lossy = random.one_in(2);
        let rate = |random: &mut Random, max| if is_lossy { random.below(max) } else { 0 };
        let loses_disk = members > 1 && random.one_in(12);
        let mut plan = Self {
            seed,
            members,
            clients: random.between(2, 6),
            watchers: random.between(1, 4),
            operations: random.between(40, 120),
            keys: random.between(3, 10),
            entries_kept: random.between(3, 40) as usize,
            is_crowded: random.one_in(3),
            history_scan_max: random.between(1, 40) as usize,
            feed_capacity: random.between(8, 32) as usize,
            frames_max: random.between(2, 32) as usize,
            lost: rate(&mut random, 8),
            repeated: rate(&mut random, 6),
            late: rate(&mut random, 8),
            loses_disk,
            faults: Vec::new(),
        };
        if loses_disk {
            plan.plan_lost_disk(&mut random);
        } else {
            plan.plan_faults(&mut random);
        }
        plan.faults.sort_by_key(|fault| fault.at);
        plan
    }

    fn plan_lost_disk(&mut self, random: &mut Random) {
        (self.repeated, self.late) = (0, 0);
        let kind = if random.one_in(2) { FaultKind::LoseDisk } else { FaultKind::FlipBit };
        let at = random.between(2_000, 6_000);
        let member = if random.one_in(2) { 0 } else { random.between(1, self.members) };
        self.faults.push(Fault { at, member, lasts: random.between(50, 900), kind });
        if random.one_in(2) {
            // Somebody lacks what was written last. Not for so long that it counts as gone.
            let member = random.between(1, self.members);
            self.faults.push(Fault { at: at - 300, member, lasts: 310, kind: FaultKind::Deaf });
        }
        for _ in 0..random.below(5) {
            let (at, member) = (random.below(FAULTS_UNTIL), random.between(1, self.members));
            self.faults.push(Fault { at, member, lasts: 0, kind: FaultKind::Snapshot });
        }
    }

    fn plan_faults(&mut self, random: &mut Random) {
        let gap = random.between(300, 2_500);
        let mut at = 300 + random.below(gap);
        while at < FAULTS_UNTIL {
            // The one who leads is where it hurts most.
            let member = if random.one_in(2) { 0 } else { random.between(1, self.members) };
            if random.one_in(20) {
                self.plan_short_lives(random, at, member);
            }
            let kind = match random.below(22) {
                0 | 1 => FaultKind::Kill,
                2..8 => FaultKind::PowerCut(match random.below(12) {
                    0 => CrashPoint::BeforeWrite,
                    1 | 2 => CrashPoint::DuringWrite,
                    3 => CrashPoint::SectorsMissing,
                    4 => CrashPoint::AfterSync,
                    5 => CrashPoint::AfterSends(random.below(3)),
                    6 => CrashPoint::BeforeApply,
                    7 => CrashPoint::AfterEntries(random.below(3)),
                    8 => CrashPoint::BeforeAnswer,
                    9 | 10 => CrashPoint::BeforeFlush,
                    _ => CrashPoint::BeforeRelease,
                }),
                8..10 => FaultKind::Pause,
                10..12 => FaultKind::Part,
                12 => FaultKind::Mute,
                13 => FaultKind::Deaf,
                14 => FaultKind::Storm,
                15 => FaultKind::Transfer,
                16 | 17 => FaultKind::Election,
                _ => FaultKind::Snapshot,
            };
            let lasts = match kind {
                FaultKind::Election => random.between(500, 1_300),
                FaultKind::Pause | FaultKind::Part => random.between(100, 6_000),
                _ => random.between(50, 2_000),
            };
            self.faults.push(Fault { at, member, lasts, kind });
            at += 1 + random.below(gap);
        }
    }

    /// A member that ends again and again, soon after it is back.
    fn plan_short_lives(&mut self, random: &mut Random, from: u64, member: u64) {
        let mut at = from;
        for _ in 0..random.between(2, 6) {
            self.faults.push(Fault { at, member, lasts: random.between(1, 20), kind: FaultKind::Kill });
            at += random.between(100, 500);
        }
    }
}
