//! Usage of CPU and memory, read from cgroups: `/stats/summary` and `/metrics/resource`.
//!
//! Never here: the runtime's own statistics; those are slow with many pods.

use std::fmt::{Display, Write as _};
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

/// A running container of a pod.
struct RunningContainer {
    name: String,
    id: String,
    started: Option<Timestamp>,
}

fn running_containers(pod: &Pod) -> Vec<RunningContainer> {
    let statuses = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    statuses
        .filter_map(|status| {
            let running = status.state.as_ref()?.running.as_ref()?;
            let (_, id) = status.container_id.as_deref()?.split_once("://")?;
            let started = running.started_at.as_ref().map(|time| time.0);
            Some(RunningContainer { name: status.name.clone(), id: id.to_owned(), started })
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
        for container in running_containers(&pod) {
            if let Some(used) = cgroups.usage(&format!("{path}/{}", container.id)) {
                let (cpu, memory) = usage(used, &now);
                let started = container.started.map(|time| format!("{time:.0}"));
                containers.push(
                    json!({"name": container.name, "startTime": started, "cpu": cpu, "memory": memory}),
                );
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

/// A family of `/metrics/resource`: its name as upstream has it, its kind and what it says.
struct Family {
    name: String,
    kind: &'static str,
    help: String,
    lines: String,
}

impl Family {
    fn new(name: impl Into<String>, kind: &'static str, help: impl Into<String>) -> Self {
        Self { name: name.into(), kind, help: help.into(), lines: String::new() }
    }

    /// `labels` with their braces, or nothing; `at` is when it was measured.
    fn add(&mut self, labels: &str, value: impl Display, at: Option<Timestamp>) {
        let _ = write!(self.lines, "{}{labels} {value}", self.name);
        if let Some(at) = at {
            let _ = write!(self.lines, " {}", at.as_millisecond());
        }
        self.lines.push('\n');
    }
}

/// CPU and memory of a node, a pod or a container.
struct Families {
    cpu: Family,
    memory: Family,
}

impl Families {
    fn of(what: &str) -> Self {
        Self {
            cpu: Family::new(
                format!("{what}_cpu_usage_seconds_total"),
                "counter",
                format!("Cumulative cpu time consumed by the {what} in core-seconds"),
            ),
            memory: Family::new(
                format!("{what}_memory_working_set_bytes"),
                "gauge",
                format!("Current working set of the {what} in bytes"),
            ),
        }
    }

    fn add(&mut self, labels: &str, (nanoseconds, bytes): (u64, u64)) {
        let now = Some(Timestamp::now());
        let (whole, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        self.cpu.add(labels, format_args!("{whole}.{rest:09}"), now);
        self.memory.add(labels, bytes, now);
    }
}

/// The same for metrics servers. The node is what its pods use together: the machine may carry other nodes.
pub fn resource_metrics(shared: &Shared) -> String {
    let [mut nodes, mut of_pods, mut of_containers] = ["node", "pod", "container"].map(Families::of);
    let mut started = Family::new(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    let mut errors = Family::new(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    if let Some(cgroups) = &shared.context.cgroups {
        // Without its first pod a node has no cgroup, and its pods use nothing.
        nodes.add("", cgroups.usage(&cgroups.pods_path()).unwrap_or_default());
        for pod in shared.manager.list() {
            let path = cgroups.pod_path(&pod);
            let names =
                format!("namespace=\"{}\",pod=\"{}\"", pod_view::namespace(&pod), pod_view::name(&pod));
            if let Some(used) = cgroups.usage(&path) {
                of_pods.add(&format!("{{{names}}}"), used);
            }
            for container in running_containers(&pod) {
                let Some(used) = cgroups.usage(&format!("{path}/{}", container.id)) else { continue };
                let labels = format!("{{container=\"{}\",{names}}}", container.name);
                of_containers.add(&labels, used);
                if let Some(time) = container.started {
                    started.add(&labels, time.as_second(), None);
                }
            }
        }
    }
    errors.add("", 0, None);
    let families = [
        of_containers.cpu,
        of_containers.memory,
        started,
        nodes.cpu,
        nodes.memory,
        of_pods.cpu,
        of_pods.memory,
        errors,
    ];
    let mut text = String::new();
    for Family { name, kind, help, lines } in families {
        if !lines.is_empty() {
            let _ = write!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n{lines}");
        }
    }
    text
}
