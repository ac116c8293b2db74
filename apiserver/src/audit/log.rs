//! The audit log's writer: a thread of its own behind a bounded queue, so that a slow or full disk holds up no more than those who choose to wait for it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};

use super::options::{AuditOptions, Mode};
use super::queue::{self, Queue, QueuedBytes};
use super::rotation::{Limits, RotatingFile};

const MEGABYTE: u64 = 1024 * 1024;
/// Megabytes of a file where the flag says 0.
const DEFAULT_MEGABYTES: u64 = 100;
/// Lines written with one call when requests wait for them.
const LINES_AT_ONCE: usize = 128;

struct Entry {
    line: Vec<u8>,
    /// Told whether the line is written.
    done: Option<oneshot::Sender<bool>>,
}

/// The queue to the writer.
pub struct LogBackend {
    queue: Queue<Entry>,
    mode: Mode,
    errors: Counter,
}

enum Output {
    File(RotatingFile),
    Standard,
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(lines, Timestamp::now()),
            Self::Standard => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
        }
    }
}

impl LogBackend {
    /// Opens the log that the flags name and starts its writer, which ends when the backend is dropped. `errors` counts events that are not written.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn start(path: &str, options: &AuditOptions, errors: Counter) -> Result<Self, String> {
        let limits = Limits {
            bytes_max: MEGABYTE
                * if options.audit_log_maxsize == 0 { DEFAULT_MEGABYTES } else { options.audit_log_maxsize },
            backups_max: options.audit_log_maxbackup,
            days_max: options.audit_log_maxage,
            compress: options.audit_log_compress,
        };
        let output = match path {
            "-" => Output::Standard,
            path => Output::File(
                RotatingFile::open(path.as_ref(), limits)
                    .map_err(|error| format!("--audit-log-path: ensureLogFile: {path}: {error}"))?,
            ),
        };
        let (queue, entries, queued_bytes) = queue::bounded(options.audit_log_batch_buffer_size);
        let waits = options.audit_log_mode != Mode::Batch;
        let writer = Writer {
            output,
            entries,
            queued_bytes,
            errors: errors.clone(),
            lines_max: if waits { LINES_AT_ONCE } else { options.audit_log_batch_max_size },
            wait_max: if waits { Duration::ZERO } else { options.audit_log_batch_max_wait.get() },
        };
        std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| format!("cannot start the audit log's writer: {error}"))?;
        Ok(Self { queue, mode: options.audit_log_mode, errors })
    }

    /// Hands a line over and, unless in batch mode, waits until it is written. Whether it is (in batch mode: will be tried).
    pub async fn write(&self, line: Vec<u8>) -> bool {
        if self.mode == Mode::Batch {
            return self.offer(line);
        }
        let (done, written) = oneshot::channel();
        let length = line.len();
        if !self.queue.send(Entry { line, done: Some(done) }, length).await {
            self.errors.inc();
            return false;
        }
        written.await.unwrap_or(false)
    }

    /// Hands a line over if there is room for it. Whether there was.
    pub fn offer(&self, line: Vec<u8>) -> bool {
        let length = line.len();
        let is_taken = self.queue.offer(Entry { line, done: None }, length);
        if !is_taken {
            self.errors.inc();
        }
        is_taken
    }

    /// Waits until everything handed over so far is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Entry { line: Vec::new(), done: Some(done) }, 0).await {
            let _ = written.await;
        }
    }
}

struct Writer {
    output: Output,
    entries: mpsc::Receiver<Entry>,
    queued_bytes: QueuedBytes,
    errors: Counter,
    lines_max: usize,
    wait_max: Duration,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.entries.blocking_recv() {
            let mut batch = vec![first];
            self.fill(&mut batch);
            let lines: Vec<u8> = batch.iter().flat_map(|entry| &entry.line).copied().collect();
            let written = lines.is_empty() || self.write(&lines, batch.len());
            self.queued_bytes.release(lines.len());
            for done in batch.into_iter().filter_map(|entry| entry.done) {
                // Who waited may have gone.
                let _ = done.send(written);
            }
        }
    }

    /// Takes what else is there, or comes soon.
    fn fill(&mut self, batch: &mut Vec<Entry>) {
        const PAUSE: Duration = Duration::from_millis(10);
        let end = Instant::now() + self.wait_max;
        while batch.len() < self.lines_max {
            match self.entries.try_recv() {
                Ok(entry) => batch.push(entry),
                Err(mpsc::error::TryRecvError::Disconnected) => return,
                Err(mpsc::error::TryRecvError::Empty) => {
                    let left = end.saturating_duration_since(Instant::now());
                    // Who waits is not kept waiting for others.
                    if left.is_zero() || batch.iter().any(|entry| entry.done.is_some()) {
                        return;
                    }
                    std::thread::sleep(left.min(PAUSE));
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8], count: usize) -> bool {
        match self.output.write(lines) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, count, "events of the audit log are lost");
                self.errors.inc_by(count as u64);
                false
            }
        }
    }
}
