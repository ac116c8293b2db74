//! The unit in which the log is written and synced: a frame of records under one checksum. Pure.
//!
//! ```text
//! magic (4) | payload length (4) | sequence (8) | CRC32 of length, sequence, payload (4) | zero (4) | payload | zeros to 8 bytes
//! ```
//!
//! A frame is written with one write and synced before the next one is begun, and sequences have no gaps, also across segments. So a crash
//! can damage the last frame only, and what it held was never acknowledged: it is cut off. Anything else that does not add
//! up is damage done later, and is refused: going on would forget what was promised.
//! Never here: what a frame holds, files.

use bytes::Bytes;

/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"CWL1";
const ALIGNMENT: usize = 8;
/// What disks write as a whole, at least.
const SECTOR_BYTES: usize = 512;

/// Where and how a file does not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {what}")]
pub struct FrameError {
    /// Byte offset in the file.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Sequence and payload of each frame; payloads are slices of the file's bytes.
    pub frames: Vec<(u64, Bytes)>,
    /// Bytes of whole frames.
    pub valid_bytes: usize,
    /// Bytes after them, of a frame that was not written to its end.
    pub torn_bytes: usize,
}

/// Bytes that a frame with a payload of this length takes.
fn frame_bytes(payload_length: usize) -> usize {
    (HEADER_BYTES + payload_length).next_multiple_of(ALIGNMENT)
}

fn checksum(length: [u8; 4], sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Begins a frame in `buffer`, which is emptied: append the payload, then call [`finish`].
pub fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_BYTES, 0);
}

/// Completes the frame begun by [`begin`].
pub fn finish(buffer: &mut Vec<u8>, sequence: u64) {
    // Payloads are bounded by the writer, far below 4 GiB.
    let length = ((buffer.len() - HEADER_BYTES) as u32).to_le_bytes();
    let crc = checksum(length, sequence, &buffer[HEADER_BYTES..]);
    buffer[0..4].copy_from_slice(&MAGIC);
    buffer[4..8].copy_from_slice(&length);
    buffer[8..16].copy_from_slice(&sequence.to_le_bytes());
    buffer[16..20].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(frame_bytes(buffer.len() - HEADER_BYTES), 0);
}

