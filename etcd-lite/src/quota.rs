//! `--quota-backend-bytes`: how much the store may hold before it takes no more.
//!
//! Counted are the bytes of all versions kept (key, value and a fixed share for the rest), past ones included: what checkpoint, snapshot and memory
//! hold. This number is the same on every member, whatever their files look like. A request that would go beyond the quota is not proposed; this
//! member raises NOSPACE instead, and from then on every member refuses. As in etcd a member whose own quota is exceeded by what others
//! proposed raises it too, after applying that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use component_base::metrics::Registry;
use coracle_proto::etcdserverpb::alarm_request::AlarmAction;
use coracle_proto::etcdserverpb::{AlarmRequest, AlarmType};
use etcd_lite_core::Request;
use etcd_lite_core::alarms::space_needed_bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::member::Member;

/// Used when the flag is 0, as in etcd.
pub const DEFAULT_BYTES: u64 = 2 << 30;
/// Above this etcd warns.
const SUGGESTED_BYTES_MAX: u64 = 8 << 30;

/// One member's quota.
#[derive(Debug, Default)]
pub struct Quota {
    /// `None`: no limit.
    limit_bytes: Option<u64>,
    used_bytes: AtomicU64,
    exceeded: Notify,
}

impl Quota {
    /// The flag's meaning: 0 is the default, a negative number switches the quota off.
    pub fn new(flag: i64) -> Self {
        let limit_bytes = match u64::try_from(flag) {
            Err(_) => None,
            Ok(0) => Some(DEFAULT_BYTES),
            Ok(bytes) => Some(bytes),
        };
        if limit_bytes.is_some_and(|bytes| bytes > SUGGESTED_BYTES_MAX) {
            tracing::warn!("--quota-backend-bytes is above 8 GiB; all of it is kept in memory");
        }
        Self { limit_bytes, ..Self::default() }
    }

    /// The limit, if there is one.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.limit_bytes
    }

    /// Shows the limit on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let gauge: Gauge = Gauge::default();
        gauge.set(self.limit_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
        registry.register(
            "etcd_server_quota_backend_bytes",
            "Current backend storage quota size in bytes",
            gauge,
        );
    }

    /// Whether a request still fits. What takes no space always does.
    pub fn has_room(&self, request: &Request) -> bool {
        let Some(limit) = self.limit_bytes else { return true };
        let needed = space_needed_bytes(request);
        needed == 0 || self.used_bytes.load(Ordering::Relaxed) + needed < limit
    }

    /// The store holds so much now; `has_puts`: because something was put.
    pub fn applied(&self, used_bytes: u64, has_puts: bool) {
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        if has_puts && self.limit_bytes.is_some_and(|limit| used_bytes >= limit) {
            self.exceeded.notify_one();
        }
    }

    /// Raises the alarm when something applied exceeds this member's quota; until shutdown.
    pub async fn run<M: Member>(self: Arc<Self>, member: Arc<M>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.exceeded.notified() => {}
            }
            let member_id = member.status().member_id;
            if member.store().read().alarms().is_raised_by(member_id, AlarmType::Nospace) {
                continue;
            }
            tracing::warn!(member = format!("{member_id:x}"), "the space quota is exceeded; raising NOSPACE");
            if let Err(error) = member.propose(raise(member_id, AlarmType::Nospace)).await {
                // The next put tries again.
                tracing::warn!(%error, "cannot raise the alarm");
            }
        }
    }
}

/// The command that raises an alarm for a member.
pub fn raise(member_id: u64, kind: AlarmType) -> Request {
    Request::Alarm(AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm: kind.into() })
}

#[cfg(test)]
mod tests {
    use coracle_proto::etcdserverpb::{CompactionRequest, PutRequest};

    use super::*;

    #[test]
    fn the_flag_means_what_it_does_in_etcd() {
        assert_eq!(Quota::new(0).limit_bytes(), Some(2 << 30));
        assert_eq!(Quota::new(-1).limit_bytes(), None);
        assert_eq!(Quota::new(4096).limit_bytes(), Some(4096));
    }

    #[test]
    fn only_what_takes_space_has_to_fit() {
        let put =
            |bytes: usize| Request::Put(PutRequest { value: vec![0; bytes].into(), ..Default::default() });
        let quota = Quota::new(10_000);
        quota.applied(9_000, true);
        assert!(quota.has_room(&put(500)));
        assert!(!quota.has_room(&put(800)));
        let wrapped = etcd_lite_core::auth::by_member(put(800));
        assert!(!quota.has_room(&wrapped));
        quota.applied(20_000, true);
        assert!(quota.has_room(&Request::Compact(CompactionRequest::default())));
        assert!(Quota::new(-1).has_room(&put(50_000)));
    }
}
