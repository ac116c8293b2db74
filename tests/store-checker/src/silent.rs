//! Revisions that nobody was told to have written: each is given to an operation that was told nothing, or to the end of a lease, so that none is left
//! over and no operation has two. Who looks like the writer of one may turn out to be needed for another (a matching by augmenting paths).

use std::collections::{BTreeMap, HashMap, HashSet};

/// What can have written one revision.
pub(crate) struct Suspects {
    /// Operations, the likeliest first.
    pub(crate) operations: Vec<usize>,
    /// The lease whose end looks like it.
    pub(crate) lease: Option<i64>,
}

/// Who wrote what, so far.
#[derive(Default)]
pub(crate) struct Silent {
    suspects: HashMap<i64, Suspects>,
    /// The revision of each operation that wrote one.
    pub(crate) written: HashMap<usize, i64>,
    /// The leases whose end wrote a revision.
    pub(crate) expired: BTreeMap<i64, i64>,
}

impl Silent {
    /// Finds the writer of one more revision, if need be by finding another for earlier ones. Whether there is one. What was given to an operation
    /// becomes the end of a lease last of all: leases have to have lasted, which is not judged here.
    pub(crate) fn settle(&mut self, revision: i64, suspects: Suspects) -> bool {
        let lease = suspects.lease;
        self.suspects.insert(revision, suspects);
        if self.find(revision, false, &mut HashSet::new()) {
            return true;
        }
        if let Some(lease) = lease {
            self.expired.insert(revision, lease);
            return true;
        }
        self.find(revision, true, &mut HashSet::new())
    }

    fn find(&mut self, revision: i64, may_expire: bool, tried: &mut HashSet<usize>) -> bool {
        let Some(Suspects { operations, lease }) = self.suspects.get(&revision) else { return false };
        let (operations, lease) = (operations.clone(), lease.filter(|_| may_expire));
        for operation in operations {
            if !tried.insert(operation) {
                continue;
            }
            let other = self.written.get(&operation).copied();
            if other.is_none_or(|other| self.find(other, may_expire, tried)) {
                self.written.insert(operation, revision);
                return true;
            }
        }
        if let Some(lease) = lease {
            self.expired.insert(revision, lease);
        }
        lease.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspects(operations: &[usize], lease: Option<i64>) -> Suspects {
        Suspects { operations: operations.to_vec(), lease }
    }

    #[test]
    fn one_that_is_needed_elsewhere_makes_room_for_another() {
        let mut silent = Silent::default();
        assert!(silent.settle(5, suspects(&[1, 2], None)));
        assert!(silent.settle(6, suspects(&[1], None)));
        assert_eq!(silent.written, HashMap::from([(2, 5), (1, 6)]));
        assert!(!silent.settle(7, suspects(&[1, 2], None)));
    }

    #[test]
    fn the_end_of_a_lease_is_taken_when_the_operation_is_needed_elsewhere() {
        let mut silent = Silent::default();
        assert!(silent.settle(5, suspects(&[1], Some(9))));
        assert!(silent.expired.is_empty());
        assert!(silent.settle(6, suspects(&[1], None)));
        assert_eq!((silent.written, silent.expired), (HashMap::from([(1, 6)]), BTreeMap::from([(5, 9)])));
    }

    #[test]
    fn a_lease_of_its_own_comes_before_that_of_another_revision() {
        let mut silent = Silent::default();
        assert!(silent.settle(5, suspects(&[1], Some(9))));
        assert!(silent.settle(6, suspects(&[1], Some(8))));
        assert_eq!((silent.written, silent.expired), (HashMap::from([(1, 5)]), BTreeMap::from([(6, 8)])));
    }
}
