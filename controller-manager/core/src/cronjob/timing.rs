//! When a CronJob is due: the most recent time of its schedule that has not been served, and the next one.

use std::time::Duration;

use coracle_api::kinds::cron_schedule::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;

use crate::object_meta::created;

/// More missed times than this are worth a warning.
pub const MISSED_MANY: i64 = 100;
/// A look is this much later than the time it is for, so that clocks need not agree to the millisecond.
const DELAY: Duration = Duration::from_millis(100);

/// A time that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueTime {
    /// The most recent one.
    pub at: Timestamp,
    /// How many there were since the last that was served.
    pub missed: i64,
}

/// What the times are reckoned from.
pub struct Timing<'a> {
    /// The schedule.
    pub schedule: &'a Schedule,
    /// The zone it is read in if it names none.
    pub local: &'a TimeZone,
    /// Times up to this one are served.
    pub earliest: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// The time up to which all are served: the last one, or the creation.
pub fn earliest(cron_job: &CronJob) -> Timestamp {
    let last = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    last.map_or_else(|| created(&cron_job.metadata), |time| time.0)
}

impl Timing<'_> {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, self.local)
    }

    /// The most recent time that has come and is not served. Times that are too long ago by the deadline do not count.
    ///
    /// # Errors
    /// The schedule never comes.
    pub fn due(&self, deadline_seconds: Option<i64>) -> Result<Option<DueTime>, String> {
        let too_old = deadline_seconds
            .and_then(|seconds| self.now.checked_sub(SignedDuration::from_secs(seconds)).ok())
            .unwrap_or(Timestamp::MIN);
        let earliest = self.earliest.max(too_old);
        let never = || "time difference between two schedules is less than 1 second".to_owned();
        let first = self.next(earliest).ok_or_else(never)?;
        if self.now < first {
            return Ok(None);
        }
        let Some(second) = self.next(first).filter(|second| *second <= self.now) else {
            return Ok(Some(DueTime { at: first, missed: 1 }));
        };
        let between = second.duration_since(first).as_secs().max(1);
        let missed = self.now.duration_since(first).as_secs() / between + 1;
        // The number is a guess if times are not evenly apart; begin a little before it says.
        let skipped = SignedDuration::from_secs((missed - 2).saturating_mul(between));
        let mut recent = None;
        let mut at = self.next(first.checked_add(skipped).unwrap_or(first));
        while let Some(time) = at.filter(|time| *time <= self.now) {
            recent = Some(time);
            at = self.next(time);
        }
        Ok(recent.map(|at| DueTime { at, missed }))
    }

    /// How long until the time after the most recent one.
    pub fn until_next(&self) -> Duration {
        let recent = match self.due(None) {
            Ok(due) => due.map_or(self.earliest, |due| due.at),
            Err(_) => self.now,
        };
        let next = self.next(recent).unwrap_or(Timestamp::MAX);
        Duration::try_from(next.duration_since(self.now)).unwrap_or_default() + DELAY
    }
}
