//! Usage of CPU and memory, read from cgroups: `/stats/summary` and `/metrics/resource`.
//!
//! Never here: the runtime's own statistics; those are slow with many pods.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::pod_view;
use serde_json::{Value, json};

use super::Shared;

/// Pods with a running container.
pub fn running_pods(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|pod| pod_view::phase(pod) == "Running").count()
}

/// Names and ids of a pod's running containers.
fn running_containers(pod: &Pod) -> Vec<(String, String)> {
    let statuses = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    statuses
        .filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .filter_map(|status| {
            let (_, id) = status.container_id.as_deref()?.split_once("://")?;
            Some((status.name.clone(), id.to_owned()))
        })
        .collect()
}

fn usage(used: (u64, u64), now: &str) -> (Value, Value) {
    (
        json!({"time": now, "usageCoreNanoSeconds": used.0}),
        json!({"time": now, "usageBytes": used.1, "workingSetBytes": used.1}),
    )
}

/// The summary of the node and its pods.
pub fn summary(shared: &Shared) -> Value {
    let now = format!("{:.0}", Timestamp::now());
    let mut pods = Vec::new();
    let cgroups = shared.context.cgroups.as_ref();
    for pod in shared.manager.list() {
        let Some(cgroups) = cgroups else { continue };
        let path = cgroups.pod_path(&pod);
        let mut containers = Vec::new();
        for (name, id) in running_containers(&pod) {
            if let Some(used) = cgroups.usage(&format!("{path}/{id}")) {
                let (cpu, memory) = usage(used, &now);
                containers.push(json!({"name": name, "cpu": cpu, "memory": memory}));
            }
        }
        let mut entry = json!({
            "podRef": {"name": pod_view::name(&pod), "namespace": pod_view::namespace(&pod), "uid": pod_view::uid(&pod)},
            "startTime": pod.status.as_ref().and_then(|status| status.start_time.clone()),
            "containers": containers,
        });
        if let Some(used) = cgroups.usage(&path) {
            let (cpu, memory) = usage(used, &now);
            entry["cpu"] = cpu;
            entry["memory"] = memory;
        }
        pods.push(entry);
    }
    let mut node = json!({"nodeName": shared.context.settings.node_name});
    if let Some(used) = cgroups.and_then(|cgroups| cgroups.usage(&cgroups.pods_path())) {
        let (cpu, memory) = usage(used, &now);
        node["cpu"] = cpu;
        node["memory"] = memory;
    }
    json!({"node": node, "pods": pods})
}

/// The same for metrics-server.
pub fn resource_metrics(shared: &Shared) -> String {
    let mut cpu = String::from(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds\n# TYPE container_cpu_usage_seconds_total counter\n",
    );
    let mut memory = String::from(
        "# HELP container_memory_working_set_bytes Current working set of the container in bytes\n# TYPE container_memory_working_set_bytes gauge\n",
    );
    if let Some(cgroups) = &shared.context.cgroups {
        for pod in shared.manager.list() {
            let path = cgroups.pod_path(&pod);
            for (name, id) in running_containers(&pod) {
                let Some((nanoseconds, bytes)) = cgroups.usage(&format!("{path}/{id}")) else { continue };
                let labels = format!(
                    "{{container=\"{name}\",namespace=\"{}\",pod=\"{}\"}}",
                    pod_view::namespace(&pod),
                    pod_view::name(&pod)
                );
                let whole = nanoseconds / 1_000_000_000;
                let rest = nanoseconds % 1_000_000_000;
                let _ = writeln!(cpu, "container_cpu_usage_seconds_total{labels} {whole}.{rest:09}");
                let _ = writeln!(memory, "container_memory_working_set_bytes{labels} {bytes}");
            }
        }
    }
    cpu + &memory
}
