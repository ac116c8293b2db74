//! The store's records in sled, but for versions of keys: those are in [`Segments`], and sled has the table of these. sled keeps
//! what it was given in memory, and a key's versions would be by far the most of it.
//!
//! Never the only copy: what does not open or verify is set aside. A digest of all records in sled is written in the same step as what it covers: a
//! database that lost or kept a page too many does not verify.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_proto::store::{SegmentRecord, StoreMeta};
use etcd_lite_core::{LoadError, Record, RecordChange, RecordKey, Revision, Store};
use parking_lot::Mutex;
use prost::Message as _;

use super::segments::{self, SegmentError, SegmentTable, Segments};

/// Pages sled keeps in memory; the store itself is in memory already.
const CACHE_BYTES: u64 = 1 << 20;

/// How long another holder of the files is waited for.
const UNLOCK_DEADLINE: Duration = Duration::from_secs(2);
const UNLOCK_POLL: Duration = Duration::from_millis(5);

/// Why a checkpoint is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// sled itself failed.
    #[error("the database does not open or read: {0}")]
    Sled(#[from] sled::Error),
    /// A file of versions is damaged or cannot be written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Its records are no consistent store.
    #[error("the database is inconsistent: {0}")]
    Load(#[from] LoadError),
    /// Another process has it open.
    #[error("another process has the checkpoint open; end it first, or use another --data-dir")]
    InUse,
    /// Records are missing or too many.
    #[error("the database's digest does not match its records")]
    Digest,
}

/// The digest's key; sorts behind all records.
const DIGEST_KEY: &[u8] = b"z";
/// Rows of the table of segments, keyed by the first revision; where versions would stand in key order.
const SEGMENT_PREFIX: u8 = b's';

/// The key of a row of the table.
fn segment_key(first: Revision) -> Vec<u8> {
    let mut key = RecordKey::version(first).as_ref().to_vec();
    key[0] = SEGMENT_PREFIX;
    key
}

/// Which row of the table this is, if it is one.
fn segment_of(key: &[u8], value: &[u8]) -> Option<Result<(Revision, SegmentRecord), LoadError>> {
    let (SEGMENT_PREFIX, rest) = key.split_first().map(|(kind, rest)| (*kind, rest))? else { return None };
    let unknown = || LoadError::UnknownKey(key.to_vec());
    let number = |at: usize| Some(i64::from_be_bytes(rest.get(at..at + 8)?.try_into().ok()?));
    let first = number(0).zip(number(8)).map(|(main, sub)| Revision { main, sub });
    let record =
        SegmentRecord::decode(value).map_err(|source| LoadError::Undecodable { key: key.to_vec(), source });
    Some(first.ok_or_else(unknown).and_then(|first| Ok((first, record?))))
}

/// Builds a store from records in key order in which versions are replaced by rows of the table of segments; those without such rows may have
/// the versions themselves.
///
/// # Errors
/// The records or the files of versions are damaged.
pub fn load(
    records: impl IntoIterator<Item = (Bytes, Bytes)>,
    versions_dir: &Path,
) -> Result<(Store, SegmentTable), CheckpointError> {
    let (mut pairs, mut table) = (Vec::new(), SegmentTable::new());
    let mut place = 0;
    for (key, value) in records {
        match segment_of(&key, &value) {
            Some(row) => {
                let (first, record) = row?;
                table.insert(first, record);
                place = pairs.len();
            }
            None => pairs.push((key, value)),
        }
    }
    let after = pairs.split_off(if table.is_empty() { pairs.len() } else { place });
    segments::read(versions_dir, &table, |revision, record| {
        pairs.push((Bytes::copy_from_slice(RecordKey::version(revision).as_ref()), record));
    })?;
    pairs.extend(after);
    Ok((Store::load(pairs)?, table))
}

/// Order does not matter, so it is kept up to date by each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    records: u64,
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
        self.records = self.records.wrapping_add(1);
        self.checksums ^= Self::of(key, value);
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.checksums ^= Self::of(key, value);
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksums.to_le_bytes());
        bytes
    }
}

