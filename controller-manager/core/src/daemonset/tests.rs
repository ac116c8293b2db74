//! Tables about nodes and pods, and an update played through under any limits.

use super::*;
use crate::test_objects::pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("valid")
}

fn set(rolling: Value, pod_spec: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": { "name": "agent", "namespace": "default", "uid": "uid-agent", "generation": 1 },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": pod_spec },
        },
    }))
    .expect("set")
}

fn plain(rolling: Value) -> DaemonSet {
    set(rolling, json!({ "containers": [{ "name": "c" }] }))
}

fn node(name: &str, taints: Value) -> Arc<Node> {
    let node =
        json!({ "metadata": { "name": name, "labels": { "host": name } }, "spec": { "taints": taints } });
    Arc::new(serde_json::from_value(node).expect("node"))
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (0..count).map(|n| node(&format!("n{n}"), json!([]))).collect()
}

fn on(node: &str, name: &str, hash: &str, ready: bool) -> Pod {
    let mut pod = pod(name, "Running", ready, node);
    pod.metadata.labels.get_or_insert_default().insert(POD_REVISION.to_owned(), hash.to_owned());
    pod
}

fn decide(set: &DaemonSet, nodes: &[Arc<Node>], pods: Vec<Pod>) -> Plan {
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    Look::new(set, "new", nodes, &pods, at(5_000)).plan(&mut FailedPods::default())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| name(&pod.metadata)).collect()
}

#[test]
fn pods_belong_on_nodes_that_are_demanded_and_tolerated() {
    let taint = |effect: &str| json!([{ "key": "k", "effect": effect }]);
    let cordoned = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
    let unreachable = json!([{ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" }]);
    let both = Belongs { should_run: true, may_stay: true };
    for (taints, expected) in [
        (json!([]), both),
        (cordoned, both),
        (unreachable, both),
        (taint("PreferNoSchedule"), both),
        (taint("NoSchedule"), Belongs { should_run: false, may_stay: true }),
        (taint("NoExecute"), Belongs { should_run: false, may_stay: false }),
    ] {
        assert_eq!(Placement::new(&plain(json!({}))).on(&node("n", taints.clone())), expected, "{taints}");
    }
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "host", "operator": "In", "values": ["n1"] }] }] } } });
    for spec in [
        json!({ "containers": [], "nodeSelector": { "host": "n1" } }),
        json!({ "containers": [], "affinity": affinity }),
        json!({ "containers": [], "nodeName": "n1" }),
    ] {
        let plan = decide(&set(json!({}), spec.clone()), &nodes(3), vec![]);
        assert_eq!(plan.create, ["n1"], "{spec}");
    }
}

#[test]
fn a_pod_is_meant_for_its_node_before_it_is_bound() {
    let set = plain(json!({}));
    let template = &set.spec.as_ref().expect("spec").template;
    let made = placement::pod_for(&set, template, "new", "n1");
    assert_eq!(made["metadata"]["labels"][POD_REVISION], "new");
    assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(6));
    let made: Pod = serde_json::from_value(made).expect("pod");
    assert_eq!(target_node(&made), Some("n1"));
    assert_eq!(decide(&set, &nodes(2), vec![made.clone()]).create, ["n0"]);
    assert_eq!(decide(&set, &nodes(1), vec![made]).delete.len(), 1, "its node is gone");
}

#[test]
fn surplus_and_ended_pods_go() {
    let set = plain(json!({}));
    let mut young = on("n0", "young", "new", true);
    young.metadata.creation_timestamp = Some(Time(at(99)));
    let plan = decide(&set, &nodes(1), vec![young, on("n0", "old", "new", true)]);
    assert_eq!(names(&plan.delete), ["young"]);
    for (phase, reason) in [("Failed", "FailedDaemonPod"), ("Succeeded", "SucceededDaemonPod")] {
        let mut ended = on("n0", "ended", "new", false);
        ended.status.get_or_insert_default().phase = Some(phase.into());
        let plan = decide(&set, &nodes(1), vec![ended]);
        assert_eq!(names(&plan.delete), ["ended"]);
        assert!(matches!(&plan.events[0], Action::Event { reason: told, .. } if *told == reason));
    }
}

