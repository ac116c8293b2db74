//! Faults planted on purpose, one at a time, to show that the simulation finds each of them.
//!
//! The places ask `mutant!(Name)`. Without the feature `mutants` that is the word `false`, and nothing of this is in the program. With it a fault is
//! chosen per thread, at run time. Never here: what a fault does, which stands where it is planted.

/// Whether a fault of this name is planted; never so in an ordinary build.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// Whether a fault of this name is planted.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::Mutant::$name.is_planted()
    };
}

#[cfg(feature = "mutants")]
planted_faults::faults! {
    // What all controllers of pods have in common.
    /// Controllers decide again before they have seen what they asked for.
    NoExpectations,
    /// Objects are adopted without asking the server whether the adopter, by its uid, is still there.
    AdoptsWithoutAsking,
    // Deployments.
    /// The room for growth comes from the pods that ReplicaSets report, not from those that they are to have.
    SurgeFromStatus,
    /// Pods count as available as soon as they are asked for.
    AvailableWhenAskedFor,
    /// A Deployment that recreates does not wait for the old pods' end.
    RecreateDoesNotWait,
    // StatefulSets.
    /// Pods are removed at once: their successors come before they have ended.
    RemovesAtOnce,
    /// Pods that are to come one after the other come together.
    OrderIgnored,
    // Jobs.
    /// A Job forgets which finalizers it has removed, and counts pods again that its copy still shows with one.
    CountsTwice,
    /// Pods lose their finalizer before they are noted.
    FreesBeforeNoting,
    /// Indexes at work are given out again.
    IndexesGivenTwice,
    // Budgets and quotas.
    /// A budget forgets the evictions that it allowed and that are still to come.
    BudgetForgetsCharges,
    /// A budget takes pods that are not ready for healthy.
    BudgetCountsUnready,
    /// A quota's usage is counted without what admission has charged lately.
    QuotaCountsStale,
}
