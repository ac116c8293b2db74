//! One running member: the services' [`Member`] on top of the driver, the applier and the peers. Puts the parts together at start and takes
//! them apart at the end.

mod changes;
pub mod log_start;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use component_base::metrics::Registry;
use coracle_proto::etcdserverpb::AlarmType;
use coracle_proto::store::{ClusterVersion, MemberAttributes};
use etcd_lite_core::{Command, Members, Request, Store, StoreError, Suffrage};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::bootstrap::Beginning;
use crate::checkpoint::sled_state::SledState;
use crate::checkpoint::snapshot_file;
use crate::checkpoint::writer::{self, DiskBytes, WriterConfig};
use crate::data_lock::DataLock;
use crate::lease_keeper::{LeaseKeeper, Led, NotLeader};
use crate::member::{Feed, LeaseTimeToLive, Member, MemberInfo, MemberStatus, ProposeError, Proposed};
use crate::metrics::{ApplyMetrics, ConsensusMetrics, DiskMetrics, InFlight};
use crate::peer::Peers;
use crate::quota::{self, Quota};
use crate::raft::applier::{Applier, Applying};
use crate::raft::core::{CoreConfig, RaftCore};
use crate::raft::driver::{Driver, Input, View};
use crate::raft::log::{RaftLog, SnapshotPosition};
use crate::raft::waiters::Waiters;
use crate::raft::wal_disk::{to_entry, to_hard_state};
use crate::slow_requests::SlowRequests;
use crate::tokens::Tokens;
use crate::wal::Wal;

/// How long an earlier process with the same data directory may take to end.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(5);
/// Inputs that may wait for the driver.
const INPUTS: usize = 16_384;
/// Proposals of this member that may wait for their answer, as etcd's limit.
const PROPOSALS_MAX: usize = 5000;
/// Changes a watch hub may lag behind before it reads history.
const FEED_CAPACITY: usize = 4096;
/// The largest store is written anew within this time.
const DEFRAGMENT_DEADLINE: Duration = Duration::from_secs(600);
/// A command is larger than its request by its id and tags.
const COMMAND_OVERHEAD_BYTES: usize = 64;

/// What a member is told at start.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Who this member is.
    pub beginning: Beginning,
    /// `--name`.
    pub name: String,
    /// `--initial-advertise-peer-urls`.
    pub peer_urls: Vec<String>,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election: Duration,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--initial-election-tick-advance`.
    pub stands_early: bool,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--quota-backend-bytes`.
    pub quota: Arc<Quota>,
    /// `--wal-dir`.
    pub wal_dir: Option<PathBuf>,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// Tokens and passwords; follows the store from the start on.
    pub tokens: Arc<Tokens>,
    /// `--experimental-max-learners`.
    pub learners_max: u32,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `--experimental-warning-apply-duration`.
    pub slow_requests: SlowRequests,
}

/// What etcd says of a member that is none any more.
pub const REMOVED: &str = "the member has been permanently removed from the cluster";

/// The data directory is that of a member that was removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{REMOVED}; move its data directory aside, add a new member with `etcdctl member add` and start that with --initial-cluster-state=existing"
)]
pub struct RemovedMember;

/// See the module.
pub struct RaftMember {
    config: MemberConfig,
    store: Arc<RwLock<Store>>,
    waiters: Arc<Waiters>,
    feed: broadcast::Sender<Feed>,
    leader: watch::Receiver<u64>,
    applied: watch::Receiver<u64>,
    view: Arc<Mutex<View>>,
    inputs: mpsc::Sender<Input>,
    /// Lease timers.
    pub leases: Arc<LeaseKeeper>,
    /// How long the disk takes.
    pub disk_metrics: DiskMetrics,
    apply_metrics: ApplyMetrics,
    consensus_metrics: ConsensusMetrics,
    peers: Arc<Peers>,
    next_id: AtomicU64,
    checkpoint: std::sync::mpsc::SyncSender<writer::Job>,
    checkpoint_disk: Arc<DiskBytes>,
    wal_bytes: Arc<AtomicU64>,
    failed: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: DataLock,
}

