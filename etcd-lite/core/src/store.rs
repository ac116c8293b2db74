//! The state of the machine and its plain accessors; saving and loading it.

use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::etcdserverpb::AlarmType;
use coracle_proto::store::{MemberRecord, StoreMeta};

use crate::alarms::Alarms;
use crate::auth::Auth;
use crate::error::LoadError;
use crate::history::EventLog;
use crate::key_index::KeyIndex;
use crate::lease::{Lease, Leases};
use crate::members::Members;
use crate::mutant;
use crate::records::{Record, RecordKey};
use crate::version::{Event, Version};

/// Everything a member has agreed on with the others. Changed by [`Store::apply`] only.
///
/// Cloning copies the index, not the values.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) index: KeyIndex,
    pub(crate) log: EventLog,
    pub(crate) leases: Leases,
    pub(crate) alarms: Alarms,
    pub(crate) members: Members,
    pub(crate) cluster_version: Option<Arc<str>>,
    pub(crate) auth: Auth,
    pub(crate) meta: StoreMeta,
    /// Bytes of all keys and values kept, past versions included.
    pub(crate) bytes: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store at revision 1, as etcd's.
    pub fn new() -> Self {
        Self {
            index: KeyIndex::default(),
            log: EventLog::default(),
            leases: Leases::default(),
            alarms: Alarms::default(),
            members: Members::default(),
            cluster_version: None,
            auth: Auth::default(),
            meta: StoreMeta {
                applied_index: 0,
                applied_term: 0,
                revision: 1,
                compacted_revision: -1,
                pruned_revision: -1,
            },
            bytes: 0,
        }
    }

    /// Log index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.meta.applied_index
    }

    /// Term of the last applied entry.
    pub fn applied_term(&self) -> u64 {
        self.meta.applied_term
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// The revision below which nothing can be read or watched; -1 before the first compaction.
    pub fn compacted_revision(&self) -> i64 {
        self.meta.compacted_revision
    }

    /// Keys that exist now.
    pub fn key_count(&self) -> usize {
        self.index.live_count()
    }

    /// Events kept since the last compaction.
    pub fn event_count(&self) -> usize {
        self.log.len()
    }

    /// Bytes of all keys and values kept, past versions included.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.by_id.get(&id)
    }

    /// All leases by id.
    pub fn leases(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    /// The members of the cluster. None at all before entry 1.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The cluster version the members agreed on, if they did.
    pub fn cluster_version(&self) -> Option<&str> {
        self.cluster_version.as_deref()
    }

    /// Users and roles.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Makes the members those of a new cluster, which begins with this state instead of an empty one. Not for a state whose log goes on.
    pub fn begin_with(&mut self, members: impl IntoIterator<Item = MemberRecord>) {
        self.members = Members::from_records(members);
    }

    /// What a version's key was before its revision, whatever came before it in the same revision. As in etcd, the put that
    /// begins a key's life has nothing before it, even when it follows a deletion in the same revision.
    pub(crate) fn before(&self, version: &Version) -> Option<Arc<Version>> {
        if version.create_revision == version.revision.main {
            return None;
        }
        let before = version.revision.main - if mutant!(PrevKvOffByOne) { 2 } else { 1 };
        self.index.get(version.key())?.at(before).map(Arc::clone)
    }

    /// Adds a version to index, log and byte count.
    pub(crate) fn add_version(&mut self, event: Event) {
        self.bytes += event.version.size_bytes();
        self.index.insert(Arc::clone(&event.version));
        self.log.push(event);
    }

    /// The whole state as records in key order, sharing keys and values with the store.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let mut versions: Vec<&Arc<Version>> =
            self.index.iter().flat_map(|versions| versions.iter()).collect();
        versions.sort_unstable_by_key(|v| v.revision);
        self.records_before_versions()
            .chain(versions.into_iter().map(|v| Record::Version(Arc::clone(v))))
            .chain(self.records_after_versions())
    }

    /// All records but those of versions, in key order.
    pub(crate) fn records_but_versions(&self) -> impl Iterator<Item = Record> {
        self.records_before_versions().chain(self.records_after_versions())
    }

    fn records_before_versions(&self) -> impl Iterator<Item = Record> {
        let alarms = self.alarms.get(AlarmType::None).map(Record::Alarm);
        let members = self.members.records().map(|member| Record::Member(Arc::clone(member)));
        let cluster_version = self.cluster_version.iter().map(|v| Record::ClusterVersion(Arc::clone(v)));
        let leases =
            self.leases.by_id.iter().map(|(id, lease)| Record::Lease { id: *id, record: lease.to_record() });
        // Records go in order of their keys' bytes, in which negative lease ids come last.
        let (negative, positive): (Vec<_>, Vec<_>) =
            leases.partition(|r| matches!(r, Record::Lease { id, .. } if *id < 0));
        alarms
            .chain(members)
            .chain(cluster_version)
            .chain(self.auth.records_before_leases())
            .chain(positive)
            .chain(negative)
            .chain([Record::Meta(self.meta)])
    }

    fn records_after_versions(&self) -> impl Iterator<Item = Record> {
        self.auth.records_of_users().into_iter()
    }

    /// Builds a store from saved records in key order. No records at all give an empty store.
    ///
    /// # Errors
    /// When the records are not a state that [`Store::records`] or a sequence of [`crate::RecordChange`]s can have left.
    pub fn load<K: AsRef<[u8]>>(records: impl IntoIterator<Item = (K, Bytes)>) -> Result<Self, LoadError> {
        let mut store = Self::new();
        let (mut has_meta, mut has_other) = (false, false);
        let mut previous_key: Option<RecordKey> = None;
        for (key, value) in records {
            let record = Record::decode(key.as_ref(), value)?;
            let key = record.key();
            if previous_key.is_some_and(|previous| previous >= key) {
                return Err(LoadError::OutOfOrder(key.as_ref().to_vec()));
            }
            previous_key = Some(key);
            match record {
                Record::Meta(meta) => {
                    has_meta = true;
                    store.meta = meta;
                    continue;
                }
                Record::Alarm(alarm) => store.alarms.load(&alarm),
                Record::Member(member) => store.members.load(member),
                Record::ClusterVersion(version) => store.cluster_version = Some(version),
                Record::Lease { id, record } => {
                    let lease = Lease {
                        granted_ttl_seconds: record.granted_ttl_seconds,
                        remaining_ttl_seconds: record.remaining_ttl_seconds,
                        ..Lease::default()
                    };
                    store.leases.by_id.insert(id, lease);
                }
                Record::Auth(state) => store.auth.load_state(state),
                Record::Role { number, role } => store.auth.load_role(number, role)?,
                Record::User { number, user } => store.auth.load_user(number, user)?,
                Record::Version(_) if !has_meta => return Err(LoadError::MissingMeta),
                Record::Version(version) => store.load_version(version)?,
            }
            has_other = true;
        }
        if has_other && !has_meta {
            return Err(LoadError::MissingMeta);
        }
        if mutant!(RevisionReuseAfterSnapshot) {
            let live = store.index.iter().filter_map(|versions| versions.live());
            let newest = live.map(|version| version.revision.main);
            store.meta.revision = newest.max().unwrap_or(1);
        }
        Ok(store)
    }

    fn load_version(&mut self, version: Arc<Version>) -> Result<(), LoadError> {
        if version.revision.main > self.meta.revision {
            return Err(LoadError::Inconsistent("a version is newer than the store's revision"));
        }
        if version.key().is_empty() {
            return Err(LoadError::Inconsistent("a version has no key"));
        }
        let current = self.index.get(version.key()).and_then(|versions| versions.live());
        let previous_lease = current.map_or(0, |v| v.lease);
        if !mutant!(LeaseKeysLostOnLoad) {
            self.leases.move_key(version.key(), previous_lease, version.lease);
        }
        if version.revision.main < self.meta.pruned_revision {
            self.bytes += version.size_bytes();
            self.index.insert(version);
        } else {
            let is_kept = version.revision.main > self.meta.compacted_revision;
            let previous = if is_kept { self.before(&version) } else { None };
            self.add_version(Event { version, previous });
        }
        Ok(())
    }
}
