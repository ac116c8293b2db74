//! How fast batches may follow one another: so many a second on average, and some at once after a pause. Pure.

use std::time::{Duration, Instant};

/// What a rate near zero comes to.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A bucket that fills with time.
pub struct Throttle {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    /// A full one.
    pub fn new(per_second: f64, burst: u32, now: Instant) -> Self {
        Self { per_second, burst: f64::from(burst), tokens: f64::from(burst), at: now }
    }

    /// Takes the place of one batch; how long it has to wait.
    pub fn take(&mut self, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        self.at = now;
        let seconds = (-self.tokens / self.per_second).max(0.0);
        Duration::try_from_secs_f64(seconds).map_or(WAIT_MAX, |wait| wait.min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_go_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut throttle = Throttle::new(10.0, 2, start);
        let waits: Vec<u128> = (0..4).map(|_| throttle.take(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
        // What was promised is paid back first.
        assert_eq!(throttle.take(start + Duration::from_millis(200)).as_millis(), 100);
        let later = start + Duration::from_secs(60);
        let waits: Vec<u128> = (0..3).map(|_| throttle.take(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100]);
    }

    #[test]
    fn a_rate_near_zero_is_no_panic() {
        let start = Instant::now();
        let mut throttle = Throttle::new(f64::MIN_POSITIVE, 1, start);
        assert_eq!([throttle.take(start), throttle.take(start)], [Duration::ZERO, WAIT_MAX]);
    }
}
