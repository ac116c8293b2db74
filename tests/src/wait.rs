//! Waiting for a condition with a deadline, in place of sleeping.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Calls `check` until it is `Ok`, and panics at the deadline with what was last seen.
///
/// # Panics
/// The condition did not hold in time.
pub fn wait_for<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        let last = match check() {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(Instant::now() < end, "{what}: not within {deadline:?}; last seen: {last}");
        std::thread::sleep(POLL);
    }
}
