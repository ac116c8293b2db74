//! What goes wrong in a run, drawn from its seed. Owns the numbers only.

use std::time::Duration;

use crate::random::Random;

/// How much of which trouble there is until all of it ends.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Watch events that come up to so late, always.
    pub lag: Duration,
    /// How many of a hundred events are followed by a standstill of their stream.
    pub stalls: u64,
    /// The longest standstill: reads from the copy are as old.
    pub stall_max: Duration,
    /// How many of a hundred events end their stream; some of these streams have to be listed anew.
    pub drops: u64,
    /// How many of a hundred events come twice.
    pub repeats: u64,
    /// How many of a thousand requests fail before or after they had their effect.
    pub failures: u64,
    /// The process is killed after up to so many writes; 0 is never.
    pub kill_every: u64,
    /// How many of a hundred looks of a kubelet make a pod unready for a while.
    pub flaps: u64,
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Before it had an effect.
    Before,
    /// After that.
    After,
}

/// What becomes of a watch behind one of its events.
#[derive(Clone, Copy, Debug)]
pub struct Aftermath {
    /// The event comes again.
    pub repeats: bool,
    /// Nothing more comes for so long.
    pub stands_still: Option<Duration>,
    /// The stream ends.
    pub breaks: bool,
}

impl Faults {
    /// How a request fails, if it does. One that makes an object fails before that only: nobody can tell whether an object whose name the server makes
    /// was made; upstream makes it again then, and so do we.
    pub fn of_request(&self, random: &mut Random, makes: bool) -> Option<Failure> {
        let (fails, late) = (random.below(0..1000) < self.failures, random.percent(50));
        fails.then_some(if late && !makes { Failure::After } else { Failure::Before })
    }

    /// What becomes of a watch behind an event.
    pub fn after_event(&self, random: &mut Random) -> Aftermath {
        let stall_max = u64::try_from(self.stall_max.as_millis()).unwrap_or(0);
        Aftermath {
            repeats: random.percent(self.repeats),
            stands_still: random.percent(self.stalls).then(|| random.millis(0..stall_max + 1)),
            breaks: random.percent(self.drops),
        }
    }

    /// Those of a seed. Some runs have one kind alone.
    pub fn new(random: &mut Random) -> Self {
        let mut of =
            |chance: u64, most: u64| if random.percent(chance) { random.below(1..most + 1) } else { 0 };
        Self {
            lag: Duration::from_millis(of(80, 50)),
            stalls: of(60, 15),
            stall_max: Duration::from_millis(500 + of(80, 11_000)),
            drops: of(40, 6),
            repeats: of(40, 30),
            failures: of(40, 40),
            kill_every: of(60, 40),
            flaps: of(20, 2),
        }
    }

    /// None.
    pub fn none() -> Self {
        Self {
            lag: Duration::from_millis(5),
            stalls: 0,
            stall_max: Duration::ZERO,
            drops: 0,
            repeats: 0,
            failures: 0,
            kill_every: 0,
            flaps: 0,
        }
    }
}
