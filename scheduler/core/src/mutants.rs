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
    /// Preemption sees no disruption budgets.
    PreemptionIgnoresBudgets,
}
