//! Applies committed entries, in order, and tells everyone concerned: the proposer, watchers, lease timers, the checkpoint.
//!
//! A thread does it, so that consensus goes on beside a long transaction. What is small and finds nothing before it is applied by the thread
//! that drives consensus itself: waking another one takes longer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coracle_proto::etcdserverpb::request_op::Request as Operation;
use etcd_lite_core::{Command, RecordChange, Request, Store, mutant};
use parking_lot::RwLock;
use prost::Message as _;
use raft::eraftpb::Entry;
use tokio::sync::{broadcast, watch};

use super::waiters::Waiters;
use crate::checkpoint::snapshot_file;
use crate::checkpoint::writer::Job;
use crate::lease_keeper::LeaseKeeper;
use crate::member::{Feed, ProposeError};
use crate::metrics::ApplyMetrics;
use crate::quota::Quota;
use crate::request_text;
use crate::slow_requests::SlowRequests;
use crate::tokens::Tokens;

/// Batches that may wait for the thread.
const QUEUE: usize = 64;
/// Entries applied under one hold of the store's lock, so that readers get in between.
const BATCH: usize = 64;

/// With so few entries the consensus thread may apply them itself.
const FEW: usize = 8;

/// The consensus thread's way to the applier.
pub struct Applying {
    applier: Arc<Applier>,
    queue: SyncSender<Work>,
    /// Work that the thread has not finished.
    unfinished: Arc<AtomicUsize>,
}

/// Takes what consensus has decided, to be applied in this order.
pub trait Apply {
    /// Entries in log order.
    fn committed(&self, entries: Vec<Entry>);
    /// Load this snapshot in place of the store.
    fn snapshot(&self, index: u64);
    /// End after what was handed over.
    fn stop(&self);
}

impl Applying {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(applier: Applier) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, work) = sync_channel(QUEUE);
        let (applier, unfinished) = (Arc::new(applier), Arc::new(AtomicUsize::new(0)));
        let (own, count) = (Arc::clone(&applier), Arc::clone(&unfinished));
        let thread = std::thread::Builder::new().name("applier".into()).spawn(move || {
            crate::raft_member::end_process_on_panic("applier", || own.run(&work, &count));
        })?;
        Ok((Self { applier, queue, unfinished }, thread))
    }

    fn send(&self, work: Work) {
        self.unfinished.fetch_add(1, Ordering::AcqRel);
        // The applier lives as long as the consensus thread.
        let _ = self.queue.send(work);
    }
}

impl Apply for Applying {
    fn committed(&self, entries: Vec<Entry>) {
        let is_idle = self.unfinished.load(Ordering::Acquire) == 0;
        if !(is_idle && self.applier.apply_if_brief(&entries)) {
            self.send(Work::Committed(entries));
        }
    }

    fn snapshot(&self, index: u64) {
        self.send(Work::Snapshot(index));
    }

    fn stop(&self) {
        self.send(Work::Stop);
    }
}

/// An entry, decoded.
struct Decoded {
    index: u64,
    term: u64,
    /// `None` for a new leader's first entry.
    command: Option<Command>,
}

fn decode(entry: Entry) -> Decoded {
    let Entry { index, term, data, .. } = entry;
    if data.is_empty() {
        return Decoded { index, term, command: None };
    }
    match Command::decode(data) {
        Ok(command) => Decoded { index, term, command: Some(command) },
        Err(error) => {
            // Going on would make this member differ from those that can read the entry.
            tracing::error!(index, %error, "a log entry cannot be read; ending. Is this binary older than the other members'?");
            std::process::exit(1);
        }
    }
}

/// An entry that is sure to be applied quickly, decoded.
fn brief(entry: &Entry) -> Option<Decoded> {
    let decoded = decode(entry.clone());
    decoded.command.as_ref().is_none_or(|command| is_brief(command.request.as_ref())).then_some(decoded)
}

/// Whether a command looks at few keys, whatever the store holds.
fn is_brief(request: Option<&Request>) -> bool {
    match request {
        Some(Request::Put(_)) => true,
        Some(Request::DeleteRange(delete)) => delete.range_end.is_empty(),
        Some(Request::Txn(txn)) => {
            let operations = || txn.success.iter().chain(&txn.failure);
            operations().count() <= FEW
                && txn.compare.iter().all(|compare| compare.range_end.is_empty())
                && operations().all(|operation| match &operation.request {
                    Some(Operation::RequestPut(_)) => true,
                    Some(Operation::RequestRange(range)) => range.range_end.is_empty(),
                    Some(Operation::RequestDeleteRange(delete)) => delete.range_end.is_empty(),
                    Some(Operation::RequestTxn(_)) | None => false,
                })
        }
        _ => false,
    }
}

/// Work for the applier.
enum Work {
    /// Entries in log order.
    Committed(Vec<Entry>),
    /// Load this snapshot in place of the store.
    Snapshot(u64),
    /// End.
    Stop,
}

/// Everything the applier acts on.
pub struct Applier {
    /// The state machine.
    pub store: Arc<RwLock<Store>>,
    /// Who waits for answers.
    pub waiters: Arc<Waiters>,
    /// Watchers' feed.
    pub feed: broadcast::Sender<Feed>,
    /// Lease timers, told when this member begins to lead.
    pub leases: Arc<LeaseKeeper>,
    /// The term this member leads in, 0 while it does not.
    pub leading_term: Arc<AtomicU64>,
    /// What new leaders grant on top of every lease.
    pub lease_extension: Duration,
    /// Tokens, told what becomes of users.
    pub tokens: Arc<Tokens>,
    /// Index applied, for linearizable reads.
    pub applied: watch::Sender<u64>,
    /// The checkpoint's writer.
    pub checkpoint: SyncSender<Job>,
    /// Where installed snapshots lie.
    pub snapshot_dir: PathBuf,
    /// Told how much the store holds.
    pub quota: Arc<Quota>,
    /// Told what applying takes.
    pub metrics: ApplyMetrics,
    /// Told what takes too long.
    pub slow_requests: SlowRequests,
}