enum Found {
    Frame { sequence: u64, payload_length: usize },
    /// The file ends before the frame does.
    Short { claimed_end: usize },
    NoFrame,
    BadChecksum { claimed_end: usize },
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

fn look(bytes: &[u8], offset: usize) -> Found {
    let rest = &bytes[offset..];
    if rest.len() < HEADER_BYTES {
        return Found::Short { claimed_end: bytes.len() };
    }
    if rest[..4] != MAGIC {
        return Found::NoFrame;
    }
    let length: [u8; 4] = number(rest, 4);
    let payload_length = u32::from_le_bytes(length) as usize;
    let end = frame_bytes(payload_length);
    if rest.len() < end {
        return Found::Short { claimed_end: bytes.len() };
    }
    let sequence = u64::from_le_bytes(number(rest, 8));
    let payload = &rest[HEADER_BYTES..HEADER_BYTES + payload_length];
    if checksum(length, sequence, payload) != u32::from_le_bytes(number(rest, 16)) {
        return Found::BadChecksum { claimed_end: offset + end };
    }
    Found::Frame { sequence, payload_length }
}

/// Whether a whole frame with a later sequence stands anywhere from `offset` on.
fn has_later_frame(bytes: &[u8], offset: usize, sequence: u64) -> bool {
    (offset.next_multiple_of(ALIGNMENT)..bytes.len())
        .step_by(ALIGNMENT)
        .any(|at| matches!(look(bytes, at), Found::Frame { sequence: found, .. } if found > sequence))
}

/// Whether a sector within the range was never written.
fn has_empty_sector(bytes: &[u8], start: usize, end: usize) -> bool {
    let mut at = start;
    while at < end {
        let sector_end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if bytes[at..sector_end].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = sector_end;
    }
    false
}

/// Reads all frames of a file. `next_sequence` is what the first has to have (`None`: any); only the log's last file may end in the
/// middle of a frame.
///
/// # Errors
/// When the file is damaged other than by a write that did not finish.
pub fn read(bytes: &Bytes, mut next_sequence: Option<u64>, is_last_file: bool) -> Result<Frames, FrameError> {
    let (mut frames, mut offset) = (Vec::new(), 0);
    while offset < bytes.len() {
        let failed = |what| Err(FrameError { offset, what });
        let (is_torn, claimed_end) = match look(bytes, offset) {
            Found::Frame { sequence, payload_length } => {
                if next_sequence.is_some_and(|expected| expected != sequence) {
                    return failed("a frame is missing before this one");
                }
                let start = offset + HEADER_BYTES;
                frames.push((sequence, bytes.slice(start..start + payload_length)));
                next_sequence = Some(sequence + 1);
                offset += frame_bytes(payload_length);
                continue;
            }
            Found::Short { claimed_end } => (true, claimed_end),
            Found::NoFrame => (has_empty_sector(bytes, offset, bytes.len()), offset + ALIGNMENT),
            Found::BadChecksum { claimed_end } => (has_empty_sector(bytes, offset, claimed_end), claimed_end),
        };
        if !is_last_file {
            return failed("the frame is damaged, and a later file follows");
        }
        let search_from = if claimed_end < bytes.len() { claimed_end } else { offset + ALIGNMENT };
        if !is_torn || has_later_frame(bytes, search_from, next_sequence.unwrap_or(0)) {
            return failed("the checksum does not match");
        }
        return Ok(Frames { frames, valid_bytes: offset, torn_bytes: bytes.len() - offset });
    }
    Ok(Frames { frames, valid_bytes: offset, torn_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut buffer) = (Vec::new(), vec![0], Vec::new());
        for (index, payload) in payloads.iter().enumerate() {
            begin(&mut buffer);
            buffer.extend_from_slice(payload);
            finish(&mut buffer, 7 + index as u64);
            bytes.extend_from_slice(&buffer);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    /// Payloads without zeros: zeros are what an unwritten sector looks like.
    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(1..=255u8, 1..700), 2..6)
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_gives_the_whole_frames_before_the_cut(payloads in payloads(), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = file(&payloads);
            let cut = cut.index(bytes.len() + 1);
            let read = read(&Bytes::copy_from_slice(&bytes[..cut]), Some(7), true).expect("a torn tail");
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let expected: Vec<_> = (7u64..).zip(payloads[..whole].iter().map(|p| Bytes::copy_from_slice(p))).collect();
            prop_assert_eq!(read.frames, expected);
            prop_assert_eq!((read.valid_bytes, read.torn_bytes), (ends[whole], cut - ends[whole]));
        }

        #[test]
        fn a_flipped_bit_before_the_last_frame_is_refused(payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (mut bytes, ends) = file(&payloads);
            let at = at.index(ends[ends.len() - 2]);
            let frame = ends.iter().rposition(|end| *end <= at).unwrap_or(0);
            let is_checked = at - ends[frame] < HEADER_BYTES - 4
                || (HEADER_BYTES..HEADER_BYTES + payloads[frame].len()).contains(&(at - ends[frame]));
            bytes[at] ^= 1 << bit;
            let read = read(&Bytes::from(bytes), Some(7), true);
            prop_assert_eq!(read.is_err(), is_checked, "{:?}", read);
        }

        #[test]
        fn a_flipped_bit_in_the_last_frames_payload_is_refused(payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (mut bytes, ends) = file(&payloads);
            let last = payloads.len() - 1;
            bytes[ends[last] + HEADER_BYTES + at.index(payloads[last].len())] ^= 1 << bit;
            prop_assert!(read(&Bytes::from(bytes), Some(7), true).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&Bytes::from(bytes), None, true);
        }
    }

    #[test]
    fn sectors_that_never_reached_the_disk_are_a_torn_tail() {
        let (mut bytes, ends) = file(&[vec![1; 100], vec![2; 4000]]);
        bytes[1024..1536].fill(0);
        let read = read(&Bytes::from(bytes), Some(7), true).expect("torn");
        assert_eq!((read.frames.len(), read.valid_bytes), (1, ends[1]));
    }

    #[test]
    fn the_same_hole_with_a_frame_behind_it_is_refused() {
        let (mut bytes, _) = file(&[vec![1; 100], vec![2; 4000], vec![3; 10]]);
        bytes[1024..1536].fill(0);
        assert!(read(&Bytes::from(bytes), Some(7), true).is_err());
    }

    #[test]
    fn a_frame_that_is_missing_or_torn_before_another_file_is_refused() {
        let (bytes, ends) = file(&[vec![1; 10], vec![2; 10], vec![3; 10]]);
        let without_second = [&bytes[..ends[1]], &bytes[ends[2]..]].concat();
        assert!(read(&Bytes::from(without_second), Some(7), true).is_err());
        assert!(read(&Bytes::copy_from_slice(&bytes[..ends[2] - 3]), Some(7), false).is_err());
        assert!(read(&Bytes::from(bytes), Some(8), true).is_err());
    }
}
