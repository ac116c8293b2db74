//! The write-ahead log on disk: segments of records, synced before anything they hold is acknowledged.
//!
//! Owns: files, syncing, replay, release of what snapshots cover. Never here: what entries mean.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub mod codec;
#[cfg(test)]
mod damage_tests;
pub mod scan;

use codec::{FileEnd, decode_file};
pub use codec::{WalEntry, WalHardState, WalRecord};
use etcd_lite_core::mutant;

use crate::metrics::DiskMetrics;

/// A segment larger than this is followed by a new one.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A file is made longer by so much at a time.
const RESERVE_BYTES: u64 = 1 << 20;
/// What a file is made longer with: a write over them leaves the file system nothing to note in its own journal.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
const SUFFIX: &str = ".wal";

/// Why the log cannot be used. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record that was once whole is damaged.
    #[error(
        "{path} is damaged at byte {offset}: entries that were acknowledged may be lost, so this member does not start; move its data \
         directory aside and start it with --initial-cluster-state=existing, so that it takes the state from the other members"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
    /// A segment is missing.
    #[error(
        "{path} begins at entry {found}, but the log before it ends at {expected}: a segment is missing; restore it, or move the data directory aside and start with --initial-cluster-state=existing, so that this member takes the state from the others"
    )]
    Gap {
        /// Which file.
        path: PathBuf,
        /// Last index before it.
        expected: u64,
        /// Its first index.
        found: u64,
    },
    /// The directory belongs to another member or cluster.
    #[error(
        "{path} belongs to member {found_member:x} of cluster {found_cluster:x}, but the flags describe member {member:x} of cluster \
         {cluster:x}; use the flags it was made with (--name, --initial-cluster, --initial-cluster-token), or another --data-dir"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found_member: u64,
        /// Of which cluster.
        found_cluster: u64,
        /// Whose it should be.
        member: u64,
        /// Of which cluster.
        cluster: u64,
    },
}

/// What the log held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Raft's hard state; all zero for a new log.
    pub hard_state: WalHardState,
    /// Index and term the entries follow on: the last snapshot marker, or 0.
    pub snapshot: (u64, u64),
    /// Consecutive entries after `snapshot`.
    pub entries: Vec<WalEntry>,
    /// Whether there was no log before.
    pub is_new: bool,
    /// The first entry held is one from the middle; the marker that covers what came before stands further on.
    awaits_marker: bool,
    /// An entry was seen, covered or not.
    has_entry: bool,
}

/// Where a segment stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct SegmentPlace<'a> {
    /// Its file, for messages.
    pub path: &'a Path,
    /// Whether no segment comes after it.
    pub is_last: bool,
}

/// What a segment turned out to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRead {
    /// Highest entry index in it, 0 for none.
    pub last_index: u64,
    /// It ends in a write that was never finished, to be cut off here.
    pub cut_at: Option<usize>,
}

/// The bytes a segment begins with: what a reader needs if all earlier ones are released.
pub fn segment_head(
    last_write: u64,
    identity: &WalRecord,
    snapshot: (u64, u64),
    hard_state: WalHardState,
) -> Vec<u8> {
    let mut head = Vec::new();
    WalRecord::Write { number: last_write }.encode(&mut head);
    identity.encode(&mut head);
    WalRecord::Snapshot { index: snapshot.0, term: snapshot.1 }.encode(&mut head);
    WalRecord::HardState(hard_state).encode(&mut head);
    head
}

struct Segment {
    path: PathBuf,
    /// Highest entry index in it, 0 for none.
    last_index: u64,
}

/// The open log. Appends are buffered in memory until [`Wal::sync`].
pub struct Wal {
    dir: PathBuf,
    identity: WalRecord,
    hard_state: WalHardState,
    snapshot: (u64, u64),
    segments: Vec<Segment>,
    file: File,
    file_bytes: u64,
    /// Length up to which the file was made longer ahead of what is written; 0 if it was not.
    reserved_bytes: u64,
    next_sequence: u64,
    /// Number of the last write begun.
    last_write: u64,
    buffer: Vec<u8>,
    unsafe_no_fsync: bool,
    metrics: Option<DiskMetrics>,
}

