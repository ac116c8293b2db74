//! A whole store at one index, with a checksum over everything:
//!
//! ```text
//! "CORSNAP1" | index u64 | term u64 | { key length u32 | value length u32 | key | value }* | 0xffffffff | crc32 u32
//! ```
//! The records are a store's, versions included (a leader's snapshot), or name the files that hold the versions (this member's own).
//! Written beside its place, synced, then renamed: a file under its own name is whole. One goes when [two later ones](superseded) are known to be part
//! of the log's past.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_lite_core::{Record, Store};

use super::sled_state;

const MAGIC: &[u8; 8] = b"CORSNAP1";
const END: u32 = u32::MAX;
const SUFFIX: &str = "snap";

/// A snapshot file being written.
pub struct SnapshotWriter {
    out: BufWriter<File>,
    crc: crc32fast::Hasher,
    temporary: PathBuf,
    path: PathBuf,
}

/// Where the snapshot of an index lies.
pub fn path_of(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}.{SUFFIX}"))
}

impl SnapshotWriter {
    /// Begins a file for the state after `index`.
    ///
    /// # Errors
    /// The file system refused.
    pub fn create(dir: &Path, index: u64, term: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        component_base::failpoint::hit_io("snapshot.before_write")?;
        let path = path_of(dir, index);
        let temporary = path.with_extension("part");
        let out = BufWriter::new(File::create(&temporary)?);
        let mut writer = Self { out, crc: crc32fast::Hasher::new(), temporary, path };
        writer.put(MAGIC)?;
        writer.put(&index.to_le_bytes())?;
        writer.put(&term.to_le_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.out.write_all(bytes)
    }

    /// Adds a record; they come in key order.
    ///
    /// # Errors
    /// The file system refused.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.put(&(key.len() as u32).to_le_bytes())?;
        self.put(&(value.len() as u32).to_le_bytes())?;
        self.put(key)?;
        self.put(value)
    }

    /// Completes the file and gives it its name. How long its sync took.
    ///
    /// # Errors
    /// The file system refused.
    pub fn finish(mut self) -> io::Result<Duration> {
        self.put(&END.to_le_bytes())?;
        let crc = self.crc.clone().finalize();
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.flush()?;
        component_base::failpoint::hit_io("snapshot.before_sync")?;
        let begun = Instant::now();
        self.out.get_ref().sync_all()?;
        let synced = begun.elapsed();
        std::fs::rename(&self.temporary, &self.path)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()?;
        Ok(synced)
    }
}

/// Writes all records of a store as it was at `index`.
///
/// # Errors
/// The file system refused.
pub fn write(dir: &Path, index: u64, term: u64, mut records: Vec<Record>) -> io::Result<()> {
    records.sort_by_key(Record::key);
    let mut writer = SnapshotWriter::create(dir, index, term)?;
    for record in &records {
        writer.record(record.key().as_ref(), &record.value())?;
    }
    writer.finish().map(drop)
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == SUFFIX));
    paths.sort();
    Ok(paths)
}

/// Reads one snapshot file, and the files of versions that it names.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(path: &Path) -> Result<Store, String> {
    let records = read_records(path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let loaded = sled_state::load(records, &sled_state::versions_dir(dir));
    loaded.map(|(store, _)| store).map_err(|error| format!("{}: {error}", path.display()))
}