impl RaftMember {
    /// Opens the data directory and starts the member's threads. `peers` carries its messages; consensus runs on `runtime`, as do they.
    ///
    /// # Errors
    /// The data directory is damaged, foreign or not writable.
    pub fn start(config: MemberConfig, peers: Arc<Peers>, runtime: Runtime) -> anyhow::Result<Arc<Self>> {
        let dir = config.data_dir.join("member");
        let lock = DataLock::take(&dir, PREDECESSOR_ENDS)?;
        let snapshot_dir = dir.join("snap");
        let wal_dir = config.wal_dir.clone().unwrap_or_else(|| dir.join("wal"));
        let Beginning { cluster_id, id, .. } = config.beginning;
        let (mut wal, mut replay) = Wal::open(&wal_dir, cluster_id, id)?;
        wal.set_unsafe_no_fsync(config.unsafe_no_fsync);
        let disk_metrics = DiskMetrics::default();
        let (apply_metrics, consensus_metrics) = (ApplyMetrics::default(), ConsensusMetrics::default());
        wal.measure(disk_metrics.clone());
        log_start::begin(&mut wal, &mut replay, &config.beginning);
        let (sled, checkpointed) = SledState::open(&dir.join("checkpoint"))
            .context("cannot open the checkpoint; is the disk full or the directory not writable?")?;
        let last = replay.entries.last().map_or(replay.snapshot.0, |entry| entry.index);
        let (store, rewrite) = choose_store(checkpointed, &snapshot_dir, replay.snapshot.0, last)?;
        let applied = store.applied_index();
        config.quota.applied(store.size_bytes() as u64, false);
        config.tokens.replaced(&store);
        if config.force_new_cluster {
            log_start::reduce(&mut wal, &mut replay, store.members(), &config)?;
        } else if store.members().is_removed(id) {
            return Err(RemovedMember.into());
        }
        tracing::info!(applied, log_end = last, revision = store.revision(), "state is loaded");

        let wal_bytes = Arc::new(AtomicU64::new(wal.disk_bytes()));
        let store = Arc::new(RwLock::new(store));
        let (leader, leader_seen) = watch::channel(0);
        let (applied_sender, applied_seen) = watch::channel(applied);
        let (inputs, input_queue) = mpsc::channel(INPUTS);
        let leases = Arc::new(LeaseKeeper::new());
        let waiters = Arc::new(Waiters::default());
        let view = Arc::new(Mutex::new(View::default()));
        let leading_term = Arc::new(AtomicU64::new(0));
        let feed = broadcast::channel(FEED_CAPACITY).0;
        let checkpoint_disk = Arc::new(DiskBytes::default());

        let covered = inputs.clone();
        let writer = WriterConfig {
            checkpoint_dir: dir.join("checkpoint"),
            snapshot_dir: snapshot_dir.clone(),
            snapshot_count: config.snapshot_count,
            // When the queue is full the next snapshot says it again.
            covered: Box::new(move |index, term| drop(covered.try_send(Input::Covered { index, term }))),
            disk: Arc::clone(&checkpoint_disk),
            metrics: disk_metrics.clone(),
        };
        let (checkpoint, checkpoint_thread) = writer::start(sled, Arc::clone(&store), writer)?;
        if rewrite {
            let records = store.read().records().collect();
            checkpoint
                .send(writer::Job::Replaced { index: applied, records })
                .context("the checkpoint writer ended")?;
        }

        let ticks =
            |duration: Duration| (duration.as_millis() / config.heartbeat.as_millis().max(1)).max(1) as usize;
        let members = store.read().members().clone();
        let is_rejoining =
            config.beginning.is_rejoining && replay.entries.is_empty() && replay.snapshot.0 == 0;
        let source_store = Arc::clone(&store);
        let source_peers = Arc::clone(&peers);
        let log = RaftLog::new(
            &members,
            to_hard_state(replay.hard_state, applied),
            replay.snapshot,
            replay.entries.into_iter().map(to_entry).collect(),
            Box::new(move |to| {
                let store = source_store.read();
                let (index, term) = (store.applied_index(), store.applied_term());
                let members = store.members().clone();
                if members.suffrage(to) != Suffrage::None {
                    source_peers.prepare_snapshot(to, index, term, store.records().collect());
                }
                SnapshotPosition { index, term, members }
            }),
        );
        let core = CoreConfig {
            id,
            incarnation: now_ms(),
            election_ticks: ticks(config.election),
            exact_election_ticks: None,
            heartbeat_ticks: 1,
            applied,
            is_rejoining,
            pre_vote: config.pre_vote,
            stands_early: config.stands_early,
        };
        let core = RaftCore::new(core, members.clone(), log)
            .context("cannot start consensus; check --heartbeat-interval and --election-timeout")?;
        wal.sync().context("cannot write the log")?;

        let checkpoint_jobs = checkpoint.clone();
        let applier = Applier {
            store: Arc::clone(&store),
            waiters: Arc::clone(&waiters),
            feed: feed.clone(),
            leases: Arc::clone(&leases),
            leading_term: Arc::clone(&leading_term),
            lease_extension: config.election,
            tokens: Arc::clone(&config.tokens),
            applied: applied_sender,
            checkpoint,
            snapshot_dir,
            quota: Arc::clone(&config.quota),
            metrics: apply_metrics.clone(),
            slow_requests: config.slow_requests.clone(),
        };
        let (applying, applier_thread) = Applying::start(applier)?;
        let (sender, followed) = (Arc::clone(&peers), Arc::clone(&peers));
        let driver = Driver {
            core,
            wal,
            tick: config.heartbeat,
            send: Box::new(move |message| sender.send(message)),
            members_changed: Box::new(move |members| followed.update(members)),
            applying,
            leader,
            view: Arc::clone(&view),
            leading_term,
            leases: Arc::clone(&leases),
            wal_bytes: Arc::clone(&wal_bytes),
            waiters: Arc::clone(&waiters),
            applied: applied_seen.clone(),
            metrics: consensus_metrics.clone(),
        };
        let raft_thread = std::thread::Builder::new().name("raft".into()).spawn(move || {
            end_process_on_panic("raft", || runtime.block_on(driver.run(input_queue)));
        })?;
        let threads = vec![applier_thread, raft_thread, checkpoint_thread];
        let next_id = AtomicU64::new(first_id(id, now_ms()));
        let member = Arc::new(Self {
            config,
            store,
            waiters,
            feed,
            leader: leader_seen,
            applied: applied_seen,
            view,
            inputs: inputs.clone(),
            leases,
            disk_metrics,
            apply_metrics,
            consensus_metrics,
            peers: Arc::clone(&peers),
            next_id,
            checkpoint: checkpoint_jobs,
            checkpoint_disk,
            wal_bytes,
            failed: AtomicU64::new(0),
            threads: Mutex::new(threads),
            _lock: lock,
        });
        peers.serve_hashes(Arc::clone(&member.store));
        // Whoever was there when the cluster was asked may be the first to write, before the log tells of anybody.
        let known = member.config.beginning.known.iter().cloned();
        let members = if members.is_empty() { Members::from_records(known) } else { members };
        peers.connect(inputs, Arc::downgrade(&member), &members);
        Ok(member)
    }

