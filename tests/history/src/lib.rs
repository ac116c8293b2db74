//! Replays the history of a store and judges every revision of it: promises of the control plane that must hold at each moment, not only when all has
//! come to rest. Pure: a history goes in, violations come out; where it comes from (a store's watch, a simulation) is not its business.
//!
//! What is judged is what a controller *does* at a revision. It may act on copies that are a little old, as upstream's do; each invariant says how
//! it allows for that.

mod change;
mod invariants;
mod object;
mod state;

use std::fmt;
use std::time::Duration;

pub use change::{Change, Key};
pub use invariants::{Invariant, Step};
use state::State;

/// How old a controller's copies may be before a decision from them counts as wrong, where an invariant has no better measure.
pub const STALENESS: Duration = Duration::from_secs(20);

/// How long what a controller does may take between its parts; a loaded machine needs more than virtual time does.
#[derive(Clone, Copy, Debug)]
pub struct Allowances {
    /// Between asking whether an adopter is still there and the write that adopts.
    pub adoption: Duration,
}

impl Default for Allowances {
    fn default() -> Self {
        Self { adoption: Duration::from_secs(5) }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub invariant: &'static str,
    /// At which revision of the store.
    pub revision: u64,
    /// The object that changed at that revision.
    pub key: Key,
    /// What is wrong, with the objects and numbers.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at revision {} ({}): {}", self.invariant, self.revision, self.key, self.text)
    }
}

/// Judges a history change by change.
pub struct Oracle {
    state: State,
    invariants: Vec<Box<dyn Invariant>>,
    violations: Vec<Violation>,
    changes: usize,
}

impl Default for Oracle {
    fn default() -> Self {
        Self::new(&Allowances::default())
    }
}

/// Violations that are kept; one fault often breaks a promise again and again.
const KEPT_MAX: usize = 20;

impl Oracle {
    /// An oracle that knows nothing yet.
    pub fn new(allowances: &Allowances) -> Self {
        Self {
            state: State::default(),
            invariants: invariants::all(allowances),
            violations: Vec::new(),
            changes: 0,
        }
    }

    /// Takes the next change, in the order of revisions.
    pub fn take(&mut self, change: &Change) {
        self.changes += 1;
        let old = self.state.apply(change);
        let step = Step { change, old: old.as_deref(), new: change.object.as_ref(), state: &self.state };
        for invariant in &mut self.invariants {
            let found = invariant.look(&step);
            let room = KEPT_MAX.saturating_sub(self.violations.len());
            self.violations.extend(found.into_iter().take(room).map(|text| Violation {
                invariant: invariant.name(),
                revision: change.revision,
                key: change.key.clone(),
                text,
            }));
        }
    }

    /// What has been found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many changes were judged.
    pub fn changes(&self) -> usize {
        self.changes
    }
}

/// Judges a whole history.
pub fn check(history: impl IntoIterator<Item = Change>) -> Vec<Violation> {
    let mut oracle = Oracle::default();
    for change in history {
        oracle.take(&change);
    }
    oracle.violations
}

#[cfg(test)]
mod tests;
