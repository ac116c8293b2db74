//! The store's records as buckets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;

use etcd_lite_core::backend_form::revision_bytes;
use etcd_lite_core::walk::StateCopy;
use etcd_lite_core::{Record, Revision, Version};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    ALARM, AUTH, AUTH_ENABLED, AUTH_REVISION, AUTH_ROLES, AUTH_USERS, CLUSTER, CLUSTER_VERSION, CONF_STATE,
    CONSISTENT_INDEX, FINISHED_COMPACTION, KEY, LEASE, LeaseMessage, MEMBERS, MEMBERS_REMOVED, META,
    SCHEDULED_COMPACTION, TERM, members,
};
use crate::bolt::{self, Item, Layout, WriteError, Writer};
use crate::member::MemberInfo;

type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a backend file has in it. Holds handles of the versions, not their bytes.
pub struct Content {
    versions: Vec<Arc<Version>>,
    /// All buckets but that of the versions, which is empty here.
    others: BTreeMap<&'static str, Bucket>,
}

impl Content {
    /// The content for a state of a cluster with these members.
    pub fn new(copy: StateCopy, cluster: &[MemberInfo]) -> Self {
        let scope = copy.scope();
        let (records, versions) = copy.finish();
        let names =
            [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META];
        let others = names.into_iter().map(|name| (name, Bucket::new())).collect();
        let mut content = Self { versions, others };
        records.into_iter().for_each(|record| content.add(record));
        for member in cluster {
            content.put(MEMBERS, members::key(member.id), members::value(member));
        }
        content.put(META, CONF_STATE.to_vec(), members::conf_state(cluster));
        if scope.compacted_revision >= 0 {
            // What compaction has not removed yet is left out, so it is finished in the file.
            let compacted = revision_bytes(Revision { main: scope.compacted_revision, sub: 0 }).to_vec();
            content.put(META, SCHEDULED_COMPACTION.to_vec(), compacted.clone());
            content.put(META, FINISHED_COMPACTION.to_vec(), compacted);
        }
        if content.others[AUTH].is_empty() {
            content.put(AUTH, AUTH_REVISION.to_vec(), 1_u64.to_be_bytes().to_vec());
        }
        content
    }

    fn put(&mut self, bucket: &'static str, key: Vec<u8>, value: Vec<u8>) {
        self.others.entry(bucket).or_default().insert(key, value);
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Version(version) => self.versions.push(version),
            Record::Lease { id, record } => {
                let lease = LeaseMessage {
                    id,
                    ttl: record.granted_ttl_seconds,
                    remaining_ttl: record.remaining_ttl_seconds,
                };
                self.put(LEASE, id.to_be_bytes().to_vec(), lease.encode_to_vec());
            }
            Record::Alarm(alarm) => self.put(ALARM, alarm.encode_to_vec(), Vec::new()),
            Record::Member(member) if member.is_removed => {
                self.put(MEMBERS_REMOVED, members::key(member.id), b"removed".to_vec());
            }
            // Those that are there are given apart.
            Record::Member(_) => {}
            Record::ClusterVersion(version) => {
                self.put(CLUSTER, CLUSTER_VERSION.to_vec(), version.as_bytes().to_vec());
            }
            Record::Auth(state) => {
                if state.enabled {
                    self.put(AUTH, AUTH_ENABLED.to_vec(), vec![1]);
                }
                self.put(AUTH, AUTH_REVISION.to_vec(), state.revision.to_be_bytes().to_vec());
            }
            Record::Role { role, .. } => self.put(AUTH_ROLES, role.name.to_vec(), role.encode_to_vec()),
            Record::User { user, .. } => self.put(AUTH_USERS, user.name.to_vec(), user.encode_to_vec()),
            Record::Meta(meta) => {
                self.put(META, CONSISTENT_INDEX.to_vec(), meta.applied_index.to_be_bytes().to_vec());
                self.put(META, TERM.to_vec(), meta.applied_term.to_be_bytes().to_vec());
            }
        }
    }

    /// Gives every bucket and pair, in the order of the file.
    fn each<E>(&self, mut give: impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (name, bucket) in &self.others {
            give(Item::Bucket(name.as_bytes()))?;
            for (key, value) in bucket {
                give(Item::Pair(key, value))?;
            }
            if *name != KEY {
                continue;
            }
            for version in &self.versions {
                key.clear();
                value.clear();
                version.encode_backend_key(&mut key);
                version.encode_backend_value(&mut value);
                give(Item::Pair(&key, &value))?;
            }
        }
        Ok(())
    }

    fn fill(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        self.each(|item| match item {
            Item::Bucket(name) => writer.bucket(name),
            Item::Pair(key, value) => writer.put(key, value),
        })
    }

    /// Where things will lie in the file.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn layout(&self) -> Result<Layout, WriteError> {
        bolt::layout(|writer| self.fill(writer))
    }

    /// Writes the file; its SHA-256, which goes behind it in a file for a client.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&self, layout: Layout, out: &mut dyn Write) -> Result<[u8; 32], WriteError> {
        let mut hashing = Hashing { out, hasher: Sha256::new() };
        bolt::write(layout, &mut hashing, |writer| self.fill(writer))?;
        Ok(hashing.hasher.finalize().into())
    }

    /// etcd's checksum of the whole backend: names of buckets, keys and values, without log position and term, which differ between members.
    pub fn hash(&self) -> u32 {
        let (mut crc, mut is_meta) = (0, false);
        let result: Result<(), Infallible> = self.each(|item| {
            match item {
                Item::Bucket(name) => {
                    is_meta = name == META.as_bytes();
                    crc = crc32c::crc32c_append(crc, name);
                }
                Item::Pair(key, _) if is_meta && (key == CONSISTENT_INDEX || key == TERM) => {}
                Item::Pair(key, value) => {
                    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => crc,
            Err(never) => match never {},
        }
    }
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
