//! The scheduler's own series, under upstream's names. Owns the families, counts nothing by itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use scheduler_core::queue::Pending;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    profile: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptsLabel {
    attempts: String,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// A node was found and the API took the binding.
    Scheduled,
    /// No node will do.
    Unschedulable,
    /// The API refused or could not be reached.
    Error,
}

/// The families.
#[derive(Clone)]
pub struct SchedulerMetrics {
    attempts: Family<Attempt, Counter>,
    attempt_seconds: Family<Attempt, Histogram, fn() -> Histogram>,
    algorithm_seconds: Histogram,
    sli_seconds: Family<AttemptsLabel, Histogram, fn() -> Histogram>,
    pending: Family<QueueLabel, Gauge>,
    preemption_attempts: Counter,
    preemption_victims: Histogram,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn long_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 20))
}

impl SchedulerMetrics {
    /// Makes the families and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(seconds),
            algorithm_seconds: seconds(),
            sli_seconds: Family::new_with_constructor(long_seconds),
            pending: Family::default(),
            preemption_attempts: Counter::default(),
            preemption_victims: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
        };
        registry.register(
            "scheduler_schedule_attempts",
            "Number of attempts to schedule pods, by the result",
            metrics.attempts.clone(),
        );
        registry.register(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
            metrics.attempt_seconds.clone(),
        );
        registry.register(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Scheduling algorithm latency in seconds",
            metrics.algorithm_seconds.clone(),
        );
        registry.register(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue",
            metrics.sli_seconds.clone(),
        );
        registry.register(
            "scheduler_pending_pods",
            "Number of pending pods, by the queue type",
            metrics.pending.clone(),
        );
        registry.register(
            "scheduler_preemption_attempts",
            "Total preemption attempts in the cluster till now",
            metrics.preemption_attempts.clone(),
        );
        registry.register(
            "scheduler_preemption_victims",
            "Number of selected preemption victims",
            metrics.preemption_victims.clone(),
        );
        metrics
    }

    /// Counts a pod that found no node, with how many pods have to make room for it if any.
    pub fn preemption(&self, victims: Option<usize>) {
        self.preemption_attempts.inc();
        if let Some(victims) = victims {
            self.preemption_victims.observe(victims as f64);
        }
    }

    /// Counts an attempt that took `seconds`.
    pub fn attempt(&self, profile: &str, result: AttemptResult, seconds: f64) {
        let result = match result {
            AttemptResult::Scheduled => "scheduled",
            AttemptResult::Unschedulable => "unschedulable",
            AttemptResult::Error => "error",
        };
        let label = Attempt { profile: profile.to_owned(), result };
        self.attempts.get_or_create(&label).inc();
        self.attempt_seconds.get_or_create(&label).observe(seconds);
    }

    /// Notes how long a decision alone took.
    pub fn algorithm(&self, seconds: f64) {
        self.algorithm_seconds.observe(seconds);
    }

    /// Notes how long a pod took from entering the queue to having its node.
    pub fn scheduled(&self, attempts: u32, seconds: f64) {
        let attempts = if attempts >= 16 { "16+".to_owned() } else { attempts.to_string() };
        self.sli_seconds.get_or_create(&AttemptsLabel { attempts }).observe(seconds);
    }

    /// Shows how many pods wait where.
    pub fn pending(&self, pending: Pending) {
        for (queue, count) in [
            ("active", pending.active),
            ("backoff", pending.backoff),
            ("unschedulable", pending.unschedulable),
            ("gated", pending.gated),
        ] {
            self.pending.get_or_create(&QueueLabel { queue }).set(count as i64);
        }
    }
}
