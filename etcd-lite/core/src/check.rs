//! Stateless checks of requests, made before anything is proposed. What passes here can still be refused when it is applied
//! (compacted revision, missing lease), but never needs more than the store to decide.

use std::collections::HashSet;

use bytes::Bytes;
use coracle_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::error::StoreError;
use crate::key_range::{KeyRange, RangeEnd};

/// Operations allowed in one branch of a transaction unless configured otherwise.
pub const TXN_OPS_MAX: usize = 128;

/// Longest lease, in seconds.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// Checks a read.
///
/// # Errors
/// `EmptyKey`, `InvalidSortOption`.
pub fn range(request: &RangeRequest) -> Result<(), StoreError> {
    not_empty(&request.key)?;
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(StoreError::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put.
///
/// # Errors
/// `EmptyKey`, `ValueProvided`, `LeaseProvided`.
pub fn put(request: &PutRequest) -> Result<(), StoreError> {
    not_empty(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(StoreError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(StoreError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
///
/// # Errors
/// `EmptyKey`.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), StoreError> {
    not_empty(&request.key)
}

/// Checks a transaction with everything in it. `ops_max` bounds comparisons and each branch; nested transactions share it.
///
/// # Errors
/// `TooManyOps`, `EmptyKey`, `DuplicateKey`, `KeyNotFound` for an empty operation, and those of the operations.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), StoreError> {
    txn_shape(request, ops_max)?;
    for branch in [&request.success, &request.failure] {
        Writes::of(branch)?;
    }
    Ok(())
}

/// Whether a transaction changes nothing, whichever branch runs. Such a one need not go through the log.
pub fn txn_is_read_only(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Op::RequestRange(_)) | None => true,
        Some(Op::RequestTxn(nested)) => txn_is_read_only(nested),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => false,
    })
}

/// Whether every read of a read-only transaction may be answered from this member's own state.
pub fn txn_is_serializable(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Op::RequestRange(range)) => range.serializable,
        _ => false,
    })
}

fn not_empty(key: &Bytes) -> Result<(), StoreError> {
    if key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

fn txn_shape(request: &TxnRequest, ops_max: usize) -> Result<(), StoreError> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_max.checked_sub(ops).ok_or(StoreError::TooManyOps)?;
    request.compare.iter().try_for_each(|compare| not_empty(&compare.key))?;
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Op::RequestRange(r)) => range(r),
        Some(Op::RequestPut(r)) => put(r),
        Some(Op::RequestDeleteRange(r)) => delete_range(r),
        Some(Op::RequestTxn(r)) => txn_shape(r, ops_left),
        None => Err(StoreError::KeyNotFound),
    })
}

/// What a branch would write. A key may be put once, and not be put where it is deleted; the two branches of a nested
/// transaction exclude each other and may write the same keys.
#[derive(Default)]
struct Writes {
    puts: HashSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn of(branch: &[RequestOp]) -> Result<Self, StoreError> {
        let mut writes = Self::default();
        for op in branch {
            if let Some(Op::RequestDeleteRange(delete)) = &op.request {
                let range = KeyRange::new(&delete.key, &delete.range_end);
                // As in etcd, what a deletion without upper bound covers is not looked at here.
                if range.end != RangeEnd::Unbounded {
                    writes.deletes.push(range);
                }
            }
        }
        for op in branch {
            let Some(Op::RequestTxn(nested)) = &op.request else { continue };
            let (success, failure) = (Self::of(&nested.success)?, Self::of(&nested.failure)?);
            let either: HashSet<Bytes> = success.puts.union(&failure.puts).cloned().collect();
            either.into_iter().try_for_each(|key| writes.add_put(key))?;
            // As in etcd, a later nested transaction may delete what an earlier one put.
            writes.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
        }
        for op in branch {
            if let Some(Op::RequestPut(put)) = &op.request {
                writes.add_put(put.key.clone())?;
            }
        }
        Ok(writes)
    }

    fn add_put(&mut self, key: Bytes) -> Result<(), StoreError> {
        if self.deletes.iter().any(|range| range.contains(&key)) || !self.puts.insert(key) {
            return Err(StoreError::DuplicateKey);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_proto::etcdserverpb::Compare;

    fn op(request: Op) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Op::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_op(key: &'static str, range_end: &'static str) -> RequestOp {
        op(Op::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Op::RequestTxn(TxnRequest { success, failure, ..Default::default() }))
    }

    fn checked(success: Vec<RequestOp>) -> Result<(), StoreError> {
        txn(&TxnRequest { success, ..Default::default() }, TXN_OPS_MAX)
    }

    #[test]
    fn a_key_is_written_once_in_a_transaction() {
        let duplicate = Err(StoreError::DuplicateKey);
        assert_eq!(checked(vec![put_op("a"), put_op("a")]), duplicate);
        assert_eq!(checked(vec![put_op("b"), delete_op("a", "c")]), duplicate);
        assert_eq!(checked(vec![delete_op("a", ""), put_op("a")]), duplicate);
        assert_eq!(checked(vec![delete_op("a", "c"), delete_op("b", "d"), put_op("d")]), Ok(()));
        assert_eq!(checked(vec![delete_op("a", "\0"), put_op("b")]), Ok(()), "etcd does not see this one");
        assert_eq!(checked(vec![put_op("a"), nested(vec![put_op("a")], vec![])]), duplicate);
        assert_eq!(checked(vec![put_op("a"), nested(vec![], vec![delete_op("a", "")])]), duplicate);
        assert_eq!(
            checked(vec![nested(vec![put_op("a")], vec![put_op("a")])]),
            Ok(()),
            "the branches exclude each other"
        );
        assert_eq!(
            checked(vec![nested(vec![put_op("a")], vec![]), nested(vec![], vec![put_op("a")])]),
            duplicate
        );
    }

    #[test]
    fn operations_are_counted_with_the_nested_ones() {
        let many = |n: usize| -> Vec<RequestOp> {
            (0..n)
                .map(|_| op(Op::RequestRange(RangeRequest { key: "k".into(), ..Default::default() })))
                .collect()
        };
        assert_eq!(checked(many(128)), Ok(()));
        assert_eq!(checked(many(129)), Err(StoreError::TooManyOps));
        assert_eq!(checked(vec![nested(many(127), vec![])]), Ok(()));
        assert_eq!(checked(vec![nested(many(128), vec![])]), Err(StoreError::TooManyOps));
        let compare = vec![Compare { key: "k".into(), ..Default::default() }; 129];
        assert_eq!(
            txn(&TxnRequest { compare, ..Default::default() }, TXN_OPS_MAX),
            Err(StoreError::TooManyOps)
        );
    }

    #[test]
    fn empty_keys_and_contradictions_are_refused() {
        assert_eq!(range(&RangeRequest::default()), Err(StoreError::EmptyKey));
        assert_eq!(
            range(&RangeRequest { key: "a".into(), sort_order: 7, ..Default::default() }),
            Err(StoreError::InvalidSortOption)
        );
        assert_eq!(
            put(&PutRequest { key: "a".into(), value: "v".into(), ignore_value: true, ..Default::default() }),
            Err(StoreError::ValueProvided)
        );
        assert_eq!(
            put(&PutRequest { key: "a".into(), lease: 1, ignore_lease: true, ..Default::default() }),
            Err(StoreError::LeaseProvided)
        );
        assert_eq!(checked(vec![RequestOp { request: None }]), Err(StoreError::KeyNotFound));
        assert_eq!(
            txn(&TxnRequest { compare: vec![Compare::default()], ..Default::default() }, 1),
            Err(StoreError::EmptyKey)
        );
    }
}
