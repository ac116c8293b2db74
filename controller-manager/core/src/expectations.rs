//! What a controller knows to be on its way but not yet in its watch: creations and deletions it has asked for. Until they
//! are seen (or five minutes have passed) it must not decide again from the stale copy. Takes time as an argument.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// After this time unfulfilled expectations no longer hold a controller back: an event may have been missed.
pub const EXPIRY: Duration = Duration::from_secs(300);

/// When to look again: while expectations are not fulfilled, at the latest when they expire.
pub fn recheck_after(satisfied: bool, after: Option<Duration>) -> Option<Duration> {
    if satisfied { after } else { Some(after.map_or(EXPIRY, |after| after.min(EXPIRY))) }
}

#[derive(Debug, Default)]
struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Duration,
}

/// Expectations by key (the owner's `namespace/name`). `now` is time since any fixed point.
#[derive(Debug, Default)]
pub struct Expectations {
    by_key: HashMap<String, Expected>,
}

impl Expectations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the controller may decide from its copy: everything expected has been seen, or too long ago.
    pub fn satisfied(&self, key: &str, now: Duration) -> bool {
        if crate::mutant!(NoExpectations) {
            return true;
        }
        self.by_key.get(key).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty())
                || now.saturating_sub(expected.since) > EXPIRY
        })
    }

    /// This many objects are about to be created, and those with these uids deleted.
    pub fn expect(
        &mut self,
        key: &str,
        creations: usize,
        deletions: impl IntoIterator<Item = String>,
        now: Duration,
    ) {
        let expected = Expected { creations, deletions: deletions.into_iter().collect(), since: now };
        self.by_key.insert(key.to_owned(), expected);
    }

    /// `count` creations were seen, or failed, or will not be tried.
    pub fn created(&mut self, key: &str, count: usize) {
        if let Some(expected) = self.by_key.get_mut(key) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// A deletion was seen (or a start of one), or failed.
    pub fn deleted(&mut self, key: &str, uid: &str) {
        if let Some(expected) = self.by_key.get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&mut self, key: &str) {
        self.by_key.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_unfulfilled_expectation_is_looked_at_again_when_it_expires() {
        assert_eq!(recheck_after(true, None), None);
        assert_eq!(recheck_after(false, None), Some(EXPIRY));
        assert_eq!(recheck_after(false, Some(s(5))), Some(s(5)));
        assert_eq!(recheck_after(false, Some(s(500))), Some(EXPIRY));
    }

    #[test]
    fn a_key_waits_for_all_it_asked_for_or_for_the_expiry() {
        let mut expectations = Expectations::new();
        assert!(expectations.satisfied("a", s(0)));
        expectations.expect("a", 2, [], s(0));
        expectations.created("a", 1);
        assert!(!expectations.satisfied("a", s(1)));
        assert!(expectations.satisfied("a", s(301)), "expired");
        expectations.created("a", 1);
        assert!(expectations.satisfied("a", s(1)));

        expectations.expect("a", 0, ["u1".to_owned(), "u2".to_owned()], s(2));
        expectations.deleted("a", "u1");
        expectations.deleted("a", "u1");
        assert!(!expectations.satisfied("a", s(3)), "the same deletion seen twice counts once");
        expectations.deleted("a", "u2");
        assert!(expectations.satisfied("a", s(3)));
    }
}
