//! Cascades on a small graph: Deployment `d`, ReplicaSet `r`, pods.

use std::sync::Arc;

use super::graph::Work;
use super::*;
use crate::action::{DEPLOYMENTS, NODES, PODS, REPLICA_SETS, ResourceId};
use crate::object_meta::seconds;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn meta(uid: &str, owners: &[&str]) -> ObjectMeta {
    let owner = |uid: &&str| OwnerReference {
        api_version: "apps/v1".into(),
        kind: "ReplicaSet".into(),
        name: (*uid).into(),
        uid: (*uid).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    ObjectMeta {
        name: Some(uid.into()),
        namespace: Some("default".into()),
        uid: Some(uid.into()),
        resource_version: Some("1".into()),
        owner_references: Some(owners.iter().map(owner).collect()),
        ..Default::default()
    }
}

fn deleting(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
    meta.deletion_timestamp = Some(seconds(jiff::Timestamp::UNIX_EPOCH));
    meta.finalizers = Some(vec![finalizer.to_owned()]);
    meta
}

fn see(graph: &mut Graph, resource: &ResourceId, meta: &ObjectMeta) -> Vec<Work> {
    graph.observe(&Arc::new(resource.clone()), meta)
}

fn family() -> Graph {
    let mut graph = Graph::default();
    see(&mut graph, &DEPLOYMENTS, &meta("d", &[]));
    see(&mut graph, &REPLICA_SETS, &meta("r", &["d"]));
    see(&mut graph, &PODS, &meta("p", &["r"]));
    graph
}

fn none() -> HashSet<String> {
    HashSet::new()
}

fn propagation(decision: &Decision) -> Option<Propagation> {
    match decision {
        Decision::Act(actions) => match &actions[..] {
            [Action::Delete { propagation, .. }] => *propagation,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn objects_with_a_live_owner_stay() {
    let graph = family();
    for uid in ["d", "r", "p"] {
        assert_eq!(decide(&graph, uid, &none()), Decision::Nothing);
    }
}

#[test]
fn dependents_of_a_gone_owner_go_after_a_look_at_the_server() {
    let mut graph = family();
    assert_eq!(graph.forget("d"), [Work::Decide("r".into())]);
    assert!(matches!(decide(&graph, "r", &none()), Decision::CheckOwners(owners) if owners[0].uid == "d"));
    let absent = HashSet::from(["d".to_owned()]);
    assert_eq!(propagation(&decide(&graph, "r", &absent)), Some(Propagation::Background));
}

#[test]
fn foreground_deletion_waits_for_the_lowest_dependents() {
    let mut graph = family();
    let work = see(&mut graph, &DEPLOYMENTS, &deleting(meta("d", &[]), FOREGROUND));
    assert_eq!(work, [Work::Decide("d".into())]);
    assert_eq!(decide(&graph, "d", &none()), Decision::Dependents(vec!["r".into()]));
    // r has dependents itself: it goes foreground as well.
    assert_eq!(propagation(&decide(&graph, "r", &none())), Some(Propagation::Foreground));
    see(&mut graph, &REPLICA_SETS, &deleting(meta("r", &["d"]), FOREGROUND));
    assert_eq!(decide(&graph, "d", &none()), Decision::Nothing, "r is on its way");
    assert_eq!(decide(&graph, "r", &none()), Decision::Dependents(vec!["p".into()]));
    assert_eq!(propagation(&decide(&graph, "p", &none())), Some(Propagation::Background));
    assert_eq!(graph.forget("p"), [Work::Decide("r".into())]);
    let Decision::Act(actions) = decide(&graph, "r", &none()) else { panic!("must let go") };
    let [Action::Patch { patch, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(patch["metadata"].get("finalizers"), Some(&serde_json::Value::Null));
    assert_eq!(graph.forget("r"), [Work::Decide("d".into())]);
    assert!(matches!(decide(&graph, "d", &none()), Decision::Act(_)));
}

#[test]
fn a_dependent_that_does_not_block_is_not_waited_for() {
    let mut graph = Graph::default();
    see(&mut graph, &DEPLOYMENTS, &deleting(meta("d", &[]), FOREGROUND));
    let mut free = meta("r", &["d"]);
    free.owner_references.iter_mut().flatten().for_each(|owner| owner.block_owner_deletion = None);
    see(&mut graph, &REPLICA_SETS, &free);
    let Decision::Act(actions) = decide(&graph, "d", &none()) else { panic!("must let go") };
    assert!(matches!(&actions[..], [Action::Patch { .. }]));
}

#[test]
fn orphaning_lets_go_of_dependents_then_of_the_owner() {
    let mut graph = family();
    let work = see(&mut graph, &DEPLOYMENTS, &deleting(meta("d", &[]), ORPHAN));
    assert_eq!(work, [Work::Orphan("d".into())]);
    let actions = orphan(&graph, "d");
    let [Action::Patch { target: first, patch, .. }, Action::Patch { target: last, .. }] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((first.name.as_str(), last.name.as_str()), ("r", "d"));
    assert_eq!(patch["metadata"].get("ownerReferences"), Some(&serde_json::Value::Null));
}

#[test]
fn one_live_owner_of_two_keeps_an_object_and_the_other_is_dropped() {
    let mut graph = Graph::default();
    see(&mut graph, &REPLICA_SETS, &meta("a", &[]));
    see(&mut graph, &PODS, &meta("p", &["a", "b"]));
    let absent = HashSet::from(["b".to_owned()]);
    let Decision::Act(actions) = decide(&graph, "p", &absent) else { panic!("must patch") };
    let [Action::Patch { patch, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(patch["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_owner_only_heard_of_is_virtual_until_it_is_seen() {
    let mut graph = Graph::default();
    let work = see(&mut graph, &PODS, &meta("p", &["r"]));
    assert_eq!(work, [Work::Decide("r".into()), Work::Decide("p".into())]);
    assert_eq!(decide(&graph, "r", &none()), Decision::CheckExists);
    assert!(matches!(decide(&graph, "p", &none()), Decision::CheckOwners(_)));
    see(&mut graph, &REPLICA_SETS, &meta("r", &[]));
    assert_eq!(decide(&graph, "p", &none()), Decision::Nothing);
    // and it goes with its last dependent
    let mut other = Graph::default();
    see(&mut other, &PODS, &meta("p", &["r"]));
    other.forget("p");
    assert!(other.is_empty());
}

#[test]
fn an_owner_in_another_namespace_owns_nothing() {
    let mut graph = Graph::default();
    let mut far = meta("r", &[]);
    far.namespace = Some("other".into());
    see(&mut graph, &REPLICA_SETS, &far);
    see(&mut graph, &PODS, &meta("p", &["r"]));
    assert!(
        matches!(decide(&graph, "p", &none()), Decision::CheckOwners(_)),
        "looked for in default, where it is not"
    );
    let mut node = meta("n", &[]);
    node.namespace = None;
    see(&mut graph, &NODES, &node);
    see(&mut graph, &PODS, &meta("q", &["n"]));
    assert_eq!(decide(&graph, "q", &none()), Decision::Nothing, "a cluster-scoped owner may");
}

#[test]
fn owners_that_wait_for_each_other_are_untied() {
    let mut graph = Graph::default();
    see(&mut graph, &REPLICA_SETS, &deleting(meta("a", &["b"]), FOREGROUND));
    see(&mut graph, &REPLICA_SETS, &meta("b", &["a"]));
    let Decision::Act(actions) = decide(&graph, "b", &none()) else { panic!("must untie") };
    let [Action::Patch { patch, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(patch["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], false);
}