impl Applier {
    /// Works until told to stop.
    fn run(&self, work: &Receiver<Work>, unfinished: &AtomicUsize) {
        while let Ok(item) = work.recv() {
            match item {
                Work::Committed(entries) => self.apply_all(entries),
                Work::Snapshot(index) => self.load(index),
                Work::Stop => break,
            }
            unfinished.fetch_sub(1, Ordering::AcqRel);
        }
        // The writer may have ended by itself.
        let _ = self.checkpoint.send(Job::Stop);
    }

    /// Applies entries in log order.
    pub fn apply_all(&self, entries: Vec<Entry>) {
        let mut entries = entries.into_iter().map(decode).peekable();
        while entries.peek().is_some() {
            self.apply(entries.by_ref().take(BATCH).collect());
        }
    }

    /// Applies entries if they are few and sure to be applied quickly; whether they are.
    pub fn apply_if_brief(&self, entries: &[Entry]) -> bool {
        if entries.len() > FEW {
            return false;
        }
        let Some(commands) = entries.iter().map(brief).collect() else { return false };
        self.apply(commands);
        true
    }

    fn apply(&self, entries: Vec<Decoded>) {
        component_base::failpoint!("applier.before_apply");
        let mut changes: Vec<RecordChange> = Vec::new();
        let (mut feeds, mut answers, mut leases) =
            (Vec::new(), Vec::with_capacity(entries.len()), Vec::new());
        let mut began_to_lead = false;
        let mut leader_began = None;
        let index = {
            let mut store = self.store.write();
            for entry in entries {
                if entry.index <= store.applied_index() {
                    continue;
                }
                let Some(command) = entry.command else {
                    changes.push(RecordChange::Set(store.advance(entry.index, entry.term)));
                    // The first entry of a term is its leader's empty one: everything of earlier terms is applied now.
                    if self.leading_term.load(Ordering::Acquire) == entry.term {
                        began_to_lead = true;
                        self.leases.lead(entry.term, &store, self.lease_extension);
                        // The driver may have seen another leader in between, and stopped the timers before they began.
                        if self.leading_term.load(Ordering::Acquire) != entry.term {
                            self.leases.follow();
                        }
                    }
                    leader_began = Some(entry.term);
                    continue;
                };
                let begun = Instant::now();
                let applied = store.apply(entry.index, entry.term, &command);
                let took = begun.elapsed();
                self.metrics.applied(request_text::operation(&command), took, &applied);
                let outcome = || applied.response.as_ref().err().map(ToString::to_string).unwrap_or_default();
                self.slow_requests.applied(took, "", || request_text::of_command(&command), outcome);
                if !applied.events.is_empty() {
                    feeds.push(Feed::Applied { revision: applied.revision, events: applied.events });
                }
                if began_to_lead {
                    self.leases.applied(&applied.leases);
                } else {
                    leases.extend(applied.leases);
                }
                changes.extend(applied.changes);
                // Only takes locks of its own, and is nearly always empty.
                self.tokens.applied(applied.index, &applied.auth);
                answers.push((command.id, applied.response.map_err(ProposeError::from)));
            }
            let has_puts = feeds.iter().any(|feed| {
                matches!(feed, Feed::Applied { events, .. } if events.iter().any(|e| !e.version.tombstone))
            });
            self.quota.applied(store.size_bytes() as u64, has_puts);
            store.applied_index()
        };
        if !began_to_lead {
            self.leases.applied(&leases);
        }
        for feed in feeds {
            // Nobody watching is fine.
            let _ = self.feed.send(feed);
        }
        self.waiters.answer(answers);
        if let Some(term) = leader_began {
            self.waiters.leader_began(term);
        }
        self.applied.send_replace(index);
        // Fails only when the writer has ended, which ends the process.
        let _ = self.checkpoint.send(Job::Changes(changes));
    }

    fn load(&self, index: u64) {
        self.metrics.snapshot_in_progress.set(1);
        let path = snapshot_file::path_of(&self.snapshot_dir, index);
        let loaded = match snapshot_file::read(&path) {
            Ok(store) => store,
            Err(error) => {
                tracing::error!(
                    error,
                    "the snapshot from the leader cannot be read back; ending, the next start asks again"
                );
                std::process::exit(1);
            }
        };
        self.replace(index, loaded);
        self.metrics.snapshot_in_progress.set(0);
    }

    /// Puts the state of a snapshot from the leader in place of the store.
    pub fn replace(&self, index: u64, loaded: Store) {
        let records = loaded.records().collect();
        self.quota.applied(loaded.size_bytes() as u64, false);
        {
            let mut store = self.store.write();
            *store = loaded;
            self.tokens.replaced(&store);
        }
        tracing::info!(index, "took over the leader's snapshot");
        if !mutant!(WatchMissesSnapshot) {
            let _ = self.feed.send(Feed::Replaced);
        }
        // Whether the snapshot has what was proposed here cannot be told.
        self.waiters.leader_began(u64::MAX);
        self.applied.send_replace(index);
        let _ = self.checkpoint.send(Job::Replaced { index, records });
    }
}