/// Whose log lies in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Whether the log holds anything, or was only begun.
    pub has_entries: bool,
}

impl Wal {
    /// Whose log lies in `dir`, if any does. Damage is left to [`Wal::open`] to find.
    ///
    /// # Errors
    /// The file system refused.
    pub fn identity(dir: &Path) -> Result<Option<Identity>, WalError> {
        let mut found: Option<Identity> = None;
        for path in segment_paths(dir)? {
            let bytes = std::fs::read(&path).map_err(|source| WalError::Io { path, source })?;
            decode_file(&bytes, |record| match record {
                WalRecord::Identity { cluster_id, member_id } if found.is_none() => {
                    found = Some(Identity { cluster_id, member_id, has_entries: false });
                }
                WalRecord::Entry(_) => found.iter_mut().for_each(|identity| identity.has_entries = true),
                WalRecord::Snapshot { index, .. } | WalRecord::Reset { index, .. } if index > 0 => {
                    found.iter_mut().for_each(|identity| identity.has_entries = true);
                }
                _ => {}
            });
            if found.is_some_and(|identity| identity.has_entries) {
                break;
            }
        }
        Ok(found)
    }

    /// Opens or makes the log of a member in `dir`, and reads what is there. A torn tail is cut off.
    ///
    /// # Errors
    /// See [`WalError`].
    pub fn open(dir: &Path, cluster_id: u64, member_id: u64) -> Result<(Self, Replay), WalError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let paths = segment_paths(dir)?;
        let mut replay = Replay { is_new: true, ..Replay::default() };
        let mut segments = Vec::new();
        for (position, path) in paths.iter().enumerate() {
            let bytes = std::fs::read(path).map_err(io(path))?;
            let place = SegmentPlace { path, is_last: position + 1 == paths.len() };
            let SegmentRead { last_index, cut_at } =
                replay.take_segment(&bytes, place, (cluster_id, member_id))?;
            if let Some(offset) = cut_at {
                let lost = bytes.len() - offset;
                tracing::warn!(file = %path.display(), bytes = lost, "cut an unfinished write off the log's end; it was never acknowledged");
                let file = OpenOptions::new().write(true).open(path).map_err(io(path))?;
                file.set_len(offset as u64).and_then(|()| file.sync_all()).map_err(io(path))?;
            }
            segments.push(Segment { path: path.clone(), last_index });
        }
        if let Some(path) = paths.first() {
            replay.check_complete(path)?;
        }
        replay.is_new = segments.is_empty();
        let next_sequence = paths.last().and_then(|path| sequence(path)).map_or(0, |s| s + 1);
        let identity = WalRecord::Identity { cluster_id, member_id };
        let placeholder = dir.join("none");
        // Always a fresh segment: an old one's tail is never written over.
        let file = OpenOptions::new().read(true).open(dir).map_err(io(&placeholder))?;
        let mut wal = Self {
            dir: dir.to_owned(),
            identity,
            hard_state: replay.hard_state,
            snapshot: replay.snapshot,
            segments,
            file,
            file_bytes: 0,
            reserved_bytes: 0,
            next_sequence,
            last_write: 0,
            buffer: Vec::new(),
            unsafe_no_fsync: false,
            metrics: None,
        };
        wal.cut()?;
        Ok((wal, replay))
    }

    /// Begins a new segment, which repeats what a reader needs if all earlier ones are released.
    fn cut(&mut self) -> Result<(), WalError> {
        let path = self.dir.join(format!("{:016x}{SUFFIX}", self.next_sequence));
        let io = |source| WalError::Io { path: path.clone(), source };
        let head = segment_head(self.last_write, &self.identity, self.snapshot, self.hard_state);
        self.give_back().map_err(io)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io)?;
        file.write_all(&head).and_then(|()| file.sync_all()).map_err(io)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        self.file = file;
        self.file_bytes = head.len() as u64;
        self.reserved_bytes = 0;
        self.next_sequence += 1;
        self.segments.push(Segment { path, last_index: 0 });
        Ok(())
    }

    /// From now on [`Wal::sync`] does not wait for the disk (`--unsafe-no-fsync`): a power cut may lose what was acknowledged.
    pub fn set_unsafe_no_fsync(&mut self, unsafe_no_fsync: bool) {
        self.unsafe_no_fsync = unsafe_no_fsync;
    }

    /// From now on each sync's time and bytes are noted here.
    pub fn measure(&mut self, metrics: DiskMetrics) {
        self.metrics = Some(metrics);
    }

    /// Adds a record; on disk after the next [`Wal::sync`].
    pub fn append(&mut self, record: &WalRecord) {
        match record {
            WalRecord::Entry(entry) => {
                if let Some(segment) = self.segments.last_mut() {
                    segment.last_index = segment.last_index.max(entry.index);
                }
            }
            WalRecord::HardState(state) => self.hard_state = *state,
            WalRecord::Snapshot { index, term } | WalRecord::Reset { index, term } => {
                self.snapshot = (*index, *term)
            }
            WalRecord::Identity { .. } | WalRecord::Write { .. } => {}
        }
        if self.buffer.is_empty() {
            self.last_write += 1;
            WalRecord::Write { number: self.last_write }.encode(&mut self.buffer);
        }
        record.encode(&mut self.buffer);
    }

    /// Writes what was appended; it is on disk when this returns.
    ///
    /// # Errors
    /// After an error the file's state is unknown: the process must end.
    pub fn sync(&mut self) -> Result<(), WalError> {
        let end = self.file_bytes + self.buffer.len() as u64;
        if end > self.reserved_bytes {
            self.reserve(end);
        }
        let written = self.write();
        let io = |source| WalError::Io {
            path: self.segments.last().map(|s| s.path.clone()).unwrap_or_default(),
            source,
        };
        written.map_err(io)?;
        self.file_bytes = end;
        if let Some(metrics) = &self.metrics {
            metrics.wal_bytes.inc_by(self.buffer.len() as i64);
        }
        self.buffer.clear();
        component_base::failpoint::hit_io("wal.before_sync").map_err(io)?;
        if !self.unsafe_no_fsync {
            let begun = Instant::now();
            self.file.sync_data().map_err(io)?;
            if let Some(metrics) = &self.metrics {
                metrics.wal_fsync.observe(begun.elapsed().as_secs_f64());
            }
        }
        component_base::failpoint!("wal.after_sync");
        if self.file_bytes > SEGMENT_BYTES {
            self.cut()?;
        }
        Ok(())
    }

    /// Writes what was appended. What comes of a write that fails was promised to nobody and is cut off, as far as that works: a record that ends within
    /// a sector looks like a damaged one at the next start.
    fn write(&mut self) -> io::Result<()> {
        use component_base::failpoint::hit_io;
        let written = hit_io("wal.before_write").and_then(|()| {
            if let Err(error) = hit_io("wal.short_write") {
                let half = self.buffer.len() / 2;
                return self.file.write_all(&self.buffer[..half]).and(Err(error));
            }
            self.file.write_all(&self.buffer)
        });
        if written.is_err() {
            let _ = self.file.set_len(self.file_bytes);
        }
        written
    }

    /// Cuts off what was reserved and not used.
    fn give_back(&self) -> io::Result<()> {
        if self.reserved_bytes > 0 { self.file.set_len(self.file_bytes) } else { Ok(()) }
    }

    /// Makes room in the file for what comes next, so that a sync need not wait for the file system's own journal: neither to note a new length nor,
    /// since the room is filled, that it now holds something.
    fn reserve(&mut self, end: u64) {
        self.reserved_bytes = end + RESERVE_BYTES;
        let mut filled = end;
        while filled < self.reserved_bytes {
            let piece = ZEROS.len().min((self.reserved_bytes - filled) as usize);
            // Where the disk is nearly full, the write itself will tell.
            if self.file.write_all_at(&ZEROS[..piece], filled).is_err() {
                return;
            }
            filled += piece as u64;
        }
    }

    /// A snapshot file holds everything up to `index`: notes that, and removes segments that hold nothing later.
    ///
    /// # Errors
    /// The file system refused.
    pub fn release(&mut self, index: u64, term: u64) -> Result<(), WalError> {
        self.append(&WalRecord::Snapshot { index, term });
        self.sync()?;
        // The newest segment is being written; a later one never holds entries before an earlier one's.
        while self.segments.len() > 1 && self.segments[0].last_index <= index {
            let segment = self.segments.remove(0);
            std::fs::remove_file(&segment.path)
                .map_err(|source| WalError::Io { path: segment.path, source })?;
        }
        Ok(())
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().filter_map(|s| std::fs::metadata(&s.path).ok()).map(|meta| meta.len()).sum()
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // A reader passes over what stays.
        let _ = self.give_back();
    }
}

