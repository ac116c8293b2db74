//! The metrics registry of a process and the `process_*` series every component exports.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
pub use prometheus_client::registry::Registry;

/// A registry that tasks may still add to while it is being served.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// An empty registry that already has the process metrics.
pub fn registry() -> SharedRegistry {
    let mut registry = Registry::default();
    process_metrics(&mut registry);
    Arc::new(Mutex::new(registry))
}

/// Registers `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
/// `process_virtual_memory_max_bytes`, `process_open_fds`, `process_max_fds` and `process_start_time_seconds`, read from `/proc/self` at scrape time.
pub fn process_metrics(registry: &mut Registry) {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    registry.register_collector(Box::new(ProcessCollector { start_time_seconds: start }));
}

/// Writes a registry in the text format that Prometheus 0.0.4 scrapers and `kubectl get --raw /metrics` expect.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String fails only if a collector does; what was written so far is still well-formed.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

#[derive(Debug)]
struct ProcessCollector {
    start_time_seconds: f64,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(usage) = Usage::read() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds",
            None,
            cpu.metric_type(),
        )?)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory size in bytes", usage.resident_bytes as f64),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes", usage.virtual_bytes as f64),
            (
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes",
                usage.virtual_bytes_max,
            ),
            ("process_open_fds", "Number of open file descriptors", usage.open_fds as f64),
            ("process_max_fds", "Maximum number of open file descriptors", usage.open_fds_max),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                self.start_time_seconds,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    /// Infinite if there is no limit.
    virtual_bytes_max: f64,
    open_fds: u64,
    open_fds_max: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        // Linux reports CPU time in USER_HZ, which is 100 on every architecture Coracle builds for.
        const TICKS_PER_SECOND: f64 = 100.0;
        const PAGE_BYTES: u64 = 4096;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        Some(Self {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            virtual_bytes: fields.get(20)?.parse().ok()?,
            resident_bytes: fields.get(21)?.parse::<u64>().ok()? * PAGE_BYTES,
            virtual_bytes_max: soft_limit(&limits, "Max address space")?,
            open_fds_max: soft_limit(&limits, "Max open files")?,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        })
    }
}

/// The limit that holds now, of `/proc/self/limits`; infinite for `unlimited`.
fn soft_limit(limits: &str, name: &str) -> Option<f64> {
    let text = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if text == "unlimited" { Some(f64::INFINITY) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_metrics_carry_upstreams_names_and_real_figures() {
        let text = encode(&registry().lock());
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find(|l| l.starts_with(&format!("{name} ")))
                .unwrap_or_else(|| panic!("{name} in\n{text}"));
            line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_virtual_memory_max_bytes") >= value("process_virtual_memory_bytes"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
