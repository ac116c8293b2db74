//! The versions of keys on disk: files that are only appended to, each with versions in revision order.
//!
//! A frame is `length u32 | crc32 u32 | main u64 | sub u64 | VersionRecord`, integers little-endian; length and checksum cover what follows the
//! checksum. How far a file counts, and which of its versions compaction has dropped since, stands in the *table*, which the caller keeps
//! ([`SegmentTable`]): what lies beyond the noted length was written and not noted, and is cut off. A file more than half of which is dropped is
//! written anew without that, together with small neighbours. Replaced files stay until [`Segments::remove_unreferenced`].
//!
//! Never here: when to sync, what else the state holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::store::SegmentRecord;
use etcd_lite_core::{Record, Revision, Version};

/// A file larger than this is followed by a new one.
const FILE_BYTES: u64 = 8 << 20;
/// Files are put together up to this size.
const MERGED_BYTES: u64 = FILE_BYTES / 2;
const SUFFIX: &str = "versions";
const FRAME_HEAD: usize = 8;
const REVISION_BYTES: usize = 16;

/// Why the versions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record is not what was written.
    #[error("{path} is damaged at byte {offset}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the first bad record begins.
        offset: usize,
    },
}

/// Which files there are, by the first revision each may hold.
pub type SegmentTable = BTreeMap<Revision, SegmentRecord>;

#[derive(Clone, Debug, Default)]
struct Segment {
    file: u64,
    length: u64,
    count: u64,
    dropped: BTreeSet<Revision>,
}

impl Segment {
    fn kept(&self) -> u64 {
        self.count.saturating_sub(self.dropped.len() as u64)
    }

    /// About how many bytes its kept versions take.
    fn kept_bytes(&self) -> u64 {
        self.length * self.kept() / self.count.max(1)
    }

    fn to_record(&self) -> SegmentRecord {
        SegmentRecord {
            file: self.file,
            length: self.length,
            count: self.count,
            dropped_main: self.dropped.iter().map(|r| r.main).collect(),
            dropped_sub: self.dropped.iter().map(|r| r.sub).collect(),
        }
    }

    fn from_record(record: &SegmentRecord) -> Self {
        let revisions = record.dropped_main.iter().zip(&record.dropped_sub);
        Self {
            file: record.file,
            length: record.length,
            count: record.count,
            dropped: revisions.map(|(main, sub)| Revision { main: *main, sub: *sub }).collect(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Segments {
    dir: PathBuf,
    table: BTreeMap<Revision, Segment>,
    /// Entries that [`Self::take_changed`] has not told yet.
    changed: BTreeSet<Revision>,
    next_file: u64,
    /// The last segment's file.
    open: Option<File>,
    /// Files with bytes that may not be on disk.
    unsynced: BTreeSet<u64>,
    buffer: Vec<u8>,
}

/// Where a file lies.
fn path_of(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file:016x}.{SUFFIX}"))
}

fn file_number(path: &Path) -> Option<u64> {
    if path.extension()? != SUFFIX {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries
        .iter()
        .map(std::fs::DirEntry::path)
        .filter_map(|path| Some((file_number(&path)?, path)))
        .collect())
}

/// The frames of a file, in order, with each one's whole bytes.
struct Frames<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(Revision, &'a [u8]), SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let offset = self.at;
        let frame = frame_at(&self.bytes[offset..]);
        match frame {
            Some((_, frame)) => self.at += frame.len(),
            None => self.at = self.bytes.len(),
        }
        Some(frame.ok_or_else(|| SegmentError::Damaged { path: self.path.to_owned(), offset }))
    }
}

fn frame_at(bytes: &[u8]) -> Option<(Revision, &[u8])> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = number(0)? as usize;
    let body = bytes.get(FRAME_HEAD..FRAME_HEAD.checked_add(length)?)?;
    if length < REVISION_BYTES || crc32fast::hash(body) != number(4)? {
        return None;
    }
    let main = i64::from_le_bytes(body[..8].try_into().ok()?);
    let sub = i64::from_le_bytes(body[8..16].try_into().ok()?);
    Some((Revision { main, sub }, &bytes[..FRAME_HEAD + length]))
}

/// The `VersionRecord` of a frame.
fn record_of(frame: &[u8]) -> &[u8] {
    &frame[FRAME_HEAD + REVISION_BYTES..]
}

/// Reads the versions that a table names, in revision order, without those dropped.
///
/// # Errors
/// A file is missing, shorter than noted, or damaged.
pub fn read(
    dir: &Path,
    table: &SegmentTable,
    mut each: impl FnMut(Revision, Bytes),
) -> Result<(), SegmentError> {
    for segment in table.values().map(Segment::from_record) {
        let (path, bytes) = read_file(dir, &segment)?;
        let bytes = Bytes::from(bytes);
        for frame in (Frames { path: &path, bytes: &bytes, at: 0 }) {
            let (revision, frame) = frame?;
            if !segment.dropped.contains(&revision) {
                each(revision, bytes.slice_ref(record_of(frame)));
            }
        }
    }
    Ok(())
}

fn read_file(dir: &Path, segment: &Segment) -> Result<(PathBuf, Vec<u8>), SegmentError> {
    let path = path_of(dir, segment.file);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(segment.length).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 == segment.length => Ok((path, bytes)),
        Ok(length) => Err(SegmentError::Damaged { path, offset: length }),
        Err(source) => Err(SegmentError::Io { path, source }),
    }
}