impl Replay {
    fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.snapshot.0, |entry| entry.index)
    }

    /// Takes in the next segment of the log.
    ///
    /// # Errors
    /// The segment is damaged, belongs to another member, or does not follow on the one before it.
    pub fn take_segment(
        &mut self,
        bytes: &[u8],
        place: SegmentPlace<'_>,
        own: (u64, u64),
    ) -> Result<SegmentRead, WalError> {
        let mut failure = None;
        let mut last_index = 0;
        let end = decode_file(bytes, |record| {
            if let WalRecord::Entry(entry) = &record {
                last_index = last_index.max(entry.index);
            }
            if failure.is_none() {
                failure = self.take(record, place.path, own).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match end {
            FileEnd::Clean => Ok(SegmentRead { last_index, cut_at: None }),
            FileEnd::Torn { offset } if place.is_last => {
                Ok(SegmentRead { last_index, cut_at: (!mutant!(TornTailNotCut)).then_some(offset) })
            }
            FileEnd::Torn { offset } | FileEnd::Damaged { offset } => {
                Err(WalError::Damaged { path: place.path.to_owned(), offset })
            }
        }
    }

    /// After the last segment: whether what came before the first one is accounted for.
    ///
    /// # Errors
    /// It is not.
    pub fn check_complete(&self, first: &Path) -> Result<(), WalError> {
        if self.awaits_marker {
            return Err(WalError::Gap { path: first.to_owned(), expected: 0, found: self.snapshot.0 + 1 });
        }
        Ok(())
    }

    /// Takes in the next record of the log.
    fn take(&mut self, record: WalRecord, path: &Path, own: (u64, u64)) -> Result<(), WalError> {
        match record {
            WalRecord::Identity { cluster_id, member_id } => {
                if (cluster_id, member_id) != own {
                    return Err(WalError::Foreign {
                        path: path.to_owned(),
                        found_member: member_id,
                        found_cluster: cluster_id,
                        member: own.1,
                        cluster: own.0,
                    });
                }
            }
            WalRecord::Write { .. } => {}
            WalRecord::HardState(state) => self.hard_state = state,
            WalRecord::Reset { index, term } => {
                self.entries.clear();
                self.snapshot = (index, term);
                self.awaits_marker = false;
            }
            WalRecord::Snapshot { index, term } => {
                if index >= self.last_index() {
                    self.entries.clear();
                } else {
                    self.entries.retain(|entry| entry.index > index);
                }
                if index >= self.snapshot.0 {
                    self.snapshot = (index, term);
                    self.awaits_marker = false;
                }
            }
            WalRecord::Entry(entry) => {
                if entry.index <= self.snapshot.0 {
                    return Ok(());
                }
                let is_first = !std::mem::replace(&mut self.has_entry, true);
                if is_first && entry.index > self.snapshot.0 + 1 {
                    self.snapshot = (entry.index - 1, 0);
                    self.awaits_marker = true;
                }
                let first = self.snapshot.0 + 1;
                let expected = self.last_index();
                if entry.index > expected + 1 {
                    return Err(WalError::Gap { path: path.to_owned(), expected, found: entry.index });
                }
                if mutant!(ConflictNotTruncated) && entry.index <= expected {
                    return Ok(());
                }
                self.entries.truncate((entry.index - first) as usize);
                self.entries.push(entry);
            }
        }
        Ok(())
    }
}

/// The log's files in order; none if the directory is not there.
fn segment_paths(dir: &Path) -> Result<Vec<PathBuf>, WalError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(WalError::Io { path: dir.to_owned(), source }),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == &SUFFIX[1..]))
        .collect();
    paths.sort();
    Ok(paths)
}

