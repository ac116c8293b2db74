//! Checksums of the store: etcd's own hash of the key space ([`KvHasher`], [`Store::hash`]) and one of the whole state for comparing members
//! ([`Store::hash_all`]).
//!
//! etcd's hash is CRC-32C over the name of the bucket, `key`, then the stored form of each version in order of revisions
//! ([`crate::backend_form`]). Which versions: all above the compacted revision and up to the one asked for; of those at or below the compacted revision
//! only what a read at the revision *asked for* finds. Worked example: put(2) put(5) of one key, compaction at 3: the hash at 4 has
//! version 2, the hash at 5 has version 5 alone, although version 2 is still stored. When no key at all exists at the revision asked for,
//! etcd leaves nothing out. A tombstone at the compacted revision itself never counts: etcd up to 3.5.15 does not keep it.

use std::sync::Arc;

use coracle_proto::store::StoreMeta;

use crate::error::StoreError;
use crate::records::Record;
use crate::store::Store;
use crate::version::{Revision, Version};
use crate::walk::Walk;

/// The name of etcd's bucket of versions.
const BUCKET: &[u8] = b"key";
/// What a hash covers. Fixed before the first version is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashScope {
    /// The last revision covered.
    pub revision: i64,
    /// The compacted revision the hash belongs to; -1 before the first compaction.
    pub compacted_revision: i64,
}

/// Collects the versions a hash covers, key by key, so that the store need not be held for the whole of it, and then computes it.
#[derive(Debug)]
pub struct KvHasher {
    scope: HashScope,
    kept: Vec<(Revision, Arc<Version>)>,
    /// Counted only when no key exists at the revision; `None` as soon as one is seen.
    kept_without_keys: Option<Vec<(Revision, Arc<Version>)>>,
}

impl KvHasher {
    /// Begins a hash.
    pub fn new(scope: HashScope) -> Self {
        Self { scope, kept: Vec::new(), kept_without_keys: Some(Vec::new()) }
    }

    /// Takes in the next [`crate::walk::KEYS_AT_ONCE`] keys. What is written in between does not matter; a compaction in between does, and is told.
    ///
    /// # Errors
    /// `Compacted` when the store was compacted since the scope was taken: begin again with a new scope.
    pub fn add(&mut self, store: &Store, walk: &mut Walk) -> Result<(), StoreError> {
        if store.compacted_revision() != self.scope.compacted_revision {
            return Err(StoreError::Compacted);
        }
        store.walk_versions(walk, |versions| self.add_key(versions));
        Ok(())
    }

    /// `versions`: those of one key, oldest first.
    fn add_key(&mut self, versions: &mut dyn Iterator<Item = &Arc<Version>>) {
        let HashScope { revision, compacted_revision } = self.scope;
        let mut versions = versions.take_while(|version| version.revision.main <= revision).peekable();
        while let Some(version) = versions.next() {
            let main = version.revision.main;
            let is_found = versions.peek().is_none() && !version.tombstone;
            if is_found {
                self.kept_without_keys = None;
            }
            let entry = (version.revision, Arc::clone(version));
            if main > compacted_revision || is_found {
                self.kept.push(entry);
            } else if !(main == compacted_revision && version.tombstone)
                && let Some(others) = &mut self.kept_without_keys
            {
                others.push(entry);
            }
        }
    }

    /// The checksum. Needs no store, and time in proportion to the bytes covered.
    pub fn finish(self) -> u32 {
        let mut versions = self.kept;
        versions.extend(self.kept_without_keys.into_iter().flatten());
        versions.sort_unstable_by_key(|(revision, _)| *revision);
        let mut crc = crc32c::crc32c(BUCKET);
        let mut bytes = Vec::new();
        for (_, version) in versions {
            bytes.clear();
            version.encode_backend_key(&mut bytes);
            version.encode_backend_value(&mut bytes);
            crc = crc32c::crc32c_append(crc, &bytes);
        }
        crc
    }
}

impl Store {
    /// What a hash at a revision (0: the current one; before it: nothing) covers.
    ///
    /// # Errors
    /// `Compacted` below the compacted revision, `FutureRevision` above the current one.
    pub fn hash_scope(&self, revision: i64) -> Result<HashScope, StoreError> {
        if revision > self.revision() {
            return Err(StoreError::FutureRevision);
        }
        if revision > 0 && revision < self.compacted_revision() {
            return Err(StoreError::Compacted);
        }
        let revision = if revision == 0 { self.revision() } else { revision };
        Ok(HashScope { revision, compacted_revision: self.compacted_revision() })
    }

    /// etcd's checksum of the key space at a revision (0: the current one), the same on every member that has applied the same compaction.
    /// Takes as long as all versions take to be read; [`KvHasher`] does it in steps.
    ///
    /// # Errors
    /// As [`Store::hash_scope`].
    pub fn hash(&self, revision: i64) -> Result<u32, StoreError> {
        let mut hasher = KvHasher::new(self.hash_scope(revision)?);
        let mut walk = Walk::Start;
        while walk != Walk::Done {
            hasher.add(self, &mut walk)?;
        }
        Ok(hasher.finish())
    }

