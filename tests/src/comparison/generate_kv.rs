//! Draws requests about keys: reads, writes, transactions.

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::compare::TargetUnion;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use prost::bytes::Bytes;

use super::operation::World;
use super::random::Random;

/// Transactions in transactions in transactions.
const DEPTH_MAX: u32 = 3;
/// `--max-txn-ops`.
const TXN_OPS_MAX: i64 = 128;
/// `--max-request-bytes`.
pub(super) const REQUEST_BYTES_MAX: usize = 3 * 512 * 1024;

impl Random {
    pub(crate) fn range(&mut self, world: World) -> pb::RangeRequest {
        let bound = |random: &mut Self| match random.below(12) {
            0 => world.revision - random.below(20),
            1 => random.of(&[-1, i64::MAX, world.revision + 1]),
            _ => 0,
        };
        pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if self.one_in(30) { self.of(&[-1, i64::MIN, i64::MAX]) } else { self.below(5) },
            revision: self.revision(world),
            sort_order: self.below(3) as i32,
            // An unknown one ends etcd 3.5.1.
            sort_target: self.below(5) as i32,
            serializable: self.one_in(2),
            keys_only: self.one_in(5),
            count_only: self.one_in(5),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
        }
    }

    /// A read outside of a transaction: its order may be none that there is. In a transaction a refusal of that by one store alone would leave them
    /// different for good.
    pub(crate) fn range_alone(&mut self, world: World) -> pb::RangeRequest {
        let range = self.range(world);
        let sort_order = if self.one_in(100) { self.of(&[3, -1]) } else { range.sort_order };
        pb::RangeRequest { sort_order, ..range }
    }

    pub(crate) fn put(&mut self) -> pb::PutRequest {
        pb::PutRequest {
            key: self.key(),
            value: self.value(),
            lease: if self.one_in(2) { 0 } else { self.lease_id() },
            prev_kv: self.one_in(2),
            ignore_value: self.one_in(8),
            ignore_lease: self.one_in(8),
        }
    }

    /// A short value; rarely a large one, around what a request and what a message may have.
    fn value(&mut self) -> Bytes {
        if !self.one_in(400) {
            return self.bytes(&[b"", b"", b"x", b"y", b"z", b"\0", b"\xff\xff", b"longer than the others"]);
        }
        let length = match self.below(8) {
            0..3 => 100_000,
            3 => REQUEST_BYTES_MAX - 100,
            4 => REQUEST_BYTES_MAX,
            5 => REQUEST_BYTES_MAX + 1,
            6 => REQUEST_BYTES_MAX + 512 * 1024,
            _ => 3_000_000,
        };
        vec![b'v'; length].into()
    }

    pub(crate) fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.one_in(2) }
    }

    fn compare(&mut self, world: World) -> pb::Compare {
        let near = world.revision - self.below(10);
        let kind = self.below(5);
        let union = match kind {
            0 => TargetUnion::Version(self.below(4)),
            1 => TargetUnion::CreateRevision(if self.one_in(2) { 0 } else { near }),
            2 => TargetUnion::ModRevision(if self.one_in(2) { 0 } else { near }),
            3 => TargetUnion::Value(self.bytes(&[b"", b"x", b"y"])),
            _ => TargetUnion::Lease(self.lease_id()),
        };
        pb::Compare {
            result: if self.one_in(60) { self.of(&[4, -1]) } else { self.below(4) as i32 },
            // Mostly what the union is of.
            target: match self.below(40) {
                0 => self.below(5) as i32,
                1 => self.of(&[5, -1]),
                _ => kind as i32,
            },
            key: self.key(),
            target_union: if self.one_in(10) { None } else { Some(union) },
            range_end: self.range_end(),
        }
    }

    fn branch(&mut self, world: World, depth: u32) -> Vec<pb::RequestOp> {
        (0..self.below(4))
            .map(|_| {
                let kinds = if depth < DEPTH_MAX { 8 } else { 6 };
                let request = match self.below(kinds) {
                    0 | 1 => Op::RequestRange(self.range(world)),
                    2..=4 => Op::RequestPut(self.put()),
                    5 => Op::RequestDeleteRange(self.delete()),
                    _ => Op::RequestTxn(self.txn(world, depth + 1)),
                };
                pb::RequestOp { request: (!self.one_in(100)).then_some(request) }
            })
            .collect()
    }

    fn txn(&mut self, world: World, depth: u32) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: (0..self.below(3)).map(|_| self.compare(world)).collect(),
            success: self.branch(world, depth),
            failure: self.branch(world, depth),
        }
    }

    /// A transaction; rarely one of as many operations as are allowed, or one more.
    pub(crate) fn txn_of_any_size(&mut self, world: World) -> pb::TxnRequest {
        if !self.one_in(100) {
            return loop {
                let txn = self.txn(world, 1);
                if !crashes_etcd(&txn) {
                    break txn;
                }
            };
        }
        let count = TXN_OPS_MAX - 1 + self.below(3);
        let put = |number: i64| {
            let key = Bytes::from(format!("many/{number}"));
            let put = pb::PutRequest { key, value: Bytes::from_static(b"m"), ..Default::default() };
            pb::RequestOp { request: Some(Op::RequestPut(put)) }
        };
        let puts: Vec<pb::RequestOp> = (0..count).map(put).collect();
        match self.below(3) {
            0 => pb::TxnRequest { success: puts, ..Default::default() },
            1 => pb::TxnRequest {
                compare: (0..count).map(|_| self.compare(world)).collect(),
                ..Default::default()
            },
            _ => {
                let nested = pb::TxnRequest { success: puts, ..Default::default() };
                let success = vec![pb::RequestOp { request: Some(Op::RequestTxn(nested)) }];
                pb::TxnRequest { success, ..Default::default() }
            }
        }
    }
}

/// etcd panics on a put that keeps the value or lease of a key which the same transaction has deleted, and lets such a transaction through
/// when the deletion has no upper bound.
fn crashes_etcd(request: &pb::TxnRequest) -> bool {
    any(request, &|op| matches!(op, Op::RequestDeleteRange(delete) if delete.range_end.as_ref() == [0]))
        && any(request, &|op| matches!(op, Op::RequestPut(put) if put.ignore_value || put.ignore_lease))
}

fn any(request: &pb::TxnRequest, wanted: &dyn Fn(&Op) -> bool) -> bool {
    let mut ops = request.success.iter().chain(&request.failure).filter_map(|op| op.request.as_ref());
    ops.any(|op| if let Op::RequestTxn(nested) = op { any(nested, wanted) } else { wanted(op) })
}
