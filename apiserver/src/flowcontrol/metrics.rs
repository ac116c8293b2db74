//! The metrics of priority and fairness under upstream's names. Counters are found once a schema, not once a request; what the levels look like is read
//! when somebody asks.

use std::sync::{Arc, Weak};

use component_base::metrics::SharedRegistry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;

use super::queues::Refusal;
use super::{FlowControl, LevelView};

const WAIT_BUCKETS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const EXECUTION_BUCKETS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FlowLabels {
    flow_schema: String,
    priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    flow_schema: String,
    priority_level: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WaitLabels {
    flow_schema: String,
    priority_level: String,
    execute: &'static str,
}

#[derive(Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// All series by schema and level.
#[derive(Clone)]
pub(super) struct FlowMetrics {
    dispatched: Family<FlowLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
    waiting: Family<FlowLabels, Gauge>,
    executing: Family<FlowLabels, Gauge>,
    seats: Family<FlowLabels, Gauge>,
    wait: Family<WaitLabels, Histogram, Buckets>,
    execution: Family<FlowLabels, Histogram, Buckets>,
}

/// Those of one schema and its level.
pub(super) struct Series {
    pub(super) dispatched: Counter,
    pub(super) waiting: Gauge,
    pub(super) executing: Gauge,
    pub(super) seats: Gauge,
    pub(super) waited: Histogram,
    pub(super) execution: Histogram,
    waited_in_vain: Histogram,
    refused: [Counter; 3],
}

impl FlowMetrics {
    pub(super) fn register(registry: &SharedRegistry) -> Self {
        let metrics = Self {
            dispatched: Family::default(),
            refused: Family::default(),
            waiting: Family::default(),
            executing: Family::default(),
            seats: Family::default(),
            wait: Family::new_with_constructor(Buckets(WAIT_BUCKETS)),
            execution: Family::new_with_constructor(Buckets(EXECUTION_BUCKETS)),
        };
        let mut registry = registry.lock();
        let name = |name: &str| format!("apiserver_flowcontrol_{name}");
        registry.register(
            name("dispatched_requests"),
            "Number of requests executed",
            metrics.dispatched.clone(),
        );
        registry.register(name("rejected_requests"), "Number of requests rejected", metrics.refused.clone());
        registry.register(
            name("current_inqueue_requests"),
            "Number of requests currently pending in queues",
            metrics.waiting.clone(),
        );
        registry.register(
            name("current_executing_requests"),
            "Number of requests in their execution phase",
            metrics.executing.clone(),
        );
        registry.register(
            name("current_executing_seats"),
            "Seats occupied by the currently executing requests",
            metrics.seats.clone(),
        );
        registry.register(
            name("request_wait_duration_seconds"),
            "Length of time a request spent waiting in its queue",
            metrics.wait.clone(),
        );
        registry.register(
            name("request_execution_seconds"),
            "Duration of the execution phase of requests",
            metrics.execution.clone(),
        );
        drop(registry);
        metrics
    }

    pub(super) fn of(&self, schema: &str, level: &str) -> Series {
        let labels = FlowLabels { flow_schema: schema.to_owned(), priority_level: level.to_owned() };
        let refused = |refusal: Refusal| {
            let (flow_schema, priority_level) = (schema.to_owned(), level.to_owned());
            self.refused.get_or_create_owned(&RefusalLabels {
                flow_schema,
                priority_level,
                reason: refusal.name(),
            })
        };
        let wait = |execute| {
            let (flow_schema, priority_level) = (schema.to_owned(), level.to_owned());
            self.wait.get_or_create_owned(&WaitLabels { flow_schema, priority_level, execute })
        };
        Series {
            dispatched: self.dispatched.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
            executing: self.executing.get_or_create_owned(&labels),
            seats: self.seats.get_or_create_owned(&labels),
            waited: wait("true"),
            waited_in_vain: wait("false"),
            execution: self.execution.get_or_create_owned(&labels),
            refused: [Refusal::ConcurrencyLimit, Refusal::QueueFull, Refusal::TimeOut].map(refused),
        }
    }
}

impl Series {
    /// Notes a request that was turned away after so many seconds.
    pub(super) fn refuse(&self, refusal: Refusal, seconds: f64) {
        let index = match refusal {
            Refusal::ConcurrencyLimit => 0,
            Refusal::QueueFull => 1,
            Refusal::TimeOut => 2,
        };
        self.refused[index].inc();
        self.waited_in_vain.observe(seconds);
    }
}

/// A series that is read off the levels: its name, its help, and what it reads.
type Reading = (&'static str, &'static str, fn(&LevelView) -> u32);

/// Reads the levels' seats when metrics are asked for.
#[derive(Debug)]
struct Levels(Weak<FlowControl>);

/// Registers the series that are read off the levels.
pub(super) fn register_levels(registry: &SharedRegistry, control: &Arc<FlowControl>) {
    registry.lock().register_collector(Box::new(Levels(Arc::downgrade(control))));
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(control) = self.0.upgrade() else { return Ok(()) };
        let views = control.level_views();
        let series: [Reading; 5] = [
            (
                "nominal_limit_seats",
                "Nominal number of execution seats configured for each priority level",
                |v| v.bounds.nominal,
            ),
            ("lower_limit_seats", "Configured lower bound on number of execution seats available", |v| {
                v.bounds.lower
            }),
            ("upper_limit_seats", "Configured upper bound on number of execution seats available", |v| {
                v.bounds.upper
            }),
            ("current_limit_seats", "Current derived number of execution seats available", |v| v.limit),
            (
                "request_concurrency_limit",
                "Nominal number of execution seats configured for each level",
                |v| v.bounds.nominal,
            ),
        ];
        for (name, help, read) in series {
            let name = format!("apiserver_flowcontrol_{name}");
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut descriptor = encoder.encode_descriptor(&name, help, None, kind)?;
            for view in views.iter().filter(|view| !view.exempt) {
                let labels = [("priority_level", view.name.as_str())];
                let gauge = ConstGauge::new(i64::from(read(view)));
                gauge.encode(descriptor.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
