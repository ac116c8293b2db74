//! Buckets as the store's records.

use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::authpb;
use coracle_proto::etcdserverpb::AlarmMember;
use coracle_proto::store::{AuthRecord, LeaseRecord, StoreMeta};
use etcd_lite_core::backend_form::parse_revision;
use etcd_lite_core::{LoadError, Record, Store, Version};
use prost::Message;

use super::{
    ALARM, AUTH, AUTH_ENABLED, AUTH_REVISION, AUTH_ROLES, AUTH_USERS, CLUSTER, CLUSTER_VERSION,
    FINISHED_COMPACTION, KEY, LEASE, LeaseMessage, META, SCHEDULED_COMPACTION,
};
use crate::bolt::{BoltError, Item, Reader};

/// Why a backend file cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no whole bbolt file, or what is in it is not etcd's.
    #[error(transparent)]
    Bolt(#[from] BoltError),
    /// What is in it is no consistent store.
    #[error("the file's content is inconsistent: {0}")]
    Load(#[from] LoadError),
    /// The revision is raised beyond the largest.
    #[error("the revision would be larger than the largest there is; choose a smaller --bump-revision")]
    RevisionTooLarge,
}

/// What a backend file held. Members are not taken over: they are those of the cluster the file comes from.
#[derive(Debug)]
pub struct Imported {
    records: Vec<Record>,
    auth: AuthRecord,
    /// The last revision.
    pub revision: i64,
    /// Everything below is compacted; -1 when nothing is.
    pub compacted_revision: i64,
    /// How far removing what is compacted had come.
    pruned_revision: i64,
}

/// Reads a backend file whole.
///
/// # Errors
/// See [`FileError`].
pub fn import(file: &Reader) -> Result<Imported, FileError> {
    let mut imported = Imported {
        records: Vec::new(),
        auth: AuthRecord { enabled: false, revision: 1 },
        revision: 1,
        compacted_revision: -1,
        pruned_revision: -1,
    };
    let mut bucket = Vec::new();
    file.read(&mut |item| match item {
        Item::Bucket(name) => {
            name.clone_into(&mut bucket);
            Ok(())
        }
        Item::Pair(key, value) => {
            let name = String::from_utf8_lossy(&bucket);
            imported
                .add(&name, key, value)
                .map_err(|what| format!("bucket {name}, key {}: {what}", key.escape_ascii()))
        }
    })?;
    imported.revision = imported.revision.max(imported.compacted_revision);
    Ok(imported)
}

fn big_endian(bytes: &[u8]) -> Result<u64, String> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| "is not 8 bytes")?))
}

fn name_of(key: &[u8], inside: &[u8]) -> Result<(), String> {
    if key != inside || std::str::from_utf8(key).is_err() {
        return Err("the name is not that of its place".to_owned());
    }
    Ok(())
}

impl Imported {
    fn add(&mut self, bucket: &str, key: &[u8], value: &[u8]) -> Result<(), String> {
        let undecodable = |error: prost::DecodeError| error.to_string();
        match bucket {
            KEY => {
                let version = Version::decode_backend(key, Bytes::copy_from_slice(value))
                    .map_err(|error| error.to_string())?;
                self.revision = version.revision.main;
                // Raising the revision on restoring makes etcd write a version without a key, which no request can reach.
                if !version.key().is_empty() {
                    self.records.push(Record::Version(Arc::new(version)));
                }
            }
            META if key == FINISHED_COMPACTION || key == SCHEDULED_COMPACTION => {
                let (revision, _) = parse_revision(value).ok_or("is no revision")?;
                self.compacted_revision = self.compacted_revision.max(revision.main);
                if key == FINISHED_COMPACTION {
                    self.pruned_revision = revision.main;
                }
            }
            LEASE => {
                let lease = LeaseMessage::decode(value).map_err(undecodable)?;
                if lease.id != big_endian(key)? as i64 || lease.id == 0 {
                    return Err("the lease's id is not that of its place".to_owned());
                }
                let record = LeaseRecord {
                    granted_ttl_seconds: lease.ttl,
                    remaining_ttl_seconds: lease.remaining_ttl,
                };
                self.records.push(Record::Lease { id: lease.id, record });
            }
            ALARM => {
                let alarm = AlarmMember::decode(key).map_err(undecodable)?;
                self.records.push(Record::Alarm(alarm));
            }
            AUTH if key == AUTH_ENABLED => self.auth.enabled = value == [1],
            AUTH if key == AUTH_REVISION => self.auth.revision = big_endian(value)?,
            AUTH_ROLES => {
                let role = authpb::Role::decode(Bytes::copy_from_slice(value)).map_err(undecodable)?;
                name_of(key, &role.name)?;
                self.records.push(Record::Role { number: self.next_number(), role: Arc::new(role) });
            }
            AUTH_USERS => {
                let user = authpb::User::decode(Bytes::copy_from_slice(value)).map_err(undecodable)?;
                name_of(key, &user.name)?;
                self.records.push(Record::User { number: self.next_number(), user: Arc::new(user) });
            }
            CLUSTER if key == CLUSTER_VERSION => {
                let version = std::str::from_utf8(value).map_err(|_| "is no version")?;
                self.records.push(Record::ClusterVersion(version.into()));
            }
            // The old cluster's members and place in its log; and what later versions of etcd add.
            _ => {}
        }
        Ok(())
    }

    /// Users and roles get numbers of their own, in order.
    fn next_number(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    /// Raises the revision by `by` and compacts everything before, so that no client can take new revisions for old ones.
    ///
    /// # Errors
    /// Beyond the largest revision.
    pub fn bump_revision(&mut self, by: u64) -> Result<(), FileError> {
        let revision = i64::try_from(by).ok().and_then(|by| self.revision.checked_add(by));
        // Room for the revisions to come.
        self.revision = revision.filter(|r| *r < i64::MAX / 2).ok_or(FileError::RevisionTooLarge)?;
        self.compacted_revision = self.revision;
        Ok(())
    }

    /// The store of a cluster that begins with this state, at a log index and term.
    ///
    /// # Errors
    /// The content is not consistent.
    pub fn into_store(mut self, index: u64, term: u64) -> Result<Store, FileError> {
        self.records.push(Record::Auth(self.auth));
        self.records.push(Record::Meta(StoreMeta {
            applied_index: index,
            applied_term: term,
            revision: self.revision,
            compacted_revision: self.compacted_revision,
            pruned_revision: self.pruned_revision,
        }));
        self.records.sort_by_key(Record::key);
        let pairs = self.records.into_iter().map(|record| (record.key(), Bytes::from(record.value())));
        Ok(Store::load(pairs)?)
    }
}
