//! Which nodes pod affinity and anti-affinity leave, and which they prefer.

use serde_json::{Value, json};

use crate::pod_info::{PodInfo, PodToSchedule};
use crate::profile::Profile;
use crate::schedule::{Decision, Turn, schedule};
use crate::snapshot::Snapshot;
use crate::testing::{merge, node, node_from, pod_from};
use std::sync::Arc;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Zones: a with a1 and a2, b with b1; bare has none.
fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        snapshot.set_node(node(name, "4", zone));
    }
    snapshot.set_node(node_from("bare", json!({})));
    snapshot.set_namespace("default", [("team".to_owned(), "red".to_owned())].into());
    snapshot.set_namespace("other", [("team".to_owned(), "blue".to_owned())].into());
    snapshot
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn pod(name: &str, app: &str, affinity: Value) -> PodInfo {
    PodInfo::new(pod_from(json!({
        "metadata": {"name": name, "labels": {"app": app}}, "spec": {"affinity": affinity},
    })))
}

fn near(terms: Value) -> Value {
    json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

fn apart(terms: Value) -> Value {
    json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

/// The nodes that may be chosen, or the refusal.
fn choices(snapshot: &Snapshot, info: &PodInfo) -> Result<Vec<String>, String> {
    let pod = PodToSchedule::new(Arc::clone(&info.pod));
    let mut nodes = std::collections::BTreeSet::new();
    for seed in 0..64 {
        match schedule(&Profile::new("default-scheduler"), &pod, snapshot, Turn { seed, start: 0 }) {
            Decision::Assigned(assignment) => nodes.insert(assignment.node.to_string()),
            Decision::Failed(error) => return Err(error),
            Decision::Unschedulable(error, _) => {
                let text = error.to_string();
                return Err(text.split(" no new claims").next().unwrap_or_default().to_owned());
            }
        };
    }
    Ok(nodes.into_iter().collect())
}

fn place(snapshot: &mut Snapshot, node: &str, info: PodInfo) {
    snapshot.place(Arc::new(info), node);
}

#[test]
fn required_affinity_follows_pods_into_their_domain() {
    let mut snapshot = cluster();
    place(&mut snapshot, "a1", pod("db", "db", Value::Null));
    let web = |key| choices(&snapshot, &pod("web", "web", near(json!([term("db", key)]))));
    assert_eq!(web(HOST), Ok(vec!["a1".into()]));
    assert_eq!(web(ZONE), Ok(vec!["a1".into(), "a2".into()]));
    // All terms have to hold for the same pod.
    let both = near(json!([term("db", HOST), term("cache", HOST)]));
    assert_eq!(
        choices(&snapshot, &pod("web", "web", both)),
        Err("0/4 nodes are available: 4 node(s) didn't match pod affinity rules.".into())
    );
}

#[test]
fn the_first_of_a_group_that_wants_to_be_near_itself_may_start_in_any_domain() {
    let mut snapshot = cluster();
    let web = |name: &str| pod(name, "web", near(json!([term("web", ZONE)])));
    assert_eq!(choices(&snapshot, &web("one")), Ok(vec!["a1".into(), "a2".into(), "b1".into()]));
    place(&mut snapshot, "b1", web("one"));
    assert_eq!(choices(&snapshot, &web("two")), Ok(vec!["b1".into()]));
    assert!(choices(&cluster(), &pod("lone", "x", near(json!([term("web", ZONE)])))).is_err());
}

#[test]
fn anti_affinity_works_in_both_directions() {
    let mut snapshot = cluster();
    place(&mut snapshot, "a1", pod("db", "db", Value::Null));
    let web = pod("web", "web", apart(json!([term("db", ZONE)])));
    assert_eq!(choices(&snapshot, &web), Ok(vec!["b1".into(), "bare".into()]));
    // The other way round: who is there minds, the newcomer does not.
    place(&mut snapshot, "b1", pod("loner", "loner", apart(json!([term("web", ZONE)]))));
    let plain = pod("plain", "web", Value::Null);
    assert!(!choices(&snapshot, &plain).expect("fits").contains(&"b1".to_owned()));
    for name in ["a1", "a2", "bare"] {
        place(&mut snapshot, name, pod(&format!("loner-{name}"), "loner", apart(json!([term("web", HOST)]))));
    }
    assert_eq!(
        choices(&snapshot, &plain),
        Err("0/4 nodes are available: 4 node(s) didn't satisfy existing pods anti-affinity rules.".into())
    );
    assert!(snapshot.remove_pod("uid-loner-a2"));
    assert_eq!(choices(&snapshot, &plain), Ok(vec!["a2".into()]));
}

#[test]
fn a_term_is_about_its_namespaces() {
    let mut snapshot = cluster();
    let elsewhere =
        pod_from(json!({"metadata": {"name": "db", "namespace": "other", "labels": {"app": "db"}}}));
    place(&mut snapshot, "a1", PodInfo::new(elsewhere));
    for (extra, found) in [
        (json!({}), false),
        (json!({"namespaces": ["other"]}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "red"}}}), false),
        (json!({"namespaceSelector": {}}), true),
        (json!({"namespaces": ["other"], "namespaceSelector": {"matchLabels": {"team": "red"}}}), true),
    ] {
        let mut terms = json!([term("db", HOST)]);
        merge(&mut terms[0], extra.clone());
        let outcome = choices(&snapshot, &pod("web", "web", near(terms)));
        assert_eq!(outcome == Ok(vec!["a1".into()]), found, "{extra} {outcome:?}");
    }
}

