//! The bytes of the log's records, and how a damaged file is told from a torn one. Pure.
//!
//! ```text
//! record  = length u32 | kind u8 | crc32 u32 | payload         (little-endian; the CRC covers length, kind and payload)
//! ```
//! Every write begins with a [`WalRecord::Write`] and is synced before the next one begins. A write that was under way at a power cut leaves a torn tail:
//! a record that does not end, or of which sectors never reached the disk, and no later write behind it. A bad record with a later write behind it was
//! once synced, and so was one that is there to its last byte: something acknowledged may be damaged.

use etcd_lite_core::mutant;

/// Bytes before a record's payload.
pub const HEADER_BYTES: usize = 9;
/// No record is larger: a request's limit with room for its envelope.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalRecord {
    /// Whose log it is; first in every file.
    Identity {
        /// Cluster id.
        cluster_id: u64,
        /// Member id.
        member_id: u64,
    },
    /// A log entry. One with an index seen before replaces that entry and all after it.
    Entry(WalEntry),
    /// Raft's hard state.
    HardState(WalHardState),
    /// Everything up to this entry is in a snapshot file; the log before it may be missing.
    Snapshot {
        /// Index of the last entry in the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// What follows was written together, after everything before was synced.
    Write {
        /// Counted up within the file.
        number: u64,
    },
    /// A snapshot from the leader took the place of the whole log.
    Reset {
        /// Index of the last entry in the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// A log entry, independent of the consensus library's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    /// Position in the log.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// The library's entry type.
    pub kind: u8,
    /// What is applied.
    pub data: bytes::Bytes,
}

/// Raft's persistent state besides the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalHardState {
    /// Latest term seen.
    pub term: u64,
    /// Who got this member's vote in that term; 0 for none.
    pub vote: u64,
    /// Highest index known to be committed.
    pub commit: u64,
}

const IDENTITY: u8 = 1;
const ENTRY: u8 = 2;
const HARD_STATE: u8 = 3;
const SNAPSHOT: u8 = 4;
const RESET: u8 = 5;
const WRITE: u8 = 6;
/// What a disk writes as a whole, at least.
const SECTOR_BYTES: usize = 512;
const ENTRY_FIXED_BYTES: usize = 17;

impl WalRecord {
    /// Appends the record's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let kind = match self {
            Self::Identity { cluster_id, member_id } => {
                put(out, &[*cluster_id, *member_id]);
                IDENTITY
            }
            Self::Entry(entry) => {
                put(out, &[entry.index, entry.term]);
                out.push(entry.kind);
                out.extend_from_slice(&entry.data);
                ENTRY
            }
            Self::HardState(state) => {
                put(out, &[state.term, state.vote, state.commit]);
                HARD_STATE
            }
            Self::Snapshot { index, term } => {
                put(out, &[*index, *term]);
                SNAPSHOT
            }
            Self::Reset { index, term } => {
                put(out, &[*index, *term]);
                RESET
            }
            Self::Write { number } => {
                put(out, &[*number]);
                WRITE
            }
        };
        let length = (out.len() - start - HEADER_BYTES) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4] = kind;
        let crc = checksum(&out[start..start + 5], &out[start + HEADER_BYTES..]);
        out[start + 5..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes the record at the beginning of `bytes`; with its length in bytes. `None` if there is no valid record.
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = bytes.get(..HEADER_BYTES)?;
        let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
        // Before the checksum, which costs: most bytes that are looked at for a record begin none.
        if length > PAYLOAD_BYTES_MAX || !(IDENTITY..=WRITE).contains(&header[4]) {
            return None;
        }
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + length)?;
        let crc = u32::from_le_bytes(header[5..].try_into().ok()?);
        if crc != checksum(&header[..5], payload) && !mutant!(TornTailTakenAsValid) {
            return None;
        }
        let numbers = |count: usize| -> Option<Vec<u64>> {
            (payload.len() == 8 * count).then(|| payload.chunks_exact(8).map(number).collect())
        };
        let record = match header[4] {
            IDENTITY => {
                let n = numbers(2)?;
                Self::Identity { cluster_id: n[0], member_id: n[1] }
            }
            ENTRY => {
                let fixed = payload.get(..ENTRY_FIXED_BYTES)?;
                Self::Entry(WalEntry {
                    index: number(&fixed[..8]),
                    term: number(&fixed[8..16]),
                    kind: fixed[16],
                    data: bytes::Bytes::copy_from_slice(&payload[ENTRY_FIXED_BYTES..]),
                })
            }
            HARD_STATE => {
                let n = numbers(3)?;
                Self::HardState(WalHardState { term: n[0], vote: n[1], commit: n[2] })
            }
            SNAPSHOT => {
                let n = numbers(2)?;
                Self::Snapshot { index: n[0], term: n[1] }
            }
            RESET => {
                let n = numbers(2)?;
                Self::Reset { index: n[0], term: n[1] }
            }
            WRITE => Self::Write { number: numbers(1)?[0] },
            _ => return None,
        };
        Some((record, HEADER_BYTES + length))
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(eight)
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// What a log file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum FileEnd {
    /// Every byte belongs to a record, or was never written.
    Clean,
    /// The file is whole up to here; the rest was never finished.
    Torn {
        /// Offset of the first byte to cut off.
        offset: usize,
    },
    /// A record at this offset is damaged although later ones are whole.
    Damaged {
        /// Offset of the damaged record.
        offset: usize,
    },
}

