//! How long a Job waits after failed pods before it makes new ones: ten seconds, doubled with each failure in a row.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::pods::finished_at;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(600);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// With the pods that have ended since. Only failures after the last success stay in the row.
    #[must_use]
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let last_success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let before = if last_success.is_some() { Self::default() } else { self };
        let counted =
            failed.iter().map(|pod| finished_at(pod)).filter(|at| last_success.is_none_or(|s| *at > s));
        counted.fold(before, |row, at| Self {
            failures: row.failures.saturating_add(1),
            last: row.last.max(Some(at)),
        })
    }

    /// What is left of the wait.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// What is left of the wait after `failures` in a row of which the last was at `last`.
pub fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let wait = FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or(Duration::ZERO);
    wait.saturating_sub(passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    fn ended(second: i64) -> Arc<Pod> {
        let mut pod = pod("p", "Failed", false, "n1");
        let conditions =
            pod.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("conditions");
        conditions[0].last_transition_time = Some(Time(at(second)));
        Arc::new(pod)
    }

    #[test]
    fn the_wait_doubles_up_to_ten_minutes() {
        for (failures, wait) in [(0, 0), (1, 10), (2, 20), (6, 320), (7, 600), (60, 600)] {
            assert_eq!(remaining(failures, at(100), at(100)), Duration::from_secs(wait), "{failures}");
        }
        assert_eq!(remaining(1, at(100), at(104)), Duration::from_secs(6));
        assert_eq!(remaining(1, at(100), at(111)), Duration::ZERO);
    }

    #[test]
    fn a_success_ends_the_row_of_failures() {
        let row = Backoff::default().after(&[], &[ended(10), ended(20)]);
        assert_eq!(row, Backoff { failures: 2, last: Some(at(20)) });
        assert_eq!(row.after(&[], &[ended(15)]), Backoff { failures: 3, last: Some(at(20)) });
        assert_eq!(row.after(&[ended(30)], &[ended(25)]), Backoff::default());
        assert_eq!(row.after(&[ended(30)], &[ended(35)]), Backoff { failures: 1, last: Some(at(35)) });
    }
}