#[test]
fn match_label_keys_narrow_a_term_to_the_pods_of_one_revision() {
    let mut snapshot = cluster();
    let revision = |name: &str, hash: &str, keys: &str| {
        let mut terms = json!([term("web", HOST)]);
        terms[0][keys] = json!(["hash"]);
        PodInfo::new(pod_from(json!({
            "metadata": {"name": name, "labels": {"app": "web", "hash": hash}}, "spec": {"affinity": apart(terms)},
        })))
    };
    for name in ["a1", "a2", "b1"] {
        place(&mut snapshot, name, revision(name, "1", "matchLabelKeys"));
    }
    assert_eq!(choices(&snapshot, &revision("next", "1", "matchLabelKeys")), Ok(vec!["bare".into()]));
    assert_eq!(
        choices(&snapshot, &revision("new", "2", "matchLabelKeys")).map(|nodes| !nodes.is_empty()),
        Ok(true)
    );
    assert_eq!(choices(&snapshot, &revision("new", "2", "mismatchLabelKeys")), Ok(vec!["bare".into()]));
}

#[test]
fn preferences_of_both_sides_are_weighed() {
    let weighted = |kind: &str, app: &str, weight: i64| {
        json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": weight, "podAffinityTerm": term(app, HOST)}]}})
    };
    let mut snapshot = cluster();
    place(&mut snapshot, "a1", pod("db", "db", Value::Null));
    assert_eq!(
        choices(&snapshot, &pod("w", "web", weighted("podAffinity", "db", 10))),
        Ok(vec!["a1".into()])
    );
    let apart = choices(&snapshot, &pod("w", "web", weighted("podAntiAffinity", "db", 10))).expect("fits");
    assert!(!apart.contains(&"a1".to_owned()), "{apart:?}");
    // Pods that are there have wishes too, and what they require counts as a wish.
    place(&mut snapshot, "b1", pod("fan", "fan", weighted("podAffinity", "web", 50)));
    assert_eq!(choices(&snapshot, &pod("w", "web", Value::Null)), Ok(vec!["b1".into()]));
    let mut snapshot = cluster();
    place(&mut snapshot, "b1", pod("web", "web", Value::Null));
    place(&mut snapshot, "b1", pod("bound", "fan", near(json!([term("web", HOST)]))));
    assert_eq!(choices(&snapshot, &pod("w", "web", Value::Null)), Ok(vec!["b1".into()]));
}

#[test]
fn terminating_pods_still_count() {
    let mut snapshot = cluster();
    let going = json!({
        "metadata": {"name": "db", "labels": {"app": "db"}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
    });
    place(&mut snapshot, "a1", PodInfo::new(pod_from(going)));
    let web = pod("web", "web", near(json!([term("db", HOST)])));
    assert_eq!(choices(&snapshot, &web), Ok(vec!["a1".into()]));
}

#[test]
fn a_victim_of_lower_priority_takes_its_anti_affinity_with_it() {
    let mut snapshot = Snapshot::default();
    snapshot.set_node(node("a1", "4", "a"));
    place(&mut snapshot, "a1", pod("loner", "loner", apart(json!([term("web", HOST)]))));
    let urgent =
        pod_from(json!({"metadata": {"name": "u", "labels": {"app": "web"}}, "spec": {"priority": 5}}));
    let urgent = PodToSchedule::new(urgent);
    let decision = schedule(&Profile::new("default-scheduler"), &urgent, &snapshot, Turn::default());
    let Decision::Unschedulable(_, crate::schedule::Relief::Preempt(preemption)) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(preemption.victims[0].name(), "loner");
}
