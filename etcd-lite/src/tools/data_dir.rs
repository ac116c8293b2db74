//! A data directory while no member uses it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use etcd_lite_core::{Command, Store};
use prost::Message;

use crate::checkpoint::sled_state::SledState;
use crate::data_lock::DataLock;
use crate::raft_member::choose_store;
use crate::wal::scan::{Scan, scan};

/// Where a member keeps its things. Held alone until dropped.
pub(super) struct DataDir {
    pub(super) log: PathBuf,
    pub(super) checkpoint: PathBuf,
    pub(super) snapshots: PathBuf,
    _lock: DataLock,
}

/// Takes a data directory.
///
/// # Errors
/// It is none, or a process uses it.
pub(super) fn take(path: &Path, wal_dir: Option<&Path>) -> anyhow::Result<DataDir> {
    let member = path.join("member");
    let log = wal_dir.map_or_else(|| member.join("wal"), Path::to_owned);
    if !member.is_dir() {
        bail!("{} is not a data directory of etcd-lite: there is no {}", path.display(), member.display());
    }
    if !log.is_dir() && wal_dir.is_some() {
        bail!("there is no --wal-dir {}", log.display());
    }
    if !log.is_dir() && !member.join("checkpoint").is_dir() {
        bail!("{} is not a data directory of etcd-lite: there is no {}", path.display(), log.display());
    }
    let lock = DataLock::take(&member, std::time::Duration::ZERO)?;
    Ok(DataDir { log, checkpoint: member.join("checkpoint"), snapshots: member.join("snap"), _lock: lock })
}

impl DataDir {
    /// The checkpoint's store, if there is a checkpoint.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn checkpointed(&self) -> anyhow::Result<Option<Store>> {
        if !self.checkpoint.exists() {
            return Ok(None);
        }
        let (_, store) = SledState::try_open(&self.checkpoint)
            .with_context(|| format!("{} is damaged", self.checkpoint.display()))?;
        Ok(store)
    }

    /// The state that a start would begin with.
    ///
    /// # Errors
    /// Checkpoint, snapshots and log do not go together.
    pub(super) fn first_state(&self, log: &Scan, checkpointed: Option<Store>) -> anyhow::Result<Store> {
        let (start, _) = log.replay.snapshot;
        let end = log.replay.entries.last().map_or(start, |entry| entry.index);
        Ok(choose_store(checkpointed, &self.snapshots, start, end)?.0)
    }
}

/// What a data directory holds, up to the last entry its member knew to be committed.
///
/// # Errors
/// It is in use or damaged.
pub(super) fn state(path: &Path, wal_dir: Option<&Path>) -> anyhow::Result<Store> {
    let data = take(path, wal_dir)?;
    let log = scan(&data.log)?;
    let mut store = data.first_state(&log, data.checkpointed()?)?;
    for entry in &log.replay.entries {
        if entry.index <= store.applied_index() || entry.index > log.replay.hard_state.commit {
            continue;
        }
        if entry.data.is_empty() {
            store.advance(entry.index, entry.term);
            continue;
        }
        let command = Command::decode(entry.data.clone())
            .with_context(|| format!("log entry {} cannot be read", entry.index))?;
        store.apply(entry.index, entry.term, &command);
    }
    Ok(store)
}
