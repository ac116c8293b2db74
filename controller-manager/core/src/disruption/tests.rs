//! Tables of budgets and pods, and what holds for all of them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::test_objects::pod;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn budget(spec: Value) -> PodDisruptionBudget {
    serde_json::from_value(
        json!({"metadata": {"name": "b", "namespace": "default", "generation": 2, "resourceVersion": "5"},
        "spec": spec}),
    )
    .expect("a budget")
}

fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
    let mut all = Vec::new();
    for index in 0..ready + unready {
        all.push(Arc::new(pod(&format!("p{index}"), "Running", index < ready, "n")));
    }
    all
}

fn status_of(plan: &Plan) -> Value {
    let write = plan.actions.iter().find_map(|action| match action {
        Action::Patch { patch, .. } => Some(patch["status"].clone()),
        _ => None,
    });
    write.expect("a write")
}

fn reasons(plan: &Plan) -> Vec<&str> {
    let reason = |action: &Action| match action {
        Action::Event { reason, .. } => Some(*reason),
        _ => None,
    };
    plan.actions.iter().filter_map(reason).collect()
}

#[test]
fn numbers_follow_the_spec() {
    // spec, ready, unready, scale: expected, desired, allowed
    let cases = [
        (json!({"minAvailable": 2}), 3, 0, 0, (3, 2, 1)),
        (json!({"minAvailable": 2}), 2, 1, 0, (3, 2, 0)),
        (json!({"minAvailable": "50%"}), 3, 0, 5, (5, 3, 0)),
        (json!({"minAvailable": "50%"}), 5, 0, 5, (5, 3, 2)),
        (json!({"maxUnavailable": 1}), 3, 0, 3, (3, 2, 1)),
        (json!({"maxUnavailable": "30%"}), 10, 0, 10, (10, 7, 3)),
        (json!({"maxUnavailable": "25%"}), 2, 0, 2, (2, 1, 1)),
        (json!({"maxUnavailable": 9}), 1, 1, 2, (2, 0, 1)),
        (json!({"minAvailable": 0}), 0, 0, 0, (0, 0, 0)),
        (json!({}), 1, 0, 0, (0, 0, 0)),
    ];
    for (spec, ready, unready, scale, (expected, desired, allowed)) in cases {
        let plan = plan(&budget(spec.clone()), &pods(ready, unready), &Ok(scale), at(9));
        let mut status = budget(json!({})).status.unwrap_or_default();
        let mut merged = serde_json::to_value(&status).expect("JSON");
        merge(&mut merged, &status_of(&plan));
        status = serde_json::from_value(merged).expect("a status");
        assert_eq!(
            (status.expected_pods, status.desired_healthy, status.disruptions_allowed),
            (expected, desired, allowed),
            "{spec}"
        );
        let condition = &status.conditions.expect("conditions")[0];
        let wanted = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        assert_eq!((&*condition.status, &*condition.reason), wanted, "{spec}");
        assert_eq!(status.observed_generation, Some(2));
    }
}

