//! Transactions: comparisons, the choice of branches, and their execution.
//!
//! All comparisons, nested ones included, are made against the state before the transaction, then everything that could be refused is
//! checked on the chosen branches, and only then is anything written.

use std::cmp::Ordering;

use coracle_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::response_op::Response as OpResponse;
use coracle_proto::etcdserverpb::{Compare, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse};

use crate::apply::WriteBatch;
use crate::error::StoreError;
use crate::key_range::KeyRange;
use crate::mutant;
use crate::range::header;
use crate::store::Store;
use crate::version::Version;

/// Which branch of a transaction runs, and of the transactions nested in that branch.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn branch<'a>(&self, request: &'a TxnRequest) -> &'a [RequestOp] {
        if self.succeeded { &request.success } else { &request.failure }
    }
}

impl Store {
    /// Answers a transaction that only reads ([`crate::check::txn_is_read_only`]); a write in it is refused as not found.
    ///
    /// # Errors
    /// `Compacted`, `FutureRevision`.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let path = self.path(request);
        self.check_branch(request, &path)?;
        let mut response = self.run_reads(request, &path)?;
        response.header = header(self.revision());
        Ok(response)
    }

    pub(crate) fn apply_txn(
        &mut self,
        batch: &mut WriteBatch,
        request: &TxnRequest,
    ) -> Result<TxnResponse, StoreError> {
        let path = self.path(request);
        if let Err(refused) = self.check_branch(request, &path) {
            if mutant!(TxnNotAtomic) {
                self.run(batch, request, &path);
            }
            return Err(refused);
        }
        let mut response = self.run(batch, request, &path);
        response.header = header(batch.revision());
        Ok(response)
    }

    fn path(&self, request: &TxnRequest) -> Path {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let mut path = Path { succeeded, nested: Vec::new() };
        for op in path.branch(request) {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                path.nested.push(self.path(nested));
            }
        }
        path
    }

    /// Checks what will run: as in etcd all puts first, then all reads.
    fn check_branch(&self, request: &TxnRequest, path: &Path) -> Result<(), StoreError> {
        self.check_each(request, path, &|op| match op {
            // The other way round than for a put of its own, again as in etcd.
            Op::RequestPut(put) => self.check_put_key(put).and_then(|()| self.check_put_lease(put)),
            _ => Ok(()),
        })?;
        self.check_each(request, path, &|op| match op {
            // As in etcd, a negative revision is the newest in a request of its own, but a compacted one in here.
            Op::RequestRange(range) if range.revision < self.compacted_revision().min(0) => {
                Err(StoreError::Compacted)
            }
            Op::RequestRange(range) => self.check_readable(range.revision),
            _ => Ok(()),
        })
    }

    fn check_each(
        &self,
        request: &TxnRequest,
        path: &Path,
        check: &dyn Fn(&Op) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut nested_paths = path.nested.iter();
        path.branch(request).iter().filter_map(|op| op.request.as_ref()).try_for_each(|op| match op {
            Op::RequestTxn(nested) => {
                nested_paths.next().map_or(Ok(()), |nested_path| self.check_each(nested, nested_path, check))
            }
            other => check(other),
        })
    }

    fn run(&mut self, batch: &mut WriteBatch, request: &TxnRequest, path: &Path) -> TxnResponse {
        let mut nested_paths = path.nested.iter();
        let mut responses = Vec::with_capacity(path.branch(request).len());
        for op in path.branch(request) {
            let response = match &op.request {
                Some(Op::RequestRange(range)) => {
                    Some(OpResponse::ResponseRange(self.range_at(range, batch.revision()).to_response()))
                }
                Some(Op::RequestPut(put)) => Some(OpResponse::ResponsePut(self.put(batch, put))),
                Some(Op::RequestDeleteRange(delete)) => {
                    Some(OpResponse::ResponseDeleteRange(self.delete_range(batch, delete)))
                }
                Some(Op::RequestTxn(nested)) if mutant!(NestedComparesSeeWrites) => {
                    let path = self.path(nested);
                    Some(OpResponse::ResponseTxn(self.run(batch, nested, &path)))
                }
                Some(Op::RequestTxn(nested)) => nested_paths
                    .next()
                    .map(|nested_path| OpResponse::ResponseTxn(self.run(batch, nested, nested_path))),
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        // Only the outermost response tells a revision.
        TxnResponse { header: Some(ResponseHeader::default()), succeeded: path.succeeded, responses }
    }

    fn run_reads(&self, request: &TxnRequest, path: &Path) -> Result<TxnResponse, StoreError> {
        let mut nested_paths = path.nested.iter();
        let mut responses = Vec::with_capacity(path.branch(request).len());
        for op in path.branch(request) {
            let response = match (&op.request, nested_paths.as_slice()) {
                (Some(Op::RequestRange(range)), _) => {
                    OpResponse::ResponseRange(self.range_at(range, self.revision()).to_response())
                }
                (Some(Op::RequestTxn(nested)), [nested_path, ..]) => {
                    nested_paths.next();
                    OpResponse::ResponseTxn(self.run_reads(nested, nested_path)?)
                }
                _ => return Err(StoreError::KeyNotFound),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded: path.succeeded, responses })
    }

    /// Whether a comparison holds for every key it names. A key that does not exist compares as all zeros, except that no
    /// comparison of its value holds.
    fn holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let mut found = self.index.range(&range).filter_map(|versions| versions.live()).peekable();
        if found.peek().is_none() {
            return compare.target() != CompareTarget::Value && holds_for(compare, None);
        }
        found.all(|version| holds_for(compare, Some(version)))
    }
}

fn holds_for(compare: &Compare, version: Option<&Version>) -> bool {
    let number =
        |field: fn(&Version) -> i64, wanted: Option<i64>| version.map_or(0, field).cmp(&wanted.unwrap_or(0));
    let union = compare.target_union.as_ref();
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => number(
            |v| v.version,
            union.and_then(|u| if let TargetUnion::Version(n) = u { Some(*n) } else { None }),
        ),
        Ok(CompareTarget::Create) => number(
            |v| v.create_revision,
            union.and_then(|u| if let TargetUnion::CreateRevision(n) = u { Some(*n) } else { None }),
        ),
        Ok(CompareTarget::Mod) => number(
            |v| v.revision.main,
            union.and_then(|u| if let TargetUnion::ModRevision(n) = u { Some(*n) } else { None }),
        ),
        Ok(CompareTarget::Lease) => number(
            |v| v.lease,
            union.and_then(|u| if let TargetUnion::Lease(n) = u { Some(*n) } else { None }),
        ),
        Ok(CompareTarget::Value) => {
            let wanted: &[u8] = if let Some(TargetUnion::Value(value)) = union { value } else { &[] };
            version.map_or(&[][..], |v| v.value()).cmp(wanted)
        }
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