fn sequence(path: &Path) -> Option<u64> {
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> WalRecord {
        WalRecord::Entry(WalEntry { index, term, kind: 0, data: format!("{index}@{term}").into() })
    }

    fn open(dir: &Path) -> (Wal, Replay) {
        Wal::open(dir, 1, 2).expect("open")
    }

    fn indexes(replay: &Replay) -> Vec<(u64, u64)> {
        replay.entries.iter().map(|e| (e.index, e.term)).collect()
    }

    #[test]
    fn entries_term_and_vote_come_back() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut wal, replay) = open(dir.path());
        assert!(replay.is_new);
        let identity = |has_entries| Some(Identity { cluster_id: 1, member_id: 2, has_entries });
        assert_eq!(Wal::identity(dir.path()).expect("read"), identity(false));
        let state = WalHardState { term: 3, vote: 2, commit: 1 };
        for record in [entry(1, 1), entry(2, 1), WalRecord::HardState(state), entry(2, 3)] {
            wal.append(&record);
        }
        wal.sync().expect("sync");
        drop(wal);
        assert_eq!(Wal::identity(dir.path()).expect("read"), identity(true));
        let (_, replay) = open(dir.path());
        assert_eq!(
            (indexes(&replay), replay.hard_state, replay.is_new),
            (vec![(1, 1), (2, 3)], state, false)
        );
    }

    #[test]
    fn what_a_snapshot_covers_is_released() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut wal, _) = open(dir.path());
        for index in 1..=4 {
            wal.append(&entry(index, 1));
            wal.sync().expect("sync");
            wal.cut().expect("cut");
        }
        wal.release(2, 1).expect("release");
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 3);
        drop(wal);
        let (_, replay) = open(dir.path());
        assert_eq!((replay.snapshot, indexes(&replay)), ((2, 1), vec![(3, 1), (4, 1)]));
    }

    /// The member was killed while it removed old segments: one without entries, begun at a restart, was still there.
    #[test]
    fn a_segment_without_entries_before_the_first_one_kept_is_no_gap() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut wal, _) = open(dir.path());
        for index in 1..=4 {
            wal.append(&entry(index, 1));
        }
        wal.sync().expect("sync");
        drop(wal);
        // Killed at once: this segment stays without entries.
        drop(open(dir.path()));
        let (mut wal, _) = open(dir.path());
        wal.append(&entry(5, 1));
        wal.append(&WalRecord::Snapshot { index: 4, term: 1 });
        wal.sync().expect("sync");
        std::fs::remove_file(&wal.segments[0].path).expect("remove");
        drop(wal);
        let (_, replay) = open(dir.path());
        assert_eq!((replay.snapshot, indexes(&replay)), ((4, 1), vec![(5, 1)]));
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_in_the_middle_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut wal, _) = open(dir.path());
        for index in 1..=3 {
            wal.append(&entry(index, 1));
            wal.sync().expect("sync");
        }
        let path = wal.segments[0].path.clone();
        drop(wal);
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() - 3]).expect("write");
        let (wal, replay) = open(dir.path());
        assert_eq!(indexes(&replay), [(1, 1), (2, 1)]);
        drop(wal);
        let mut bytes = std::fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).expect("write");
        let error = Wal::open(dir.path(), 1, 2).err().expect("damage").to_string();
        assert!(error.contains("damaged at byte") && error.contains("move its data"), "{error}");
    }

    #[test]
    fn another_members_directory_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        drop(open(dir.path()));
        assert!(matches!(Wal::open(dir.path(), 1, 3), Err(WalError::Foreign { .. })));
    }
}
