//! Judges a recorded history of a store that speaks the etcd v3 API: did clients see what etcd promises?
//!
//! Owns: the form of a history ([`History`]), a model of keys and transactions of its own ([`model`]), and the rules. Pure: takes a value, gives a
//! value. Never here: recording, running anything, etcd-lite's own store. It costs about `n log n` in the operations.
//!
//! What is checked, in this order:
//! 1. **Replay**: revisions follow each other without gap; each was written by exactly one operation, or by a lease that ran out; what the model says
//!    that operation writes and answers, at that place, is what was written and answered. Each read answers what the model has at its revision.
//! 2. **Order**: what completed before something else began comes before it. Nothing shows what was not asked for yet.
//! 3. **Refusals and leases**: refused for a reason that can have been true; leases do not end early.
//! 4. **Watches**: ordered, unique, nothing missing, no revision split, no bookmark ahead of events, values before right.

mod history;
pub mod model;
mod order;
mod refusals;
mod replay;
mod silent;
mod violation;
mod watches;

#[cfg(test)]
mod tests;

pub use history::{Event, History, Operation, Outcome, Refusal, Request, Response, Start, Time, Watch};
pub use violation::{Rule, Violation};

/// What was looked at, so that a harness can tell that something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations with an answer.
    pub answered: usize,
    /// Operations whose outcome nobody knows.
    pub unknown: usize,
    /// Of those, how many were found in the history.
    pub unknown_written: usize,
    /// Revisions written.
    pub revisions: usize,
    /// Of those, by leases that ran out.
    pub expirations: usize,
    /// Events that watchers got.
    pub watched: usize,
}

/// Judges a history.
///
/// # Errors
/// The first rule found broken.
pub fn check(history: &History) -> Result<Summary, Violation> {
    check_part(history).map(|(summary, _)| summary)
}

/// Judges a part of a longer history. Also gives the operations (places in [`History::operations`]) that nobody knows the outcome of and that
/// have not happened: they may still happen, and belong into the next part too.
///
/// # Errors
/// The first rule found broken.
pub fn check_part(history: &History) -> Result<(Summary, Vec<usize>), Violation> {
    let mut summary = Summary::default();
    let replayed = replay::replay(history, &mut summary)?;
    let floors = order::check(history, &replayed)?;
    refusals::check(history, &replayed, &floors)?;
    watches::check(history, &replayed, &mut summary)?;
    Ok((summary, replayed.pending(history)))
}
