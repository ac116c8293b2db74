//! Tells the log, in etcd's words, which requests took longer than they should: to be applied or read
//! (`--experimental-warning-apply-duration`), and for calls as a whole (`--experimental-warning-unary-request-duration`). Never here: measuring.

use std::time::Duration;

use component_base::metrics::Registry;
use prometheus_client::metrics::counter::Counter;

/// What is too long, and how often it was.
#[derive(Clone, Debug)]
pub struct SlowRequests {
    /// For applying or reading.
    apply_max: Duration,
    /// For a call with one answer.
    call_max: Duration,
    applies: Counter,
}

impl Default for SlowRequests {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_millis(300))
    }
}

impl SlowRequests {
    /// Longer than these is slow.
    pub fn new(apply_max: Duration, call_max: Duration) -> Self {
        Self { apply_max, call_max, applies: Counter::default() }
    }

    /// Shows the count on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_server_slow_apply",
            "The total number of slow apply requests (likely overloaded from slow disk)",
            self.applies.clone(),
        );
    }

    /// A request was applied, or read (then `prefix` says so).
    pub fn applied(
        &self,
        took: Duration,
        prefix: &str,
        request: impl FnOnce() -> String,
        response: impl FnOnce() -> String,
    ) {
        if took <= self.apply_max {
            return;
        }
        self.applies.inc();
        tracing::warn!(
            took = format!("{took:?}"),
            "expected-duration" = format!("{:?}", self.apply_max),
            prefix,
            request = request(),
            response = response(),
            "apply request took too long"
        );
    }

    /// A call was answered.
    pub fn called(&self, took: Duration, service: &str, method: &str, code: &str) {
        if took <= self.call_max {
            return;
        }
        tracing::warn!(
            "time spent" = format!("{took:?}"),
            "response type" = format!("/{service}/{method}"),
            code,
            "request stats"
        );
    }
}
