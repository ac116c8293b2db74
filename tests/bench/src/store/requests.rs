//! The methods and requests that workloads send.

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;

use crate::grpc::{Method, frame};

/// Bytes of a value unless a workload says otherwise.
pub const VALUE_BYTES: usize = 1024;

/// Paths of the methods used.
pub struct Methods {
    /// KV.Range
    pub range: Method,
    /// KV.Put
    pub put: Method,
    /// KV.Txn
    pub txn: Method,
    /// Watch.Watch
    pub watch: Method,
    /// Maintenance.Status
    pub status: Method,
}

impl Methods {
    /// All of them.
    ///
    /// # Errors
    /// Never in practice: the paths are fixed.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            range: Method::new("etcdserverpb.KV", "Range")?,
            put: Method::new("etcdserverpb.KV", "Put")?,
            txn: Method::new("etcdserverpb.KV", "Txn")?,
            watch: Method::new("etcdserverpb.Watch", "Watch")?,
            status: Method::new("etcdserverpb.Maintenance", "Status")?,
        })
    }
}

/// Where the kind `prefix`'s key of this number is: as Kubernetes' keys look, in the order of the numbers.
pub fn key(prefix: &str, number: u64) -> Bytes {
    format!("/registry/{prefix}/default/object-{number:09}").into()
}

/// The first key behind all of `prefix`.
pub fn prefix_end(prefix: &str) -> Bytes {
    format!("/registry/{prefix}0").into()
}

/// The key before all of `prefix`.
pub fn prefix_start(prefix: &str) -> Bytes {
    format!("/registry/{prefix}/").into()
}

/// A value of [`VALUE_BYTES`] that does not compress to nothing; begins with `stamp`.
pub fn value(stamp: u64) -> Bytes {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut state = stamp;
    value.extend_from_slice(&stamp.to_le_bytes());
    while value.len() < VALUE_BYTES {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(VALUE_BYTES);
    value.into()
}

/// The stamp that a value begins with.
pub fn stamp(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?))
}

/// An unconditional put.
pub fn put(key: Bytes, value: Bytes) -> Bytes {
    frame(&pb::PutRequest { key, value, ..Default::default() })
}

/// One key, linearizable or from the member's own state.
pub fn get(key: Bytes, serializable: bool) -> Bytes {
    frame(&pb::RangeRequest { key, serializable, ..Default::default() })
}

/// The number of keys of a prefix, linearizable.
pub fn count(prefix: &str) -> Bytes {
    frame(&pb::RangeRequest {
        key: prefix_start(prefix),
        range_end: prefix_end(prefix),
        count_only: true,
        ..Default::default()
    })
}

/// As the API server writes: puts when the key's last change was at `mod_revision` (0: when there is no such key), else reads it.
pub fn put_if(key: Bytes, mod_revision: i64, value: Bytes) -> Bytes {
    let change = Op::RequestPut(pb::PutRequest { key: key.clone(), value, ..Default::default() });
    change_if(key, mod_revision, change)
}

/// As the API server deletes.
pub fn delete_if(key: Bytes, mod_revision: i64) -> Bytes {
    let change = Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), ..Default::default() });
    change_if(key, mod_revision, change)
}

fn change_if(key: Bytes, mod_revision: i64, change: Op) -> Bytes {
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Default::default()
    };
    let read = Op::RequestRange(pb::RangeRequest { key, ..Default::default() });
    frame(&pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(change) }],
        failure: vec![pb::RequestOp { request: Some(read) }],
    })
}

/// Puts of several keys in one transaction.
pub fn put_many(puts: impl Iterator<Item = (Bytes, Bytes)>) -> Bytes {
    let success = puts
        .map(|(key, value)| {
            let put = pb::PutRequest { key, value, ..Default::default() };
            pb::RequestOp { request: Some(Op::RequestPut(put)) }
        })
        .collect();
    frame(&pb::TxnRequest { success, ..Default::default() })
}

/// A watch of a prefix from now on, as the API server opens it.
pub fn watch(prefix: &str) -> Bytes {
    let create = pb::WatchCreateRequest {
        key: prefix_start(prefix),
        range_end: prefix_end(prefix),
        prev_kv: true,
        progress_notify: true,
        ..Default::default()
    };
    frame(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
}
