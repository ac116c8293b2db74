//! One life of a member: the store's own driver, consensus, applier, lease timers and watch machinery, without threads. The world says when each
//! gets to its work, and holds the clock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use etcd_lite::bootstrap::Beginning;
use etcd_lite::checkpoint::writer::Job;
use etcd_lite::lease_keeper::{LeaseKeeper, Led};
use etcd_lite::member::{Feed, LeaseTimeToLive, Member, MemberInfo, MemberStatus, ProposeError, Proposed};
use etcd_lite::metrics::{ApplyMetrics, ConsensusMetrics, RequestMetrics};
use etcd_lite::quota::Quota;
use etcd_lite::raft::applier::{Applier, Apply};
use etcd_lite::raft::core::{CoreConfig, RaftCore};
use etcd_lite::raft::driver::{Driver, Input, View, Waiting};
use etcd_lite::raft::log::{RaftLog, SnapshotPosition};
use etcd_lite::raft::prepared::Prepared;
use etcd_lite::raft::waiters::{Answer, Waiters};
use etcd_lite::raft::wal_disk::{to_entry, to_hard_state};
use etcd_lite::raft_member::{choose_state, log_start};
use etcd_lite::services::watch_by_hand::WatchByHand;
use etcd_lite::slow_requests::SlowRequests;
use etcd_lite::tokens::Tokens;
use etcd_lite::tokens::options::AuthOptions;
use etcd_lite_core::{MemberRecord, RecordChange, Request, Store, Suffrage};
use parking_lot::{Mutex, RwLock};
use raft::eraftpb::{Entry, Message, MessageType};
use tokio::sync::{broadcast, oneshot, watch};

use crate::disk::{Fuse, SimDisk, SimLog, Snapshot};
use crate::plan::{CrashPoint, Plan};
use store_clients::random::{Random, Stream};

/// Length of a tick.
pub const TICK_MS: u64 = 100;
const ELECTION_TICKS: usize = 10;
/// Largest watch response: small, so that some are split.
const PART_BYTES_MAX: usize = 200;

/// Work for the applier.
pub enum Work {
    /// Entries in log order.
    Committed(Vec<Entry>),
    /// Load this snapshot in place of the store.
    Snapshot(u64),
}

/// Takes what consensus decides; the world has it applied later, or at once.
pub struct SimApply {
    applier: Arc<Applier>,
    work: Arc<Mutex<VecDeque<Work>>>,
    is_prompt: Arc<AtomicBool>,
    fuse: Arc<Mutex<Fuse>>,
}

impl Apply for SimApply {
    fn committed(&self, entries: Vec<Entry>) {
        if self.fuse.lock().is_blown {
            return;
        }
        let is_idle = self.work.lock().is_empty() && self.is_prompt.load(Ordering::Relaxed);
        if !(is_idle && self.applier.apply_if_brief(&entries)) {
            self.work.lock().push_back(Work::Committed(entries));
        }
    }

    fn snapshot(&self, index: u64) {
        if !self.fuse.lock().is_blown {
            self.work.lock().push_back(Work::Snapshot(index));
        }
    }

    fn stop(&self) {}
}

/// What the watch machinery sees of a member.
pub struct Seat {
    id: u64,
    store: Arc<RwLock<Store>>,
    feed: broadcast::Sender<Feed>,
    leader: watch::Receiver<u64>,
}

