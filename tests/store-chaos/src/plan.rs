//! What goes wrong when, decided by the seed alone.
//!
//! Kinds are dealt like cards: each once before any comes again. Never here: doing it.

use std::time::Duration;

use store_clients::random::{Random, Stream};

/// How long an epoch has faults; then the members come to rest and what was recorded is judged.
pub const EPOCH: Duration = Duration::from_secs(25);

/// No fault begins in the end of an epoch, so that each has its time.
const LAST: Duration = Duration::from_secs(2);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// `kill -9` of one member.
    Kill,
    /// `kill -9` of two members.
    KillMajority,
    /// `kill -9` of all members.
    KillAll,
    /// `SIGSTOP`, later `SIGCONT`.
    Pause,
    /// A member and the others do not hear each other; clients reach all.
    CutFromPeers,
    /// A member hears nobody and nobody hears it.
    CutFromAll,
    /// Members do not hear one of them.
    Mute,
    /// A member does not hear the others.
    Deaf,
    /// Two members do not hear each other; the third hears both.
    CutPair,
    /// No byte is left on a member's disk.
    DiskFull,
    /// A running member is removed, its data wiped, and a voter added in its place.
    ReplaceRunning,
    /// A dead member is removed, its data wiped, and a learner added in its place and promoted.
    ReplaceDead,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::KillMajority,
        Self::KillAll,
        Self::Pause,
        Self::CutFromPeers,
        Self::CutFromAll,
        Self::Mute,
        Self::Deaf,
        Self::CutPair,
        Self::DiskFull,
        Self::ReplaceRunning,
        Self::ReplaceDead,
    ];

    /// Milliseconds that it lasts, from and to.
    fn lasts(self) -> (u64, u64) {
        match self {
            Self::Kill => (0, 4_000),
            Self::KillMajority | Self::KillAll => (0, 1_500),
            Self::Pause => (200, 12_000),
            Self::DiskFull => (1_500, 4_000),
            // These end when they are done.
            Self::ReplaceRunning | Self::ReplaceDead => (0, 0),
            _ => (500, 7_000),
        }
    }
}

/// Who is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Whoever leads then.
    Leader,
    /// This member, or if it is in trouble already the next one that is not.
    Member(usize),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, since the epoch began. Faults wait for a replacement under way.
    pub at: Duration,
    /// How long.
    pub lasts: Duration,
    /// What.
    pub kind: FaultKind,
    /// To whom.
    pub victim: Victim,
}

/// The faults of a run, epoch by epoch.
pub struct Plan {
    random: Random,
    deck: Vec<FaultKind>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, Stream::Plan, 0), deck: Vec::new() }
    }

    /// The faults of the next epoch, in order of time.
    pub fn next_epoch(&mut self, members: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut at = Duration::from_millis(self.random.between(500, 2_000));
        while at < EPOCH - LAST {
            let kind = self.draw();
            let (least, most) = kind.lasts();
            let lasts = Duration::from_millis(self.random.between(least, most));
            // The one who leads is where it hurts most.
            let is_leader = self.random.one_in(2);
            let member = self.random.below(members as u64) as usize;
            let victim = if is_leader { Victim::Leader } else { Victim::Member(member) };
            faults.push(Fault { at, lasts, kind, victim });
            at += Duration::from_millis(self.random.between(500, 4_000));
        }
        faults
    }

    fn draw(&mut self) -> FaultKind {
        if self.deck.is_empty() {
            self.deck = FaultKind::ALL.to_vec();
        }
        let place = self.random.below(self.deck.len() as u64) as usize;
        self.deck.swap_remove(place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let epochs = |seed| {
            let mut plan = Plan::new(seed);
            (0..10).map(|_| plan.next_epoch(3)).collect::<Vec<_>>()
        };
        assert_eq!(epochs(7), epochs(7));
        assert_ne!(epochs(7), epochs(8));
    }

    #[test]
    fn each_kind_comes_before_any_comes_again() {
        for seed in 0..50 {
            let mut plan = Plan::new(seed);
            let faults: Vec<Fault> = (0..20).flat_map(|_| plan.next_epoch(3)).collect();
            for dealt in faults.chunks_exact(FaultKind::ALL.len()) {
                let kinds: BTreeSet<FaultKind> = dealt.iter().map(|fault| fault.kind).collect();
                assert_eq!(kinds.len(), FaultKind::ALL.len());
            }
            assert!(faults.len() > FaultKind::ALL.len(), "{}", faults.len());
        }
    }
}