/// An open checkpoint.
pub struct SledState {
    db: sled::Db,
    inner: Mutex<Inner>,
}

struct Inner {
    digest: Digest,
    segments: Segments,
}

impl SledState {
    /// Opens the database and loads the store from it and the files of versions beside it; a damaged one is moved aside and replaced by an
    /// empty one.
    ///
    /// # Errors
    /// Not even an empty database can be made.
    pub fn open(path: &Path) -> Result<(Self, Option<Store>), CheckpointError> {
        match Self::try_open(path) {
            Ok(opened) => Ok(opened),
            Err(CheckpointError::InUse) => Err(CheckpointError::InUse),
            Err(error) => {
                let aside = unused_name(path);
                tracing::warn!(%error, moved_to = %aside.display(), "the checkpoint is not usable; rebuilding it from snapshot and log");
                std::fs::rename(path, &aside).map_err(sled::Error::from)?;
                Self::try_open(path)
            }
        }
    }

    /// As [`Self::open`], leaving a damaged one where it is.
    ///
    /// # Errors
    /// It is damaged or in use.
    pub fn try_open(path: &Path) -> Result<(Self, Option<Store>), CheckpointError> {
        let db = open_unlocked(path)?;
        let versions_dir = versions_dir(path);
        let Some(expected) = db.get(DIGEST_KEY)? else {
            if !db.is_empty() {
                return Err(CheckpointError::Digest);
            }
            let segments = Segments::open(&versions_dir, &SegmentTable::new())?;
            return Ok((Self { db, inner: Inner { digest: Digest::default(), segments }.into() }, None));
        };
        let (mut records, mut digest) = (Vec::new(), Digest::default());
        for pair in db.iter() {
            let (key, value) = pair?;
            if key.as_ref() != DIGEST_KEY {
                digest.add(&key, &value);
                records.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)));
            }
        }
        if digest.bytes() != expected.as_ref() {
            return Err(CheckpointError::Digest);
        }
        let (store, table) = load(records, &versions_dir)?;
        let segments = Segments::open(&versions_dir, &table)?;
        Ok((Self { db, inner: Inner { digest, segments }.into() }, Some(store)))
    }

    /// Writes the changes of consecutive commands as one step. What they write and then remove again is not written at all.
    ///
    /// # Errors
    /// sled or the file system failed.
    pub fn write(&self, changes: &[RecordChange]) -> Result<(), CheckpointError> {
        let mut inner = self.inner.lock();
        let dropped: HashSet<Revision> = changes
            .iter()
            .filter_map(|change| match change {
                RecordChange::Delete(key) => key.revision(),
                RecordChange::Set(_) => None,
            })
            .collect();
        let (mut versions, mut fresh_and_dropped) = (Vec::new(), HashSet::new());
        let mut rows: HashMap<RecordKey, Option<&Record>> = HashMap::new();
        for change in changes {
            match change {
                RecordChange::Set(Record::Version(version)) if dropped.contains(&version.revision) => {
                    fresh_and_dropped.insert(version.revision);
                }
                RecordChange::Set(Record::Version(version)) => versions.push(version),
                RecordChange::Set(record) => {
                    rows.insert(record.key(), Some(record));
                }
                RecordChange::Delete(key) if key.revision().is_some() => {}
                RecordChange::Delete(key) => {
                    rows.insert(*key, None);
                }
            }
        }
        inner.segments.append(versions)?;
        inner.segments.drop_versions(dropped.difference(&fresh_and_dropped).copied());
        inner.segments.tidy(false)?;
        let rows =
            rows.into_iter().map(|(key, row)| (key.as_ref().to_vec(), row.map(Record::value))).collect();
        self.write_rows(&mut inner, rows)
    }

    /// Writes rows together with the changed rows of the table of segments.
    fn write_rows(
        &self,
        inner: &mut Inner,
        mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), CheckpointError> {
        let segments = inner.segments.take_changed().into_iter();
        rows.extend(segments.map(|(first, record)| (segment_key(first), record.map(|r| r.encode_to_vec()))));
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            if let Some(old) = self.db.get(&key)? {
                inner.digest.remove(&key, &old);
            }
            match value {
                Some(value) => {
                    inner.digest.add(&key, &value);
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        batch.insert(DIGEST_KEY, &inner.digest.bytes()[..]);
        Ok(self.db.apply_batch(batch)?)
    }

    /// Writes every file of versions anew that holds any that compaction dropped.
    ///
    /// # Errors
    /// sled or the file system failed; what was there still counts.
    pub fn defragment(&self) -> Result<(), CheckpointError> {
        while self.defragment_step()? {}
        Ok(())
    }

    /// Does so for one file; `false` when there was none left.
    ///
    /// # Errors
    /// sled or the file system failed; what was there still counts.
    pub fn defragment_step(&self) -> Result<bool, CheckpointError> {
        let mut inner = self.inner.lock();
        let was_any = inner.segments.tidy(true)?;
        self.write_rows(&mut inner, Vec::new())?;
        Ok(was_any)
    }

    /// Puts the versions on disk, and gives all other records with the table of their files, index and term: what [`load`] makes the
    /// store from. `None` when nothing was written yet.
    ///
    /// # Errors
    /// sled or the disk failed.
    pub fn manifest(&self) -> Result<Option<Manifest>, CheckpointError> {
        let mut inner = self.inner.lock();
        inner.segments.sync()?;
        let (mut records, mut meta) = (Vec::new(), None);
        for pair in self.db.iter() {
            let (key, value) = pair?;
            if key.as_ref() == RecordKey::meta().as_ref() {
                meta = StoreMeta::decode(&*value).ok();
            }
            if key.as_ref() != DIGEST_KEY {
                records.push((key.to_vec(), value.to_vec()));
            }
        }
        Ok(meta.map(|meta| Manifest { index: meta.applied_index, term: meta.applied_term, records }))
    }

    /// Removes files of versions that neither this checkpoint nor `others` name.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove_unreferenced(&self, others: &HashSet<u64>) -> Result<(), CheckpointError> {
        Ok(self.inner.lock().segments.remove_unreferenced(others)?)
    }

    /// Forgets everything, before a snapshot's records are written.
    ///
    /// # Errors
    /// sled failed.
    pub fn clear(&self) -> Result<(), CheckpointError> {
        let mut inner = self.inner.lock();
        inner.segments.clear();
        inner.segments.take_changed();
        inner.digest = Digest::default();
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

    /// Bytes on disk, and those of them in use.
    pub fn disk_bytes(&self) -> (u64, u64) {
        let sled = self.db.size_on_disk().unwrap_or(0);
        let (versions, kept) = self.inner.lock().segments.disk_bytes();
        (sled + versions, sled + kept)
    }
}

/// See [`SledState::manifest`].
pub struct Manifest {
    /// The last applied entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// In key order.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Files of versions that the rows of a table name.
pub fn files_named<'a>(records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> HashSet<u64> {
    let rows = records.into_iter().filter_map(|(key, value)| segment_of(key, value)?.ok());
    rows.map(|(_, record)| record.file).collect()
}

/// Where the versions lie, beside the checkpoint and the snapshot files.
pub fn versions_dir(beside: &Path) -> PathBuf {
    beside.with_file_name("versions")
}

/// Opens sled. It lets go of its files a moment after it was closed.
fn open_unlocked(path: &Path) -> Result<sled::Db, CheckpointError> {
    let deadline = Instant::now() + UNLOCK_DEADLINE;
    loop {
        match sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open() {
            // sled wraps the error that says it.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if Instant::now() > deadline {
                    return Err(CheckpointError::InUse);
                }
                std::thread::sleep(UNLOCK_POLL);
            }
            opened => return Ok(opened?),
        }
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
            let (first, _) = db.scan_prefix([SEGMENT_PREFIX]).next().expect("a row").expect("read");
            db.remove(first).expect("lose a file of versions");
            db.flush().expect("flush");
        }
        let (_, found) = SledState::open(&path).expect("open");
        assert!(found.is_none());
        assert!(dir.path().join("checkpoint.broken-1").exists());
    }
}
