//! The leader's lease timers at work: clocks [`Lessor`], proposes the revocation of what ran out.
//!
//! The raft driver tells it who leads and what was applied; followers keep no timers. Never here: granting and revoking, which are
//! commands like any other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_proto::etcdserverpb::LeaseRevokeRequest;
use etcd_lite_core::auth::by_member;
use etcd_lite_core::lessor::Lessor;
use etcd_lite_core::{LeaseChange, Request, Store, StoreError};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::member::{LeaseTimeToLive, Member, ProposeError};

/// How often leases are looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Revocations proposed per check, as etcd's 1000 a second.
const REVOCATIONS_PER_CHECK_MAX: usize = 500;

/// Revocations under way at a time.
const REVOCATIONS_CONCURRENT: usize = 16;

/// The lease timers of this member while it leads.
pub struct LeaseKeeper {
    /// `None` while this member follows.
    lessor: Mutex<Option<Lessor>>,
    /// Milliseconds of any clock that never goes back.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// This member does not lead, so it has no lease timers; ask the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("etcdserver: not leader")]
pub struct NotLeader;

impl Default for LeaseKeeper {
    fn default() -> Self {
        Self::new()
    }
}

impl LeaseKeeper {
    /// Timers of a member that follows.
    pub fn new() -> Self {
        let started = Instant::now();
        Self::with_clock(move || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Timers by a clock: milliseconds since any time, never going back.
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { lessor: Mutex::new(None), clock: Box::new(clock) }
    }

    /// This member leads now. Call it when everything of earlier terms is applied to `store`, and before anything later is.
    /// Every lease gets its whole time again, and `extension` (an election timeout) on top.
    pub fn lead(&self, store: &Store, extension: Duration) {
        let leases = store.leases().map(|(id, l)| (id, l.granted_ttl_seconds, l.remaining_ttl_seconds));
        let extension_ms = u64::try_from(extension.as_millis()).unwrap_or(u64::MAX);
        *self.lessor.lock() = Some(Lessor::promote(leases, extension_ms, self.now_ms()));
    }

    /// This member does not lead any more.
    pub fn follow(&self) {
        *self.lessor.lock() = None;
    }

    /// A command with these lease changes was applied. Cheap when there are none.
    pub fn applied(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let mut lessor = self.lessor.lock();
        let Some(lessor) = lessor.as_mut() else { return };
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl_seconds } => lessor.granted(id, ttl_seconds, now_ms),
                LeaseChange::Revoked { id } => lessor.revoked(id),
            }
        }
    }

    /// Renews a lease: the granted seconds, or `None` when there is no such lease or it is running out.
    ///
    /// # Errors
    /// When this member does not lead.
    pub fn keep_alive(&self, id: i64) -> Result<Option<i64>, NotLeader> {
        let now_ms = self.now_ms();
        Ok(self.lessor.lock().as_mut().ok_or(NotLeader)?.renew(id, now_ms))
    }

    /// How long a lease has left, or `None` when there is no such lease.
    ///
    /// # Errors
    /// When this member does not lead.
    pub fn time_to_live(&self, id: i64) -> Result<Option<LeaseTimeToLive>, NotLeader> {
        let now_ms = self.now_ms();
        let left = self.lessor.lock().as_ref().ok_or(NotLeader)?.time_to_live(id, now_ms);
        Ok(left.map(|(remaining_seconds, granted_seconds)| LeaseTimeToLive {
            remaining_seconds,
            granted_seconds,
        }))
    }

    /// Proposes the revocation of leases that ran out, until shutdown.
    pub async fn run<M: Member>(self: Arc<Self>, member: Arc<M>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let revocations = stream::iter(self.expired()).for_each_concurrent(REVOCATIONS_CONCURRENT, |id| {
                let member = Arc::clone(&member);
                async move {
                    // Nobody's permission is needed for what the lease's holder wanted.
                    let revocation = by_member(Request::LeaseRevoke(LeaseRevokeRequest { id }));
                    match member.propose(revocation).await {
                        Ok(_) | Err(ProposeError::Store(StoreError::LeaseNotFound)) => {}
                        Err(error) => tracing::warn!(lease = format!("{id:x}"), %error, "expired lease is not revoked yet"),
                    }
                }
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = revocations => {}
            }
        }
    }

    /// Leases whose revocation is to be proposed now, by the leader.
    pub fn expired(&self) -> Vec<i64> {
        let now_ms = self.now_ms();
        let mut lessor = self.lessor.lock();
        lessor.as_mut().map(|lessor| lessor.expired(now_ms, REVOCATIONS_PER_CHECK_MAX)).unwrap_or_default()
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}
