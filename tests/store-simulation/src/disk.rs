//! A member's disk in memory: the log's segments byte for byte in the real format, the checkpoint's records, snapshot files. It loses what was not
//! synced, tears the write during which the power goes, and brings removed files back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etcd_lite::checkpoint::snapshot_file::superseded;
use etcd_lite::raft::core::Disk;
use etcd_lite::raft::wal_disk::{Log, records};
use etcd_lite::wal::codec::was_synced;
use etcd_lite::wal::{Replay, SegmentPlace, WalError, WalHardState, WalRecord, segment_head};
use etcd_lite_core::{Record, RecordChange, RecordKey, Store};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, HardState};

use crate::plan::CrashPoint;
use store_clients::random::Random;

/// The cluster that all members are of.
pub const CLUSTER_ID: u64 = 77;
/// A segment larger than this is followed by a new one: small, so that there are several.
const SEGMENT_BYTES: usize = 6_000;
const SECTOR_BYTES: usize = 512;
/// Bytes of a record's length and kind.
const AFTER_KIND: usize = 5;
/// Bytes by which a file is longer than what is written, at most.
const RESERVED_BYTES: u64 = 2_000;

/// A whole state as it is kept and sent.
pub struct Snapshot {
    /// Index of the last entry in it.
    pub index: u64,
    /// Its records in order.
    pub records: Vec<(RecordKey, Bytes)>,
}

impl Snapshot {
    /// Encodes a state.
    pub fn new(index: u64, records: impl IntoIterator<Item = Record>) -> Self {
        let records = records.into_iter().map(|record| (record.key(), record.value().into())).collect();
        Self { index, records }
    }

    /// Reads it back.
    pub fn load(&self) -> Result<Store, String> {
        Store::load(self.records.iter().cloned()).map_err(|error| error.to_string())
    }
}

struct Segment {
    bytes: Vec<u8>,
    last_index: u64,
}

/// What survives the end of a process.
#[derive(Default)]
pub struct SimDisk {
    segments: Vec<Segment>,
    /// Removed since the last power cut, oldest first; the removal may not have reached the disk.
    removed: Vec<Segment>,
    /// The checkpoint: whole flushes only.
    pub checkpoint: BTreeMap<RecordKey, Bytes>,
    /// By index.
    pub snapshots: BTreeMap<u64, Arc<Snapshot>>,
    /// Whether a bit was flipped in what was synced: then the member must refuse to start.
    pub is_damaged: bool,
}

impl SimDisk {
    /// Keeps a snapshot file.
    pub fn keep_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshots.insert(snapshot.index, snapshot);
    }

    /// Removes the snapshot files that the one of `index` makes useless.
    pub fn remove_superseded(&mut self, index: u64) {
        let all: Vec<u64> = self.snapshots.keys().copied().collect();
        for index in superseded(&all, &index) {
            self.snapshots.remove(index);
        }
    }

    /// Flushes changes to the checkpoint.
    pub fn flush(&mut self, changes: impl IntoIterator<Item = RecordChange>) {
        for change in changes {
            match change {
                RecordChange::Set(record) => self.checkpoint.insert(record.key(), record.value().into()),
                RecordChange::Delete(key) => self.checkpoint.remove(&key),
            };
        }
    }

    /// The power went: what was removed lately may be back.
    pub fn power_cut(&mut self, random: &mut Random) {
        let back = random.below(self.removed.len() as u64 + 1) as usize;
        let mut returned = self.removed.split_off(self.removed.len() - back);
        self.removed.clear();
        returned.append(&mut self.segments);
        self.segments = returned;
    }

    /// Flips a bit in what was synced, but not where a torn write cannot be told from a damaged one: in a record's length or kind, or in a last write of
    /// which a sector is blank.
    pub fn flip_bit(&mut self, random: &mut Random) {
        let chosen = random.below(self.segments.len() as u64) as usize;
        let Some(segment) = self.segments.get_mut(chosen) else { return };
        let mut places = Vec::new();
        let mut at = 0;
        while let Some((_, length)) = WalRecord::decode(&segment.bytes[at..]) {
            // Checksum and payload.
            places.push((at + AFTER_KIND, length - AFTER_KIND));
            at += length;
        }
        let Some((start, length)) = random.pick(&places) else { return };
        let (flipped, bit) = (start + random.below(length as u64) as usize, 1 << random.below(8));
        segment.bytes[flipped] ^= bit;
        let record = start - AFTER_KIND;
        if was_synced(&segment.bytes, record) {
            self.is_damaged = true;
        } else {
            segment.bytes[flipped] ^= bit;
        }
    }

    /// Reads the log as a member does when it starts, cuts off what was never finished.
    pub fn replay(&mut self, member: u64) -> Result<Replay, WalError> {
        let path = Path::new("log");
        let mut replay = Replay::default();
        let count = self.segments.len();
        for (position, segment) in self.segments.iter_mut().enumerate() {
            let place = SegmentPlace { path, is_last: position + 1 == count };
            let read = replay.take_segment(&segment.bytes, place, (CLUSTER_ID, member))?;
            segment.last_index = read.last_index;
            if let Some(offset) = read.cut_at {
                segment.bytes.truncate(offset);
            }
        }
        if count > 0 {
            replay.check_complete(path)?;
        }
        replay.is_new = count == 0;
        Ok(replay)
    }

    fn last(&mut self) -> Option<&mut Vec<u8>> {
        self.segments.last_mut().map(|segment| &mut segment.bytes)
    }
}

