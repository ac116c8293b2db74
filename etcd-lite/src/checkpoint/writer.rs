//! The thread that writes the applied state behind the applier: every change into the checkpoint, now and then a snapshot file.
//!
//! What it writes is a copy of what the log has. So a failure does not end the process: the checkpoint is in doubt then, and is given up; some time later the
//! whole state is written anew, again and again until that works. Meanwhile changes need not be kept, only the log grows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etcd_lite_core::{Record, RecordChange, Store};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::sled_state::{CheckpointError, SledState};
use super::snapshot_file::{self, SnapshotWriter};
use crate::metrics::DiskMetrics;

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
    /// Give back the space of what compaction dropped, and say how that went.
    Defragment(oneshot::Sender<Result<(), String>>),
    /// Write what is pending and end.
    Stop,
}

/// Batches that may wait; a full queue holds up the applier, never memory.
const QUEUE: usize = 1024;
/// After changes more are let gather before they are looked at: to wake a thread takes longer than what it does with one.
const GATHER: Duration = Duration::from_millis(10);
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Changes collected before they are written together.
const PENDING_BYTES: usize = 4 << 20;
/// Time until the state is written anew after a failure; doubled with each further one.
const REBUILD_WAIT_FIRST: Duration = Duration::from_secs(1);
const REBUILD_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the writer is told at start.
pub struct WriterConfig {
    /// Where the checkpoint lies.
    pub checkpoint_dir: PathBuf,
    /// Folder of the snapshot files.
    pub snapshot_dir: PathBuf,
    /// Entries between two snapshot files at least.
    pub snapshot_count: u64,
    /// Told the index and term that a new snapshot file covers.
    pub covered: Box<dyn Fn(u64, u64) + Send>,
    /// Kept up to date.
    pub disk: Arc<DiskBytes>,
    /// Told how long flushes and snapshot files take.
    pub metrics: DiskMetrics,
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
    let writer = Writer {
        sled: Some(sled),
        store,
        config,
        snapshot_index,
        pending: Vec::new(),
        pending_bytes: 0,
        known_index: 0,
        rebuild_at: Instant::now(),
        rebuild_wait: REBUILD_WAIT_FIRST,
        defragmenting: Vec::new(),
    };
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
        crate::raft_member::end_process_on_panic("checkpoint", || writer.run(&receiver));
    })?;
    Ok((sender, thread))
}

struct Writer {
    /// `None` after a failure.
    sled: Option<SledState>,
    store: Arc<RwLock<Store>>,
    config: WriterConfig,
    snapshot_index: u64,
    /// Not yet given to sled.
    pending: Vec<RecordChange>,
    pending_bytes: usize,
    /// The checkpoint was written anew with everything up to here: earlier changes still to come are in it.
    known_index: u64,
    rebuild_at: Instant,
    rebuild_wait: Duration,
    /// Who waits for the defragmentation that is going on.
    defragmenting: Vec<oneshot::Sender<Result<(), String>>>,
}

