//! What becomes of a log that was cut short or in which a bit flipped, at every place: it is cut or refused, and never gives anything that was not
//! written.

use std::path::{Path, PathBuf};

use super::*;

/// What was written, in the order in which it was.
struct Written {
    entries: Vec<WalEntry>,
    states: Vec<WalHardState>,
    file: PathBuf,
    bytes: Vec<u8>,
}

fn write_log(dir: &Path) -> Written {
    let (mut wal, _) = Wal::open(dir, 1, 2).expect("open");
    let (mut entries, mut states) = (Vec::new(), vec![WalHardState::default()]);
    for index in 1..=4_u64 {
        let data: Vec<u8> = (0..index * 11).map(|byte| byte as u8).collect();
        let entry = WalEntry { index, term: 1 + index / 3, kind: 0, data: data.into() };
        let state = WalHardState { term: 1 + index / 3, vote: 2, commit: index - 1 };
        wal.append(&WalRecord::Entry(entry.clone()));
        wal.append(&WalRecord::HardState(state));
        wal.sync().expect("sync");
        entries.push(entry);
        states.push(state);
    }
    let file = wal.segments[0].path.clone();
    // Closed, it is as long as what is in it.
    drop(wal);
    let bytes = std::fs::read(&file).expect("read");
    Written { entries, states, file, bytes }
}

/// Opens what `bytes` make of the log, and checks that nothing is in it that was not written. How many entries and hard states are left,
/// if it opens.
fn check(dir: &Path, written: &Written, bytes: &[u8], what: &str) -> Option<usize> {
    for entry in std::fs::read_dir(dir).expect("dir") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("remove");
    }
    std::fs::write(&written.file, bytes).expect("write");
    let Ok((mut wal, replay)) = Wal::open(dir, 1, 2) else { return None };
    let left = replay.entries.len();
    assert_eq!(replay.entries, written.entries[..left], "{what}");
    let state = written.states.iter().position(|state| *state == replay.hard_state);
    let state = state.unwrap_or_else(|| panic!("{what}: {:?}", replay.hard_state));
    assert_eq!(replay.snapshot, (0, 0), "{what}");
    // What was cut off stays so, and what is written then is there.
    let next = WalEntry { index: left as u64 + 1, term: 9, kind: 0, data: "next".into() };
    wal.append(&WalRecord::Entry(next.clone()));
    wal.sync().expect("sync");
    drop(wal);
    let (_, replay) = Wal::open(dir, 1, 2).unwrap_or_else(|error| panic!("{what}, opened again: {error}"));
    assert_eq!(replay.entries.last(), Some(&next), "{what}");
    assert_eq!(replay.entries.len(), left + 1, "{what}");
    Some(left + state)
}

#[test]
fn a_log_cut_short_anywhere_has_the_whole_writes_before_it() {
    let dir = tempfile::tempdir().expect("dir");
    let written = write_log(dir.path());
    let mut left = 0;
    for length in 1..=written.bytes.len() {
        let what = format!("cut to {length} of {} bytes", written.bytes.len());
        let now = check(dir.path(), &written, &written.bytes[..length], &what);
        // Of the first write the identity may be missing: that begins a log, or is refused.
        let now = now.unwrap_or(0);
        assert!(now >= left, "{what}: {now} records, {left} with fewer bytes");
        left = now;
    }
    assert_eq!(left, 8);
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_cut_and_never_read() {
    let dir = tempfile::tempdir().expect("dir");
    let written = write_log(dir.path());
    let (mut refused, mut cut) = (0, 0);
    for at in 0..written.bytes.len() {
        for bit in [0, 3, 7] {
            let mut bytes = written.bytes.clone();
            bytes[at] ^= 1 << bit;
            match check(dir.path(), &written, &bytes, &format!("bit {bit} of byte {at}")) {
                None => refused += 1,
                Some(8) => panic!("bit {bit} of byte {at} was not noticed"),
                Some(_) => cut += 1,
            }
        }
    }
    assert!(refused > 10 * cut, "{refused} refused, {cut} cut: only the last write may look unfinished");
}

#[test]
fn zeroed_sectors_at_the_end_are_an_unfinished_write() {
    let dir = tempfile::tempdir().expect("dir");
    let written = write_log(dir.path());
    for zeroes in [1, 511, 512, 4096] {
        let mut bytes = written.bytes.clone();
        bytes.extend(vec![0; zeroes]);
        assert_eq!(check(dir.path(), &written, &bytes, &format!("{zeroes} zeroes")), Some(8));
    }
}