#[test]
fn the_status_counts_nodes_and_their_oldest_pods() {
    let set = plain(json!({}));
    let mut all = nodes(3);
    all.push(node("n3", json!([{ "key": "k", "effect": "NoSchedule" }])));
    let pods: Vec<_> = [on("n0", "a", "new", true), on("n1", "b", "old", false), on("n3", "c", "new", true)]
        .map(Arc::new)
        .into();
    let look = Look::new(&set, "new", &all, &pods, at(5_000));
    let status = look.status(true);
    assert_eq!(
        (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled),
        (3, 2, 1)
    );
    assert_eq!(
        (status.number_ready, status.number_available, status.number_unavailable),
        (1, Some(1), Some(2))
    );
    assert_eq!((status.updated_number_scheduled, status.observed_generation), (Some(1), Some(1)));
    assert_eq!(look.status(false).observed_generation, None);
}

#[test]
fn revisions_beyond_the_limit_go_unless_a_pod_has_them() {
    let mut set = plain(json!({}));
    if let Some(spec) = &mut set.spec {
        spec.revision_history_limit = Some(1);
    }
    let revision = |hash: &str, number: i64| {
        let labels = [(POD_REVISION.to_owned(), hash.to_owned())].into();
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(format!("agent-{hash}")),
            labels: Some(labels),
            ..Default::default()
        };
        Arc::new(ControllerRevision { metadata, data: None, revision: number })
    };
    let all = [revision("a", 1), revision("b", 2), revision("c", 3), revision("new", 4)];
    let pods = [Arc::new(on("n0", "p", "a", true))];
    let gone = forget_revisions(&set, "agent-new", &all, &pods);
    let targets: Vec<_> = gone
        .iter()
        .map(|action| match action {
            Action::Delete { target, .. } => target.name.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(targets, ["agent-b", "agent-c"]);
}

proptest! {
    /// Pods become ready in any order and nodes are any number: an update ends, and on the way neither more pods are
    /// unavailable nor more are there than the limits say.
    #[test]
    fn an_update_keeps_its_limits_and_ends(
        count in 1usize..8,
        unavailable in 1usize..4,
        surge in 0usize..4,
        picks in prop::collection::vec(0usize..8, 200),
    ) {
        let rolling = if surge > 0 { json!({ "maxSurge": surge, "maxUnavailable": 0 }) } else { json!({ "maxUnavailable": unavailable }) };
        let (set, nodes) = (plain(rolling), nodes(count));
        let mut pods: Vec<Pod> = (0..count).map(|n| on(&format!("n{n}"), &format!("old{n}"), "old", true)).collect();
        let mut born = 0;
        for pick in picks {
            let plan = decide(&set, &nodes, pods.clone());
            pods.retain(|pod| !names(&plan.delete).contains(&name(&pod.metadata)));
            for node in plan.create {
                born += 1;
                pods.push(on(&node, &format!("new{born}"), "new", false));
            }
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let least = if surge > 0 { count } else { count.saturating_sub(unavailable) };
            prop_assert!(ready >= least, "{ready} of {count} ready");
            prop_assert!(pods.len() <= count + surge, "{} pods", pods.len());
            let waiting: Vec<_> = (0..pods.len()).filter(|at| !is_ready(&pods[*at])).collect();
            if let Some(at) = waiting.get(pick % waiting.len().max(1)) {
                let (node, name) = (node_name(&pods[*at]).to_owned(), name(&pods[*at].metadata).to_owned());
                pods[*at] = on(&node, &name, "new", true);
            }
        }
        prop_assert_eq!(pods.len(), count);
        prop_assert!(pods.iter().all(|pod| pod.metadata.labels.as_ref().is_some_and(|labels| labels[POD_REVISION] == "new")));
    }
}
