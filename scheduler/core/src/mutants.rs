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
mod planted {
    use std::cell::Cell;

    macro_rules! mutants {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// The faults there are.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Mutant { $($(#[$doc])* $name,)* }

            impl Mutant {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    mutants! {
        /// Preemption sees no disruption budgets.
        PreemptionIgnoresBudgets,
    }

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    impl Mutant {
        /// Plants a fault in this thread, or takes it away.
        pub fn plant(mutant: Option<Self>) {
            PLANTED.set(mutant);
        }

        /// Whether this one is planted in this thread.
        pub fn is_planted(self) -> bool {
            PLANTED.get() == Some(self)
        }

        /// The fault of this name.
        pub fn named(name: &str) -> Option<Self> {
            Self::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name)
        }
    }
}

#[cfg(feature = "mutants")]
pub use planted::Mutant;