/// A member that runs.
pub struct Running {
    /// Which of its lives this is.
    pub life: u64,
    /// Consensus and what goes around it.
    pub driver: Driver<SimLog, SimApply>,
    /// What waits in the driver.
    pub waiting: Waiting,
    /// What waits for the driver.
    pub inputs: VecDeque<Input>,
    /// Whether a round is on the way.
    pub has_round: bool,
    /// Whether the applier's turn is on the way.
    pub has_apply: bool,
    /// Whether the hub's turn is on the way.
    pub has_tell: bool,
    /// The applier.
    pub applier: Arc<Applier>,
    /// What waits for the applier.
    pub work: Arc<Mutex<VecDeque<Work>>>,
    /// Whether the applier may work on the driver's own time.
    pub is_prompt: Arc<AtomicBool>,
    /// What waits for the checkpoint's writer.
    pub jobs: Receiver<Job>,
    /// Not flushed yet.
    pub unflushed: Vec<RecordChange>,
    /// Messages of this round.
    pub outbox: Arc<Mutex<Vec<Message>>>,
    /// Snapshots that consensus asked for, by receiver.
    pub prepared: Arc<Prepared<Arc<Snapshot>>>,
    /// The power.
    pub fuse: Arc<Mutex<Fuse>>,
    /// The state machine.
    pub store: Arc<RwLock<Store>>,
    /// Who waits for proposals.
    pub waiters: Arc<Waiters>,
    /// Lease timers.
    pub leases: Arc<LeaseKeeper>,
    /// What others see of the driver.
    pub view: Arc<Mutex<View>>,
    /// How far the store is.
    pub applied: watch::Receiver<u64>,
    /// Everything applied, for the world.
    pub feed: broadcast::Receiver<Feed>,
    /// Watch streams.
    pub watch: WatchByHand<Seat>,
    /// Proposals that wait: id, answer, whose.
    pub proposals: Vec<(u64, oneshot::Receiver<Answer>, u64)>,
    /// Reads that wait: answer, index once it is known, whose.
    pub reads: Vec<(oneshot::Receiver<u64>, Option<u64>, u64)>,
    /// Renewals that wait until the quorum has said that this member still leads, by operation.
    pub renewals: HashMap<usize, Led<Option<i64>>>,
    /// The member's own clock, told by the world.
    pub clock: Arc<AtomicU64>,
    /// For the ids of commands.
    pub next_id: u64,
    /// Revision up to which the world has seen this member's changes.
    pub seen_revision: i64,
}

/// The moment that virtual time counts from.
pub fn instant(now: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(now)
}

fn tokens() -> Arc<Tokens> {
    static TOKENS: OnceLock<Arc<Tokens>> = OnceLock::new();
    let new = || {
        let options = AuthOptions { auth_token: String::new(), ..AuthOptions::default() };
        Arc::new(Tokens::new(&options, false).expect("tokens that are not kept need nothing"))
    };
    Arc::clone(TOKENS.get_or_init(new))
}

fn metrics() -> Arc<RequestMetrics> {
    static METRICS: OnceLock<Arc<RequestMetrics>> = OnceLock::new();
    Arc::clone(METRICS.get_or_init(Arc::default))
}

/// The members a cluster begins with.
pub fn first_members(count: u64) -> Vec<MemberRecord> {
    let record = |id: u64| MemberRecord {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}")],
        client_urls: vec![format!("http://c{id}")],
        ..MemberRecord::default()
    };
    (1..=count).map(record).collect()
}

/// What a life begins with.
pub struct Birth {
    /// The member.
    pub id: u64,
    /// Counts its lives.
    pub life: u64,
    /// It comes back without its disk.
    pub is_rejoining: bool,
    /// Adds to the ticks before a campaign.
    pub extra_ticks: usize,
}

