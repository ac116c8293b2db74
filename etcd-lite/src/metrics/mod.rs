//! Metrics under upstream's names: here what can be read off a member at any time, and the text; in the files beside it what is counted as it
//! happens. Those of peers and of gRPC calls belong to their own modules.

mod apply;
mod consensus;
mod disk;
mod requests;

use std::fmt::Error;
use std::sync::Arc;

use component_base::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

pub use apply::ApplyMetrics;
pub use consensus::ConsensusMetrics;
pub use disk::DiskMetrics;
pub use requests::RequestMetrics;

use crate::member::Member;

/// Registers everything that can be read off a member.
pub fn register<M: Member>(registry: &mut Registry, member: Arc<M>) {
    let version: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
    version.get_or_create(&[("server_version", component_base::version::ETCD)]).set(1);
    registry.register(
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label",
        version,
    );
    registry.register_collector(Box::new(MemberCollector { member }));
}

/// Counters that upstream did not give the suffix that counters have now.
const WITHOUT_SUFFIX: [&str; 3] =
    ["etcd_server_health_success", "etcd_server_health_failures", "etcd_server_learner_promote_successes"];

/// A registry as Prometheus' text format 0.0.4 has it: a counter is described under the whole name of its series, and nothing marks the end.
pub fn text(registry: &Registry) -> String {
    let written = component_base::metrics::encode(registry);
    let mut text = String::with_capacity(written.len());
    // The description comes before the type, and needs to know it.
    let mut help: Option<&str> = None;
    for line in written.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
            continue;
        }
        if line == "# EOF" {
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" && !WITHOUT_SUFFIX.contains(&name) { "_total" } else { "" };
            if let Some((_, words)) = help.take().and_then(|help| help.split_once(' ')) {
                text.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            continue;
        }
        let series = line.split(' ').next().unwrap_or_default();
        match series.strip_suffix("_total").filter(|name| WITHOUT_SUFFIX.contains(name)) {
            Some(name) => text.push_str(&format!("{name}{}\n", &line[series.len()..])),
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Something that goes on, counted for as long as it does.
pub struct InFlight(Gauge);

impl InFlight {
    /// It begins.
    pub fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct MemberCollector<M> {
    member: Arc<M>,
}

impl<M> std::fmt::Debug for MemberCollector<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemberCollector")
    }
}

impl<M: Member> Collector for MemberCollector<M> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let status = self.member.status();
        let (keys, events, bytes, revision, compacted, leases, auth_revision) = {
            let store = self.member.store().read();
            let leases = store.leases().count();
            let (revision, compacted) = (store.revision(), store.compacted_revision());
            let (keys, auth_revision) = (store.key_count(), store.auth().revision());
            (keys, store.event_count(), store.size_bytes(), revision, compacted, leases, auth_revision)
        };
        let gauges: [(&str, &str, f64); 16] = [
            (
                "etcd_server_has_leader",
                "Whether or not a leader exists. 1 is existence, 0 is not",
                flag(status.leader != 0),
            ),
            (
                "etcd_server_is_leader",
                "Whether or not this member is a leader",
                flag(status.leader == status.member_id),
            ),
            ("etcd_server_is_learner", "Whether or not this member is a learner", flag(status.is_learner)),
            (
                "etcd_server_proposals_committed_total",
                "The total number of consensus proposals committed",
                status.raft_index as f64,
            ),
            (
                "etcd_server_proposals_applied_total",
                "The total number of consensus proposals applied",
                status.applied_index as f64,
            ),
            (
                "etcd_server_proposals_pending",
                "The current number of pending proposals to commit",
                status.proposals_pending as f64,
            ),
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Total size of the underlying database physically allocated in bytes",
                status.db_size_bytes as f64,
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Total size of the underlying database logically in use in bytes",
                status.db_size_in_use_bytes as f64,
            ),
            ("etcd_debugging_mvcc_keys_total", "Total number of keys", keys as f64),
            ("etcd_debugging_mvcc_current_revision", "The current revision of store", revision as f64),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction in store",
                compacted as f64,
            ),
            ("etcd_debugging_auth_revision", "The current revision of auth store.", auth_revision as f64),
            ("etcd_lite_store_events", "Events kept since the last compaction", events as f64),
            (
                "etcd_lite_store_bytes",
                "Bytes of keys and values kept in memory, past versions included",
                bytes as f64,
            ),
            ("etcd_lite_leases", "Leases that exist", leases as f64),
            ("etcd_lite_log_bytes", "Size of the log on disk in bytes", status.log_size_bytes as f64),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let cluster_version = self.member.store().read().cluster_version().map(str::to_owned);
        for (name, help, label, value) in [
            (
                "etcd_server_id",
                "Server or member ID in hexadecimal format. 1 for 'server_id' label",
                "server_id",
                Some(format!("{:x}", status.member_id)),
            ),
            (
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster version",
                "cluster_version",
                cluster_version,
            ),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(1_i64);
            let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(family.encode_family(&[(label, value)])?)?;
        }
        for (name, help, value) in [
            ("etcd_server_leader_changes_seen", "The number of leader changes seen", status.leader_changes),
            (
                "etcd_server_proposals_failed",
                "The total number of failed proposals seen",
                status.proposals_failed,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn series_have_the_names_and_types_that_scrapers_of_etcd_know() {
        let mut registry = Registry::default();
        let (count, health) = (Counter::<u64>::default(), Counter::<u64>::default());
        registry.register("etcd_mvcc_put", "Puts", count.clone());
        registry.register("etcd_server_health_success", "Checks", health);
        DiskMetrics::default().register(&mut registry);
        count.inc();
        let text = text(&registry);
        for line in [
            "# HELP etcd_mvcc_put_total Puts.",
            "# TYPE etcd_mvcc_put_total counter",
            "etcd_mvcc_put_total 1",
            "# TYPE etcd_server_health_success counter",
            "etcd_server_health_success 0",
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }
}
