//! The store as etcd's backend file, which is what etcd's snapshots are: a bbolt file with these buckets.
//!
//! | Bucket | Key | Value |
//! | --- | --- | --- |
//! | `alarm` | `etcdserverpb.AlarmMember` | empty |
//! | `auth` | `authEnabled`, `authRevision` | one byte; 8 bytes, big-endian |
//! | `authRoles`, `authUsers` | name | `authpb.Role`, `authpb.User` |
//! | `cluster` | `clusterVersion` | `3.5.0` |
//! | `key` | revision | `mvccpb.KeyValue` |
//! | `lease` | id (8 bytes, big-endian) | `leasepb.Lease` |
//! | `members` | id in hexadecimal | JSON |
//! | `members_removed` | id in hexadecimal | `removed` |
//! | `meta` | `consistent_index`, `term`, `confState`, `finishedCompactRev`, `scheduledCompactRev` | 8 bytes each; JSON; revisions |
//!
//! A file that was made for a client ends in the SHA-256 of what comes before it.
//! Never here: how a bbolt file is laid out ([`crate::bolt`]); where the state comes from or goes to.

mod export;
mod import;
mod members;

#[cfg(test)]
mod tests;

pub use export::Content;
pub use import::{FileError, Imported, import};

const ALARM: &str = "alarm";
const AUTH: &str = "auth";
const AUTH_ROLES: &str = "authRoles";
const AUTH_USERS: &str = "authUsers";
const CLUSTER: &str = "cluster";
const KEY: &str = "key";
const LEASE: &str = "lease";
const MEMBERS: &str = "members";
const MEMBERS_REMOVED: &str = "members_removed";
const META: &str = "meta";

const AUTH_ENABLED: &[u8] = b"authEnabled";
const AUTH_REVISION: &[u8] = b"authRevision";
const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const CONF_STATE: &[u8] = b"confState";
const CONSISTENT_INDEX: &[u8] = b"consistent_index";
const TERM: &[u8] = b"term";
const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";

/// Bytes of the checksum behind a file made for a client.
pub const CHECKSUM_BYTES: u64 = 32;
/// Whether a file of this length has a checksum behind it: pages are multiples of this.
const SECTOR_BYTES: u64 = 512;

/// Whether a file of so many bytes ends in a checksum.
pub fn has_checksum(file_bytes: u64) -> bool {
    file_bytes % SECTOR_BYTES == CHECKSUM_BYTES
}

/// etcd's message of a lease (package leasepb), which is nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct LeaseMessage {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}
