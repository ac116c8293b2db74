//! Reads a log that no member uses, without changing it.

use std::path::{Path, PathBuf};

use super::codec::{FileEnd, WalRecord, decode_file};
use super::{Replay, SUFFIX, WalError};

/// One file of a log.
#[derive(Debug)]
pub struct ScannedFile {
    /// The file.
    pub path: PathBuf,
    /// Records in it.
    pub records: u64,
    /// Where an unfinished write at its end begins, which the next start cuts off.
    pub torn_at: Option<usize>,
}

/// What a log holds.
#[derive(Debug)]
pub struct Scan {
    /// Cluster and member it belongs to; `None` for an empty log.
    pub owner: Option<(u64, u64)>,
    /// What a start would find.
    pub replay: Replay,
    /// Its files, in order.
    pub files: Vec<ScannedFile>,
}

/// Reads the whole log in `dir`.
///
/// # Errors
/// The first damaged record, gap or foreign file.
pub fn scan(dir: &Path) -> Result<Scan, WalError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| WalError::Io { path, source }
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(io(dir))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == &SUFFIX[1..]))
        .collect();
    paths.sort();
    let mut scan = Scan { owner: None, replay: Replay::default(), files: Vec::new() };
    for (position, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path).map_err(io(path))?;
        let (mut failure, mut records) = (None, 0);
        let end = decode_file(&bytes, |record| {
            records += 1;
            if let WalRecord::Identity { cluster_id, member_id } = record {
                scan.owner.get_or_insert((cluster_id, member_id));
            }
            if failure.is_none() {
                let owner = scan.owner.unwrap_or_default();
                failure = scan.replay.take(record, path, owner).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let torn_at = match end {
            FileEnd::Clean => None,
            FileEnd::Torn { offset } if position + 1 == paths.len() => Some(offset),
            FileEnd::Torn { offset } | FileEnd::Damaged { offset } => {
                return Err(WalError::Damaged { path: path.clone(), offset });
            }
        };
        scan.files.push(ScannedFile { path: path.clone(), records, torn_at });
    }
    match paths.first() {
        Some(first) if scan.replay.awaits_marker => {
            Err(WalError::Gap { path: first.clone(), expected: 0, found: scan.replay.snapshot.0 + 1 })
        }
        _ => Ok(scan),
    }
}