fn reopen(path: &Path, length: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

impl Segments {
    /// Goes on with the files of a table.
    ///
    /// # Errors
    /// The file system refused.
    pub fn open(dir: &Path, table: &SegmentTable) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Io { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let last_file = files(dir).map_err(failed)?.into_iter().map(|(number, _)| number).max();
        let table: BTreeMap<Revision, Segment> =
            table.iter().map(|(first, record)| (*first, Segment::from_record(record))).collect();
        Ok(Self {
            dir: dir.to_owned(),
            // What a table that was lost, or a snapshot file, may still refer to is not written over.
            next_file: last_file.map_or(0, |number| number + 1),
            table,
            changed: BTreeSet::new(),
            open: None,
            unsynced: BTreeSet::new(),
            buffer: Vec::new(),
        })
    }

    /// Adds versions, which follow on all that are there. Their table entries change with [`Self::take_changed`].
    ///
    /// # Errors
    /// The file system refused. The versions stay queued: appending nothing tries again.
    pub fn append<'a>(
        &mut self,
        versions: impl IntoIterator<Item = &'a Arc<Version>>,
    ) -> Result<(), SegmentError> {
        for version in versions {
            let is_full = self
                .table
                .last_key_value()
                .is_none_or(|(_, last)| last.length + self.buffer.len() as u64 >= FILE_BYTES);
            if is_full {
                self.write_buffer()?;
                self.begin(version.revision)?;
            }
            self.encode(version);
        }
        self.write_buffer()
    }

    fn encode(&mut self, version: &Arc<Version>) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; FRAME_HEAD]);
        self.buffer.extend_from_slice(&version.revision.main.to_le_bytes());
        self.buffer.extend_from_slice(&version.revision.sub.to_le_bytes());
        Record::Version(Arc::clone(version)).encode_value(&mut self.buffer);
        let body = start + FRAME_HEAD;
        let length = (self.buffer.len() - body) as u32;
        let crc = crc32fast::hash(&self.buffer[body..]);
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.buffer[start + 4..body].copy_from_slice(&crc.to_le_bytes());
        if let Some(mut last) = self.table.last_entry() {
            last.get_mut().count += 1;
        }
    }

    fn begin(&mut self, first: Revision) -> Result<(), SegmentError> {
        let file = self.next_file;
        self.open = Some(self.create(file)?);
        self.table.insert(first, Segment { file, ..Segment::default() });
        Ok(())
    }

    fn create(&mut self, file: u64) -> Result<File, SegmentError> {
        self.next_file = file + 1;
        let path = path_of(&self.dir, file);
        File::create(&path).map_err(|source| SegmentError::Io { path, source })
    }

    fn write_buffer(&mut self) -> Result<(), SegmentError> {
        let Some((first, last)) = self.table.iter_mut().next_back() else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let path = path_of(&self.dir, last.file);
        // Taken, so that after a failure the file is opened again and cut where it counts.
        let file = self.open.take().map_or_else(|| reopen(&path, last.length), Ok);
        let written = file.and_then(|mut file| file.write_all(&self.buffer).map(|()| file));
        self.open = Some(written.map_err(|source| SegmentError::Io { path, source })?);
        last.length += self.buffer.len() as u64;
        self.changed.insert(*first);
        self.unsynced.insert(last.file);
        self.buffer.clear();
        // A large request leaves no large buffer behind.
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// Notes that compaction dropped these versions.
    pub fn drop_versions(&mut self, revisions: impl IntoIterator<Item = Revision>) {
        for revision in revisions {
            if let Some((first, segment)) = self.table.range_mut(..=revision).next_back() {
                segment.dropped.insert(revision);
                self.changed.insert(*first);
            }
        }
    }

    /// Writes one run of files anew if more than half of the first is dropped (any of it with `thorough`). Whether there was one.
    ///
    /// # Errors
    /// The file system refused, or a file is damaged. The old files still count.
    pub fn tidy(&mut self, thorough: bool) -> Result<bool, SegmentError> {
        let is_due = |segment: &Segment| {
            let dropped = segment.dropped.len() as u64;
            dropped > 0 && (thorough || 2 * dropped > segment.count)
        };
        let Some(first) = self.table.iter().find(|(_, segment)| is_due(segment)).map(|(first, _)| *first)
        else {
            return Ok(false);
        };
        // Neighbours much larger than what they would be joined to stay as they are, or they would be copied over and over.
        let mut bytes = self.table[&first].kept_bytes();
        let mut joins = |segment: &Segment| {
            let joined = bytes + segment.kept_bytes();
            let fits = joined <= MERGED_BYTES && segment.kept_bytes() <= 2 * bytes;
            if fits {
                bytes = joined;
            }
            fits
        };
        let last = self.table.keys().next_back().copied();
        let before: Vec<Revision> =
            self.table.range(..first).rev().take_while(|(_, s)| joins(s)).map(|(key, _)| *key).collect();
        let after: Vec<Revision> = self
            .table
            .range(first..)
            .skip(1)
            // The one that is being appended to grows by itself.
            .take_while(|(key, s)| Some(**key) != last && joins(s))
            .map(|(key, _)| *key)
            .collect();
        let run: Vec<Revision> = before.into_iter().rev().chain([first]).chain(after).collect();
        self.rewrite(&run)?;
        Ok(true)
    }

    fn rewrite(&mut self, run: &[Revision]) -> Result<(), SegmentError> {
        let mut merged = Segment { file: self.next_file, ..Segment::default() };
        let mut out = Vec::new();
        for segment in run.iter().filter_map(|first| self.table.get(first)) {
            if segment.kept() == 0 {
                continue;
            }
            let (path, bytes) = read_file(&self.dir, segment)?;
            for frame in (Frames { path: &path, bytes: &bytes, at: 0 }) {
                let (revision, frame) = frame?;
                if !segment.dropped.contains(&revision) {
                    out.extend_from_slice(frame);
                    merged.count += 1;
                }
            }
        }
        merged.length = out.len() as u64;
        if merged.count > 0 {
            let path = path_of(&self.dir, merged.file);
            let mut file = self.create(merged.file)?;
            file.write_all(&out).map_err(|source| SegmentError::Io { path, source })?;
            self.unsynced.insert(merged.file);
        }
        for first in run {
            self.table.remove(first);
            self.changed.insert(*first);
        }
        if let Some(first) = run.first()
            && merged.count > 0
        {
            self.table.insert(*first, merged);
        }
        self.open = None;
        Ok(())
    }

    /// The table's entries that changed since they were last taken; `None` for one that is gone.
    pub fn take_changed(&mut self) -> Vec<(Revision, Option<SegmentRecord>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|first| (first, self.table.get(&first).map(Segment::to_record))).collect()
    }

    /// The whole table.
    pub fn table(&self) -> SegmentTable {
        self.table.iter().map(|(first, segment)| (*first, segment.to_record())).collect()
    }

    /// Puts everything on disk that the table names.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync(&mut self) -> Result<(), SegmentError> {
        let current: HashSet<u64> = self.table.values().map(|segment| segment.file).collect();
        for file in std::mem::take(&mut self.unsynced).into_iter().filter(|file| current.contains(file)) {
            let path = path_of(&self.dir, file);
            File::open(&path)
                .and_then(|file| file.sync_data())
                .map_err(|source| SegmentError::Io { path, source })?;
        }
        // New files' names as well.
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| SegmentError::Io { path: self.dir.clone(), source })
    }

    /// Removes files that neither the table nor `others` name.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove_unreferenced(&self, others: &HashSet<u64>) -> Result<(), SegmentError> {
        let failed = |source| SegmentError::Io { path: self.dir.clone(), source };
        let current: HashSet<u64> = self.table.values().map(|segment| segment.file).collect();
        for (number, path) in files(&self.dir).map_err(failed)? {
            if !current.contains(&number) && !others.contains(&number) {
                std::fs::remove_file(&path).map_err(|source| SegmentError::Io { path, source })?;
            }
        }
        Ok(())
    }

    /// Forgets all versions; their files stay until [`Self::remove_unreferenced`].
    pub fn clear(&mut self) {
        self.changed.extend(self.table.keys().copied());
        self.table.clear();
        self.open = None;
    }

    /// Bytes of the files that the table names, and of the versions kept in them.
    pub fn disk_bytes(&self) -> (u64, u64) {
        let sum = |bytes: fn(&Segment) -> u64| self.table.values().map(bytes).sum();
        (sum(|segment| segment.length), sum(Segment::kept_bytes))
    }
}

