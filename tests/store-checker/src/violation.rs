//! A broken rule, in a form to be read.

use std::fmt;

use crate::history::{History, Operation};

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Revisions follow each other without gap, each with the fields that its change must have.
    RevisionsFollow,
    /// What was acknowledged is in the history.
    NothingIsLost,
    /// A revision belongs to one operation.
    OneWriterEach,
    /// What is in the history was asked for.
    NothingFromNowhere,
    /// What failed for certain is not in the history.
    FailedIsFailed,
    /// An operation writes what the model writes at that revision.
    WritesAsModel,
    /// An operation answers what the model answers at that revision.
    AnswersAsModel,
    /// What completed before another began comes before it.
    RealTime,
    /// Nothing shows what was not asked for yet.
    NotFromFuture,
    /// A refusal has a reason that can be true.
    RefusalHasReason,
    /// What is compacted cannot be read.
    CompactedIsGone,
    /// Leases end when revoked or after their time.
    LeasesLast,
    /// Events come in order.
    WatchOrdered,
    /// No event comes twice.
    WatchUnique,
    /// No event is missing.
    WatchReliable,
    /// A revision is not split over responses that are not marked.
    WatchAtomic,
    /// Progress is not ahead of events.
    WatchBookmark,
    /// Events say what was written.
    WatchAsWritten,
    /// Values before are those before.
    WatchPrevious,
    /// Only what was asked for comes: range, filters, start.
    WatchAsAsked,
    /// Watchers are cancelled for a reason.
    WatchCancel,
    /// Members that applied the same have the same; not checked here, for harnesses that see members.
    MembersAgree,
    /// A member does not start on a damaged log; for harnesses.
    DamageIsRefused,
    /// After all faults are gone the store works again; for harnesses.
    Recovers,
    /// The program panicked; for harnesses.
    NoPanic,
}

/// A broken rule and what broke it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// In words, with the operations and answers concerned.
    pub what: String,
    /// Operations concerned: places in [`History::operations`].
    pub operations: Vec<usize>,
    /// Revisions concerned.
    pub revisions: Vec<i64>,
}

impl Violation {
    /// Says that a rule is broken.
    pub fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self { rule, what: what.into(), operations: Vec::new(), revisions: Vec::new() }
    }

    /// Names a revision.
    pub fn at(mut self, revision: i64) -> Self {
        self.revisions.push(revision);
        self
    }

    /// Names an operation, and tells it.
    pub fn by(mut self, history: &History, operation: usize) -> Self {
        self.operations.push(operation);
        if let Some(told) = history.operations.get(operation) {
            self.what.push_str(&format!("\n  operation {operation}: {}", describe(told)));
        }
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)?;
        if !self.revisions.is_empty() {
            write!(f, "\n  revisions: {:?}", self.revisions)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// An operation in words.
pub(crate) fn describe(operation: &Operation) -> String {
    let Operation { client, member, invoked, completed, request, outcome } = operation;
    format!(
        "client {client} asked member {member} from {invoked} to {completed} ms: {request:?}, and got {outcome:?}"
    )
}
