//! Whole decisions in which pods have to make room: which pods, on which node, and when none may.

use serde_json::{Value, json};

use super::*;
use crate::pod_info::PodToSchedule;
use crate::profile::Profile;
use crate::schedule::{Decision, Relief, Turn, schedule};
use crate::snapshot::Snapshot;
use crate::testing::{merge, node, pod_from};

/// A pod as its node, name, priority, CPU and whatever else.
fn pod(name: &str, priority: i32, cpu: &str, extra: Value) -> PodInfo {
    let mut fields = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"startTime": "2026-01-01T00:00:00Z"},
    });
    merge(&mut fields, extra);
    PodInfo::new(pod_from(fields))
}

type Placed = Vec<(&'static str, PodInfo)>;

fn cluster(nodes: &[&str], placed: Placed) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in nodes {
        snapshot.set_node(node(name, "4", name));
    }
    for (on, info) in placed {
        snapshot.place(Arc::new(info), on);
    }
    snapshot
}

fn decide(snapshot: &Snapshot, pod: &PodInfo, seed: u64) -> (String, Relief) {
    let pod = PodToSchedule::new(Arc::clone(&pod.pod));
    match schedule(&Profile::new("default-scheduler"), &pod, snapshot, Turn { seed, start: 0 }) {
        Decision::Assigned(assignment) => panic!("assigned to {}", assignment.node),
        Decision::Unschedulable(error, relief) => (error.to_string(), relief),
        Decision::Failed(error) => panic!("{error}"),
    }
}

/// Node and victims, the same whatever the seed.
fn preempted(snapshot: &Snapshot, pod: &PodInfo) -> (String, Vec<String>) {
    let outcomes: Vec<_> = (0..8)
        .map(|seed| match decide(snapshot, pod, seed) {
            (_, Relief::Preempt(preemption)) => (
                preemption.node.to_string(),
                preemption.victims.iter().map(|victim| victim.name().to_owned()).collect(),
            ),
            (message, relief) => panic!("{message} {relief:?}"),
        })
        .collect();
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    outcomes[0].clone()
}

fn budget(snapshot: &mut Snapshot, app: &str, allowed: i32) {
    let budget = json!({
        "metadata": {"namespace": "default", "name": app}, "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    snapshot.budgets.set(&serde_json::from_value(budget).expect("budget"));
}

#[test]
fn only_as_many_pods_go_as_have_to_the_least_important_ones() {
    let snapshot = cluster(
        &["a"],
        vec![
            ("a", pod("mid", 5, "1", json!({}))),
            ("a", pod("young", 1, "1", json!({"status": {"startTime": "2026-02-01T00:00:00Z"}}))),
            ("a", pod("old", 1, "1", json!({}))),
            ("a", pod("peer", 10, "1", json!({}))),
        ],
    );
    let urgent = pod("urgent", 10, "1", json!({}));
    assert_eq!(preempted(&snapshot, &urgent), ("a".into(), vec!["young".into()]));
    let (message, _) = decide(&snapshot, &urgent, 0);
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    let large = pod("large", 10, "3", json!({}));
    assert_eq!(preempted(&snapshot, &large), ("a".into(), vec!["mid".into(), "old".into(), "young".into()]));
}

#[test]
fn each_rule_of_least_harm_decides_when_those_before_it_are_equal() {
    let at = |time: &str| json!({"status": {"startTime": time}});
    let cases: [(&str, Placed, &str); 4] = [
        (
            "highest priority",
            vec![("a", pod("x", 2, "4", json!({}))), ("b", pod("y", 1, "4", json!({})))],
            "b",
        ),
        (
            "sum of priorities",
            vec![
                ("a", pod("x", 2, "2", json!({}))),
                ("a", pod("w", 1, "2", json!({}))),
                ("b", pod("y", 2, "2", json!({}))),
                ("b", pod("z", 0, "2", json!({}))),
            ],
            "b",
        ),
        (
            "fewest pods",
            vec![
                ("a", pod("x", -5, "2", json!({}))),
                ("a", pod("w", -5, "2", json!({}))),
                ("b", pod("y", -5, "4", json!({}))),
            ],
            "b",
        ),
        (
            "latest start",
            vec![
                ("a", pod("x", 1, "4", at("2026-01-01T00:00:00Z"))),
                ("b", pod("y", 1, "4", at("2026-01-02T00:00:00Z"))),
            ],
            "b",
        ),
    ];
    for (rule, placed, expected) in cases {
        let snapshot = cluster(&["a", "b"], placed);
        assert_eq!(preempted(&snapshot, &pod("urgent", 10, "4", json!({}))).0, expected, "{rule}");
    }
}

#[test]
fn budgets_come_before_priorities() {
    let mut snapshot = cluster(
        &["a", "b"],
        vec![("a", pod("low", 0, "4", json!({}))), ("b", pod("higher", 5, "4", json!({})))],
    );
    budget(&mut snapshot, "low", 0);
    let urgent = pod("urgent", 10, "2", json!({}));
    assert_eq!(preempted(&snapshot, &urgent).0, "b");
    budget(&mut snapshot, "low", 1);
    assert_eq!(preempted(&snapshot, &urgent).0, "a");
    // On one node the pod that a budget protects is kept, though it is less important.
    let mut snapshot = cluster(
        &["a"],
        vec![("a", pod("guarded", 0, "2", json!({}))), ("a", pod("free", 5, "2", json!({})))],
    );
    budget(&mut snapshot, "guarded", 0);
    assert_eq!(preempted(&snapshot, &urgent).1, ["free"]);
}

#[test]
fn who_may_not_preempt_hears_why() {
    let snapshot = cluster(&["a"], vec![("a", pod("low", 0, "4", json!({})))]);
    let never = pod("never", 10, "2", json!({"spec": {"preemptionPolicy": "Never"}}));
    let (message, relief) = decide(&snapshot, &never, 0);
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
         preemption: not eligible due to preemptionPolicy=Never."
    );
    assert!(matches!(relief, Relief::None));
    let (message, relief) = decide(&snapshot, &pod("equal", 0, "2", json!({})), 0);
    assert!(
        message.ends_with(
            "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        )
    );
    assert!(matches!(relief, Relief::WithdrawNomination));
    // Even without its pods the node keeps what is nominated to it.
    let mut snapshot = cluster(&["a"], vec![("a", pod("low", 0, "1", json!({})))]);
    snapshot.nominations.set(Arc::new(pod("first", 20, "3", json!({}))), "a");
    let (message, _) = decide(&snapshot, &pod("second", 10, "2", json!({})), 0);
    assert!(message.ends_with("preemption: 0/1 nodes are available: 1 Insufficient cpu."), "{message}");
}

#[test]
fn while_victims_are_going_no_others_are_taken() {
    let going = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
    });
    let mut snapshot =
        cluster(&["a"], vec![("a", pod("going", 0, "2", going)), ("a", pod("other", 0, "2", json!({})))]);
    let urgent = pod("urgent", 10, "2", json!({}));
    snapshot.nominations.set(Arc::new(pod("urgent", 10, "2", json!({}))), "a");
    let (message, relief) = decide(&snapshot, &urgent, 0);
    assert!(
        message.ends_with("preemption: not eligible due to a terminating pod on the nominated node."),
        "{message}"
    );
    assert!(matches!(relief, Relief::None));
}

