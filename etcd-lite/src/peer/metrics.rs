//! What goes over the connections to the other members, under etcd's names.

use std::time::Instant;

use component_base::metrics::Registry;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

type To = [(&'static str, String); 1];
type Pair = [(&'static str, String); 2];

/// Of all peers.
#[derive(Debug)]
pub(super) struct PeersMetrics {
    active: Family<Pair, Gauge>,
    disconnected: Family<Pair, Counter>,
    sent_bytes: Family<To, Counter>,
    received_bytes: Family<To, Counter>,
    sent_failures: Family<To, Counter>,
    round_trip_seconds: Family<To, Histogram>,
    snapshots_sent: Family<To, Counter>,
    snapshots_failed: Family<To, Counter>,
}

impl Default for PeersMetrics {
    fn default() -> Self {
        Self {
            active: Family::default(),
            disconnected: Family::default(),
            sent_bytes: Family::default(),
            received_bytes: Family::default(),
            sent_failures: Family::default(),
            round_trip_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 16))
            }),
            snapshots_sent: Family::default(),
            snapshots_failed: Family::default(),
        }
    }
}

/// Of one peer.
#[derive(Debug)]
pub(super) struct PeerMetrics {
    active: Gauge,
    disconnected: Counter,
    pub(super) sent_bytes: Counter,
    pub(super) received_bytes: Counter,
    pub(super) sent_failures: Counter,
    pub(super) snapshots_sent: Counter,
    pub(super) snapshots_failed: Counter,
    round_trip_seconds: Histogram,
    /// When the heartbeat left that is not answered yet.
    heartbeat_sent: Mutex<Option<Instant>>,
}

impl PeersMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_network_active_peers",
            "The current number of active peer connections",
            self.active.clone(),
        );
        registry.register(
            "etcd_network_disconnected_peers",
            "The total number of disconnected peers",
            self.disconnected.clone(),
        );
        registry.register(
            "etcd_network_peer_round_trip_time_seconds",
            "Round-Trip-Time histogram between peers",
            self.round_trip_seconds.clone(),
        );
        for (name, help, family) in [
            ("etcd_network_peer_sent_bytes", "The total number of bytes sent to peers", &self.sent_bytes),
            (
                "etcd_network_peer_received_bytes",
                "The total number of bytes received from peers",
                &self.received_bytes,
            ),
            (
                "etcd_network_peer_sent_failures",
                "The total number of send failures from peers",
                &self.sent_failures,
            ),
            (
                "etcd_network_snapshot_send_success",
                "Total number of successful snapshot sends",
                &self.snapshots_sent,
            ),
            (
                "etcd_network_snapshot_send_failures",
                "Total number of snapshot send failures",
                &self.snapshots_failed,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
    }

    /// Those of one peer.
    pub(super) fn of(&self, own: u64, peer: u64) -> PeerMetrics {
        let pair = [("Local", format!("{own:x}")), ("Remote", format!("{peer:x}"))];
        let (to, from) = ([("To", format!("{peer:x}"))], [("From", format!("{peer:x}"))]);
        PeerMetrics {
            active: self.active.get_or_create(&pair).clone(),
            disconnected: self.disconnected.get_or_create(&pair).clone(),
            sent_bytes: self.sent_bytes.get_or_create(&to).clone(),
            received_bytes: self.received_bytes.get_or_create(&from).clone(),
            sent_failures: self.sent_failures.get_or_create(&to).clone(),
            snapshots_sent: self.snapshots_sent.get_or_create(&to).clone(),
            snapshots_failed: self.snapshots_failed.get_or_create(&to).clone(),
            round_trip_seconds: self.round_trip_seconds.get_or_create(&to).clone(),
            heartbeat_sent: Mutex::new(None),
        }
    }
}

impl PeerMetrics {
    pub(super) fn connected(&self) {
        self.active.set(1);
    }

    /// What was under way will not be answered.
    pub(super) fn disconnected(&self) {
        self.heartbeat_sent.lock().take();
        if self.active.set(0) != 0 {
            self.disconnected.inc();
        }
    }

    pub(super) fn heartbeat_sent(&self) {
        self.heartbeat_sent.lock().get_or_insert_with(Instant::now);
    }

    pub(super) fn heartbeat_answered(&self) {
        if let Some(sent) = self.heartbeat_sent.lock().take() {
            self.round_trip_seconds.observe(sent.elapsed().as_secs_f64());
        }
    }
}
