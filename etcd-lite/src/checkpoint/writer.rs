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
use super::snapshot_file::{self, SnapshotWriter};

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
    /// Kept up to date.
    pub disk: Arc<DiskBytes>,
}

/// What the checkpoint takes on disk, in bytes.
#[derive(Debug, Default)]
pub struct DiskBytes {
    /// All of it.
    pub total: AtomicU64,
    /// Without versions that compaction dropped and that still lie in files.
    pub in_use: AtomicU64,
}

impl DiskBytes {
    fn update(&self, sled: &SledState) {
        let (total, in_use) = sled.disk_bytes();
        self.total.store(total, Ordering::Relaxed);
        self.in_use.store(in_use, Ordering::Relaxed);
    }
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
    config.disk.update(&sled);
    let writer = Writer { sled, store, config, snapshot_index, pending: Vec::new(), pending_bytes: 0 };
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
                    self.config.disk.update(&self.sled);
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
        self.pending_bytes += bytes;
        self.pending.extend(changes);
        if self.pending_bytes >= PENDING_BYTES {
            self.write_pending()?;
        }
        self.snapshot_if_due()
    }

    fn write_pending(&mut self) -> Result<(), CheckpointError> {
        component_base::failpoint!("checkpoint.before_write");
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() { Ok(()) } else { self.sled.write(&pending) }
    }

    /// A snapshot file only names the files of versions, so it costs little beside their sync.
    fn snapshot_if_due(&mut self) -> Result<(), CheckpointError> {
        if self.store.read().applied_index() < self.snapshot_index + self.config.snapshot_count {
            return Ok(());
        }
        self.write_pending()?;
        let Some(manifest) = self.sled.manifest()? else { return Ok(()) };
        let dir = &self.config.snapshot_dir;
        let (index, term) = (manifest.index, manifest.term);
        let written = SnapshotWriter::create(dir, index, term).and_then(|mut file| {
            manifest.records.iter().try_for_each(|(key, value)| file.record(key, value))?;
            file.finish()?;
            snapshot_file::files_named(dir)
        });
        match written {
            Ok(named) => {
                self.snapshot_index = index;
                (self.config.covered)(index, term);
                self.sled.remove_unreferenced(&named)?;
            }
            // The log only stays longer.
            Err(error) => tracing::warn!(%error, "cannot write a snapshot file; trying again later"),
        }
        Ok(())
    }

    fn replace(&mut self, index: u64, records: Vec<Record>) -> Result<(), CheckpointError> {
        // What waits is part of what comes.
        self.pending.clear();
        self.pending_bytes = 0;
        self.sled.clear()?;
        let changes: Vec<_> = records.into_iter().map(RecordChange::Set).collect();
        self.sled.write(&changes)?;
        self.snapshot_index = index;
        Ok(())
    }
}
