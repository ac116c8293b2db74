//! Leases as replicated state: id, granted time, attached keys. When a lease ends is the leader's
//! [`crate::lessor::Lessor`]'s business.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coracle_proto::store::LeaseRecord;

use crate::mutant;

/// One lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Seconds as granted.
    pub granted_ttl_seconds: i64,
    /// Seconds that were left at the last checkpoint; 0 when there was none.
    pub remaining_ttl_seconds: i64,
    /// Keys that go with the lease.
    pub keys: BTreeSet<Bytes>,
}

impl Lease {
    pub(crate) fn to_record(&self) -> LeaseRecord {
        LeaseRecord {
            granted_ttl_seconds: self.granted_ttl_seconds,
            remaining_ttl_seconds: self.remaining_ttl_seconds,
        }
    }
}

/// All leases by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    pub(crate) by_id: BTreeMap<i64, Lease>,
}

impl Leases {
    /// Moves a key from one lease to another; 0 is none. A lease that is not there is passed over.
    pub(crate) fn move_key(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.by_id.get_mut(&from).filter(|_| !mutant!(LeaseKeepsOverwrittenKey)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.by_id.get_mut(&to) {
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_proto::etcdserverpb::LeaseGrantRequest;
    use coracle_proto::store::LeaseExpire;

    use crate::{Command, Request, Store};

    /// Its leader of term 2 was paused; the leader of term 3 renewed the lease, and then was handed the command of the first.
    #[test]
    fn what_an_earlier_leaders_timers_said_does_not_end_a_lease() {
        let mut store = Store::new();
        let mut apply = |index, term, request| {
            store
                .apply(index, term, &Command { id: index, request: Some(request) })
                .response
                .expect("applied");
            store.lease(7).is_some()
        };
        assert!(apply(1, 2, Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 5 })));
        assert!(apply(2, 3, Request::LeaseExpire(LeaseExpire { id: 7, term: 2 })));
        assert!(!apply(3, 3, Request::LeaseExpire(LeaseExpire { id: 7, term: 3 })));
    }
}
