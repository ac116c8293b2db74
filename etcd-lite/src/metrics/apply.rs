//! What applying committed requests takes, and what it does to the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use component_base::metrics::Registry;
use etcd_lite_core::{Applied, LeaseChange, RecordChange, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

type Labels = [(&'static str, &'static str); 3];

/// Counted by the applier. Clones count together.
#[derive(Clone, Debug)]
pub struct ApplyMetrics {
    seconds: Family<Labels, Histogram>,
    compaction_milliseconds: Histogram,
    compaction_last: Gauge,
    compacted_versions: Counter,
    lease_ttl_seconds: Histogram,
    put_bytes: Gauge,
    /// 1 while a snapshot from the leader is loaded.
    pub snapshot_in_progress: Gauge,
}

impl Default for ApplyMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 2.0, 20))),
            compaction_milliseconds: Histogram::new(exponential_buckets(100.0, 2.0, 14)),
            compaction_last: Gauge::default(),
            compacted_versions: Counter::default(),
            lease_ttl_seconds: Histogram::new(exponential_buckets(1.0, 2.0, 24)),
            put_bytes: Gauge::default(),
            snapshot_in_progress: Gauge::default(),
        }
    }
}

impl ApplyMetrics {
    /// Shows them on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_server_apply_duration_seconds",
            "The latency distributions of apply called by backend",
            self.seconds.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "Bucketed histogram of db compaction total duration",
            self.compaction_milliseconds.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_db_compaction_last",
            "The unix time of the last db compaction. Resets to 0 on start",
            self.compaction_last.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_db_compaction_keys",
            "Total number of db keys compacted",
            self.compacted_versions.clone(),
        );
        registry.register(
            "etcd_debugging_lease_ttl_total",
            "Bucketed histogram of lease TTLs",
            self.lease_ttl_seconds.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "The total size of put kv pairs seen by this member",
            self.put_bytes.clone(),
        );
        registry.register(
            "etcd_server_snapshot_apply_in_progress_total",
            "1 if the server is applying the incoming snapshot. 0 if none",
            self.snapshot_in_progress.clone(),
        );
    }

    /// A command of this kind was applied.
    pub fn applied(&self, operation: &'static str, took: Duration, applied: &Applied) {
        let success = if applied.response.is_ok() { "true" } else { "false" };
        let labels = [("version", "v3"), ("op", operation), ("success", success)];
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if matches!(applied.response, Ok(Response::Compact(_))) {
            self.compaction_milliseconds.observe(took.as_secs_f64() * 1000.0);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.compaction_last.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        }
        let is_version =
            |change: &&RecordChange| matches!(change, RecordChange::Delete(key) if key.revision().is_some());
        self.compacted_versions.inc_by(applied.changes.iter().filter(is_version).count() as u64);
        for change in &applied.leases {
            if let LeaseChange::Granted { ttl_seconds, .. } = change {
                self.lease_ttl_seconds.observe(*ttl_seconds as f64);
            }
        }
        let puts = applied.events.iter().filter(|event| !event.version.tombstone);
        let bytes: usize = puts.map(|event| event.version.key().len() + event.version.value().len()).sum();
        self.put_bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
