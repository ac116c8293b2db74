//! What a learner does not answer: nearly everything, because it may lag far behind, and clients are to go to the other members.

use tonic::Status;

use super::status;
use crate::member::{Member, ProposeError};

/// The gRPC methods that a learner serves; of ranges only serializable ones, which is for the range itself to look at.
const SERVED: [&str; 3] = [RANGE, "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot"];
/// Health and reflection belong to gRPC and say something about this process.
const PACKAGES: [&str; 3] = ["/etcdserverpb.", "/v3lockpb.", "/v3electionpb."];
const RANGE: &str = "/etcdserverpb.KV/Range";

/// Why a call is not answered here, if it is not.
pub(super) fn refusal<M: Member>(member: &M, path: &str) -> Option<Status> {
    let is_of_etcd = PACKAGES.iter().any(|package| path.starts_with(package));
    let is_refused = is_of_etcd && !SERVED.contains(&path);
    (is_refused && member.status().is_learner).then(|| status::of_propose(ProposeError::Learner))
}

/// Whether this member can only give what it has itself.
///
/// # Errors
/// It is a learner and the range wants more.
pub(super) fn check_range<M: Member>(member: &M, serializable: bool) -> Result<(), Status> {
    if !serializable && member.status().is_learner {
        return Err(status::of_propose(ProposeError::Learner));
    }
    Ok(())
}