/// The records of a snapshot file.
///
/// # Errors
/// Says what is wrong with it.
pub fn read_records(path: &Path) -> Result<Vec<(Bytes, Bytes)>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = Bytes::from(bytes);
    let damaged = || format!("{} is damaged", path.display());
    let body = bytes.len().checked_sub(4).ok_or_else(damaged)?;
    let crc = u32::from_le_bytes(bytes[body..].try_into().map_err(|_| damaged())?);
    if crc != crc32fast::hash(&bytes[..body]) || !bytes.starts_with(MAGIC) {
        return Err(damaged());
    }
    let number =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    let (mut at, mut pairs) = (MAGIC.len() + 16, Vec::new());
    loop {
        let key_length = number(at).ok_or_else(damaged)?;
        if key_length == END {
            return Ok(pairs);
        }
        let value_length = number(at + 4).ok_or_else(damaged)?;
        let key_end = at + 8 + key_length as usize;
        let value_end = key_end + value_length as usize;
        if value_end > body {
            return Err(damaged());
        }
        // A copy for each value: a slice would keep the whole file in memory.
        pairs.push((bytes.slice(at + 8..key_end), Bytes::copy_from_slice(&bytes[key_end..value_end])));
        at = value_end;
    }
}

/// Of snapshots in order those that are of no use any more, now that the log goes on from `current`, or from a later one: all before it but the last,
/// which stays should a file turn out damaged. The arrival of a snapshot makes none useless: consensus may ignore it, and the log goes on from an
/// earlier one.
pub fn superseded<'a, T: Ord>(ascending: &'a [T], current: &T) -> &'a [T] {
    let before = ascending.partition_point(|snapshot| snapshot < current);
    &ascending[..before.saturating_sub(1)]
}

/// Removes the snapshot files that the one of `index` makes [useless](superseded).
///
/// # Errors
/// The file system refused.
pub fn remove_superseded(dir: &Path, index: u64) -> io::Result<()> {
    superseded(&list(dir)?, &path_of(dir, index)).iter().try_for_each(std::fs::remove_file)
}

/// Removes the snapshot files before that of `index`, once that one is found readable.
///
/// # Errors
/// The file system refused, or the file is damaged.
pub fn remove_earlier(dir: &Path, index: u64) -> io::Result<()> {
    let newest = path_of(dir, index);
    read_records(&newest).map_err(io::Error::other)?;
    let earlier = list(dir)?.into_iter().filter(|path| *path < newest);
    earlier.into_iter().try_for_each(std::fs::remove_file)
}

/// Files of versions that the snapshot files name.
///
/// # Errors
/// The folder cannot be read.
pub fn files_named(dir: &Path) -> io::Result<HashSet<u64>> {
    let mut named = HashSet::new();
    for path in list(dir)? {
        // What cannot be read cannot be started from either.
        let records = read_records(&path).unwrap_or_default();
        named.extend(sled_state::files_named(records.iter().map(|(key, value)| (&key[..], &value[..]))));
    }
    Ok(named)
}

/// The readable snapshots, newest first, each read when it is asked for; damaged ones are passed over with a warning.
pub fn newest_first(dir: &Path) -> impl Iterator<Item = Store> {
    let paths = list(dir).unwrap_or_default();
    let readable =
        |path: PathBuf| read(&path).map_err(|error| tracing::warn!(error, "passing over a snapshot")).ok();
    paths.into_iter().rev().filter_map(readable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_comes_back_and_damage_is_seen() {
        let dir = tempfile::tempdir().expect("dir");
        let mut store = Store::new();
        store.advance(7, 2);
        write(dir.path(), 7, 2, store.records().collect()).expect("write");
        assert_eq!(newest_first(dir.path()).next().expect("a snapshot").hash_all(), store.hash_all());
        let path = path_of(dir.path(), 7);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).expect("write");
        assert!(read(&path).expect_err("damage").contains("damaged"));
        assert!(newest_first(dir.path()).next().is_none());
    }

    #[test]
    fn the_last_before_the_current_one_is_kept_and_so_are_later_ones() {
        let all = [3, 7, 18, 33, 40];
        assert_eq!(superseded(&all, &18), [3]);
        assert_eq!(superseded(&all, &40), [3, 7, 18]);
        assert_eq!(superseded(&all, &3), [] as [i32; 0]);
        assert_eq!(superseded(&[] as &[i32], &3), [] as [i32; 0]);
    }
}