/// Decodes a whole file, giving each record to `each`, and says how it ends.
pub fn decode_file(bytes: &[u8], mut each: impl FnMut(WalRecord)) -> FileEnd {
    let mut offset = 0;
    while offset < bytes.len() {
        // Files are made longer ahead of what is written.
        if bytes[offset] == 0 && bytes[offset..].iter().all(|byte| *byte == 0) {
            return FileEnd::Clean;
        }
        let Some((record, length)) = WalRecord::decode(&bytes[offset..]) else {
            return if was_synced(bytes, offset) && !mutant!(DamageTakenAsTorn) {
                FileEnd::Damaged { offset }
            } else {
                FileEnd::Torn { offset }
            };
        };
        each(record);
        offset += length;
    }
    FileEnd::Clean
}

/// Whether a bad record shows that it was once whole: a later write follows it, or all its sectors were written. Nobody can tell of the last write if a
/// sector of it holds nothing but zeros, as a sector that never reached the disk does; upstream's log has the same limit.
pub fn was_synced(bytes: &[u8], offset: usize) -> bool {
    is_whole(bytes, offset) || has_later_write(bytes, offset + 1)
}

fn has_later_write(bytes: &[u8], from: usize) -> bool {
    (from..bytes.len().saturating_sub(HEADER_BYTES)).any(|at| {
        bytes[at + 4] == WRITE
            && matches!(WalRecord::decode(&bytes[at..]), Some((WalRecord::Write { .. }, _)))
    })
}