    /// Shows what is counted of log, disk and state on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        self.config.quota.register(registry);
        self.config.slow_requests.register(registry);
        self.disk_metrics.register(registry);
        self.apply_metrics.register(registry);
        self.consensus_metrics.register(registry);
        self.leases.register(registry);
        self.peers.register(registry);
    }

    /// How much the store may hold.
    pub fn quota(&self) -> Arc<Quota> {
        Arc::clone(&self.config.quota)
    }

    /// Hands over leadership, finishes what is committed, closes the files.
    pub fn stop(&self) {
        // Fails when the driver has ended by itself.
        let _ = self.inputs.blocking_send(Input::Stop);
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }

    /// Time for one request: as etcd's, so that an election fits in.
    fn deadline(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.config.election
    }

    fn enqueue(&self, input: Input) -> Result<(), ProposeError> {
        self.inputs.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => ProposeError::TooManyRequests,
            TrySendError::Closed(_) => ProposeError::Stopped,
        })
    }

    async fn propose_within(&self, request: Request) -> Result<Proposed, ProposeError> {
        let is_change = Members::is_change(&request);
        if self.waiters.count() >= PROPOSALS_MAX {
            return Err(ProposeError::TooManyRequests);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let data: Bytes = Command { id, request: Some(request) }.encode_to_vec().into();
        if data.len() > self.config.request_bytes_max + COMMAND_OVERHEAD_BYTES {
            return Err(ProposeError::TooLarge);
        }
        let mut place = self.waiters.enter(id);
        let deadline = Instant::now() + self.deadline();
        self.enqueue(if is_change {
            Input::ProposeChange { id, data, deadline }
        } else {
            Input::Propose { id, data, deadline }
        })?;
        match tokio::time::timeout(self.deadline(), &mut place.answer).await {
            Ok(Ok(answer)) => Ok(Proposed { response: answer? }),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) if self.view.lock().leader == 0 => Err(ProposeError::NoLeader),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    async fn read_index_within(&self) -> Result<(), ProposeError> {
        let view = *self.view.lock();
        // What was committed before a restart may still be on its way into the store.
        if view.is_alone && *self.applied.borrow() >= view.commit {
            return Ok(());
        }
        let (sender, answer) = oneshot::channel();
        self.enqueue(Input::ReadIndex(sender))?;
        let mut applied = self.applied.clone();
        let wait = async {
            let index = answer.await.map_err(|_| ProposeError::Stopped)?;
            applied.wait_for(|applied| *applied >= index).await.map_err(|_| ProposeError::Stopped)?;
            Ok(())
        };
        match tokio::time::timeout(self.deadline(), wait).await {
            Ok(result) => result,
            Err(_) if self.view.lock().leader == 0 => Err(ProposeError::NoLeader),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    /// Tells the cluster this member's name and client URLs, and the cluster version if there is none, until both are known.
    pub async fn publish(self: Arc<Self>, client_urls: Vec<String>) {
        const RETRY: Duration = Duration::from_millis(500);
        /// The first of the served level, as etcd decides it when all members are of one level.
        const CLUSTER_VERSION: &str = "3.5.0";
        let id = self.config.beginning.id;
        let attributes = MemberAttributes { member_id: id, name: self.config.name.clone(), client_urls };
        let is_known = |members: &Members| {
            members
                .get(id)
                .is_some_and(|own| own.name == attributes.name && own.client_urls == attributes.client_urls)
        };
        loop {
            let request = {
                let store = self.store.read();
                if !is_known(store.members()) {
                    Request::MemberAttributes(attributes.clone())
                } else if store.cluster_version().is_none() {
                    Request::ClusterVersion(ClusterVersion { version: CLUSTER_VERSION.into() })
                } else {
                    return;
                }
            };
            match self.propose(request).await {
                Ok(_) => {}
                Err(ProposeError::Stopped) => return,
                Err(error) => {
                    tracing::debug!(%error, "publishing this member's attributes");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// What the lease timers say, if this member leads; the quorum is asked afterwards whether it still does.
    ///
    /// # Errors
    /// The quorum does not answer.
    pub async fn as_leader<T>(
        &self,
        ask: impl FnOnce(&LeaseKeeper) -> Result<Led<T>, NotLeader>,
    ) -> Result<Option<T>, ProposeError> {
        let Ok(led) = ask(&self.leases) else { return Ok(None) };
        self.read_index().await?;
        Ok(self.leases.leads_in(led.term).then_some(led.says))
    }
}

/// The newest usable state: the checkpoint, or a snapshot file, or nothing if the log has everything. The flag asks to write the checkpoint
/// anew.
pub(crate) fn choose_store(
    checkpointed: Option<Store>,
    snapshot_dir: &std::path::Path,
    log_start: u64,
    log_end: u64,
) -> anyhow::Result<(Store, bool)> {
    choose_state(checkpointed, snapshot_file::newest_first(snapshot_dir), log_start, log_end)
}

/// As [`choose_store`], with snapshots, newest first, wherever they come from. The newest may be ahead of the log: it came from the leader, and the
/// process ended before the log knew.
///
/// # Errors
/// None fits the log.
pub fn choose_state(
    checkpointed: Option<Store>,
    snapshots: impl IntoIterator<Item = Store>,
    log_start: u64,
    log_end: u64,
) -> anyhow::Result<(Store, bool)> {
    let fits = |store: &Store| (log_start..=log_end).contains(&store.applied_index());
    match checkpointed {
        Some(store) if fits(&store) => return Ok((store, false)),
        Some(store) if store.applied_index() > log_end => bail!(
            "the checkpoint is at entry {} but the log ends at {log_end}: acknowledged entries are missing from the log; move the data directory \
             aside and start with --initial-cluster-state=existing, so that this member takes the state from the others",
            store.applied_index()
        ),
        _ => {}
    }
    if log_start == 0 {
        return Ok((Store::new(), true));
    }
    match snapshots.into_iter().find(fits) {
        Some(store) => Ok((store, true)),
        None => bail!(
            "the log begins after entry {log_start} and there is no readable checkpoint or snapshot of what came before; move the data directory \
             aside and start with --initial-cluster-state=existing, so that this member takes the state from the others"
        ),
    }
}

/// Runs a thread's work. The other threads would wait for ever for one that died of a bug, so that ends the process.
pub(crate) fn end_process_on_panic(name: &str, run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        tracing::error!(thread = name, "a thread died of a bug, see the panic above; ending");
        std::process::exit(1);
    }
}

/// Ids never repeat: 15 bits of the member's id, 40 of the time at start, the rest counts. Positive as `i64`.
fn first_id(member: u64, now_ms: u64) -> u64 {
    ((member & 0x7fff) << 48) | ((now_ms & ((1 << 40) - 1)) << 8)
}

/// The wall clock, in milliseconds.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Member for RaftMember {
    async fn propose(&self, request: Request) -> Result<Proposed, ProposeError> {
        if !self.config.quota.has_room(&request) {
            tracing::warn!("a request would exceed the space quota; raising NOSPACE");
            self.propose_within(quota::raise(self.config.beginning.id, AlarmType::Nospace)).await?;
            return Err(StoreError::NoSpace.into());
        }
        let result = self.propose_within(request).await;
        if matches!(&result, Err(error) if !matches!(error, ProposeError::Store(_))) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn change_members(&self, request: Request) -> Result<Vec<MemberInfo>, ProposeError> {
        let members = self.change_members_checked(request).await?;
        Ok(members.iter().map(MemberInfo::from).collect())
    }

    async fn move_leader(&self, to: u64) -> Result<(), ProposeError> {
        self.move_leader_to(to).await
    }

    async fn read_index(&self) -> Result<(), ProposeError> {
        let result = self.read_index_within().await;
        if result.is_err() {
            self.consensus_metrics.reads_failed.inc();
        }
        if matches!(result, Err(ProposeError::Timeout | ProposeError::NoLeader)) {
            self.consensus_metrics.reads_slow.inc();
        }
        result
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Option<i64>, ProposeError> {
        if let Some(renewed) = self.as_leader(|leases| leases.keep_alive(id)).await? {
            return Ok(renewed);
        }
        let leader = self.view.lock().leader;
        let time = self.peers.renew_lease(leader, id).await?;
        Ok(time.map(|time| time.granted_seconds))
    }

    async fn lease_time_to_live(&self, id: i64) -> Result<Option<LeaseTimeToLive>, ProposeError> {
        if let Some(time) = self.as_leader(|leases| leases.time_to_live(id)).await? {
            return Ok(time);
        }
        let leader = self.view.lock().leader;
        self.peers.time_to_live(leader, id).await
    }

    fn sort_leases_by_end(&self, ids: &mut [i64]) {
        self.leases.sort_by_end(ids);
    }

    async fn defragment(&self) -> Result<(), ProposeError> {
        let begun = Instant::now();
        let _in_flight = InFlight::begin(&self.disk_metrics.defragmenting);
        let (done, result) = oneshot::channel();
        let checkpoint = self.checkpoint.clone();
        // Waits for a place in the writer's queue.
        let sent =
            tokio::task::spawn_blocking(move || checkpoint.send(writer::Job::Defragment(done)).is_ok());
        if !sent.await.unwrap_or(false) {
            return Err(ProposeError::Stopped);
        }
        match tokio::time::timeout(DEFRAGMENT_DEADLINE, result).await {
            Ok(Ok(Ok(()))) => {
                self.disk_metrics.defragmentation.observe(begun.elapsed().as_secs_f64());
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(ProposeError::Disk(error)),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::Timeout),
        }
    }

    fn store(&self) -> &RwLock<Store> {
        &self.store
    }

    fn tokens(&self) -> &Tokens {
        &self.config.tokens
    }

    fn status(&self) -> MemberStatus {
        let view = *self.view.lock();
        let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MemberStatus {
            cluster_id: self.config.beginning.cluster_id,
            member_id: self.config.beginning.id,
            leader: view.leader,
            term: view.term,
            raft_index: view.commit,
            applied_index: *self.applied.borrow(),
            db_size_bytes: bytes(&self.checkpoint_disk.total),
            db_size_in_use_bytes: bytes(&self.checkpoint_disk.in_use),
            log_size_bytes: bytes(&self.wal_bytes),
            is_learner: view.is_learner,
            leader_changes: view.leader_changes,
            proposals_pending: self.waiters.count() as u64,
            proposals_failed: self.failed.load(Ordering::Relaxed),
            errors: Vec::new(),
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.store.read().members().iter().map(|member| MemberInfo::from(member.as_ref())).collect()
    }

    fn feed(&self) -> broadcast::Receiver<Feed> {
        self.feed.subscribe()
    }

    fn leader(&self) -> watch::Receiver<u64> {
        self.leader.clone()
    }

    fn unique_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn lease_ttl_seconds_min(&self) -> i64 {
        (3 * self.config.election.as_millis() / 2).div_ceil(1000) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log begins after entry 18, which the member's own snapshot covers; then the leader sent one of entry 33, and the power went before the log
    /// knew. The checkpoint was not flushed yet.
    #[test]
    fn a_snapshot_ahead_of_the_log_does_not_hide_the_one_that_fits() {
        let dir = tempfile::tempdir().expect("dir");
        for index in [18, 33] {
            let mut store = Store::new();
            store.advance(index, 5);
            snapshot_file::write(dir.path(), index, 5, store.records().collect()).expect("write");
        }
        let (store, is_to_be_written) = choose_store(None, dir.path(), 18, 19).expect("a state");
        assert_eq!((store.applied_index(), is_to_be_written), (18, true));
        assert!(choose_store(None, dir.path(), 20, 25).is_err());
    }

    /// Two leaders that had been replaced sent theirs; consensus took neither, for it knew of a later term.
    #[test]
    fn snapshots_that_consensus_ignores_do_not_push_out_the_one_that_fits_the_log() {
        let dir = tempfile::tempdir().expect("dir");
        for index in [18, 33, 40, 41] {
            let mut store = Store::new();
            store.advance(index, 5);
            snapshot_file::write(dir.path(), index, 5, store.records().collect()).expect("write");
        }
        let (store, _) = choose_store(None, dir.path(), 18, 19).expect("a state");
        assert_eq!(store.applied_index(), 18);
        // Then it takes one, from the leader, and the log goes on from there.
        snapshot_file::remove_superseded(dir.path(), 40).expect("remove");
        let kept: Vec<u64> =
            snapshot_file::newest_first(dir.path()).map(|store| store.applied_index()).collect();
        assert_eq!(kept, [41, 40, 33]);
    }
}
