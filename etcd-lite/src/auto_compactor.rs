//! Compacts by itself (`--auto-compaction-mode`, `--auto-compaction-retention`): gives the rule in
//! [`etcd_lite_core::auto_compaction`] the time, and puts what it says through the log. Only the leader does.

use std::sync::Arc;
use std::time::Duration;

use coracle_proto::etcdserverpb::CompactionRequest;
use etcd_lite_core::auth::by_member;
use etcd_lite_core::auto_compaction::{AutoCompactor, Retention};
use etcd_lite_core::{Request, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::member::{Member, ProposeError};

/// Runs until shutdown.
pub async fn run<M: Member>(member: Arc<M>, retention: Retention, shutdown: CancellationToken) {
    let began = Instant::now();
    let now_ms = || began.elapsed().as_millis() as u64;
    let revision = || member.store().read().revision();
    let mut compactor = AutoCompactor::new(retention, now_ms(), revision());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(began + Duration::from_millis(compactor.next_ms())) => {}
        }
        let status = member.status();
        let leads = status.leader == status.member_id;
        let Some(target) = compactor.tick(now_ms(), revision(), leads) else { continue };
        let compaction = by_member(Request::Compact(CompactionRequest { revision: target, physical: false }));
        match member.propose(compaction).await {
            Ok(_) | Err(ProposeError::Store(StoreError::Compacted)) => {
                compactor.succeeded(now_ms(), target);
                tracing::info!(revision = target, "compacted by itself");
            }
            Err(error) => {
                tracing::warn!(revision = target, %error, "cannot compact by itself; trying again later");
            }
        }
    }
}