/// Whether all sectors of a bad record were written: then it was damaged later.
fn is_whole(bytes: &[u8], offset: usize) -> bool {
    let Some(header) = bytes.get(offset..offset + HEADER_BYTES) else { return false };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let end = offset + HEADER_BYTES + length;
    if end > bytes.len() || !(IDENTITY..=WRITE).contains(&header[4]) {
        return false;
    }
    let mut at = offset;
    while at < end {
        let sector_end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if bytes[at..sector_end].iter().all(|byte| *byte == 0) {
            return false;
        }
        at = sector_end;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Vec<WalRecord>> {
        let entry = (any::<u64>(), any::<u64>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(index, term, kind, data)| {
                WalRecord::Entry(WalEntry { index, term, kind, data: data.into() })
            });
        let state = (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(term, vote, commit)| WalRecord::HardState(WalHardState { term, vote, commit }));
        let identity = (any::<u64>(), any::<u64>())
            .prop_map(|(cluster_id, member_id)| WalRecord::Identity { cluster_id, member_id });
        let snapshot =
            (any::<u64>(), any::<u64>()).prop_map(|(index, term)| WalRecord::Snapshot { index, term });
        // Each record a write of its own.
        proptest::collection::vec(prop_oneof![entry, state, identity, snapshot], 1..20).prop_map(|records| {
            let write = |(number, record)| [WalRecord::Write { number }, record];
            (0u64..).zip(records).flat_map(write).collect()
        })
    }

    fn encode(records: &[WalRecord]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for record in records {
            starts.push(bytes.len());
            record.encode(&mut bytes);
        }
        (bytes, starts)
    }

    fn decode(bytes: &[u8]) -> (Vec<WalRecord>, FileEnd) {
        let mut records = Vec::new();
        let end = decode_file(bytes, |record| records.push(record));
        (records, end)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in records()) {
            prop_assert_eq!(decode(&encode(&records).0), (records, FileEnd::Clean));
        }

        #[test]
        fn a_cut_file_gives_a_prefix(records in records(), cut in any::<prop::sample::Index>()) {
            let (bytes, starts) = encode(&records);
            let cut = cut.index(bytes.len());
            let (read, end) = decode(&bytes[..cut]);
            prop_assert_eq!(&read[..], &records[..read.len()]);
            let whole = starts.contains(&cut);
            prop_assert_eq!(end == FileEnd::Clean, whole);
            let damaged = matches!(end, FileEnd::Damaged { .. });
            prop_assert!(!damaged);
        }

        #[test]
        fn a_flipped_bit_before_the_last_write_is_damage(
            records in records(), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let (mut bytes, starts) = encode(&records);
            let last = starts[starts.len() - 2];
            prop_assume!(last > 0);
            let at = at.index(last);
            bytes[at] ^= 1 << bit;
            let (read, end) = decode(&bytes);
            let damaged = starts.iter().rposition(|start| *start <= at).expect("a record");
            prop_assert_eq!(&read[..], &records[..damaged]);
            prop_assert_eq!(end, FileEnd::Damaged { offset: starts[damaged] });
        }

        #[test]
        fn a_flipped_bit_in_the_last_record_is_damage_too(payload in proptest::collection::vec(1..=255u8, 1..2000), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let entry = WalEntry { index: 1, term: 1, kind: 0, data: payload.clone().into() };
            let (mut bytes, starts) = encode(&[WalRecord::Write { number: 1 }, WalRecord::Entry(entry)]);
            let data = bytes.len() - payload.len();
            bytes[data + at.index(payload.len())] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes).1, FileEnd::Damaged { offset: starts[1] });
        }
    }

    fn entry(index: u64, bytes: usize) -> WalRecord {
        WalRecord::Entry(WalEntry { index, term: 1, kind: 0, data: vec![7; bytes].into() })
    }

    #[test]
    fn a_sector_that_never_reached_the_disk_is_a_torn_write_even_with_a_record_of_it_behind() {
        let records = [
            WalRecord::Write { number: 1 },
            entry(1, 10),
            WalRecord::Write { number: 2 },
            entry(2, 3000),
            entry(3, 10),
        ];
        let (mut bytes, starts) = encode(&records);
        bytes[1024..1536].fill(0);
        assert_eq!(decode(&bytes).1, FileEnd::Torn { offset: starts[3] });
    }

    #[test]
    fn the_same_hole_before_a_later_write_is_damage() {
        let records =
            [WalRecord::Write { number: 1 }, entry(1, 3000), WalRecord::Write { number: 2 }, entry(2, 10)];
        let (mut bytes, starts) = encode(&records);
        bytes[1024..1536].fill(0);
        assert_eq!(decode(&bytes).1, FileEnd::Damaged { offset: starts[1] });
    }

    #[test]
    fn a_long_torn_tail_is_looked_through_quickly() {
        let (mut bytes, _) = encode(&[WalRecord::Write { number: 1 }]);
        // Each of these four bytes claims a record of almost a megabyte.
        bytes.extend([0xff, 0xff, 0x0f, 0x00].repeat(250_000));
        assert!(matches!(decode(&bytes).1, FileEnd::Torn { .. }));
    }
}
