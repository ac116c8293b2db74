//! What the services count: requests by kind, leases, watchers.

use component_base::metrics::Registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Counted by the services.
#[derive(Debug, Default)]
pub struct RequestMetrics {
    /// Range requests answered.
    pub ranges: Counter,
    /// Puts applied.
    pub puts: Counter,
    /// Deletions applied.
    pub deletes: Counter,
    /// Transactions answered.
    pub txns: Counter,
    /// Leases granted.
    pub lease_grants: Counter,
    /// Leases revoked by clients.
    pub lease_revokes: Counter,
    /// Leases renewed.
    pub lease_renewals: Counter,
    /// Watch responses with events that were queued.
    pub watch_events: Counter,
    /// Watchers that were sent back to history because their stream was full.
    pub watch_watchers_slowed: Counter,
    /// Open watch streams.
    pub watch_streams: Gauge,
    /// Watchers.
    pub watchers: Gauge,
    /// Those of them that are still given history.
    pub watchers_behind: Gauge,
}

impl RequestMetrics {
    /// Shows them on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("etcd_mvcc_range", "Total number of ranges seen by this member", &self.ranges),
            ("etcd_debugging_mvcc_range", "Total number of ranges seen by this member", &self.ranges),
            ("etcd_mvcc_put", "Total number of puts seen by this member", &self.puts),
            ("etcd_mvcc_delete", "Total number of deletes seen by this member", &self.deletes),
            ("etcd_mvcc_txn", "Total number of txns seen by this member", &self.txns),
            ("etcd_debugging_lease_granted", "The total number of granted leases", &self.lease_grants),
            ("etcd_debugging_lease_revoked", "The total number of revoked leases", &self.lease_revokes),
            ("etcd_debugging_lease_renewed", "The number of renewed leases", &self.lease_renewals),
            (
                "etcd_debugging_mvcc_events",
                "Total number of event batches sent by this member",
                &self.watch_events,
            ),
            (
                "etcd_lite_watchers_slowed",
                "Times a watcher was sent back to history because its stream was full",
                &self.watch_watchers_slowed,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams", &self.watch_streams),
            ("etcd_debugging_mvcc_watcher_total", "Total number of watchers", &self.watchers),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of unsynced slow watchers",
                &self.watchers_behind,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }
}