#[test]
fn a_nominated_pod_gets_its_node_and_others_find_it_taken() {
    let mut snapshot = cluster(&["a", "b"], vec![("b", pod("low", 0, "1", json!({})))]);
    snapshot.nominations.set(Arc::new(pod("urgent", 10, "2", json!({}))), "b");
    let assigned = |snapshot: &Snapshot, info: &PodInfo| {
        let pod = PodToSchedule::new(Arc::clone(&info.pod));
        match schedule(&Profile::new("default-scheduler"), &pod, snapshot, Turn::default()) {
            Decision::Assigned(assignment) => assignment.node.to_string(),
            Decision::Unschedulable(error, _) => error.to_string(),
            Decision::Failed(error) => panic!("{error}"),
        }
    };
    assert_eq!(assigned(&snapshot, &pod("urgent", 10, "2", json!({}))), "b", "though a is emptier");
    let needs_b = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "b"}}});
    assert!(assigned(&snapshot, &pod("rival", 10, "2", needs_b.clone())).contains("1 Insufficient cpu"));
    assert_eq!(assigned(&snapshot, &pod("higher", 11, "2", needs_b)), "b");
    // Room made for a pod of lower priority is lost to it when one of higher priority takes the node.
    snapshot.place(Arc::new(pod("full", 5, "4", json!({}))), "a");
    snapshot.place(Arc::new(pod("full-too", 5, "3", json!({}))), "b");
    match decide(&snapshot, &pod("top", 20, "4", json!({})), 0) {
        (_, Relief::Preempt(preemption)) if &*preemption.node == "b" => {
            assert_eq!(preemption.outranked[0].name(), "urgent");
        }
        (_, Relief::Preempt(preemption)) => assert_eq!(&*preemption.node, "a"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_that_anti_spreads_is_helped_by_room_in_its_domain() {
    let web = |name: &str, priority: i32| {
        pod(
            name,
            priority,
            "1",
            json!({
                "metadata": {"labels": {"app": "web"}},
                "spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]},
            }),
        )
    };
    // b cannot take the pod, so that a second one on a would be too many unless the first leaves.
    let snapshot = cluster(&["a", "b"], vec![("a", web("one", 0)), ("b", pod("wall", 50, "4", json!({})))]);
    assert_eq!(preempted(&snapshot, &web("two", 10)), ("a".into(), vec!["one".into()]));
}
