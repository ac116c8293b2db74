//! Chance, all of it from one seed: a stream of numbers for each kind of thing, so that leaving one thing out changes nothing about the others.

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// What a stream of chance is for.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Shape of the run and its faults.
    Plan = 1,
    /// Delays and losses of messages.
    Network,
    /// What power cuts leave.
    Disk,
    /// When members get to their work.
    Schedule,
    /// What clients ask; each client has its own.
    Client,
    /// What watchers ask; each has its own.
    Watcher,
}

impl Random {
    /// A stream of a run.
    pub fn new(seed: u64, stream: Stream, number: u64) -> Self {
        let mut mixed = Self(seed ^ ((stream as u64) << 56) ^ (number << 40));
        mixed.number();
        Self(mixed.number() ^ seed.rotate_left(17))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len() as u64) as usize).copied()
    }
}

/// Scrambles a number.
pub fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
