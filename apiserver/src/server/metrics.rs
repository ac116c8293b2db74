//! The server's metrics under upstream's names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use component_base::metrics::SharedRegistry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Bucket bounds in seconds, for requests.
const REQUEST_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Bucket bounds in seconds, for the store.
const STORAGE_BUCKETS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];

/// Makes histograms with fixed buckets.
#[derive(Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StorageLabels {
    operation: &'static str,
}

/// Durations of the store's operations.
#[derive(Clone)]
pub struct StorageMetrics(Family<StorageLabels, Histogram, Buckets>);

impl StorageMetrics {
    /// Registers the series.
    pub fn register(registry: &SharedRegistry) -> Self {
        let family = Family::new_with_constructor(Buckets(STORAGE_BUCKETS));
        registry.lock().register(
            "etcd_request_duration_seconds",
            "Etcd request latency in seconds for each operation",
            family.clone(),
        );
        Self(family)
    }

    /// Notes one operation, all its attempts together.
    pub fn observe(&self, operation: &'static str, duration: Duration) {
        self.0.get_or_create(&StorageLabels { operation }).observe(duration.as_secs_f64());
    }
}

/// What requests are counted by.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// API verb in capitals, or the HTTP method.
    pub verb: &'static str,
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Plural.
    pub resource: &'static str,
    /// Part.
    pub subresource: &'static str,
    /// `cluster`, `namespace`, `resource` or empty.
    pub scope: &'static str,
    /// HTTP status.
    pub code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WatchLabels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

/// Requests of clients.
#[derive(Clone)]
pub struct RequestMetrics {
    total: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram, Buckets>,
    inflight: Family<KindLabels, Gauge<i64, AtomicI64>>,
    watchers: Family<WatchLabels, Gauge<i64, AtomicI64>>,
}

impl RequestMetrics {
    /// Registers the series.
    pub fn register(registry: &SharedRegistry) -> Self {
        let metrics = Self {
            total: Family::default(),
            duration: Family::new_with_constructor(Buckets(REQUEST_BUCKETS)),
            inflight: Family::default(),
            watchers: Family::default(),
        };
        let mut registry = registry.lock();
        registry.register("apiserver_request", "Counter of apiserver requests", metrics.total.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds",
            metrics.duration.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Number of requests currently in work, by kind",
            metrics.inflight.clone(),
        );
        registry.register(
            "apiserver_registered_watchers",
            "Number of currently registered watchers for a given resource",
            metrics.watchers.clone(),
        );
        metrics
    }

    /// Notes a finished request. Long-running ones are counted without their duration.
    pub fn observe(&self, labels: RequestLabels, duration: Option<Duration>) {
        if let Some(duration) = duration {
            let key = DurationLabels {
                verb: labels.verb,
                group: labels.group,
                version: labels.version,
                resource: labels.resource,
                subresource: labels.subresource,
                scope: labels.scope,
            };
            self.duration.get_or_create(&key).observe(duration.as_secs_f64());
        }
        self.total.get_or_create(&labels).inc();
    }

    /// Notes that a request begins (1) or ends (-1).
    pub fn inflight(&self, mutating: bool, change: i64) {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        self.inflight.get_or_create(&KindLabels { request_kind }).inc_by(change);
    }

    /// Notes that a watch begins; the guard notes its end.
    pub fn watcher(
        &self,
        group: &'static str,
        version: &'static str,
        resource: &'static str,
    ) -> WatcherGuard {
        let gauge = self.watchers.get_or_create_owned(&WatchLabels { group, version, resource });
        gauge.inc();
        WatcherGuard(gauge)
    }
}

/// Lives as long as a watch.
pub struct WatcherGuard(Gauge<i64, AtomicI64>);

impl Drop for WatcherGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
