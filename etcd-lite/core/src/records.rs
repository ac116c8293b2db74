//! The flat records that the store's state is saved as (checkpoint) and sent as (snapshot).
//!
//! | Key | Value | What |
//! | --- | --- | --- |
//! | `A` + kind (8) + member id (8) | `AlarmMember` | a raised alarm |
//! | `M` + member id (8 bytes, big-endian) | `MemberRecord` | one member, or that it was removed |
//! | `c` | UTF-8 text | cluster version |
//! | `e` | `AuthRecord` | whether authentication is enabled, and its revision |
//! | `g` + number (8) | `authpb.Role` | one role; the number is its own |
//! | `l` + lease id (8) | `LeaseRecord` | one lease |
//! | `m` | `StoreMeta` | how far all other records go |
//! | `r` + main revision (8) + sub revision (8) | `VersionRecord` | one version of a key |
//! | `u` + number (8) | `authpb.User` | one user; the number is its own |
//!
//! Key order is therefore: alarms, members, cluster version, authentication, roles, leases, meta, versions by revision, users. Values are protobuf.
//! Which keys a lease holds is not saved: the newest version of each key says it.
//! Never here: where records are kept.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use coracle_proto::authpb;
use coracle_proto::etcdserverpb::AlarmMember;
use coracle_proto::store::{AuthRecord, LeaseRecord, MemberRecord, StoreMeta, VersionRecord};
use prost::Message;

use crate::error::LoadError;
use crate::version::{Revision, Version};

const ALARM: u8 = b'A';
const MEMBER: u8 = b'M';
const CLUSTER_VERSION: u8 = b'c';
const AUTH: u8 = b'e';
const ROLE: u8 = b'g';
const LEASE: u8 = b'l';
const META: u8 = b'm';
const VERSION: u8 = b'r';
const USER: u8 = b'u';

/// One record. Cheap to clone: versions are shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A version of a key.
    Version(Arc<Version>),
    /// A lease.
    Lease {
        /// Lease id.
        id: i64,
        /// Its granted and remaining time.
        record: LeaseRecord,
    },
    /// A raised alarm.
    Alarm(AlarmMember),
    /// A member, or that it was removed.
    Member(Arc<MemberRecord>),
    /// The cluster version, such as `3.5.0`.
    ClusterVersion(Arc<str>),
    /// Whether authentication is enabled, and its revision.
    Auth(AuthRecord),
    /// A role.
    Role {
        /// Names the record; kept as long as the role is there.
        number: u64,
        /// The role.
        role: Arc<authpb::Role>,
    },
    /// A user.
    User {
        /// Names the record; kept as long as the user is there.
        number: u64,
        /// The user.
        user: Arc<authpb::User>,
    },
    /// How far the other records go.
    Meta(StoreMeta),
}

/// A change to the saved records.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordChange {
    /// Write (or overwrite) this record.
    Set(Record),
    /// Remove the record with this key; it may not be there.
    Delete(RecordKey),
}

/// A record's key: at most 17 bytes, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    bytes: [u8; 17],
    length: u8,
}

impl AsRef<[u8]> for RecordKey {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordKey({:02x?})", self.as_ref())
    }
}

impl RecordKey {
    fn new(kind: u8, numbers: &[u64]) -> Self {
        let mut bytes = [0; 17];
        bytes[0] = kind;
        let mut length = 1;
        for number in numbers {
            bytes[length..length + 8].copy_from_slice(&number.to_be_bytes());
            length += 8;
        }
        Self { bytes, length: length as u8 }
    }

    /// The key of a version's record.
    pub fn version(revision: Revision) -> Self {
        Self::new(VERSION, &[revision.main as u64, revision.sub as u64])
    }

    /// The key of a lease's record.
    pub fn lease(id: i64) -> Self {
        Self::new(LEASE, &[id as u64])
    }

    /// The key of a role's record.
    pub fn role(number: u64) -> Self {
        Self::new(ROLE, &[number])
    }

    /// The key of a user's record.
    pub fn user(number: u64) -> Self {
        Self::new(USER, &[number])
    }

    /// Which version's key this is, if it is one's.
    pub fn revision(&self) -> Option<Revision> {
        let (kind, mut rest) = self.as_ref().split_first()?;
        (*kind == VERSION && rest.len() == 16)
            .then(|| Revision { main: rest.get_u64() as i64, sub: rest.get_u64() as i64 })
    }

    /// The key of the meta record.
    pub fn meta() -> Self {
        Self::new(META, &[])
    }
}

