//! `verify`: whether every record of a data directory is whole, and whether its parts go together.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use etcd_lite_core::{Command, Record};
use prost::Message;

use super::data_dir;
use crate::checkpoint::snapshot_file;
use crate::wal::scan::scan;

/// Checks log, checkpoint and snapshot files, in this order; a report of what is whole.
///
/// # Errors
/// The first bad record, with its file and place.
pub(super) fn verify(path: &Path, wal_dir: Option<&Path>) -> anyhow::Result<String> {
    let data = data_dir::take(path, wal_dir)?;
    let mut report = Vec::new();

    let log = scan(&data.log)?;
    for file in &log.files {
        let note = file.torn_at.map_or_else(String::new, |offset| {
            format!(
                "; an unfinished write at byte {offset}, never acknowledged, is cut off at the next start"
            )
        });
        report.push(format!("{}: {} records are whole{note}", file.path.display(), file.records));
    }
    for entry in log.replay.entries.iter().filter(|entry| entry.kind == 0 && !entry.data.is_empty()) {
        Command::decode(entry.data.clone())
            .with_context(|| format!("{}: entry {} cannot be read", data.log.display(), entry.index))?;
    }

    let checkpointed = data.checkpointed()?;
    if let Some(store) = &checkpointed {
        report.push(format!(
            "{}: whole, at entry {}, revision {}",
            data.checkpoint.display(),
            store.applied_index(),
            store.revision()
        ));
    }
    for path in snapshot_files(&data.snapshots)? {
        let store = snapshot_file::read(&path).map_err(|error| match first_bad_record(&path) {
            Ok(Some(offset)) => anyhow!("{} is damaged at byte {offset}", path.display()),
            Ok(None) => anyhow!("{error}: its checksum does not match"),
            Err(_) => anyhow!(error),
        })?;
        report.push(format!(
            "{}: whole, at entry {}, revision {}",
            path.display(),
            store.applied_index(),
            store.revision()
        ));
    }
    data.first_state(&log, checkpointed)?;
    report.push("OK".to_owned());
    Ok(report.join("\n"))
}

fn snapshot_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Where the first record that cannot be one begins in a snapshot file that is known to be damaged. Damage inside a value shows in the
/// checksum alone.
fn first_bad_record(path: &Path) -> anyhow::Result<Option<usize>> {
    /// Magic number, index, term.
    const HEAD_BYTES: usize = 24;
    const END: u32 = u32::MAX;
    let bytes = Bytes::from(std::fs::read(path)?);
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    if bytes.len() < HEAD_BYTES {
        bail!("too short");
    }
    let mut at = HEAD_BYTES;
    loop {
        let Some(key_length) = number(at) else { return Ok(Some(at)) };
        if key_length == END {
            return Ok((at + 8 != bytes.len()).then_some(at));
        }
        let end = number(at + 4).and_then(|value_length| {
            let key_end = (at + 8).checked_add(key_length as usize)?;
            Some((key_end, key_end.checked_add(value_length as usize)?))
        });
        let Some((key_end, value_end)) = end.filter(|(_, value_end)| *value_end <= bytes.len()) else {
            return Ok(Some(at));
        };
        let key = &bytes[at + 8..key_end];
        // Rows of the table of files of versions are no records of the store.
        let is_row = key.len() == 17 && Record::decode(key, Bytes::new()).is_err() && key[0] == b's';
        if !is_row && Record::decode(key, bytes.slice(key_end..value_end)).is_err() {
            return Ok(Some(at));
        }
        at = value_end;
    }
}
