//! The leader's lease timers at work: clocks [`Lessor`], proposes the revocation of what ran out.
//!
//! The raft driver tells it who leads and what was applied; followers keep no timers. Never here: granting and revoking, which are
//! commands like any other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use component_base::metrics::Registry;
use coracle_proto::store::LeaseExpire;
use etcd_lite_core::lessor::Lessor;
use etcd_lite_core::{LeaseChange, Request, Response, Store, StoreError};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;

use crate::member::{LeaseTimeToLive, Member, ProposeError, Proposed};

/// How often leases are looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Revocations proposed per check, as etcd's 1000 a second.
const REVOCATIONS_PER_CHECK_MAX: usize = 500;

/// Revocations under way at a time.
const REVOCATIONS_CONCURRENT: usize = 16;

/// The lease timers of this member while it leads.
pub struct LeaseKeeper {
    /// `None` while this member follows.
    leading: Mutex<Option<Leading>>,
    expired: Counter,
    /// Milliseconds of any clock that never goes back.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

struct Leading {
    term: u64,
    lessor: Lessor,
}

/// What the timers of a term's leader say. A leader that was paused may have been replaced without knowing: it counts once a quorum has said
/// afterwards that this member [still leads](LeaseKeeper::leads_in).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led<T> {
    /// The term.
    pub term: u64,
    /// What they say.
    pub says: T,
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
        Self { leading: Mutex::new(None), expired: Counter::default(), clock: Box::new(clock) }
    }

    /// Shows on `/metrics` how many leases ran out.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_debugging_server_lease_expired",
            "The total number of expired leases",
            self.expired.clone(),
        );
    }

    /// This member leads `term` now. Call it when everything of earlier terms is applied to `store`, and before anything later is.
    /// Every lease gets its whole time again, and `extension` (an election timeout) on top.
    pub fn lead(&self, term: u64, store: &Store, extension: Duration) {
        let leases = store.leases().map(|(id, l)| (id, l.granted_ttl_seconds, l.remaining_ttl_seconds));
        let extension_ms = u64::try_from(extension.as_millis()).unwrap_or(u64::MAX);
        let lessor = Lessor::promote(leases, extension_ms, self.now_ms());
        *self.leading.lock() = Some(Leading { term, lessor });
    }

    /// This member does not lead any more.
    pub fn follow(&self) {
        *self.leading.lock() = None;
    }

    /// Whether these are the timers of that term's leader.
    pub fn leads_in(&self, term: u64) -> bool {
        self.leading.lock().as_ref().is_some_and(|leading| leading.term == term)
    }

    /// A command with these lease changes was applied. Cheap when there are none.
    pub fn applied(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let mut leading = self.leading.lock();
        let Some(Leading { lessor, .. }) = leading.as_mut() else { return };
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
    pub fn keep_alive(&self, id: i64) -> Result<Led<Option<i64>>, NotLeader> {
        let now_ms = self.now_ms();
        let mut leading = self.leading.lock();
        let Leading { term, lessor } = leading.as_mut().ok_or(NotLeader)?;
        Ok(Led { term: *term, says: lessor.renew(id, now_ms) })
    }

    /// How long a lease has left, or `None` when there is no such lease.
    ///
    /// # Errors
    /// When this member does not lead.
    pub fn time_to_live(&self, id: i64) -> Result<Led<Option<LeaseTimeToLive>>, NotLeader> {
        let now_ms = self.now_ms();
        let leading = self.leading.lock();
        let Leading { term, lessor } = leading.as_ref().ok_or(NotLeader)?;
        let says = lessor.time_to_live(id, now_ms).map(|(remaining_seconds, granted_seconds)| {
            LeaseTimeToLive { remaining_seconds, granted_seconds }
        });
        Ok(Led { term: *term, says })
    }

    /// Sorts leases by when they end, the next first. A member that does not lead knows no times and leaves them as they are.
    pub fn sort_by_end(&self, ids: &mut [i64]) {
        if let Some(Leading { lessor, .. }) = self.leading.lock().as_ref() {
            lessor.sort_by_end(ids);
        }
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
            let revocations = stream::iter(self.expired()).for_each_concurrent(REVOCATIONS_CONCURRENT, |expired| {
                let (member, count) = (Arc::clone(&member), self.expired.clone());
                async move {
                    match member.propose(Request::LeaseExpire(expired)).await {
                        Ok(Proposed { response: Response::LeaseRevoke(_) }) => {
                            count.inc();
                        }
                        // Another leads by now, and looks after it.
                        Ok(_) | Err(ProposeError::Store(StoreError::LeaseNotFound)) => {}
                        Err(error) => tracing::warn!(lease = format!("{:x}", expired.id), %error, "expired lease is not revoked yet"),
                    }
                }
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = revocations => {}
            }
        }
    }

    /// Leases whose end is to be proposed now, by the leader.
    pub fn expired(&self) -> Vec<LeaseExpire> {
        let now_ms = self.now_ms();
        let mut leading = self.leading.lock();
        let Some(Leading { term, lessor }) = leading.as_mut() else { return Vec::new() };
        let ids = lessor.expired(now_ms, REVOCATIONS_PER_CHECK_MAX);
        ids.into_iter().map(|id| LeaseExpire { id, term: *term }).collect()
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}

#[cfg(test)]
mod tests {
    use coracle_proto::etcdserverpb::LeaseGrantRequest;
    use etcd_lite_core::Command;

    use super::*;

    /// Paused in term 2, leading again in term 4: what was said in term 2 does not count.
    #[test]
    fn what_timers_say_counts_in_their_term_alone() {
        let mut store = Store::new();
        let grant = Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 5 });
        store.apply(1, 2, &Command { id: 1, request: Some(grant) });
        let keeper = LeaseKeeper::with_clock(|| 0);
        keeper.lead(2, &store, Duration::ZERO);
        let led = keeper.keep_alive(7).expect("leads");
        assert_eq!(led, Led { term: 2, says: Some(5) });
        assert!(keeper.leads_in(led.term));
        keeper.follow();
        assert!(!keeper.leads_in(led.term));
        assert_eq!(keeper.keep_alive(7), Err(NotLeader));
        keeper.lead(4, &store, Duration::ZERO);
        assert!(!keeper.leads_in(led.term));
    }
}
