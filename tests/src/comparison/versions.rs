//! Where etcd's versions answer differently. etcd-lite answers as 3.5, as of its last releases; of an older one it may differ in what is listed here,
//! and in nothing else.

use coracle_proto::etcdserverpb::range_request::SortOrder;
use coracle_proto::mvccpb::event::EventType;
use prost::Message as _;

use super::generate_kv::REQUEST_BYTES_MAX;
use super::normal::{Answer, Reply};
use super::operation::Operation;
use super::watches::Entry;
use crate::store::Program;

/// A difference between some etcd and etcd-lite that is known and right.
pub struct KnownDifference {
    /// Which of the compared etcds differ.
    pub of: &'static [Program],
    /// Why.
    pub because: &'static str,
    /// Whether an operation, answered so by etcd and so by etcd-lite, shows it.
    is_it: fn(&Operation, &Answer, &Answer) -> bool,
}

/// All that are known.
pub const KNOWN: &[KnownDifference] = &[
    KnownDifference {
        of: &[Program::Etcd34, Program::Etcd35],
        because: "3.5.1 takes an unknown sort order for none; later releases refuse it",
        is_it: |operation, _, ours| {
            matches!(operation, Operation::Range(range) if SortOrder::try_from(range.sort_order).is_err())
                && matches!(ours, Err(refusal) if refusal.message == "etcdserver: invalid sort option")
        },
    },
    KnownDifference {
        of: &[Program::Etcd34, Program::Etcd35],
        because: "3.5.1 refuses a hash at the compacted revision; later releases answer it",
        is_it: |operation, theirs, ours| {
            let Operation::HashKv(request) = operation else { return false };
            matches!(theirs, Err(refusal) if refusal.message == "etcdserver: mvcc: required revision has been compacted")
                && matches!(ours, Ok(Reply::HashKv(reply)) if reply.compact_revision == request.revision)
        },
    },
    KnownDifference {
        of: &[Program::Etcd34, Program::Etcd35],
        because: "etcd's limit of a request is a byte higher in members whose id begins with a zero bit",
        is_it: |operation, theirs, ours| {
            let bytes = match operation {
                Operation::Put(put) => put.encoded_len(),
                Operation::Txn(txn) => txn.encoded_len(),
                _ => return false,
            };
            // The entry in the log: tag and length of the request, then a header with an id of 9 or 10 bytes.
            let entry_bytes = 1 + prost::length_delimiter_len(bytes) + bytes + 4 + 9;
            entry_bytes == REQUEST_BYTES_MAX
                && theirs.is_ok()
                && matches!(ours, Err(refusal) if refusal.message == "etcdserver: request is too large")
        },
    },
];

/// Deletions at the compacted revision are told by later releases to a watch that begins there; 3.5.1 and 3.4 tell them only until the compaction is
/// done on disk.
pub(crate) fn drop_deletions_at(compacted: i64, entries: &mut Vec<Entry>) {
    entries.retain(|entry| {
        let Entry::Event(event) = entry else { return true };
        event.r#type() != EventType::Delete || event.kv.as_ref().is_none_or(|kv| kv.mod_revision != compacted)
    });
}

/// The known difference that an operation shows.
pub(crate) fn known(
    of: Program,
    operation: &Operation,
    theirs: &Answer,
    ours: &Answer,
) -> Option<&'static KnownDifference> {
    KNOWN.iter().find(|known| known.of.contains(&of) && (known.is_it)(operation, theirs, ours))
}
