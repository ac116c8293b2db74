//! How long the disk takes, and how much is written: log, checkpoint, snapshot files, copies for clients.

use component_base::metrics::Registry;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Times in seconds, in etcd's buckets.
#[derive(Clone, Debug)]
pub struct DiskMetrics {
    /// Syncs of the log.
    pub wal_fsync: Histogram,
    /// Bytes written to the log.
    pub wal_bytes: Gauge,
    /// Flushes of the checkpoint.
    pub backend_commit: Histogram,
    /// Defragmentations.
    pub defragmentation: Histogram,
    /// 1 while defragmentation goes on.
    pub defragmenting: Gauge,
    /// Copies of the state for clients.
    pub client_snapshot: Histogram,
    /// Syncs of this member's snapshot files.
    pub snapshot_fsync: Histogram,
    /// Encoding of this member's snapshot files.
    pub snapshot_marshalling: Histogram,
    /// Writing of this member's snapshot files as a whole.
    pub snapshot_save: Histogram,
    /// Syncs of snapshots from the leader.
    pub received_fsync: Histogram,
    /// Receiving and writing of snapshots from the leader.
    pub received_save: Histogram,
    /// Checksums of the whole state.
    pub hash: Histogram,
    /// Checksums of the key space at a revision.
    pub hash_revision: Histogram,
}

impl Default for DiskMetrics {
    fn default() -> Self {
        let brief = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let hash = || Histogram::new(exponential_buckets(0.01, 2.0, 15));
        Self {
            wal_fsync: brief(),
            wal_bytes: Gauge::default(),
            backend_commit: brief(),
            defragmentation: Histogram::new(exponential_buckets(0.1, 2.0, 13)),
            defragmenting: Gauge::default(),
            client_snapshot: Histogram::new(exponential_buckets(0.01, 2.0, 17)),
            snapshot_fsync: brief(),
            snapshot_marshalling: brief(),
            snapshot_save: brief(),
            received_fsync: brief(),
            received_save: Histogram::new(exponential_buckets(0.1, 2.0, 10)),
            hash: hash(),
            hash_revision: hash(),
        }
    }
}

impl DiskMetrics {
    /// Shows them on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, histogram) in [
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL",
                &self.wal_fsync,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend",
                &self.backend_commit,
            ),
            (
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation",
                &self.defragmentation,
            ),
            (
                "etcd_disk_backend_snapshot_duration_seconds",
                "The latency distribution of backend snapshots",
                &self.client_snapshot,
            ),
            (
                "etcd_snap_fsync_duration_seconds",
                "The latency distributions of fsync called by snap",
                &self.snapshot_fsync,
            ),
            (
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "The marshalling cost distributions of save called by snapshot",
                &self.snapshot_marshalling,
            ),
            (
                "etcd_debugging_snap_save_total_duration_seconds",
                "The total latency distributions of save called by snapshot",
                &self.snapshot_save,
            ),
            (
                "etcd_snap_db_fsync_duration_seconds",
                "The latency distributions of fsyncing snapshots from the leader",
                &self.received_fsync,
            ),
            (
                "etcd_snap_db_save_total_duration_seconds",
                "The total latency distributions of saving snapshots from the leader",
                &self.received_save,
            ),
            (
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation",
                &self.hash,
            ),
            (
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation",
                &self.hash_revision,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register(
            "etcd_disk_wal_write_bytes_total",
            "Total number of bytes written in WAL",
            self.wal_bytes.clone(),
        );
        registry.register(
            "etcd_disk_defrag_inflight",
            "Whether or not defrag is active on the member. 1 means active, 0 means not",
            self.defragmenting.clone(),
        );
    }
}