#[cfg(test)]
mod tests {
    use etcd_lite_core::Life;

    use super::*;

    fn version(main: i64, bytes: usize) -> Arc<Version> {
        let life = Life { create_revision: main, version: 1, lease: 0 };
        let (key, value) = (format!("key{main}"), vec![main as u8; bytes]);
        Arc::new(Version::put(revision(main), key.as_bytes(), &value, life))
    }

    fn revisions(dir: &Path, table: &SegmentTable) -> Vec<i64> {
        let mut found = Vec::new();
        read(dir, table, |revision, record| {
            let record = Record::decode(etcd_lite_core::RecordKey::version(revision).as_ref(), record)
                .expect("decodes");
            let Record::Version(read) = record else { panic!("{record:?}") };
            assert_eq!(read, version(revision.main, read.value().len()));
            found.push(revision.main);
        })
        .expect("read");
        found
    }

    fn revision(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    #[test]
    fn versions_come_back_in_order_and_unnoted_ones_do_not() {
        let dir = tempfile::tempdir().expect("dir");
        let mut segments = Segments::open(dir.path(), &SegmentTable::new()).expect("open");
        segments.append(&[version(2, 10), version(3, 10)]).expect("append");
        let noted = segments.table();
        segments.append(&[version(4, 10)]).expect("append");
        assert_eq!(revisions(dir.path(), &segments.table()), [2, 3, 4]);
        assert_eq!(revisions(dir.path(), &noted), [2, 3]);
        let mut segments = Segments::open(dir.path(), &noted).expect("open");
        segments.append(&[version(5, 10)]).expect("append");
        assert_eq!(revisions(dir.path(), &segments.table()), [2, 3, 5]);
    }

    #[test]
    fn what_is_mostly_dropped_is_written_anew_and_the_old_file_goes_when_nobody_names_it() {
        let dir = tempfile::tempdir().expect("dir");
        let mut segments = Segments::open(dir.path(), &SegmentTable::new()).expect("open");
        let big = (FILE_BYTES / 8) as usize;
        let versions: Vec<_> = (1..=40).map(|main| version(main, big)).collect();
        segments.append(&versions).expect("append");
        assert!(segments.table().len() >= 5, "{}", segments.table().len());
        let old: HashSet<u64> = segments.table().values().map(|s| s.file).collect();
        let before = segments.table();
        segments.drop_versions((1..=30).filter(|main| main % 7 != 0).map(revision));
        while segments.tidy(false).expect("tidy") {}
        let expected: Vec<i64> = (1..=40).filter(|main| *main > 30 || main % 7 == 0).collect();
        assert_eq!(revisions(dir.path(), &segments.table()), expected);
        assert!(segments.table().len() < before.len());
        segments.remove_unreferenced(&old).expect("remove");
        assert_eq!(revisions(dir.path(), &before).len(), 40, "a snapshot file may still name the old files");
        segments.sync().expect("sync");
        segments.remove_unreferenced(&HashSet::new()).expect("remove");
        assert!(read(dir.path(), &before, |_, _| {}).is_err());
        assert_eq!(revisions(dir.path(), &segments.table()), expected);
        let changed: Vec<_> = segments.take_changed();
        assert!(changed.iter().any(|(_, record)| record.is_none()));
    }

    #[test]
    fn damage_is_found_and_named() {
        let dir = tempfile::tempdir().expect("dir");
        let mut segments = Segments::open(dir.path(), &SegmentTable::new()).expect("open");
        segments.append(&[version(2, 100), version(3, 100)]).expect("append");
        let table = segments.table();
        let path = path_of(dir.path(), table.values().next().expect("one").file);
        let whole = std::fs::read(&path).expect("read");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).expect("write");
            assert!(
                matches!(read(dir.path(), &table, |_, _| {}), Err(SegmentError::Damaged { .. })),
                "byte {at}"
            );
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("write");
        assert!(read(dir.path(), &table, |_, _| {}).is_err());
    }
}
