//! Makes equal what differs between two stores by nature: who answers, how much of a lease is left, orders that etcd leaves to chance.

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::response_op::Response as OpResponse;
use coracle_proto::mvccpb::KeyValue;
use tonic::Status;

/// How far apart the remaining times of a lease may be: seconds.
const REMAINING_TOLERANCE_SECONDS: i64 = 2;
/// Up to so many elements Go's `sort.Sort`, of all versions, keeps what compares equal in its order.
const GO_SORT_STABLE_MAX: i64 = 6;

/// What a store said to a request.
pub type Answer = Result<Reply, Refusal>;

/// A refusal: gRPC code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As [`tonic::Code`] prints.
    pub code: String,
    /// What clients compare.
    pub message: String,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { code: format!("{:?}", status.code()), message: status.message().to_owned() }
    }
}

/// A response of any kind, without what differs by nature.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Operation::Range`](super::operation::Operation::Range).
    Range(pb::RangeResponse),
    /// To [`Operation::Put`](super::operation::Operation::Put).
    Put(pb::PutResponse),
    /// To [`Operation::DeleteRange`](super::operation::Operation::DeleteRange).
    DeleteRange(pb::DeleteRangeResponse),
    /// To [`Operation::Txn`](super::operation::Operation::Txn).
    Txn(pb::TxnResponse),
    /// To [`Operation::Compact`](super::operation::Operation::Compact).
    Compact(pb::CompactionResponse),
    /// To [`Operation::LeaseGrant`](super::operation::Operation::LeaseGrant).
    LeaseGrant(pb::LeaseGrantResponse),
    /// To [`Operation::LeaseRevoke`](super::operation::Operation::LeaseRevoke).
    LeaseRevoke(pb::LeaseRevokeResponse),
    /// To a renewal; `None` when the stream ended without one.
    LeaseKeepAlive(Option<pb::LeaseKeepAliveResponse>),
    /// To [`Operation::LeaseTimeToLive`](super::operation::Operation::LeaseTimeToLive).
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    /// To [`Operation::LeaseLeases`](super::operation::Operation::LeaseLeases).
    LeaseLeases(pb::LeaseLeasesResponse),
    /// To [`Operation::HashKv`](super::operation::Operation::HashKv).
    HashKv(pb::HashKvResponse),
    /// To [`Operation::Status`](super::operation::Operation::Status).
    Status(pb::StatusResponse),
    /// What a watch stream answered to a request, events aside.
    Watch(Vec<pb::WatchResponse>),
    /// Of an operation of several requests.
    Several(Vec<Answer>),
}

/// Keeps of a header the revision and whether the rest is filled in.
pub(crate) fn header(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = u64::from(header.cluster_id != 0);
        header.member_id = u64::from(header.member_id != 0);
        header.raft_term = u64::from(header.raft_term != 0);
    }
}

pub(crate) fn range(response: &mut pb::RangeResponse, request: &pb::RangeRequest) {
    header(&mut response.header);
    let is_sorted = request.sort_order() != SortOrder::None || request.sort_target() != SortTarget::Key;
    if !is_sorted || request.sort_target() == SortTarget::Key || response.count <= GO_SORT_STABLE_MAX {
        return;
    }
    let target = request.sort_target();
    let ties = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key == b.key,
        SortTarget::Version => a.version == b.version,
        SortTarget::Create => a.create_revision == b.create_revision,
        SortTarget::Mod => a.mod_revision == b.mod_revision,
        SortTarget::Value => a.value == b.value,
    };
    let chunks: Vec<usize> = response.kvs.chunk_by(|a, b| ties(a, b)).map(<[KeyValue]>::len).collect();
    let mut rest = response.kvs.as_mut_slice();
    for (number, length) in chunks.iter().enumerate() {
        let (chunk, later) = rest.split_at_mut(*length);
        rest = later;
        chunk.sort_by(|a, b| a.key.cmp(&b.key));
        if response.more && number + 1 == chunks.len() {
            // Which of those that compare equal the limit lets through is chance; that there are so many of them is not.
            for kv in chunk {
                *kv = match target {
                    SortTarget::Key => KeyValue { key: kv.key.clone(), ..Default::default() },
                    SortTarget::Version => KeyValue { version: kv.version, ..Default::default() },
                    SortTarget::Create => {
                        KeyValue { create_revision: kv.create_revision, ..Default::default() }
                    }
                    SortTarget::Mod => KeyValue { mod_revision: kv.mod_revision, ..Default::default() },
                    SortTarget::Value => KeyValue { value: kv.value.clone(), ..Default::default() },
                };
            }
        }
    }
}

pub(crate) fn txn(response: &mut pb::TxnResponse, request: &pb::TxnRequest) {
    header(&mut response.header);
    let branch = if response.succeeded { &request.success } else { &request.failure };
    for (op, response) in branch.iter().zip(&mut response.responses) {
        match (&op.request, &mut response.response) {
            (Some(Op::RequestRange(request)), Some(OpResponse::ResponseRange(response))) => {
                range(response, request)
            }
            (Some(Op::RequestTxn(request)), Some(OpResponse::ResponseTxn(response))) => {
                txn(response, request)
            }
            (_, Some(OpResponse::ResponsePut(put))) => header(&mut put.header),
            (_, Some(OpResponse::ResponseDeleteRange(delete))) => header(&mut delete.header),
            _ => {}
        }
    }
}

/// The keys of a lease come from a Go map.
pub(crate) fn time_to_live(response: &mut pb::LeaseTimeToLiveResponse) {
    header(&mut response.header);
    response.keys.sort();
}

/// What depends on the files and the log of a member is left out; that it leads itself is kept.
pub(crate) fn status(response: &mut pb::StatusResponse) {
    let leads = response.header.is_some_and(|header| header.member_id == response.leader);
    header(&mut response.header);
    response.leader = u64::from(leads);
    response.version.clear();
    response.db_size = 0;
    response.db_size_in_use = 0;
    response.raft_index = u64::from(response.raft_index > 0);
    response.raft_applied_index = u64::from(response.raft_applied_index > 0);
    response.raft_term = u64::from(response.raft_term > 0);
}

/// Makes the remaining times of a lease in two answers equal when they nearly are.
pub(crate) fn level_remaining_times(one: &mut Answer, other: &mut Answer) {
    match (one, other) {
        (Ok(Reply::LeaseTimeToLive(one)), Ok(Reply::LeaseTimeToLive(other)))
            if one.ttl >= 0
                && other.ttl >= 0
                && (one.ttl - other.ttl).abs() <= REMAINING_TOLERANCE_SECONDS =>
        {
            one.ttl = other.ttl;
        }
        (Ok(Reply::Several(one)), Ok(Reply::Several(other))) => {
            one.iter_mut().zip(other).for_each(|(one, other)| level_remaining_times(one, other));
        }
        _ => {}
    }
}
