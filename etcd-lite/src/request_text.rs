//! Requests in a few words, for the log and for labels of metrics: their kind, keys and sizes. Never values, which may be secrets.

use coracle_proto::etcdserverpb as pb;
use etcd_lite_core::{Command, Request};
use prost::Message as _;

/// The request itself, without the name it was made in.
fn inner(command: &Command) -> Option<&Request> {
    match command.request.as_ref()? {
        Request::OnBehalf(wrapped) => wrapped.command.as_deref()?.request.as_ref(),
        request => Some(request),
    }
}

/// The kind of a command, as etcd's label `op` has it.
pub fn operation(command: &Command) -> &'static str {
    match inner(command) {
        Some(Request::Put(_)) => "Put",
        Some(Request::DeleteRange(_)) => "DeleteRange",
        Some(Request::Txn(_)) => "Txn",
        Some(Request::Compact(_)) => "Compaction",
        Some(Request::LeaseGrant(_)) => "LeaseGrant",
        // As etcd has it: there a leader revokes what ran out.
        Some(Request::LeaseRevoke(_) | Request::LeaseExpire(_)) => "LeaseRevoke",
        Some(Request::LeaseCheckpoint(_)) => "LeaseCheckpoint",
        Some(Request::MemberAttributes(_)) => "ClusterMemberAttrSet",
        Some(Request::ClusterVersion(_)) => "ClusterVersionSet",
        Some(Request::MembersBegin(_)) => "MembersBegin",
        Some(Request::MemberAdd(_)) => "MemberAdd",
        Some(Request::MemberRemove(_)) => "MemberRemove",
        Some(Request::MemberUpdate(_)) => "MemberUpdate",
        Some(Request::MemberPromote(_)) => "MemberPromote",
        Some(Request::MembersReduce(_)) => "MembersReduce",
        Some(Request::Alarm(_)) => "Alarm",
        Some(Request::AuthEnable(_)) => "AuthEnable",
        Some(Request::AuthDisable(_)) => "AuthDisable",
        Some(Request::AuthAuthenticate(_)) => "Authenticate",
        Some(Request::AuthUserAdd(_)) => "AuthUserAdd",
        Some(Request::AuthUserDelete(_)) => "AuthUserDelete",
        Some(Request::AuthUserChangePassword(_)) => "AuthUserChangePassword",
        Some(Request::AuthUserGrantRole(_)) => "AuthUserGrantRole",
        Some(Request::AuthUserRevokeRole(_)) => "AuthUserRevokeRole",
        Some(Request::AuthRoleAdd(_)) => "AuthRoleAdd",
        Some(Request::AuthRoleDelete(_)) => "AuthRoleDelete",
        Some(Request::AuthRoleGrantPermission(_)) => "AuthRoleGrantPermission",
        Some(Request::AuthRoleRevokePermission(_)) => "AuthRoleRevokePermission",
        Some(Request::OnBehalf(_)) | None => "unknown",
    }
}

/// A command as the log has it.
pub fn of_command(command: &Command) -> String {
    let text = match inner(command) {
        Some(Request::Put(put)) => {
            format!("put:<key:\"{}\" value_size:{} >", put.key.escape_ascii(), put.value.len())
        }
        Some(Request::DeleteRange(delete)) => {
            format!("delete_range:<{}>", keys(&delete.key, &delete.range_end))
        }
        Some(Request::Txn(txn)) => format!("txn:<{}>", of_txn(txn)),
        Some(Request::Compact(compact)) => format!("compaction:<revision:{} >", compact.revision),
        Some(Request::LeaseGrant(grant)) => {
            format!("lease_grant:<ttl:{}-second id:{:x}>", grant.ttl, grant.id)
        }
        Some(Request::LeaseRevoke(revoke)) => format!("lease_revoke:<id:{:x}>", revoke.id),
        _ => format!("{}:<size:{}>", operation(command), command.encoded_len()),
    };
    format!("header:<ID:{} > {text}", command.id)
}

/// A range.
pub fn of_range(range: &pb::RangeRequest) -> String {
    keys(&range.key, &range.range_end)
}

/// A transaction.
pub fn of_txn(txn: &pb::TxnRequest) -> String {
    format!("compare:{} success:{} failure:{} ", txn.compare.len(), txn.success.len(), txn.failure.len())
}

fn keys(key: &[u8], range_end: &[u8]) -> String {
    let end = match range_end {
        [] => String::new(),
        end => format!("range_end:\"{}\" ", end.escape_ascii()),
    };
    format!("key:\"{}\" {end}", key.escape_ascii())
}
