//! Where etcd's versions answer differently. etcd-lite answers as 3.5, as of its last releases; of an older one it may differ in what is listed here,
//! and in nothing else.

use coracle_proto::etcdserverpb::range_request::SortOrder;

use super::normal::Answer;
use super::operation::Operation;
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
pub const KNOWN: &[KnownDifference] = &[KnownDifference {
    of: &[Program::Etcd34, Program::Etcd35],
    because: "3.5.1 takes an unknown sort order for none; later releases refuse it",
    is_it: |operation, theirs, ours| {
        matches!(operation, Operation::Range(range) if SortOrder::try_from(range.sort_order).is_err())
            && matches!(ours, Err(refusal) if refusal.message == "etcdserver: invalid sort option")
            && theirs != ours
    },
}];

/// The known difference that an operation shows.
pub(crate) fn known(
    of: Program,
    operation: &Operation,
    theirs: &Answer,
    ours: &Answer,
) -> Option<&'static KnownDifference> {
    KNOWN.iter().find(|known| known.of.contains(&of) && (known.is_it)(operation, theirs, ours))
}
