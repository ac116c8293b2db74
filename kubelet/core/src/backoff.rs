//! Exponential backoff per key: container restarts and image pulls.
//!
//! Never here: sleeping. It answers whether a try is due and when the next one is.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// The wait after the first failure.
pub const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait.
pub const MAX: SignedDuration = SignedDuration::from_mins(5);

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    delay: SignedDuration,
    last_update: Timestamp,
}

/// Waits per key, doubling from [`INITIAL`] to the maximum, forgotten after twice the maximum without a failure.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: SignedDuration,
    max: SignedDuration,
    /// After so long without a failure all is forgotten.
    stable_after: SignedDuration,
    entries: BTreeMap<String, Entry>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(INITIAL, MAX)
    }
}

impl Backoff {
    /// The usual one with another longest wait; who waits less at most also begins with less.
    pub fn up_to(max: SignedDuration) -> Self {
        Self { stable_after: MAX * 2, ..Self::new(INITIAL.min(max), max) }
    }

    /// A backoff with its own limits.
    pub fn new(initial: SignedDuration, max: SignedDuration) -> Self {
        Self { initial, max, stable_after: max * 2, entries: BTreeMap::new() }
    }

    fn expired(&self, entry: &Entry, event: Timestamp) -> bool {
        event.duration_since(entry.last_update) > self.stable_after
    }

    /// If a failure at `event` still asks to wait at `now`: the whole delay and the time when it ends.
    pub fn waiting(
        &self,
        key: &str,
        event: Timestamp,
        now: Timestamp,
    ) -> Option<(SignedDuration, Timestamp)> {
        let entry = self.entries.get(key)?;
        if self.expired(entry, event) || now.duration_since(event) >= entry.delay {
            return None;
        }
        Some((entry.delay, event.checked_add(entry.delay).ok()?))
    }

    /// Records that a try is made now after a failure at `event`: the next failure will wait longer.
    pub fn advance(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !self.expired(entry, event) => (entry.delay * 2).min(self.max),
            _ => self.initial,
        };
        self.entries.insert(key.to_owned(), Entry { delay, last_update: now });
    }

    /// When the last try was made.
    pub fn last_update(&self, key: &str) -> Option<Timestamp> {
        self.entries.get(key).map(|entry| entry.last_update)
    }

    /// Forgets a key: the thing worked, or is gone.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = Backoff::default();
        let mut now = 1000;
        let mut seen = Vec::new();
        assert!(backoff.waiting("c", at(now), at(now)).is_none(), "the first restart is immediate");
        for _ in 0..7 {
            backoff.advance("c", at(now), at(now));
            now += 1; // It crashes again after a second.
            let (delay, until) = backoff.waiting("c", at(now), at(now)).unwrap();
            assert_eq!(until, at(now + delay.as_secs()));
            assert!(backoff.waiting("c", at(now), until).is_none());
            seen.push(go_duration(delay));
            now += delay.as_secs();
        }
        assert_eq!(seen, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
    }

    #[test]
    fn a_lower_maximum_is_kept_to_and_forgets_no_sooner() {
        let mut backoff = Backoff::up_to(SignedDuration::from_secs(5));
        backoff.advance("c", at(0), at(0));
        assert_eq!(backoff.waiting("c", at(1), at(1)).unwrap().0, SignedDuration::from_secs(5));
        backoff.advance("c", at(1), at(6));
        assert_eq!(backoff.waiting("c", at(600), at(600)).unwrap().0, SignedDuration::from_secs(5));
        assert!(backoff.waiting("c", at(607), at(607)).is_none());
        let mut backoff = Backoff::up_to(SignedDuration::from_secs(30));
        let waits = [1, 2, 3].map(|n| {
            backoff.advance("c", at(n), at(n));
            backoff.waiting("c", at(n), at(n)).unwrap().0.as_secs()
        });
        assert_eq!(waits, [10, 20, 30]);
    }

    #[test]
    fn a_long_good_run_starts_from_the_beginning() {
        let mut backoff = Backoff::default();
        backoff.advance("c", at(0), at(0));
        backoff.advance("c", at(20), at(20));
        assert!(backoff.waiting("c", at(700), at(700)).is_none());
        backoff.advance("c", at(700), at(700));
        assert_eq!(backoff.waiting("c", at(701), at(701)).unwrap().0, INITIAL);
    }
}
