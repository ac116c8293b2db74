//! How fast failed daemon pods are replaced: one second after the first failure on a node, doubled with each further one.
//! Keeps a kubelet that refuses pods from being asked again and again.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Failures by set, its generation and node.
#[derive(Debug, Default)]
pub struct FailedPods {
    by_key: HashMap<String, (Duration, Timestamp)>,
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl FailedPods {
    /// Notes that a failed pod is deleted now, or says how long to wait before one may be.
    ///
    /// # Errors
    /// The wait that is not over.
    pub fn delete(&mut self, key: &str, now: Timestamp) -> Result<(), Duration> {
        let before = self.by_key.get(key).filter(|(_, last)| since(*last, now) <= LONGEST * 2).copied();
        let next = match before {
            None => FIRST,
            Some((wait, last)) if since(last, now) < wait => return Err(wait - since(last, now)),
            Some((wait, _)) => (wait * 2).min(LONGEST),
        };
        self.by_key.insert(key.to_owned(), (next, now));
        Ok(())
    }

    /// Forgets what is too long ago to matter.
    pub fn forget_old(&mut self, now: Timestamp) {
        let oldest = now.checked_sub(SignedDuration::try_from(LONGEST * 2).unwrap_or_default());
        let oldest = oldest.unwrap_or(Timestamp::MIN);
        self.by_key.retain(|_, (_, last)| *last >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_forgotten() {
        let at = |second| Timestamp::from_second(second).expect("valid");
        let mut failed = FailedPods::default();
        assert_eq!(failed.delete("a", at(0)), Ok(()));
        assert_eq!(failed.delete("a", at(0)), Err(Duration::from_secs(1)));
        assert_eq!(failed.delete("a", at(1)), Ok(()));
        assert_eq!(failed.delete("a", at(2)), Err(Duration::from_secs(1)), "two seconds after the second");
        assert_eq!(failed.delete("b", at(2)), Ok(()), "each node waits for itself");
        assert_eq!(failed.delete("a", at(10_000)), Ok(()));
        assert_eq!(failed.delete("a", at(10_001)), Ok(()), "begun anew");
        failed.forget_old(at(20_000));
        assert!(failed.by_key.is_empty());
    }
}
