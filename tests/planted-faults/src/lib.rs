//! What crates with planted faults share: faults planted on purpose, one at a time, to show that a simulation finds each of them. One is chosen per
//! thread, at run time. Never here: which faults there are, and what they do.

use std::fmt::Debug;

/// The faults of one crate.
pub trait Fault: Copy + Debug + Send + Sync + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// Plants a fault in this thread, or takes it away.
    fn plant(fault: Option<Self>);

    /// The fault of this name.
    ///
    /// # Errors
    /// There is none.
    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|fault| format!("{fault:?}") == name);
        found.ok_or_else(|| format!("there is no such planted fault; there are {:?}", Self::ALL))
    }
}

/// Declares a crate's faults as `Mutant`.
#[macro_export]
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The faults there are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant { $($(#[$doc])* $name,)* }

        ::std::thread_local! {
            static PLANTED: ::std::cell::Cell<Option<Mutant>> = const { ::std::cell::Cell::new(None) };
        }

        impl Mutant {
            /// Whether this one is planted in this thread.
            pub fn is_planted(self) -> bool {
                PLANTED.get() == Some(self)
            }
        }

        impl $crate::Fault for Mutant {
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            fn plant(fault: Option<Self>) {
                PLANTED.set(fault);
            }
        }
    };
}