/// The next job within `wait`, or soon after.
fn next_job(jobs: &Receiver<Job>, gather: bool, wait: Duration) -> Result<Job, RecvTimeoutError> {
    if let Ok(job) = jobs.try_recv() {
        return Ok(job);
    }
    if gather {
        std::thread::sleep(GATHER);
    }
    jobs.recv_timeout(wait)
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        let (mut dirty, mut had_changes) = (false, false);
        let mut flushed = Instant::now();
        loop {
            let wait = if self.sled.is_none() {
                self.rebuild_at.saturating_duration_since(Instant::now())
            } else if !self.defragmenting.is_empty() {
                Duration::ZERO
            } else if dirty {
                FLUSH_INTERVAL.saturating_sub(flushed.elapsed())
            } else {
                Duration::from_secs(3600)
            };
            let result = match next_job(jobs, std::mem::take(&mut had_changes), wait) {
                Ok(Job::Changes(changes)) => {
                    had_changes = true;
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
                Ok(Job::Defragment(done)) => {
                    self.defragmenting.push(done);
                    Ok(())
                }
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    // What is not flushed is replayed from the log.
                    let _ = self.write_pending().and_then(|()| self.flush());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            let result = result.and_then(|()| {
                if self.sled.is_none() && Instant::now() >= self.rebuild_at {
                    self.rebuild()?;
                    dirty = true;
                }
                if dirty && flushed.elapsed() >= FLUSH_INTERVAL {
                    let begun = Instant::now();
                    self.flush()?;
                    self.config.metrics.backend_commit.observe(begun.elapsed().as_secs_f64());
                    dirty = false;
                    flushed = Instant::now();
                }
                if self.defragmenting.is_empty() { Ok(()) } else { self.defragment_some() }
            });
            match result {
                Ok(()) => {}
                Err(error) => self.give_up(&error),
            }
        }
    }

    /// What the checkpoint holds is in doubt: it will be written anew.
    fn give_up(&mut self, error: &CheckpointError) {
        tracing::warn!(
            %error,
            retry_seconds = self.rebuild_wait.as_secs(),
            "cannot write the checkpoint; writing it anew later. Nothing is lost, the log has everything, but it grows meanwhile: look at the disk's space and health"
        );
        self.sled = None;
        self.pending = Vec::new();
        self.pending_bytes = 0;
        for waiting in self.defragmenting.drain(..) {
            // Who asked may have gone.
            let _ = waiting.send(Err(error.to_string()));
        }
        self.rebuild_at = Instant::now() + self.rebuild_wait;
        self.rebuild_wait = (2 * self.rebuild_wait).min(REBUILD_WAIT_MAX);
    }

    /// Writes the whole state in place of a checkpoint given up. Until a snapshot file covers it, the log has all of it as well.
    fn rebuild(&mut self) -> Result<(), CheckpointError> {
        component_base::failpoint::hit_io("checkpoint.before_rebuild").map_err(sled::Error::from)?;
        match std::fs::remove_dir_all(&self.config.checkpoint_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(sled::Error::from(error).into());
            }
            _ => {}
        }
        let (state, _) = SledState::open(&self.config.checkpoint_dir)?;
        let named = snapshot_file::files_named(&self.config.snapshot_dir).map_err(sled::Error::from)?;
        state.remove_unreferenced(&named)?;
        let (index, changes): (u64, Vec<RecordChange>) = {
            let store = self.store.read();
            (store.applied_index(), store.records().map(RecordChange::Set).collect())
        };
        state.write(&changes)?;
        state.flush()?;
        self.sled = Some(state);
        self.known_index = index;
        self.rebuild_wait = REBUILD_WAIT_FIRST;
        tracing::info!(index, "wrote the checkpoint anew");
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        self.write_pending()?;
        if let Some(sled) = &self.sled {
            sled.flush()?;
            self.config.disk.update(sled);
        }
        Ok(())
    }

    fn changes(&mut self, mut changes: Vec<RecordChange>) -> Result<(), CheckpointError> {
        if self.sled.is_none() {
            return Ok(());
        }
        if self.known_index > 0 {
            self.skip_known(&mut changes);
        }
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

    /// Takes out the changes of commands that the state written anew has: those up to the last meta record that says so.
    fn skip_known(&mut self, changes: &mut Vec<RecordChange>) {
        let mut known = 0;
        for (position, change) in changes.iter().enumerate() {
            if let RecordChange::Set(Record::Meta(meta)) = change {
                if meta.applied_index > self.known_index {
                    self.known_index = 0;
                    break;
                }
                known = position + 1;
            }
        }
        changes.drain(..known);
    }

    fn write_pending(&mut self) -> Result<(), CheckpointError> {
        component_base::failpoint::hit_io("checkpoint.before_write").map_err(sled::Error::from)?;
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        match &self.sled {
            Some(sled) if !pending.is_empty() => sled.write(&pending),
            _ => Ok(()),
        }
    }

    fn snapshot_if_due(&mut self) -> Result<(), CheckpointError> {
        if self.store.read().applied_index() < self.snapshot_index + self.config.snapshot_count {
            return Ok(());
        }
        // The log only stays longer without it.
        self.snapshot(false)?.or_else(|error| {
            tracing::warn!(%error, "cannot write a snapshot file; trying again later");
            // Not with every change: a disk that is full stays so for a while.
            self.snapshot_index += self.config.snapshot_count / 10 + 1;
            Ok(())
        })
    }

    /// A snapshot file only names the files of versions, so it costs little beside their sync. With `only`, earlier snapshot files go when
    /// this one is on disk.
    fn snapshot(&mut self, only: bool) -> Result<std::io::Result<()>, CheckpointError> {
        self.write_pending()?;
        let Some(sled) = &self.sled else { return Ok(Ok(())) };
        let Some(manifest) = sled.manifest()? else { return Ok(Ok(())) };
        let dir = &self.config.snapshot_dir;
        let (index, term) = (manifest.index, manifest.term);
        let (begun, metrics) = (Instant::now(), &self.config.metrics);
        let written = SnapshotWriter::create(dir, index, term).and_then(|mut file| {
            manifest.records.iter().try_for_each(|(key, value)| file.record(key, value))?;
            metrics.snapshot_marshalling.observe(begun.elapsed().as_secs_f64());
            metrics.snapshot_fsync.observe(file.finish()?.as_secs_f64());
            metrics.snapshot_save.observe(begun.elapsed().as_secs_f64());
            if only {
                snapshot_file::remove_earlier(dir, index)?;
            } else {
                snapshot_file::remove_superseded(dir, index)?;
            }
            snapshot_file::files_named(dir)
        });
        let named = match written {
            Ok(named) => named,
            Err(error) => return Ok(Err(error)),
        };
        self.snapshot_index = index;
        (self.config.covered)(index, term);
        sled.remove_unreferenced(&named)?;
        Ok(Ok(()))
    }

    /// One step of giving space back; changes are written between the steps.
    fn defragment_some(&mut self) -> Result<(), CheckpointError> {
        self.write_pending()?;
        let Some(sled) = &self.sled else { return Ok(()) };
        if sled.defragment_step()? {
            return Ok(());
        }
        // Until no snapshot file names the old files they take their space.
        let result = self.snapshot(true)?.map_err(|error| error.to_string());
        self.flush()?;
        for waiting in self.defragmenting.drain(..) {
            // Who asked may have gone.
            let _ = waiting.send(result.clone());
        }
        Ok(())
    }

    fn replace(&mut self, index: u64, records: Vec<Record>) -> Result<(), CheckpointError> {
        // What waits is part of what comes.
        self.pending.clear();
        self.pending_bytes = 0;
        if let Err(error) = snapshot_file::remove_superseded(&self.config.snapshot_dir, index) {
            tracing::warn!(%error, "cannot remove old snapshot files; the next one tries again");
        }
        let Some(sled) = &self.sled else { return Ok(()) };
        sled.clear()?;
        let changes: Vec<_> = records.into_iter().map(RecordChange::Set).collect();
        sled.write(&changes)?;
        self.snapshot_index = index;
        Ok(())
    }
}
