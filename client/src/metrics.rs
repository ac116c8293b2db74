//! The `workqueue_*` and `leader_election_*` series under upstream's names. Owns the families; registering them is the caller's, serving them the
//! admin server's.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    name: String,
}

type Histograms = Family<NameLabel, Histogram, fn() -> Histogram>;

fn histogram() -> Histogram {
    // 10 ns to 10 s in factors of ten, as upstream.
    Histogram::new(exponential_buckets(1e-8, 10.0, 10))
}

/// The families of all work queues of a process; register once.
#[derive(Clone)]
pub struct WorkQueueMetrics {
    depth: Family<NameLabel, Gauge>,
    adds: Family<NameLabel, Counter>,
    retries: Family<NameLabel, Counter>,
    queue_duration: Histograms,
    work_duration: Histograms,
}

/// The series of one queue.
#[derive(Clone)]
pub struct QueueMetrics {
    pub(crate) depth: Gauge,
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    pub(crate) queue_duration: Histogram,
    pub(crate) work_duration: Histogram,
}

impl WorkQueueMetrics {
    /// Makes the families and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            queue_duration: Family::new_with_constructor(histogram),
            work_duration: Family::new_with_constructor(histogram),
        };
        registry.register("workqueue_depth", "Current depth of workqueue", metrics.depth.clone());
        // The encoder appends `_total` to counters.
        registry.register(
            "workqueue_adds",
            "Total number of adds handled by workqueue",
            metrics.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Total number of retries handled by workqueue",
            metrics.retries.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested",
            metrics.queue_duration.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            metrics.work_duration.clone(),
        );
        metrics
    }

    /// The series of the queue called `name`.
    pub fn queue(&self, name: &str) -> QueueMetrics {
        let label = NameLabel { name: name.to_owned() };
        QueueMetrics {
            depth: self.depth.get_or_create_owned(&label),
            adds: self.adds.get_or_create_owned(&label),
            retries: self.retries.get_or_create_owned(&label),
            queue_duration: self.queue_duration.get_or_create_owned(&label),
            work_duration: self.work_duration.get_or_create_owned(&label),
        }
    }
}

/// `leader_election_master_status`: 1 while this process leads, 0 while it stands by.
#[derive(Clone, Default)]
pub struct LeaderElectionMetrics {
    status: Family<NameLabel, Gauge>,
}

impl LeaderElectionMetrics {
    /// Makes the family and adds it to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "leader_election_master_status",
            "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. \
             'name' is the string used to identify the lease",
            metrics.status.clone(),
        );
        metrics
    }

    /// Says whether this process leads for the lease `name`.
    pub fn set(&self, name: &str, leading: bool) {
        self.status.get_or_create(&NameLabel { name: name.to_owned() }).set(i64::from(leading));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_carry_upstreams_names() {
        let mut registry = Registry::default();
        let metrics = WorkQueueMetrics::register(&mut registry).queue("deployment");
        metrics.adds.inc();
        LeaderElectionMetrics::register(&mut registry).set("kube-scheduler", true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encode");
        assert!(text.contains("workqueue_adds_total{name=\"deployment\"} 1"), "{text}");
        assert!(text.contains("leader_election_master_status{name=\"kube-scheduler\"} 1"), "{text}");
    }
}
