//! Whole decisions: who wins, who is refused and in which words.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::pod_info::PodInfo;
use crate::testing::{node, node_from, pod, pod_from};

fn three_nodes() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("node-a", "a"), ("node-b", "b"), ("node-c", "c")] {
        snapshot.set_node(node(name, "4", zone));
    }
    snapshot
}

fn decide(snapshot: &Snapshot, fields: Value, seed: u64) -> Decision {
    let pod = PodToSchedule::new(pod_from(fields));
    schedule(&Profile::new("default-scheduler"), &pod, snapshot, Turn { seed, start: 0 })
}

fn chosen(decision: Decision) -> String {
    match decision {
        Decision::Assigned(assignment) => assignment.node.to_string(),
        Decision::Unschedulable(error, _) => panic!("unschedulable: {error}"),
        Decision::Failed(error) => panic!("{error}"),
    }
}

fn refusal(decision: Decision) -> String {
    match decision {
        Decision::Assigned(assignment) => panic!("assigned to {}", assignment.node),
        Decision::Unschedulable(error, _) => error.to_string(),
        Decision::Failed(error) => panic!("{error}"),
    }
}

fn requests(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

#[test]
fn the_refusal_reads_as_upstreams() {
    let mut snapshot = three_nodes();
    snapshot.set_node(node_from("node-a", json!({"spec": {"unschedulable": true}})));
    for name in ["node-b", "node-c"] {
        snapshot.place(Arc::new(PodInfo::new(pod(&format!("on-{name}"), "3"))), name);
    }
    assert_eq!(
        refusal(decide(&snapshot, requests("2"), 0)),
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. no new claims to deallocate, \
         preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
    assert_eq!(
        refusal(decide(&snapshot, requests("20"), 0)),
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. no new claims to deallocate, \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
}

#[test]
fn taints_selectors_names_and_ports_rule_nodes_out() {
    let mut snapshot = three_nodes();
    snapshot
        .set_node(node_from("node-a", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})));
    let on = |fields: Value| refusal(decide(&snapshot, fields, 0));
    assert!(on(json!({"spec": {"nodeSelector": {"disk": "ssd"}}})).starts_with(
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), \
             2 node(s) didn't match Pod's node affinity/selector."
    ));
    assert_eq!(
        chosen(decide(&snapshot, json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "node-c"}}}), 0)),
        "node-c"
    );
    let named = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]}]}}}}});
    assert!(on(named).starts_with(
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    ));
    let port =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let taken = chosen(decide(&snapshot, port.clone(), 1));
    snapshot.place(Arc::new(PodInfo::new(pod_from(port.clone()))), &taken);
    assert_ne!(chosen(decide(&snapshot, port, 1)), taken);
}

#[test]
fn a_claim_makes_the_pod_wait_and_says_why() {
    let claim = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    assert!(
        refusal(decide(&three_nodes(), claim, 0))
            .starts_with("0/3 nodes are available: persistentvolumeclaim \"data\" not found. no new claims to deallocate, preemption: ")
    );
}

#[test]
fn the_emptier_node_wins_and_preferences_outweigh_it() {
    let mut snapshot = three_nodes();
    for name in ["node-a", "node-b"] {
        snapshot.place(Arc::new(PodInfo::new(pod(&format!("on-{name}"), "2"))), name);
    }
    assert_eq!(chosen(decide(&snapshot, requests("1"), 7)), "node-c");
    let mut fields = requests("1");
    fields["spec"]["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}]}}]}});
    assert_eq!(chosen(decide(&snapshot, fields, 7)), "node-b");
}

#[test]
fn equal_nodes_are_chosen_by_the_seed_alone_and_evenly() {
    let snapshot = three_nodes();
    let mut counts = BTreeMap::new();
    for seed in 0..300 {
        let node = chosen(decide(&snapshot, requests("1"), seed));
        assert_eq!(node, chosen(decide(&snapshot, requests("1"), seed)));
        *counts.entry(node).or_insert(0) += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 60), "{counts:?}");
}

fn spread(action: &str, index: usize) -> Value {
    json!({
        "metadata": {"name": format!("web-{index}"), "labels": {"app": "web"}},
        "spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": action, "labelSelector": {"matchLabels": {"app": "web"}}}]}
    })
}

fn place_many(
    snapshot: &mut Snapshot,
    count: usize,
    make: impl Fn(usize) -> Value,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for index in 0..count {
        let fields = make(index);
        let node = chosen(decide(snapshot, fields.clone(), index as u64));
        snapshot.place(Arc::new(PodInfo::new(pod_from(fields))), &node);
        *counts.entry(node).or_insert(0) += 1;
    }
    counts
}

#[test]
fn hard_and_soft_spread_keep_zones_even() {
    for action in ["DoNotSchedule", "ScheduleAnyway"] {
        let counts = place_many(&mut three_nodes(), 9, |index| spread(action, index));
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{action}");
    }
}

#[test]
fn hard_spread_refuses_when_the_emptiest_zone_cannot_take_more() {
    let mut snapshot = three_nodes();
    place_many(&mut snapshot, 3, |index| spread("DoNotSchedule", index));
    snapshot.set_node(node_from(
        "node-a",
        json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}, "spec": {"unschedulable": true}}),
    ));
    place_many(&mut snapshot, 2, |index| spread("DoNotSchedule", index + 3));
    assert!(refusal(decide(&snapshot, spread("DoNotSchedule", 9), 0)).starts_with(
        "0/3 nodes are available: 1 node(s) were unschedulable, \
         2 node(s) didn't match pod topology spread constraints."
    ));
}

#[test]
fn replicas_without_constraints_are_spread_by_default() {
    let mut snapshot = three_nodes();
    snapshot.selectors.set_service("default", "web", BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    let counts = place_many(
        &mut snapshot,
        6,
        |index| json!({"metadata": {"name": format!("web-{index}"), "labels": {"app": "web"}}}),
    );
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn large_clusters_are_sampled_and_searched_in_turn() {
    assert_eq!(nodes_to_find(99, None), 99);
    assert_eq!(nodes_to_find(1000, None), 420);
    assert_eq!(nodes_to_find(6000, None), 300);
    assert_eq!(nodes_to_find(1000, Some(100)), 1000);
    assert_eq!(nodes_to_find(1000, Some(1)), 100);
    let mut snapshot = Snapshot::default();
    for index in 0..1000 {
        snapshot.set_node(node(&format!("node-{index}"), "4", &format!("zone-{}", index % 3)));
    }
    let pod = PodToSchedule::new(pod("web", "1"));
    let profile = Profile::new("default-scheduler");
    let turn = Turn { seed: 1, start: 0 };
    let Decision::Assigned(assignment) = schedule(&profile, &pod, &snapshot, turn) else { panic!("no node") };
    assert_eq!((assignment.evaluated, assignment.feasible), (420, 420));
    assert_eq!(next_start(turn, assignment.evaluated, 1000), 420);
    assert_eq!(next_start(Turn { seed: 1, start: 840 }, 420, 1000), 260);
}
