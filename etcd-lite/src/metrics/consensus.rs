//! What goes wrong, or right, between the members as seen by one of them: late heartbeats, reads without an answer, promotions.

use component_base::metrics::Registry;
use prometheus_client::metrics::counter::Counter;

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ConsensusMetrics {
    /// Heartbeats that this member as leader began to send a whole interval late.
    pub heartbeats_late: Counter,
    /// Questions for the index to read at that failed.
    pub reads_failed: Counter,
    /// Those that had no answer in time.
    pub reads_slow: Counter,
    /// Learners promoted by this member as leader.
    pub promotions: Counter,
}

impl ConsensusMetrics {
    /// Shows them on `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "etcd_server_heartbeat_send_failures",
                "The total number of leader heartbeat send failures (likely overloaded from slow disk)",
                &self.heartbeats_late,
            ),
            (
                "etcd_server_read_indexes_failed",
                "The total number of failed read indexes seen",
                &self.reads_failed,
            ),
            (
                "etcd_server_slow_read_indexes",
                "The total number of pending read indexes not in sync with leader's or timed out read index requests",
                &self.reads_slow,
            ),
            (
                "etcd_server_learner_promote_successes",
                "The total number of successful learner promotions while this member is leader",
                &self.promotions,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}
