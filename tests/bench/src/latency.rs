//! Latencies in buckets of at most 1.6 % width: recording costs an index and an addition, and two clients' can be added up.

use std::time::Duration;

const SUB_BUCKET_BITS: u32 = 6;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
/// Powers of two of microseconds that are told apart; beyond (over an hour) everything is one bucket.
const POWERS: usize = 27;

/// How many operations took how long.
#[derive(Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; SUB_BUCKETS * POWERS], total: 0 }
    }
}

impl Latencies {
    /// Adds one operation.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// Adds another's operations.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        self.total += other.total;
    }

    /// Operations recorded.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The time in milliseconds within which this share (0 to 1) of the operations ended; 0 when there are none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(index) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Below 64 microseconds one bucket each, then 64 to every power of two.
fn bucket(micros: u64) -> usize {
    let power = (63 - (micros | 1).leading_zeros()).saturating_sub(SUB_BUCKET_BITS - 1);
    if power == 0 {
        return micros as usize;
    }
    let half = SUB_BUCKETS / 2;
    let index = power as usize * half + half + (micros >> power) as usize - half;
    index.min(SUB_BUCKETS * POWERS - 1)
}

fn upper_bound(index: usize) -> u64 {
    let half = SUB_BUCKETS / 2;
    if index < SUB_BUCKETS {
        return index as u64;
    }
    let power = index / half - 1;
    let sub = index - power * half;
    ((sub as u64 + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_four_percent_of_the_latency_it_stands_for() {
        for micros in [0, 1, 31, 63, 64, 65, 127, 128, 1_000, 12_345, 999_999, 60_000_000] {
            let mut latencies = Latencies::default();
            latencies.record(Duration::from_micros(micros));
            let found = latencies.quantile_ms(0.99) * 1000.0;
            assert!(found >= micros as f64 && found <= micros as f64 * 1.04, "{micros} became {found}");
        }
    }

    #[test]
    fn quantiles_come_from_all_that_was_added() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        (0..98).for_each(|_| one.record(Duration::from_millis(1)));
        (0..2).for_each(|_| other.record(Duration::from_millis(100)));
        one.add(&other);
        assert_eq!(one.count(), 100);
        assert!(one.quantile_ms(0.5) < 1.1);
        assert!(one.quantile_ms(0.99) > 99.0);
    }
}
