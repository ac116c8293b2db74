//! The store's records in sled. Never the only copy: a database that does not open or does not verify is set aside.
//!
//! Beside the records lies a digest of all versions, written in the same step as what it covers: a database that lost or kept a page too
//! many does not verify.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use etcd_lite_core::{LoadError, Record, RecordChange, RecordKey, Store};
use parking_lot::Mutex;

/// Pages sled keeps in memory; the store itself is in memory already.
const CACHE_BYTES: u64 = 8 << 20;

/// Why a checkpoint is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// sled itself failed.
    #[error("the database does not open or read: {0}")]
    Sled(#[from] sled::Error),
    /// Its records are no consistent store.
    #[error("the database is inconsistent: {0}")]
    Load(#[from] LoadError),
    /// Versions are missing or too many.
    #[error("the database's digest does not match its records")]
    Digest,
}

/// The digest's key; sorts behind all records.
const DIGEST_KEY: &[u8] = b"z";
/// Records of versions, which the digest covers.
const VERSION_PREFIX: u8 = b'r';

/// Order does not matter, so it is kept up to date by each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    versions: u64,
    checksums: u64,
}

impl Digest {
    fn of(key: &[u8], value: &[u8]) -> u64 {
        let mut forwards = crc32fast::Hasher::new();
        forwards.update(key);
        forwards.update(value);
        let mut backwards = crc32fast::Hasher::new();
        backwards.update(value);
        backwards.update(key);
        (u64::from(forwards.finalize()) << 32) | u64::from(backwards.finalize())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        if key.first() == Some(&VERSION_PREFIX) {
            self.versions = self.versions.wrapping_add(1);
            self.checksums ^= Self::of(key, value);
        }
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        if key.first() == Some(&VERSION_PREFIX) {
            self.versions = self.versions.wrapping_sub(1);
            self.checksums ^= Self::of(key, value);
        }
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.versions.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksums.to_le_bytes());
        bytes
    }
}

/// An open checkpoint.
pub struct SledState {
    db: sled::Db,
    digest: Mutex<Digest>,
}

impl SledState {
    /// Opens the database and loads the store from it; a damaged one is moved aside and replaced by an empty one.
    ///
    /// # Errors
    /// Not even an empty database can be made.
    pub fn open(path: &Path) -> Result<(Self, Option<Store>), CheckpointError> {
        match Self::try_open(path) {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let aside = unused_name(path);
                tracing::warn!(%error, moved_to = %aside.display(), "the checkpoint is not usable; rebuilding it from the log");
                std::fs::rename(path, &aside).map_err(sled::Error::from)?;
                Self::try_open(path)
            }
        }
    }

    fn try_open(path: &Path) -> Result<(Self, Option<Store>), CheckpointError> {
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
        let state = Self { db, digest: Mutex::default() };
        let Some(expected) = state.db.get(DIGEST_KEY)? else {
            return if state.db.is_empty() { Ok((state, None)) } else { Err(CheckpointError::Digest) };
        };
        let (mut failure, mut digest) = (None, Digest::default());
        let pairs = state.db.iter().map_while(|pair| match pair {
            Ok((key, value)) => Some((key, Bytes::copy_from_slice(&value))),
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        let records = pairs
            .filter(|(key, _)| key.as_ref() != DIGEST_KEY)
            .inspect(|(key, value)| digest.add(key, value));
        let store = Store::load(records);
        if let Some(error) = failure {
            return Err(error.into());
        }
        if digest.bytes() != expected.as_ref() {
            return Err(CheckpointError::Digest);
        }
        *state.digest.lock() = digest;
        Ok((state, Some(store?)))
    }

    /// Writes the changes of consecutive commands as one step. What they write and then remove again is not written at all.
    ///
    /// # Errors
    /// sled failed.
    pub fn write(&self, changes: &[RecordChange]) -> Result<(), CheckpointError> {
        let mut last: HashMap<RecordKey, Option<&Record>> = HashMap::new();
        for change in changes {
            match change {
                RecordChange::Set(record) => {
                    last.insert(record.key(), Some(record));
                }
                RecordChange::Delete(key) => {
                    let is_fresh = matches!(last.get(key), Some(Some(Record::Version(_))));
                    if is_fresh {
                        // A version is written once: sled does not have it yet.
                        last.remove(key);
                    } else {
                        last.insert(*key, None);
                    }
                }
            }
        }
        let mut batch = sled::Batch::default();
        let mut digest = self.digest.lock();
        for (key, record) in &last {
            match record {
                Some(record) => {
                    let value = record.value();
                    digest.add(key.as_ref(), &value);
                    batch.insert(key.as_ref(), value);
                }
                None => {
                    if let Some(value) = self.db.get(key)? {
                        digest.remove(key.as_ref(), &value);
                    }
                    batch.remove(key.as_ref());
                }
            }
        }
        batch.insert(DIGEST_KEY, &digest.bytes()[..]);
        Ok(self.db.apply_batch(batch)?)
    }

    /// Forgets everything, before a snapshot's records are written.
    ///
    /// # Errors
    /// sled failed.
    pub fn clear(&self) -> Result<(), CheckpointError> {
        *self.digest.lock() = Digest::default();
        Ok(self.db.clear()?)
    }

    /// Asks the disk to hold what was written.
    ///
    /// # Errors
    /// sled failed.
    pub fn flush(&self) -> Result<(), CheckpointError> {
        self.db.flush()?;
        Ok(())
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

fn unused_name(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".broken-{number}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|candidate| !candidate.exists()).unwrap_or_else(|| name(0))
}

#[cfg(test)]
mod tests {
    use etcd_lite_core::{Command, Request};

    use super::*;

    fn put(store: &mut Store, index: u64, key: &str) -> Vec<RecordChange> {
        let put = coracle_proto::etcdserverpb::PutRequest {
            key: key.to_owned().into(),
            value: "v".into(),
            ..Default::default()
        };
        store.apply(index, 1, &Command { id: index, request: Some(Request::Put(put)) }).changes
    }

    #[test]
    fn a_store_comes_back_and_a_damaged_one_is_set_aside() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("checkpoint");
        let mut store = Store::new();
        {
            let (state, found) = SledState::open(&path).expect("open");
            assert!(found.is_none());
            for index in 1..=10 {
                state.write(&put(&mut store, index, &format!("key{index}"))).expect("write");
            }
            state.flush().expect("flush");
        }
        {
            let (_, found) = SledState::open(&path).expect("open");
            let found = found.expect("a store");
            assert_eq!((found.applied_index(), found.hash_all()), (10, store.hash_all()));
        }
        {
            // Written and removed in one step, as by a compaction soon after: the digest must not notice.
            let (state, _) = SledState::open(&path).expect("open");
            let mut changes = put(&mut store, 11, "brief");
            let version = changes.iter().find_map(|change| match change {
                RecordChange::Set(record @ Record::Version(_)) => Some(record.key()),
                _ => None,
            });
            changes.push(RecordChange::Delete(version.expect("a version")));
            state.write(&changes).expect("write");
            state.flush().expect("flush");
        }
        {
            let (_, found) = SledState::open(&path).expect("open");
            assert_eq!(found.expect("a store").applied_index(), 11);
        }
        {
            let db = sled::open(&path).expect("open");
            let (first, _) = db.scan_prefix([VERSION_PREFIX]).next().expect("a version").expect("read");
            db.remove(first).expect("lose a version");
            db.flush().expect("flush");
        }
        let (_, found) = SledState::open(&path).expect("open");
        assert!(found.is_none());
        assert!(dir.path().join("checkpoint.broken-1").exists());
    }
}
