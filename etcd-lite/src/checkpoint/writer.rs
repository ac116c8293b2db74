//! The thread that writes the applied state behind the applier: every change into sled, now and then a snapshot file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etcd_lite_core::{Record, RecordChange, Store};
use parking_lot::RwLock;

use super::sled_state::{CheckpointError, SledState};
use super::snapshot_file;

/// Work for the writer.
pub enum Job {
    /// Changes of consecutively applied commands.
    Changes(Vec<RecordChange>),
    /// The store was replaced as a whole, by one with these records.
    Replaced {
        /// Index of the new store.
        index: u64,
        /// All its records.
        records: Vec<Record>,
    },
    /// Write what is pending and end.
    Stop,
}

/// Batches that may wait; a full queue holds up the applier, never memory.
const QUEUE: usize = 256;
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Changes collected before they are written together.
const PENDING_BYTES: usize = 4 << 20;

/// What the writer is told at start.
pub struct WriterConfig {
    /// Folder of the snapshot files.
    pub snapshot_dir: PathBuf,
    /// Entries between two snapshot files at least.
    pub snapshot_count: u64,
    /// Told the index and term that a new snapshot file covers.
    pub covered: Box<dyn Fn(u64, u64) + Send>,
    /// Kept up to date with sled's bytes on disk.
    pub disk_bytes: Arc<AtomicU64>,
}

/// Starts the thread.
///
/// # Errors
/// The thread cannot be made.
pub fn start(
    sled: SledState,
    store: Arc<RwLock<Store>>,
    config: WriterConfig,
) -> std::io::Result<(SyncSender<Job>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let snapshot_index = store.read().applied_index();
    let writer =
        Writer { sled, store, config, snapshot_index, bytes_since: 0, pending: Vec::new(), pending_bytes: 0 };
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
        crate::raft_member::end_process_on_panic("checkpoint", || writer.run(&receiver));
    })?;
    Ok((sender, thread))
}

struct Writer {
    sled: SledState,
    store: Arc<RwLock<Store>>,
    config: WriterConfig,
    snapshot_index: u64,
    /// Bytes of changes since the last snapshot file.
    bytes_since: usize,
    /// Not yet given to sled.
    pending: Vec<RecordChange>,
    pending_bytes: usize,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut dirty = false;
        let mut flushed = Instant::now();
        loop {
            let wait = if dirty {
                FLUSH_INTERVAL.saturating_sub(flushed.elapsed())
            } else {
                Duration::from_secs(3600)
            };
            let result = match jobs.recv_timeout(wait) {
                Ok(Job::Changes(changes)) => {
                    if !dirty {
                        flushed = Instant::now();
                    }
                    dirty = true;
                    self.changes(changes)
                }
                Ok(Job::Replaced { index, records }) => {
                    dirty = true;
                    self.replace(index, records)
                }
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    // What is not flushed is replayed from the log.
                    let _ = self.write_pending().and_then(|()| self.sled.flush());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            let result = result.and_then(|()| {
                if dirty && flushed.elapsed() >= FLUSH_INTERVAL {
                    self.write_pending()?;
                    self.sled.flush()?;
                    self.config.disk_bytes.store(self.sled.disk_bytes(), Ordering::Relaxed);
                    dirty = false;
                    flushed = Instant::now();
                }
                Ok(())
            });
            if let Err(error) = result {
                // The log has everything; but a checkpoint with holes must not be loaded, and the disk is in doubt.
                tracing::error!(%error, "cannot write the checkpoint; ending. Look at the disk; the log replays what is missing at the next start");
                std::process::exit(1);
            }
        }
    }

    fn changes(&mut self, changes: Vec<RecordChange>) -> Result<(), CheckpointError> {
        let size = |change: &RecordChange| match change {
            RecordChange::Set(record) => record.size_bytes(),
            RecordChange::Delete(key) => key.as_ref().len(),
        };
        let bytes = changes.iter().map(size).sum::<usize>();
        self.bytes_since += bytes;
        self.pending_bytes += bytes;
        self.pending.extend(changes);
        if self.pending_bytes >= PENDING_BYTES {
            self.write_pending()?;
        }
        self.snapshot_if_due();
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), CheckpointError> {
        component_base::failpoint!("checkpoint.before_write");
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() { Ok(()) } else { self.sled.write(&pending) }
    }

    /// A snapshot file costs as much as the whole store, so it has to pay off against the log it lets go.
    fn snapshot_if_due(&mut self) {
        let (index, term, records) = {
            let store = self.store.read();
            let index = store.applied_index();
            if index < self.snapshot_index + self.config.snapshot_count
                || self.bytes_since < store.size_bytes()
            {
                return;
            }
            (index, store.applied_term(), store.records().collect())
        };
        match snapshot_file::write(&self.config.snapshot_dir, index, term, records) {
            Ok(()) => {
                self.snapshot_index = index;
                self.bytes_since = 0;
                (self.config.covered)(index, term);
            }
            // The log only stays longer.
            Err(error) => tracing::warn!(%error, "cannot write a snapshot file; trying again later"),
        }
    }

    fn replace(&mut self, index: u64, records: Vec<Record>) -> Result<(), CheckpointError> {
        // What waits is part of what comes.
        self.pending.clear();
        self.pending_bytes = 0;
        self.sled.clear()?;
        let changes: Vec<_> = records.into_iter().map(RecordChange::Set).collect();
        self.sled.write(&changes)?;
        self.snapshot_index = index;
        self.bytes_since = 0;
        Ok(())
    }
}
