//! What one decision costs, without API and loop: `cargo bench -p scheduler`. Decides and places pods one after the other, of the kinds
//! that `bench-sched` has, and prints microseconds a pod. Arguments narrow it: a kind, a number of nodes, `--pods=N`.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler_core::pod_info::PodToSchedule;
use scheduler_core::profile::Profile;
use scheduler_core::schedule::{Decision, Turn, next_start, schedule};
use scheduler_core::snapshot::Snapshot;
use serde_json::{Value, json};

const KINDS: &[&str] = &["plain", "service", "spread", "anti-affinity", "near", "taints"];
const NODES: &[usize] = &[100, 1_000, 5_000];
const PODS: usize = 10_000;
/// Pods of one group with anti-affinity, half as many as there are nodes.
const GROUPS_PER_NODE: usize = 2;

fn node(number: usize, kind: &str) -> Arc<Node> {
    let name = format!("node-{number}");
    let taints = match kind {
        "taints" if number.is_multiple_of(2) => {
            json!([{ "key": "dedicated", "value": "batch", "effect": "NoSchedule" }])
        }
        _ => json!([]),
    };
    let node = json!({
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3), "topology.kubernetes.io/region": "region",
        } },
        "spec": { "taints": taints },
        "status": { "allocatable": { "cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": "256" } },
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn pod(number: usize, kind: &str, nodes: usize) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {
            "name": format!("pod-{number}"), "namespace": "bench", "uid": format!("uid-{number}"),
            "labels": { "app": "web", "tier": "front", "pod-template-hash": "5d6f7c8b9" },
        },
        "spec": {
            "containers": [{
                "name": "web", "image": "registry.example.com/web:1.2.3",
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } },
            }],
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            ],
        },
    });
    let selector = |key: &str, value: &str| json!({ "matchLabels": { key: value } });
    let spread = |key: &str, otherwise: &str| {
        json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": otherwise,
            "labelSelector": selector("app", "web") })
    };
    match kind {
        "spread" => {
            pod["spec"]["topologySpreadConstraints"] = json!([
                spread("topology.kubernetes.io/zone", "DoNotSchedule"),
                spread("kubernetes.io/hostname", "ScheduleAnyway"),
            ]);
        }
        "anti-affinity" => {
            let group = format!("group-{}", number * GROUPS_PER_NODE / nodes.max(GROUPS_PER_NODE));
            pod["spec"]["affinity"] = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "topologyKey": "kubernetes.io/hostname", "labelSelector": selector("group", &group) },
            ] } });
            pod["metadata"]["labels"]["group"] = group.into();
        }
        "near" => {
            let term = |key: &str| json!({ "topologyKey": key, "labelSelector": selector("app", "web") });
            pod["spec"]["affinity"] = json!({
                "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term("topology.kubernetes.io/zone")] },
                "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
                    { "weight": 10, "podAffinityTerm": term("kubernetes.io/hostname") },
                ] },
            });
        }
        "taints" if number.is_multiple_of(2) => {
            let all = pod["spec"]["tolerations"].as_array_mut().expect("tolerations");
            all.push(
                json!({ "key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule" }),
            );
        }
        _ => {}
    }
    Arc::new(serde_json::from_value::<Pod>(pod).expect("a pod"))
}

fn measure(kind: &str, nodes: usize, pods: usize) {
    let made: Vec<_> = (0..nodes).map(|number| node(number, kind)).collect();
    let waiting: Vec<_> = (0..pods).map(|number| pod(number, kind, nodes)).collect();
    let mut snapshot = Snapshot::default();
    let began = Instant::now();
    made.into_iter().for_each(|node| snapshot.set_node(node));
    let filled = began.elapsed();
    if kind == "service" {
        let selector = [("app".to_owned(), "web".to_owned())].into();
        snapshot.selectors.set_service("bench", "web", selector);
    }
    let profile = Profile::new("default-scheduler");
    let mut turn = Turn::default();
    let began = Instant::now();
    let mut unschedulable = 0;
    for pod in waiting {
        let pod = PodToSchedule::new(pod);
        match schedule(&profile, &pod, &snapshot, turn) {
            Decision::Assigned(assignment) => {
                turn = Turn {
                    seed: turn.seed + 1,
                    start: next_start(turn, assignment.evaluated, snapshot.node_count()),
                };
                snapshot.place(pod.info, &assignment.node);
            }
            Decision::Unschedulable(..) | Decision::Failed(_) => unschedulable += 1,
        }
    }
    let each = began.elapsed().as_secs_f64() * 1e6 / pods as f64;
    let filled = filled.as_secs_f64() * 1e3;
    println!(
        "{kind:<14} {nodes:>6} nodes {each:>9.1} us a pod, {unschedulable} refused; nodes in {filled:.0} ms"
    );
}

fn main() {
    let given: Vec<Value> = std::env::args()
        .skip(1)
        .map(|text| text.parse::<usize>().map_or_else(|_| Value::from(text), Value::from))
        .collect();
    let pods =
        given.iter().filter_map(Value::as_str).find_map(|text| text.strip_prefix("--pods=")?.parse().ok());
    let numbers: Vec<_> = given.iter().filter_map(Value::as_u64).map(|nodes| nodes as usize).collect();
    let named = |kind: &&str| given.iter().any(|word| word.as_str() == Some(*kind));
    let kinds: Vec<_> = KINDS.iter().copied().filter(named).collect();
    for kind in if kinds.is_empty() { KINDS } else { &kinds } {
        for nodes in if numbers.is_empty() { NODES } else { &numbers } {
            measure(kind, *nodes, pods.unwrap_or(PODS));
        }
    }
}
