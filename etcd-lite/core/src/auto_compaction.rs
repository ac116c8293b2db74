//! When to compact by itself, and to which revision. Pure: time and revision come in, a revision to compact to comes out.
//!
//! Owns: etcd's two rules. Never here: who leads, the log, clocks.
//!
//! *Periodic*, for a period of 24 h: the revision is noted every 6 minutes (a tenth of the period, and of an hour at most), the last 24 hours'
//! worth is kept; after the first 24 hours the oldest noted one is compacted to, then again every hour (or every period, if that is
//! shorter). A compaction that fails is tried again at the next note.
//! *Revision*, for a count of 1000: every 5 minutes everything but the last 1000 revisions is compacted.

use std::collections::VecDeque;

const HOUR_MS: u64 = 3_600_000;
const NOTES_PER_INTERVAL: u64 = 10;
const REVISION_INTERVAL_MS: u64 = 5 * 60_000;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The history of so many milliseconds.
    Period {
        /// At least 1.
        milliseconds: u64,
    },
    /// So many revisions.
    Revisions {
        /// At least 1.
        count: i64,
    },
}

/// See the module. Times are in milliseconds of any clock that does not go back.
#[derive(Clone, Debug)]
pub struct AutoCompactor {
    retention: Retention,
    noted: VecDeque<i64>,
    /// When a compaction last succeeded; the start before that.
    succeeded_ms: u64,
    /// How long after that the next one is due.
    interval_ms: u64,
    next_ms: u64,
    compacted: i64,
}

impl AutoCompactor {
    /// Begins now, at the current revision.
    pub fn new(retention: Retention, now_ms: u64, revision: i64) -> Self {
        let mut compactor = Self {
            retention,
            noted: VecDeque::new(),
            succeeded_ms: now_ms,
            interval_ms: match retention {
                Retention::Period { milliseconds } => milliseconds,
                Retention::Revisions { .. } => 0,
            },
            next_ms: now_ms,
            compacted: 0,
        };
        compactor.note(now_ms, revision);
        compactor
    }

    /// When [`Self::tick`] is due.
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// The revision to compact to now, if it is time and this member `leads`. Tell [`Self::succeeded`] when that is done.
    pub fn tick(&mut self, now_ms: u64, revision: i64, leads: bool) -> Option<i64> {
        if now_ms < self.next_ms {
            return None;
        }
        let due = if leads { self.due(now_ms, revision) } else { None };
        self.note(now_ms, revision);
        due
    }

    fn due(&mut self, now_ms: u64, revision: i64) -> Option<i64> {
        match self.retention {
            Retention::Period { milliseconds } => {
                if now_ms.saturating_sub(self.succeeded_ms) < self.interval_ms {
                    return None;
                }
                self.interval_ms = milliseconds.min(HOUR_MS);
                self.noted.front().copied()
            }
            Retention::Revisions { count } => {
                let target = revision - count;
                (target > 0 && target != self.compacted).then_some(target)
            }
        }
    }

    /// The compaction to `revision` was done, or had been done before.
    pub fn succeeded(&mut self, now_ms: u64, revision: i64) {
        self.succeeded_ms = now_ms;
        self.compacted = revision;
    }

    fn note(&mut self, now_ms: u64, revision: i64) {
        let step_ms = match self.retention {
            Retention::Period { milliseconds } => {
                let step_ms = (milliseconds.min(HOUR_MS) / NOTES_PER_INTERVAL).max(1);
                self.noted.push_back(revision);
                if self.noted.len() as u64 > milliseconds / step_ms + 1 {
                    self.noted.pop_front();
                }
                step_ms
            }
            Retention::Revisions { .. } => REVISION_INTERVAL_MS,
        };
        self.next_ms = now_ms + step_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    /// Runs for so many minutes with one new revision a minute (revision = minute) and gives when it compacted to what.
    fn run(retention: Retention, minutes: u64, leads: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let mut compactor = AutoCompactor::new(retention, 0, 0);
        let mut compacted = Vec::new();
        while compactor.next_ms() <= minutes * MINUTE_MS {
            let now_ms = compactor.next_ms();
            assert_eq!(compactor.tick(now_ms - 1, 0, true), None, "too early");
            let minute = now_ms / MINUTE_MS;
            if let Some(revision) = compactor.tick(now_ms, minute as i64, leads(minute)) {
                compactor.succeeded(now_ms, revision);
                compacted.push((minute, revision));
            }
        }
        compacted
    }

    #[test]
    fn a_period_of_hours_is_kept_and_the_rest_goes_every_hour() {
        let day = Retention::Period { milliseconds: 24 * HOUR_MS };
        let compacted = run(day, 27 * 60, |_| true);
        assert_eq!(compacted, [(1440, 0), (1500, 54), (1560, 114), (1620, 174)]);
    }

    #[test]
    fn a_short_period_is_compacted_once_a_period() {
        let period = Retention::Period { milliseconds: 10 * MINUTE_MS };
        assert_eq!(run(period, 40, |_| true), [(10, 0), (20, 9), (30, 19), (40, 29)]);
    }

    #[test]
    fn who_does_not_lead_takes_notes_only() {
        let period = Retention::Period { milliseconds: 10 * MINUTE_MS };
        assert_eq!(run(period, 40, |minute| minute > 24), [(25, 14), (35, 24)]);
    }

    #[test]
    fn what_failed_is_tried_again_at_the_next_note() {
        let period = Retention::Period { milliseconds: 10 * MINUTE_MS };
        let mut compactor = AutoCompactor::new(period, 0, 1);
        let mut tried = Vec::new();
        for minute in 1..=12 {
            tried.push(compactor.tick(minute * MINUTE_MS, minute as i64 + 1, true));
        }
        assert_eq!(tried[8..], [None, Some(1), Some(1), Some(2)], "the window moves on meanwhile");
    }

    #[test]
    fn a_count_of_revisions_is_kept() {
        let count = Retention::Revisions { count: 7 };
        assert_eq!(run(count, 20, |_| true), [(10, 3), (15, 8), (20, 13)]);
        let mut idle = AutoCompactor::new(count, 0, 0);
        assert_eq!(idle.tick(REVISION_INTERVAL_MS, 10, true), Some(3));
        idle.succeeded(REVISION_INTERVAL_MS, 3);
        assert_eq!(idle.tick(2 * REVISION_INTERVAL_MS, 10, true), None, "nothing new to compact");
    }
}
