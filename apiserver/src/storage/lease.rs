//! Leases for objects that expire (events): one lease serves all writes of a minute, so that a burst of events does not become a burst of
//! leases.

use std::time::Duration;

use coracle_proto::etcdserverpb::LeaseGrantRequest;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{OPERATION_DEADLINE, Storage, StorageError};

/// How long a lease is attached to new keys; objects live up to this much longer than asked.
const REUSE: Duration = Duration::from_secs(60);
/// A lease that expires deletes its keys in one go: keep that small.
const KEYS_PER_LEASE_MAX: u32 = 1000;

/// The lease in use.
#[derive(Default)]
pub(super) struct Leases(Mutex<Option<Current>>);

struct Current {
    id: i64,
    ttl_seconds: i64,
    granted: Instant,
    keys: u32,
}

impl Storage {
    /// A lease that lasts at least `ttl_seconds` from now.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn lease_for(&self, ttl_seconds: i64) -> Result<i64, StorageError> {
        let mut current = self.leases.0.lock().await;
        if let Some(lease) = current.as_mut()
            && lease.ttl_seconds == ttl_seconds
            && lease.granted.elapsed() < REUSE
            && lease.keys < KEYS_PER_LEASE_MAX
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let id = self.grant(ttl_seconds.saturating_add(REUSE.as_secs() as i64)).await?;
        *current = Some(Current { id, ttl_seconds, granted: Instant::now(), keys: 1 });
        Ok(id)
    }

    /// A lease of its own.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn grant(&self, ttl_seconds: i64) -> Result<i64, StorageError> {
        let request = LeaseGrantRequest { ttl: ttl_seconds, ..Default::default() };
        let (granted, _) = self
            .retry("leaseGrant", OPERATION_DEADLINE, |channel| async move {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await?;
        Ok(granted.id)
    }
}