fn merge(into: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

#[test]
fn nothing_is_written_twice() {
    let mut known = budget(json!({"minAvailable": 1}));
    let first = plan(&known, &pods(2, 0), &Ok(0), at(9));
    let mut status = serde_json::to_value(PodDisruptionBudgetStatus::default()).expect("JSON");
    merge(&mut status, &status_of(&first));
    known.status = serde_json::from_value(status).expect("a status");
    assert_eq!(plan(&known, &pods(2, 0), &Ok(0), at(99)).actions, []);
}

#[test]
fn allowed_evictions_count_for_two_minutes() {
    let mut known = budget(json!({"minAvailable": 1}));
    known.status = Some(PodDisruptionBudgetStatus {
        disrupted_pods: Some([("p0".to_owned(), Time(at(100))), ("gone".to_owned(), Time(at(100)))].into()),
        ..Default::default()
    });
    let early = plan(&known, &pods(3, 0), &Ok(0), at(110));
    let status = status_of(&early);
    assert_eq!((&status["currentHealthy"], &status["disruptionsAllowed"]), (&json!(2), &json!(1)));
    assert_eq!(status["disruptedPods"], json!({"gone": null}));
    assert_eq!(early.recheck_at, Some(at(220)));
    let late = plan(&known, &pods(3, 0), &Ok(0), at(220));
    assert_eq!(status_of(&late)["currentHealthy"], 3);
    assert_eq!(status_of(&late)["disruptedPods"], Value::Null);
    assert_eq!((reasons(&late), late.recheck_at), (vec!["NotDeleted"], None));
}

#[test]
fn what_is_unknown_allows_nothing() {
    let mut known = budget(json!({"maxUnavailable": 1}));
    known.status =
        Some(PodDisruptionBudgetStatus { disruptions_allowed: 1, expected_pods: 3, ..Default::default() });
    let failed = plan(&known, &pods(3, 0), &Err("found no controllers for pod \"p0\"".into()), at(9));
    let status = status_of(&failed);
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
    assert_eq!(status.get("expectedPods"), None);
    assert_eq!(reasons(&failed), ["CalculateExpectedPodCountFailed"]);
}

#[test]
fn people_are_told_of_odd_budgets() {
    let selector = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    assert_eq!(reasons(&plan(&budget(selector.clone()), &[], &Ok(0), at(9))), ["NoPods"]);
    let unmanaged = plan(&budget(selector), &pods(1, 0), &Ok(0), at(9));
    assert_eq!(reasons(&unmanaged), ["UnmanagedPods"]);
    let Action::Event { message, .. } = &unmanaged.actions[0] else { panic!("an event") };
    assert!(message.contains(
        "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,},MatchExpressions:[]LabelSelectorRequirement{},})"
    ));
}

#[test]
fn stale_conditions_are_taken_back() {
    let with = |reason: &str, status: &str| {
        let mut pod = pod("p", "Running", true, "n");
        let condition = json!({"type": "DisruptionTarget", "status": status, "reason": reason,
            "lastTransitionTime": at(100).to_string()});
        let conditions =
            pod.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("conditions");
        conditions.push(serde_json::from_value(condition).expect("a condition"));
        pod
    };
    let stale = with("EvictionByEvictionAPI", "True");
    assert_eq!(stale_in(&stale, at(100)).map(|left| left.as_secs()), Some(120));
    assert_eq!(stale_in(&stale, at(500)).map(|left| left.as_secs()), Some(0));
    assert_eq!(stale_in(&with("TerminationByKubelet", "True"), at(500)), None);
    assert_eq!(stale_in(&with("x", "False"), at(500)), None);
    let Action::Patch { patch, subresource: "status", .. } = reset_stale(&stale, at(500)) else {
        panic!("a patch")
    };
    let conditions = patch["status"]["conditions"].as_array().expect("conditions");
    assert_eq!(conditions.len(), 2, "the others stay");
    assert_eq!(conditions[1]["status"], "False");
}

proptest! {
    /// Whatever the spec: what may go leaves as many healthy pods as are wanted.
    #[test]
    fn allowed_disruptions_leave_enough(
        spec in prop_oneof![
            (0..20_i32).prop_map(|n| json!({"minAvailable": n})),
            (0..=100_i32).prop_map(|n| json!({"minAvailable": format!("{n}%")})),
            (0..20_i32).prop_map(|n| json!({"maxUnavailable": n})),
            (0..=100_i32).prop_map(|n| json!({"maxUnavailable": format!("{n}%")})),
        ],
        ready in 0..12_usize, unready in 0..12_usize, scale in 0..24_i32,
    ) {
        let plan = plan(&budget(spec), &pods(ready, unready), &Ok(scale), at(9));
        let mut merged = serde_json::to_value(PodDisruptionBudgetStatus::default()).expect("JSON");
        merge(&mut merged, &status_of(&plan));
        let status: PodDisruptionBudgetStatus = serde_json::from_value(merged).expect("a status");
        prop_assert!(status.disruptions_allowed >= 0);
        prop_assert!(status.disruptions_allowed == 0
            || status.current_healthy - status.disruptions_allowed >= status.desired_healthy);
        prop_assert_eq!(status.current_healthy as usize, ready);
    }
}
