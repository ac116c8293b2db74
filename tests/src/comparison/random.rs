//! Chance for operations, all of it from a seed and a number.

use prost::bytes::Bytes;

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The chance of one operation of a run, whatever other operations there are.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut mixed = Self(seed.rotate_left(32) ^ number);
        Self(mixed.number())
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: i64) -> i64 {
        (self.number() % end.unsigned_abs()) as i64
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: i64) -> bool {
        self.below(times) == 0
    }

    /// One of some, all alike.
    pub(crate) fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as i64) as usize]
    }

    /// One of some byte strings.
    pub(crate) fn bytes(&mut self, some: &[&'static [u8]]) -> Bytes {
        Bytes::from_static(self.of(some))
    }
}