/// Starts a member on its disk.
///
/// # Errors
/// It refuses to start.
pub fn start(plan: &Plan, disk: &Arc<Mutex<SimDisk>>, birth: &Birth) -> Result<Running, String> {
    let &Birth { id, life, is_rejoining, extra_ticks } = birth;
    let mut replay = disk.lock().replay(id).map_err(|error| error.to_string())?;
    let fuse: Arc<Mutex<Fuse>> = Arc::default();
    let random = Random::new(plan.seed, Stream::Disk, id << 8 | life);
    let mut log = SimLog::open(Arc::clone(disk), Arc::clone(&fuse), random, id, &replay);
    let members = (!is_rejoining).then(|| first_members(plan.members));
    let beginning = Beginning { id, members, is_rejoining, ..Beginning::default() };
    log_start::begin(&mut log, &mut replay, &beginning);
    log.sync().map_err(|error| error.to_string())?;
    let last = replay.entries.last().map_or(replay.snapshot.0, |entry| entry.index);
    let (store, rewrite) = {
        let disk = disk.lock();
        let checkpoint = if disk.checkpoint.is_empty() {
            None
        } else {
            let records = disk.checkpoint.iter().map(|(key, value)| (key, value.clone()));
            Some(Store::load(records).map_err(|error| format!("the checkpoint: {error}"))?)
        };
        let newest_first = disk.snapshots.values().rev().filter_map(|snapshot| snapshot.load().ok());
        choose_state(checkpoint, newest_first, replay.snapshot.0, last).map_err(|error| error.to_string())?
    };
    if rewrite {
        let mut disk = disk.lock();
        disk.checkpoint.clear();
        disk.flush(store.records().map(RecordChange::Set));
    }
    let applied = store.applied_index();
    let seen_revision = store.revision();
    let members = store.members().clone();
    let store = Arc::new(RwLock::new(store));
    let prepared: Arc<Prepared<Arc<Snapshot>>> = Arc::default();
    let (source, outgoing) = (Arc::clone(&store), Arc::clone(&prepared));
    let raft_log = RaftLog::new(
        &members,
        to_hard_state(replay.hard_state, applied),
        replay.snapshot,
        replay.entries.into_iter().map(to_entry).collect(),
        Box::new(move |to| {
            let store = source.read();
            let (index, term, members) =
                (store.applied_index(), store.applied_term(), store.members().clone());
            if members.suffrage(to) != Suffrage::None {
                outgoing.keep(to, index, Arc::new(Snapshot::new(index, store.records())));
            }
            SnapshotPosition { index, term, members }
        }),
    );
    let config = CoreConfig {
        id,
        incarnation: life,
        election_ticks: ELECTION_TICKS,
        exact_election_ticks: Some(
            ELECTION_TICKS + extra_ticks + if plan.is_crowded { 0 } else { 3 * id as usize },
        ),
        heartbeat_ticks: 1,
        applied,
        is_rejoining,
        pre_vote: true,
        stands_early: true,
    };
    let core = RaftCore::new(config, members, raft_log).map_err(|error| error.to_string())?;

    let (leader, leader_seen) = watch::channel(0);
    let (applied_sender, applied) = watch::channel(applied);
    let (feed, world_feed) = broadcast::channel(plan.feed_capacity);
    let (checkpoint, jobs) = sync_channel(512);
    let clock: Arc<AtomicU64> = Arc::default();
    let own_clock = Arc::clone(&clock);
    let leases = Arc::new(LeaseKeeper::with_clock(move || own_clock.load(Ordering::Relaxed)));
    let (waiters, view, leading_term): (Arc<Waiters>, Arc<Mutex<View>>, Arc<AtomicU64>) = Default::default();
    let applier = Arc::new(Applier {
        store: Arc::clone(&store),
        waiters: Arc::clone(&waiters),
        feed: feed.clone(),
        leases: Arc::clone(&leases),
        leading_term: Arc::clone(&leading_term),
        lease_extension: Duration::from_millis(ELECTION_TICKS as u64 * TICK_MS),
        tokens: tokens(),
        applied: applied_sender,
        checkpoint,
        snapshot_dir: std::path::PathBuf::new(),
        quota: Arc::new(Quota::new(-1)),
        metrics: ApplyMetrics::default(),
        slow_requests: SlowRequests::default(),
    });
    let outbox: Arc<Mutex<Vec<Message>>> = Arc::default();
    let (sent, sending) = (Arc::clone(&outbox), Arc::clone(&fuse));
    let (work, is_prompt): (Arc<Mutex<VecDeque<Work>>>, Arc<AtomicBool>) = Default::default();
    let mut driver = Driver {
        core,
        wal: log,
        tick: Duration::from_millis(TICK_MS),
        send: Box::new(move |message| {
            let mut sent = sent.lock();
            let count = sent.len() as u64;
            if !sending.lock().burns(|point| matches!(point, CrashPoint::AfterSends(after) if count >= after))
            {
                sent.push(message);
            }
        }),
        members_changed: Box::new(|_| {}),
        applying: SimApply {
            applier: Arc::clone(&applier),
            work: Arc::clone(&work),
            is_prompt: Arc::clone(&is_prompt),
            fuse: Arc::clone(&fuse),
        },
        leader,
        view: Arc::clone(&view),
        leading_term,
        leases: Arc::clone(&leases),
        wal_bytes: Arc::default(),
        waiters: Arc::clone(&waiters),
        applied: applied.clone(),
        metrics: ConsensusMetrics::default(),
    };
    driver.publish();
    let seat = Arc::new(Seat { id, store: Arc::clone(&store), feed, leader: leader_seen });
    let watch = WatchByHand::new(seat, PART_BYTES_MAX, plan.history_scan_max, metrics());
    Ok(Running {
        life,
        driver,
        waiting: Waiting::default(),
        inputs: VecDeque::new(),
        has_round: false,
        has_apply: false,
        has_tell: false,
        applier,
        work,
        is_prompt,
        jobs,
        unflushed: Vec::new(),
        outbox,
        prepared,
        fuse,
        store,
        waiters,
        leases,
        view,
        applied,
        feed: world_feed,
        watch,
        proposals: Vec::new(),
        reads: Vec::new(),
        renewals: HashMap::new(),
        clock,
        next_id: id << 48 | life << 24,
        seen_revision,
    })
}

