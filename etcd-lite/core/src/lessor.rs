//! When leases end: kept by the leader alone, clocked by its caller.
//!
//! Time is `now_ms`, milliseconds of any monotonic clock. A new leader gives every lease its whole time again plus an
//! extension, so that a change of leader never ends a lease early. Never here: proposing the revocation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::mutant;

/// How long the lessor waits for a proposed revocation before it names the lease again.
const REVOKE_RETRY_MS: u64 = 3_000;

#[derive(Clone, Copy, Debug)]
struct Timer {
    granted_ttl_seconds: i64,
    deadline_ms: u64,
    /// When the lease has to be looked at next; the heap has an entry for it.
    due_ms: u64,
}

/// The timers of all leases.
#[derive(Debug, Default)]
pub struct Lessor {
    timers: HashMap<i64, Timer>,
    /// `(due_ms, id)`; entries that do not match their timer any more are skipped.
    due: BinaryHeap<Reverse<(u64, i64)>>,
}

impl Lessor {
    /// A new leader's timers: `leases` gives id, granted and remaining seconds (0: not checkpointed).
    pub fn promote(
        leases: impl IntoIterator<Item = (i64, i64, i64)>,
        extension_ms: u64,
        now_ms: u64,
    ) -> Self {
        let mut lessor = Self::default();
        for (id, granted, remaining) in leases {
            let left = if remaining > 0 { remaining } else { granted };
            let left = if mutant!(NewLeaderEndsLeases) { 0 } else { left };
            lessor.start(id, granted, now_ms + extension_ms + milliseconds(left));
        }
        lessor
    }

    /// A lease was granted (applied).
    pub fn granted(&mut self, id: i64, ttl_seconds: i64, now_ms: u64) {
        self.start(id, ttl_seconds, now_ms + milliseconds(ttl_seconds));
    }

    /// A lease was revoked (applied).
    pub fn revoked(&mut self, id: i64) {
        self.timers.remove(&id);
    }

    /// Gives a lease its whole time again. The granted seconds, or `None` when there is no such lease or it has run out:
    /// then its revocation is under way and cannot be taken back.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Option<i64> {
        let timer = self.timers.get_mut(&id)?;
        if timer.deadline_ms <= now_ms {
            return None;
        }
        // The heap entry stays where it is; `expired` finds the later deadline when that entry comes up.
        timer.deadline_ms = now_ms + milliseconds(timer.granted_ttl_seconds);
        Some(timer.granted_ttl_seconds)
    }

    /// Whole seconds left and granted seconds of a lease.
    pub fn time_to_live(&self, id: i64, now_ms: u64) -> Option<(i64, i64)> {
        let timer = self.timers.get(&id)?;
        let left = timer.deadline_ms.saturating_sub(now_ms) / 1000;
        Some((i64::try_from(left).unwrap_or(i64::MAX), timer.granted_ttl_seconds))
    }

    /// Sorts leases by when they end, the next first; those that are not timed come last.
    pub fn sort_by_end(&self, ids: &mut [i64]) {
        ids.sort_by_key(|id| self.timers.get(id).map_or(u64::MAX, |timer| timer.deadline_ms));
    }

    /// Up to `count_max` leases whose time is over and whose revocation is to be proposed now. Each is named again after a
    /// while until [`Self::revoked`] says that it is done.
    pub fn expired(&mut self, now_ms: u64, count_max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < count_max {
            let Some(&Reverse((due_ms, id))) = self.due.peek() else { break };
            if due_ms > now_ms {
                break;
            }
            self.due.pop();
            let Some(timer) = self.timers.get_mut(&id).filter(|t| t.due_ms == due_ms) else { continue };
            if timer.deadline_ms <= now_ms {
                expired.push(id);
                timer.due_ms = now_ms + REVOKE_RETRY_MS;
            } else {
                timer.due_ms = timer.deadline_ms;
            }
            self.due.push(Reverse((timer.due_ms, id)));
        }
        expired
    }

    /// When [`Self::expired`] has to be asked next, if ever.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    fn start(&mut self, id: i64, granted_ttl_seconds: i64, deadline_ms: u64) {
        self.timers.insert(id, Timer { granted_ttl_seconds, deadline_ms, due_ms: deadline_ms });
        self.due.push(Reverse((deadline_ms, id)));
    }
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_listed_by_when_they_end() {
        let mut lessor = Lessor::default();
        lessor.granted(1, 9, 0);
        lessor.granted(2, 5, 0);
        lessor.granted(3, 5, 1);
        let mut ids = [1, 2, 3, 4];
        lessor.sort_by_end(&mut ids);
        assert_eq!(ids, [2, 3, 1, 4]);
        lessor.renew(2, 2);
        lessor.sort_by_end(&mut ids);
        assert_eq!(ids, [3, 2, 1, 4]);
    }

    #[test]
    fn a_lease_runs_out_unless_renewed() {
        let mut lessor = Lessor::default();
        lessor.granted(1, 5, 0);
        lessor.granted(2, 5, 0);
        assert_eq!(lessor.renew(2, 4_000), Some(5));
        assert_eq!(lessor.expired(4_999, 10), [] as [i64; 0]);
        assert_eq!(lessor.expired(5_000, 10), [1]);
        assert_eq!(lessor.renew(1, 5_001), None, "its revocation is under way");
        assert_eq!(lessor.time_to_live(2, 5_500), Some((3, 5)));
        assert_eq!(lessor.expired(9_000, 10), [1, 2], "the unanswered revocation is asked for again");
        lessor.revoked(1);
        lessor.revoked(2);
        assert_eq!(lessor.expired(60_000, 10), [] as [i64; 0]);
        assert_eq!(lessor.next_due_ms(), None);
    }

    #[test]
    fn a_new_leader_gives_the_whole_time_again() {
        let mut lessor = Lessor::promote([(1, 10, 0), (2, 10, 3)], 1_000, 50_000);
        assert_eq!(lessor.expired(53_999, 10), [] as [i64; 0]);
        assert_eq!(lessor.expired(54_000, 10), [2], "checkpointed with three seconds left");
        assert_eq!(lessor.expired(60_999, 10), [2]);
        assert_eq!(lessor.expired(61_000, 10), [1]);
    }

    #[test]
    fn no_more_than_asked_for_at_a_time() {
        let mut lessor = Lessor::promote((1..=10).map(|id| (id, 1, 0)), 0, 0);
        assert_eq!(lessor.expired(1_000, 4).len(), 4);
        assert_eq!(lessor.expired(1_000, 100).len(), 6);
    }
}
