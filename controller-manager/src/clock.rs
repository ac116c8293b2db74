//! The time of day, for all controllers. A simulation gives its thread a virtual one, which goes by tokio's clock.

use std::cell::Cell;

use jiff::Timestamp;
use tokio::time::Instant;

thread_local! {
    static VIRTUAL: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// Now.
pub fn now() -> Timestamp {
    match VIRTUAL.get() {
        None => Timestamp::now(),
        Some((epoch, began)) => epoch.checked_add(began.elapsed()).unwrap_or(Timestamp::MAX),
    }
}

/// From here on this thread's time goes by tokio's clock and begins at `epoch`. Only for simulations.
pub fn simulate(epoch: Timestamp) {
    VIRTUAL.set(Some((epoch, Instant::now())));
}

/// Back to the time of day.
pub fn end_simulation() {
    VIRTUAL.set(None);
}