    /// A checksum of the whole state: versions, leases, revisions and all other records, not the log position.
    pub fn hash_all(&self) -> u32 {
        let mut crc = 0;
        for record in self.records_but_versions() {
            let record = match record {
                Record::Meta(meta) => {
                    Record::Meta(StoreMeta { applied_index: 0, applied_term: 0, pruned_revision: 0, ..meta })
                }
                other => other,
            };
            crc = crc32c::crc32c_append(crc, record.key().as_ref());
            crc = crc32c::crc32c_append(crc, &record.value());
        }
        // How far removing what is compacted has come differs between members; what is to be left does not.
        let mut walk = Walk::Start;
        let mut bytes = Vec::new();
        while walk != Walk::Done {
            self.walk_versions(&mut walk, |versions| {
                for version in versions {
                    bytes.clear();
                    version.encode_backend_key(&mut bytes);
                    version.encode_backend_value(&mut bytes);
                    crc = crc32c::crc32c_append(crc, &bytes);
                }
            });
        }
        crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::KEYS_AT_ONCE;
    use crate::{Command, Request};
    use coracle_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest};

    fn put(key: &'static str, value: &'static str) -> Request {
        Request::Put(PutRequest { key: key.into(), value: value.into(), ..Default::default() })
    }

    #[test]
    fn a_hash_before_the_first_revision_is_that_of_nothing() {
        let mut store = Store::new();
        let command = Command { id: 0, request: Some(put("a", "b")) };
        store.apply(1, 1, &command).response.expect("puts");
        // What etcd 3.5 answers for a negative revision.
        assert_eq!(store.hash(-1), Ok(1_084_519_789));
        assert_ne!(store.hash(0), store.hash(-1));
    }

    fn delete(key: &'static str) -> Request {
        Request::DeleteRange(DeleteRangeRequest { key: key.into(), ..Default::default() })
    }

    fn compact(revision: i64) -> Request {
        Request::Compact(CompactionRequest { revision, physical: true })
    }

    fn applied(requests: impl IntoIterator<Item = Request>) -> Store {
        let mut store = Store::new();
        for (index, request) in (1..).zip(requests) {
            store.apply(index, 1, &Command { id: index, request: Some(request) }).response.expect("applied");
        }
        store
    }

    /// The checksums that etcd 3.5.1 and 3.4.23 give for the same operations: compaction at a revision that deletes, with a version that
    /// is superseded later, and with no key left at all.
    #[test]
    fn the_hash_is_etcds() {
        let mut store = Store::new();
        let mut index = 0;
        let mut apply = |store: &mut Store, requests: &[Request]| {
            for request in requests {
                index += 1;
                let command = Command { id: index, request: Some(request.clone()) };
                store.apply(index, 1, &command).response.expect("applied");
            }
        };
        let hashes = |store: &Store, revisions: &[i64]| -> Vec<Result<u32, StoreError>> {
            revisions.iter().map(|revision| store.hash(*revision)).collect()
        };
        apply(
            &mut store,
            &[
                put("a", "v1"),
                put("b", "v2"),
                put("c", "v3"),
                put("a", "w"),
                delete("b"),
                put("b", "again"),
                delete("c"),
            ],
        );
        let at_8 = Ok(3_104_819_148);
        assert_eq!(hashes(&store, &[5, 8, 0]), [Ok(3_305_953_964), at_8, at_8]);
        apply(&mut store, &[compact(6)]);
        assert_eq!(
            hashes(&store, &[5, 7, 8, 0, 20]),
            [
                Err(StoreError::Compacted),
                Ok(2_675_229_767),
                Ok(704_263_697),
                Ok(704_263_697),
                Err(StoreError::FutureRevision)
            ]
        );
        apply(&mut store, &[put("a", "z")]);
        assert_eq!(hashes(&store, &[8, 9]), [Ok(704_263_697), Ok(680_334_038)]);
        apply(&mut store, &[compact(8)]);
        assert_eq!(hashes(&store, &[9]), [Ok(3_649_152_241)]);
        apply(&mut store, &[delete("a"), delete("b")]);
        assert_eq!(hashes(&store, &[9, 10, 0]), [Ok(3_649_152_241), Ok(1_450_417_971), Ok(3_628_676_490)]);
        apply(&mut store, &[compact(11)]);
        assert_eq!(hashes(&store, &[0]), [Ok(1_084_519_789)]);
    }

    #[test]
    fn a_hash_in_steps_is_the_hash_and_a_compaction_in_between_is_told() {
        let keys: Vec<String> = (0..3 * KEYS_AT_ONCE).map(|i| format!("key{i:05}")).collect();
        let put = |key: &String| {
            Request::Put(PutRequest { key: key.clone().into(), value: "v".into(), ..Default::default() })
        };
        let mut store = applied(keys.iter().map(put));
        let expected = store.hash(0).expect("hash");
        let mut index = store.applied_index();
        let mut apply = |store: &mut Store, request| {
            index += 1;
            store.apply(index, 1, &Command { id: 0, request: Some(request) }).response.expect("applied");
        };
        let (mut hasher, mut walk) = (KvHasher::new(store.hash_scope(0).expect("scope")), Walk::Start);
        while walk != Walk::Done {
            hasher.add(&store, &mut walk).expect("step");
            apply(&mut store, put(&keys[5]));
            apply(&mut store, put(&"between".to_owned()));
        }
        assert_eq!(hasher.finish(), expected);

        let (mut hasher, mut walk) = (KvHasher::new(store.hash_scope(0).expect("scope")), Walk::Start);
        hasher.add(&store, &mut walk).expect("step");
        apply(&mut store, compact(9));
        assert_eq!(hasher.add(&store, &mut walk), Err(StoreError::Compacted));
    }
}