impl Running {
    /// Whether it takes itself for the leader.
    pub fn is_leader(&self) -> bool {
        self.driver.core.is_leader()
    }

    /// A number for a command.
    pub fn unique_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes the messages of this round, with the snapshots that go with them.
    pub fn take_messages(&mut self) -> Vec<(Message, Option<Arc<Snapshot>>)> {
        let messages = std::mem::take(&mut *self.outbox.lock());
        let with_snapshot = |message: Message| {
            if message.get_msg_type() != MessageType::MsgSnapshot {
                return Some((message, None));
            }
            let snapshot = self.prepared.take(&message)?;
            Some((message, Some(snapshot)))
        };
        messages.into_iter().filter_map(with_snapshot).collect()
    }

    /// Takes what the applier handed to the checkpoint's writer.
    pub fn take_jobs(&mut self, disk: &Mutex<SimDisk>) {
        while let Ok(job) = self.jobs.try_recv() {
            match job {
                Job::Changes(changes) => self.unflushed.extend(changes),
                Job::Replaced { index, records } => {
                    self.unflushed.clear();
                    let mut disk = disk.lock();
                    disk.remove_superseded(index);
                    disk.checkpoint.clear();
                    disk.flush(records.into_iter().map(RecordChange::Set));
                }
                Job::Defragment(_) | Job::Stop => {}
            }
        }
    }
}

impl Member for Seat {
    async fn propose(&self, _: Request) -> Result<Proposed, ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn change_members(&self, _: Request) -> Result<Vec<MemberInfo>, ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn move_leader(&self, _: u64) -> Result<(), ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn read_index(&self) -> Result<(), ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn lease_keep_alive(&self, _: i64) -> Result<Option<i64>, ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn lease_time_to_live(&self, _: i64) -> Result<Option<LeaseTimeToLive>, ProposeError> {
        Err(ProposeError::Stopped)
    }

    async fn defragment(&self) -> Result<(), ProposeError> {
        Err(ProposeError::Stopped)
    }

    fn store(&self) -> &RwLock<Store> {
        &self.store
    }

    fn tokens(&self) -> &Tokens {
        static SHARED: OnceLock<Arc<Tokens>> = OnceLock::new();
        SHARED.get_or_init(tokens)
    }

    fn status(&self) -> MemberStatus {
        MemberStatus { member_id: self.id, leader: *self.leader.borrow(), ..MemberStatus::default() }
    }

    fn members(&self) -> Vec<MemberInfo> {
        Vec::new()
    }

    fn feed(&self) -> broadcast::Receiver<Feed> {
        self.feed.subscribe()
    }

    fn leader(&self) -> watch::Receiver<u64> {
        self.leader.clone()
    }

    fn unique_id(&self) -> u64 {
        0
    }

    fn lease_ttl_seconds_min(&self) -> i64 {
        2
    }
}