impl Record {
    /// The record's key.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Version(version) => RecordKey::version(version.revision),
            Self::Lease { id, .. } => RecordKey::lease(*id),
            Self::Alarm(alarm) => RecordKey::new(ALARM, &[alarm.alarm as u64, alarm.member_id]),
            Self::Member(member) => RecordKey::new(MEMBER, &[member.id]),
            Self::ClusterVersion(_) => RecordKey::new(CLUSTER_VERSION, &[]),
            Self::Auth(_) => RecordKey::new(AUTH, &[]),
            Self::Role { number, .. } => RecordKey::role(*number),
            Self::User { number, .. } => RecordKey::user(*number),
            Self::Meta(_) => RecordKey::meta(),
        }
    }

    /// The record's bytes; this is where keys and values are copied.
    pub fn value(&self) -> Vec<u8> {
        match self {
            Self::Version(_) => {
                let mut buffer = Vec::new();
                self.encode_value(&mut buffer);
                buffer
            }
            Self::Lease { record, .. } => record.encode_to_vec(),
            Self::Alarm(alarm) => alarm.encode_to_vec(),
            Self::Member(member) => member.encode_to_vec(),
            Self::ClusterVersion(text) => text.as_bytes().to_vec(),
            Self::Auth(state) => state.encode_to_vec(),
            Self::Role { role, .. } => role.encode_to_vec(),
            Self::User { user, .. } => user.encode_to_vec(),
            Self::Meta(meta) => meta.encode_to_vec(),
        }
    }

    /// Adds the record's bytes to a buffer.
    pub fn encode_value(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::Version(version) => {
                buffer.reserve(version.record_len());
                version.encode_record(buffer);
            }
            other => buffer.extend_from_slice(&other.value()),
        }
    }

    /// About how many bytes the record holds, for bounding queues.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD
            + match self {
                Self::Version(version) => version.size_bytes(),
                _ => 0,
            }
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// A key of unknown shape, or bytes that do not decode.
    pub fn decode(key: &[u8], value: Bytes) -> Result<Self, LoadError> {
        let unknown = || LoadError::UnknownKey(key.to_vec());
        let undecodable = |source| LoadError::Undecodable { key: key.to_vec(), source };
        let Some((kind, mut rest)) = key.split_first() else { return Err(unknown()) };
        match (*kind, rest.len()) {
            (ALARM, 16) => Ok(Self::Alarm(AlarmMember::decode(value).map_err(undecodable)?)),
            (MEMBER, 8) => Ok(Self::Member(Arc::new(MemberRecord::decode(value).map_err(undecodable)?))),
            (CLUSTER_VERSION, 0) => {
                let text = std::str::from_utf8(&value).map_err(|_| unknown())?;
                Ok(Self::ClusterVersion(text.into()))
            }
            (LEASE, 8) => Ok(Self::Lease {
                id: rest.get_u64() as i64,
                record: LeaseRecord::decode(value).map_err(undecodable)?,
            }),
            (AUTH, 0) => Ok(Self::Auth(AuthRecord::decode(value).map_err(undecodable)?)),
            (ROLE, 8) => Ok(Self::Role {
                number: rest.get_u64(),
                role: Arc::new(authpb::Role::decode(value).map_err(undecodable)?),
            }),
            (USER, 8) => Ok(Self::User {
                number: rest.get_u64(),
                user: Arc::new(authpb::User::decode(value).map_err(undecodable)?),
            }),
            (META, 0) => Ok(Self::Meta(StoreMeta::decode(value).map_err(undecodable)?)),
            (VERSION, 16) => {
                let revision = Revision { main: rest.get_u64() as i64, sub: rest.get_u64() as i64 };
                let record = VersionRecord::decode(value).map_err(undecodable)?;
                let version =
                    Version::of_key_value(revision, record.tombstone, &record.kv.unwrap_or_default());
                Ok(Self::Version(Arc::new(version)))
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Life;

    #[test]
    fn every_kind_of_record_reads_back_as_it_was_written() {
        let life = Life { create_revision: 3, version: 4, lease: -9 };
        let version = Version::put(Revision { main: 7, sub: 2 }, b"a\0b", &[0xff, 0], life);
        let tombstone = Version::tombstone(Revision { main: 7, sub: 2 }, b"a\0b");
        let records = [
            Record::Alarm(AlarmMember { member_id: 9, alarm: 2 }),
            Record::Member(Arc::new(MemberRecord {
                id: u64::MAX,
                name: "a".into(),
                client_urls: vec!["u".into()],
                ..MemberRecord::default()
            })),
            Record::ClusterVersion("3.5.0".into()),
            Record::Lease {
                id: 5,
                record: LeaseRecord { granted_ttl_seconds: 10, remaining_ttl_seconds: 3 },
            },
            Record::Meta(StoreMeta {
                applied_index: 1,
                applied_term: 2,
                revision: 3,
                compacted_revision: -1,
                pruned_revision: -1,
            }),
            Record::Version(Arc::new(version)),
            Record::Version(Arc::new(tombstone)),
        ];
        for record in &records {
            let read = Record::decode(record.key().as_ref(), record.value().into()).expect("decodes");
            assert_eq!(&read, record);
        }
        let keys: Vec<Vec<u8>> = records[..6].iter().map(|r| r.key().as_ref().to_vec()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn a_key_of_unknown_shape_is_refused() {
        for key in [&b""[..], b"x", b"r123", b"mm"] {
            assert!(matches!(Record::decode(key, Bytes::new()), Err(LoadError::UnknownKey(_))), "{key:?}");
        }
    }
}
