//! The line between the gRPC services (`services/`) and the member that carries them (raft driver, log, peers).
//!
//! Owns: the [`Member`] trait with what it takes and gives. The services know nothing of Raft beyond it; the raft driver knows nothing
//! of gRPC. Never here: behaviour.
//!
//! What the raft driver does for the services, in this order for each committed entry: `store.write().apply(…)`; then, with the store
//! free again, [`crate::lease_keeper::LeaseKeeper::applied`] with the lease changes; a [`Feed::Applied`] if there are events;
//! the answer to whoever proposed it. When this member comes to lead and has applied everything of earlier terms it calls
//! `LeaseKeeper::lead`, and `follow` when it leads no more. `LeaseKeeper::run` and `services::ClientService::start` run
//! beside it; each accepted client connection goes to `services::serve_connection`.

use std::future::Future;
use std::sync::Arc;

use etcd_lite_core::{Event, MemberRecord, Request, Response, Store, StoreError};
use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::{broadcast, watch};

use crate::tokens::Tokens;

/// One running member, as the services see it.
pub trait Member: Send + Sync + 'static {
    /// Puts a request through the log and answers when **this** member has applied it. A follower forwards to the leader. The
    /// implementation makes the command's id; `Store` errors found at apply time come as [`ProposeError::Store`].
    /// Bounded in time by the implementation ([`ProposeError::Timeout`]).
    fn propose(&self, request: Request) -> impl Future<Output = Result<Proposed, ProposeError>> + Send;

    /// Puts a change of the members through the log ([`etcd_lite_core::Members::is_change`]), after the checks that keep a majority. The members
    /// after it, by id. Only the leader can tell whether a learner may be promoted, so that is passed on to it.
    fn change_members(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Vec<MemberInfo>, ProposeError>> + Send;

    /// Hands leadership from this member to another and answers when that leads.
    fn move_leader(&self, to: u64) -> impl Future<Output = Result<(), ProposeError>> + Send;

    /// Answers when this member's store holds everything that was committed before the call (ReadIndex).
    fn read_index(&self) -> impl Future<Output = Result<(), ProposeError>> + Send;

    /// Renews a lease at the leader ([`crate::lease_keeper::LeaseKeeper`]; forwarded by a follower). The granted TTL in seconds, or `None` when the leader knows
    /// no such lease.
    fn lease_keep_alive(&self, id: i64) -> impl Future<Output = Result<Option<i64>, ProposeError>> + Send;

    /// How long a lease has left, asked of the leader (forwarded by a follower), or `None` when it knows no such lease.
    fn lease_time_to_live(
        &self,
        id: i64,
    ) -> impl Future<Output = Result<Option<LeaseTimeToLive>, ProposeError>> + Send;

    /// Sorts leases by when they end, the next first, as far as this member knows; only the leader does.
    fn sort_leases_by_end(&self, _ids: &mut [i64]) {}

    /// Gives back the disk space of what compaction dropped; answers when that is done.
    fn defragment(&self) -> impl Future<Output = Result<(), ProposeError>> + Send;

    /// The state machine. Readers hold the lock for one request, never across an await.
    fn store(&self) -> &RwLock<Store>;

    /// Who requests come from.
    fn tokens(&self) -> &Tokens;

    /// Where the member stands now. Asked for with every answer, so it has to be cheap; never asked while holding the store.
    fn status(&self) -> MemberStatus;

    /// The members of the cluster, by id.
    fn members(&self) -> Vec<MemberInfo>;

    /// Every change of the store from now on, in log order. A receiver that lags loses the oldest and is told so; the
    /// watch service then reads the store's history.
    fn feed(&self) -> broadcast::Receiver<Feed>;

    /// The leader's id, 0 for none, with change notification.
    fn leader(&self) -> watch::Receiver<u64>;

    /// A number not used in this cluster before, positive as `i64`, for lease ids.
    fn unique_id(&self) -> u64;

    /// The shortest lease the leader can time well: half as long again as an election takes, in whole seconds.
    fn lease_ttl_seconds_min(&self) -> i64;
}

/// What changed in the store, in the order it changed.
#[derive(Clone, Debug)]
pub enum Feed {
    /// A command was applied that made events. Commands without events are not sent.
    Applied {
        /// The store's revision after it.
        revision: i64,
        /// The events, in order.
        events: Arc<[Event]>,
    },
    /// The store was replaced as a whole (a snapshot from the leader).
    Replaced,
}

/// A command that was applied.
#[derive(Debug)]
pub struct Proposed {
    /// The answer; the header has only the revision.
    pub response: Response,
}

/// A lease's time as the leader keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimeToLive {
    /// Seconds left, rounded down.
    pub remaining_seconds: i64,
    /// Seconds as granted.
    pub granted_seconds: i64,
}

/// Where a member stands.
#[derive(Clone, Debug, Default)]
pub struct MemberStatus {
    /// Cluster id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: u64,
    /// The leader's id; 0 when none is known.
    pub leader: u64,
    /// Current Raft term.
    pub term: u64,
    /// Committed log index.
    pub raft_index: u64,
    /// Applied log index.
    pub applied_index: u64,
    /// Bytes on disk of the checkpoint.
    pub db_size_bytes: u64,
    /// Bytes of that in use.
    pub db_size_in_use_bytes: u64,
    /// Bytes on disk of the log.
    pub log_size_bytes: u64,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Times this member saw the leader change.
    pub leader_changes: u64,
    /// Proposals waiting.
    pub proposals_pending: u64,
    /// Proposals that failed.
    pub proposals_failed: u64,
    /// What is wrong with this member, in words, if anything.
    pub errors: Vec<String>,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// Member id.
    pub id: u64,
    /// Name; empty until the member has started.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
    /// Client URLs; empty until the member has started.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

impl From<&MemberRecord> for MemberInfo {
    fn from(record: &MemberRecord) -> Self {
        Self {
            id: record.id,
            name: record.name.clone(),
            peer_urls: record.peer_urls.clone(),
            client_urls: record.client_urls.clone(),
            is_learner: record.is_learner,
        }
    }
}

/// Why a request did not go through. `Display` is etcd's text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No leader is known.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Leadership changed while the request was under way; it may or may not be applied later.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// No answer in time; it may or may not be applied later.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// As `Timeout`, shortly after the leader was lost.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailed,
    /// As `Timeout`, with the peer connection down.
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    /// The encoded command is above the limit.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// Too much is committed but not applied, or too many proposals wait.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// The member's disk failed; what it says.
    #[error("etcdserver: {0}")]
    Disk(String),
    /// The member is stopping.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// Answering from a learner.
    #[error("etcdserver: rpc not supported for learner")]
    Learner,
    /// Only the leader can do it.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// The member to lead is none, or has no vote.
    #[error("etcdserver: bad leader transferee")]
    BadLeaderTransferee,
    /// The member to lead does not, after all that time.
    #[error("etcdserver: request timed out, leader transfer took too long")]
    LeaderTransferTimeout,
    /// The learner has too little of the log.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// Too few members are connected to change who they are.
    #[error("etcdserver: unhealthy cluster")]
    UnhealthyCluster,
}