/// When the power is to go, and whether it has.
#[derive(Debug, Default)]
pub struct Fuse {
    /// The next such point.
    pub armed: Option<CrashPoint>,
    /// The power is gone: nothing happens any more.
    pub is_blown: bool,
    /// A vote for another member was written down.
    pub has_voted: bool,
}

impl Fuse {
    /// Whether the power goes here.
    pub fn burns(&mut self, is_here: impl Fn(CrashPoint) -> bool) -> bool {
        if !self.is_blown && self.armed.is_some_and(is_here) {
            self.armed = None;
            self.is_blown = true;
        }
        self.is_blown
    }
}

/// The power is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerIsGone;

impl std::fmt::Display for PowerIsGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the power is gone")
    }
}

/// The log of one life of a member.
pub struct SimLog {
    disk: Arc<Mutex<SimDisk>>,
    fuse: Arc<Mutex<Fuse>>,
    random: Random,
    member: u64,
    identity: WalRecord,
    hard_state: WalHardState,
    snapshot: (u64, u64),
    last_write: u64,
    last_index: u64,
    buffer: Vec<u8>,
}

impl SimLog {
    /// Opens the log for writing after it was replayed: as the real one always with a new segment.
    pub fn open(
        disk: Arc<Mutex<SimDisk>>,
        fuse: Arc<Mutex<Fuse>>,
        random: Random,
        member: u64,
        replay: &Replay,
    ) -> Self {
        let mut log = Self {
            disk,
            fuse,
            random,
            member,
            identity: WalRecord::Identity { cluster_id: CLUSTER_ID, member_id: member },
            hard_state: replay.hard_state,
            snapshot: replay.snapshot,
            last_write: 0,
            last_index: 0,
            buffer: Vec::new(),
        };
        log.cut();
        log
    }

    fn cut(&mut self) {
        let bytes = segment_head(self.last_write, &self.identity, self.snapshot, self.hard_state);
        self.disk.lock().segments.push(Segment { bytes, last_index: 0 });
    }

    /// Writes and syncs what was appended.
    pub fn sync(&mut self) -> Result<(), PowerIsGone> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut fuse = self.fuse.lock();
        if fuse.burns(|point| point == CrashPoint::BeforeWrite) {
            return Err(PowerIsGone);
        }
        let mut disk = self.disk.lock();
        let is_torn = fuse.armed;
        let Some(bytes) = disk.last() else { return Err(PowerIsGone) };
        match is_torn {
            Some(CrashPoint::DuringWrite) => {
                let kept = self.random.below(buffer.len() as u64 + 1) as usize;
                if self.random.one_in(2) {
                    bytes.extend_from_slice(&buffer[..kept]);
                } else {
                    // The file was made longer ahead, so its end does not tell; disks write whole sectors.
                    let start = bytes.len();
                    bytes.extend_from_slice(&buffer);
                    let reserved = self.random.below(RESERVED_BYTES) as usize;
                    bytes.resize(start + buffer.len() + reserved, 0);
                    let torn_at = ((start + kept) / SECTOR_BYTES * SECTOR_BYTES).max(start);
                    bytes[torn_at..].fill(0);
                }
            }
            Some(CrashPoint::SectorsMissing) => {
                let start = bytes.len();
                bytes.extend_from_slice(&buffer);
                let mut at = start;
                while at < bytes.len() {
                    let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(bytes.len());
                    if self.random.one_in(2) {
                        bytes[at..end].fill(0);
                    }
                    at = end;
                }
            }
            _ => bytes.extend_from_slice(&buffer),
        }
        if fuse.burns(|point| {
            matches!(point, CrashPoint::DuringWrite | CrashPoint::SectorsMissing | CrashPoint::AfterSync)
        }) {
            return Err(PowerIsGone);
        }
        if let Some(segment) = disk.segments.last_mut() {
            segment.last_index = segment.last_index.max(self.last_index);
            self.last_index = 0;
            if segment.bytes.len() > SEGMENT_BYTES {
                drop(disk);
                drop(fuse);
                self.cut();
            }
        }
        Ok(())
    }
}

impl Disk for SimLog {
    type Error = PowerIsGone;

    fn persist(
        &mut self,
        reset: Option<(u64, u64)>,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), PowerIsGone> {
        if let Some(state) = hard_state {
            let has_voted =
                state.vote != 0 && state.vote != self.member && state.term != self.hard_state.term;
            self.fuse.lock().has_voted |= has_voted;
        }
        for record in records(reset, entries, hard_state) {
            self.append(&record);
        }
        self.sync()
    }
}

impl Log for SimLog {
    fn append(&mut self, record: &WalRecord) {
        match record {
            WalRecord::Entry(entry) => self.last_index = self.last_index.max(entry.index),
            WalRecord::HardState(state) => self.hard_state = *state,
            WalRecord::Snapshot { index, term } | WalRecord::Reset { index, term } => {
                self.snapshot = (*index, *term);
            }
            WalRecord::Identity { .. } | WalRecord::Write { .. } => {}
        }
        if self.buffer.is_empty() {
            self.last_write += 1;
            WalRecord::Write { number: self.last_write }.encode(&mut self.buffer);
        }
        record.encode(&mut self.buffer);
    }

    fn release(&mut self, index: u64, term: u64) -> Result<(), PowerIsGone> {
        self.append(&WalRecord::Snapshot { index, term });
        self.sync()?;
        let mut disk = self.disk.lock();
        while disk.segments.len() > 1 && disk.segments[0].last_index <= index {
            let segment = disk.segments.remove(0);
            disk.removed.push(segment);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
