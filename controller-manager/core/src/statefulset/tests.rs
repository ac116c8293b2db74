//! Tables of single looks, and sets played through with pods that become ready, fail and vanish in any order.

use std::collections::BTreeMap;

use super::*;
use crate::test_objects::pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use proptest::prelude::*;
use serde_json::Value;

fn set(spec: Value) -> StatefulSet {
    let mut object = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "uid-web", "generation": 1 },
        "spec": { "replicas": 3, "serviceName": "svc", "selector": { "matchLabels": { "app": "web" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c" }] } } },
    });
    for (key, value) in spec.as_object().expect("object") {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("set")
}

fn revision(name: &str) -> ControllerRevision {
    let template = json!({ "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": name }] }, "$patch": "replace" });
    ControllerRevision {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(RawExtension(json!({ "spec": { "template": template } }))),
        revision: 1,
    }
}

fn member(set: &StatefulSet, ordinal: i32, revision: &str, ready: bool) -> Pod {
    let mut pod = pod(&identity::pod_name(set, ordinal), "Running", ready, "n1");
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity::labels(set, ordinal).map(|(key, value)| (key.to_owned(), value)));
    labels.insert(POD_REVISION.to_owned(), revision.to_owned());
    pod
}

fn decide(set: &StatefulSet, pods: Vec<Pod>) -> Plan {
    let (old, new) = (revision("old"), revision("new"));
    let pods = pods.into_iter().map(Arc::new).collect();
    let now = Timestamp::from_second(5_000).expect("valid");
    plan(&Observed { set, current: &old, update: &new, pods, claim: &|_| None, now }).expect("a spec")
}

/// `+name` for each creation and `-name` for each deletion.
fn steps(plan: &Plan) -> Vec<String> {
    let text = |action: &Action| match action {
        Action::Create { object, .. } => Some(format!("+{}", object["metadata"]["name"].as_str()?)),
        Action::Delete { target, .. } => Some(format!("-{}", target.name)),
        _ => None,
    };
    plan.groups.iter().flatten().filter_map(text).collect()
}

#[test]
fn pods_come_in_order_and_go_in_reverse() {
    let ordered = set(json!({}));
    let m = |ordinal, ready| member(&ordered, ordinal, "new", ready);
    for (pods, expected) in [
        (vec![], vec!["+web-0"]),
        (vec![m(0, false)], vec![]),
        (vec![m(0, true)], vec!["+web-1"]),
        (vec![m(1, true)], vec!["+web-0"]),
        (vec![m(0, true), m(1, true), m(2, true), m(3, true), m(4, true)], vec!["-web-4"]),
        (vec![m(0, true), m(1, false), m(2, true), m(3, true)], vec![]),
        (vec![m(0, true), m(1, true), m(2, true), m(3, false), m(4, true)], vec!["-web-4"]),
        (vec![m(0, true), m(1, true), m(2, true), m(3, true), m(4, false)], vec!["-web-4"]),
        (vec![m(0, true), m(1, true), m(2, true), m(3, false), m(4, false)], vec![]),
    ] {
        let shown: Vec<_> = pods.iter().map(|pod| (name(&pod.metadata).to_owned(), is_ready(pod))).collect();
        assert_eq!(steps(&decide(&ordered, pods)), expected, "{shown:?}");
    }
    let parallel = set(json!({ "podManagementPolicy": "Parallel" }));
    let plan =
        decide(&parallel, vec![member(&parallel, 1, "new", false), member(&parallel, 4, "new", false)]);
    assert!(plan.parallel);
    assert_eq!(steps(&plan), ["+web-0", "+web-2", "-web-4"]);
}

#[test]
fn a_pod_has_its_identity_and_claims_come_before_it() {
    let set = set(
        json!({ "ordinals": { "start": 5 }, "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }] }),
    );
    let plan = decide(&set, vec![]);
    assert_eq!(steps(&plan), ["+data-web-5", "+web-5"]);
    let Action::Create { object, .. } = &plan.groups[0][1] else { panic!("{plan:?}") };
    assert_eq!(object["metadata"]["generateName"], "web-");
    assert_eq!(
        object["metadata"]["labels"],
        json!({ "app": "web", POD_REVISION: "new",
        identity::POD_NAME: "web-5", identity::POD_INDEX: "5" })
    );
    assert_eq!((&object["spec"]["hostname"], &object["spec"]["subdomain"]), (&json!("web-5"), &json!("svc")));
    assert_eq!(object["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-web-5");
    assert_eq!(object["spec"]["containers"][0]["image"], "new");
}

#[test]
fn an_ended_pod_is_deleted_and_made_anew_only_when_it_is_gone() {
    let set = set(json!({}));
    let mut ended = member(&set, 0, "new", false);
    ended.status.get_or_insert_default().phase = Some("Failed".into());
    assert_eq!(steps(&decide(&set, vec![ended.clone()])), ["-web-0"]);
    ended.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(steps(&decide(&set, vec![ended])), Vec::<String>::new());
}

#[test]
fn updates_go_down_to_the_partition_one_at_a_time_or_more() {
    let m = |ordinal, revision: &str, ready| member(&set(json!({})), ordinal, revision, ready);
    let all_old = || vec![m(0, "old", true), m(1, "old", true), m(2, "old", true)];
    let rolling =
        |value: Value| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": value } });
    for (spec, pods, expected) in [
        (json!({}), all_old(), vec!["-web-2"]),
        (json!({}), vec![m(0, "old", true), m(1, "old", true), m(2, "new", true)], vec!["-web-1"]),
        (json!({}), vec![m(0, "old", true), m(1, "old", true), m(2, "new", false)], vec![]),
        (rolling(json!({ "partition": 2 })), all_old(), vec!["-web-2"]),
        (rolling(json!({ "partition": 3 })), all_old(), vec![]),
        (rolling(json!({ "maxUnavailable": 2 })), all_old(), vec!["-web-2", "-web-1"]),
        (json!({ "updateStrategy": { "type": "OnDelete" } }), all_old(), vec![]),
    ] {
        assert_eq!(steps(&decide(&set(spec.clone()), pods)), expected, "{spec}");
    }
    let below = set(rolling(json!({ "partition": 1 })));
    let plan = decide(&below, vec![m(1, "new", true), m(2, "new", true)]);
    let Action::Create { object, .. } = &plan.groups[0][0] else { panic!("{plan:?}") };
    assert_eq!(object["metadata"]["labels"][POD_REVISION], "old", "below the partition");
}

#[test]
fn min_ready_seconds_hold_the_next_pod_back() {
    let set = set(json!({ "minReadySeconds": 4_100 }));
    // test pods are ready since second 1,000, and it is second 5,000
    let plan = decide(&set, vec![member(&set, 0, "new", true)]);
    assert_eq!((steps(&plan).len(), plan.requeue_after), (0, Some(Duration::from_secs(100))));
    assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (Some(1), Some(0)));
}

#[test]
fn the_status_completes_an_update() {
    let set = set(json!({}));
    let m = |ordinal, revision: &str| member(&set, ordinal, revision, true);
    let status = decide(&set, vec![m(0, "old"), m(1, "new"), m(2, "new")]).status;
    assert_eq!(
        (status.updated_replicas, status.current_replicas),
        (Some(2), None),
        "web-0 is being replaced"
    );
    assert_eq!(status.current_revision.as_deref(), Some("old"));
    let status = decide(&set, vec![m(0, "new"), m(1, "new"), m(2, "new")]).status;
    assert_eq!((status.current_revision.as_deref(), status.current_replicas), (Some("new"), Some(3)));
    assert_eq!(status.observed_generation, Some(1));
}

proptest! {
    /// Looks may be at old copies of the pods. Whatever happens to them, an ordered set has at most one pod that is not
    /// available in an update, never two of one identity, and ends with all pods new.
    #[test]
    fn an_ordered_update_ends_whatever_happens(
        picks in prop::collection::vec((0usize..6, 0i32..3, any::<bool>()), 100),
        parallel in any::<bool>(),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let set = set(json!({ "podManagementPolicy": policy }));
        let mut pods: BTreeMap<i32, Pod> = (0..3).map(|n| (n, member(&set, n, "old", true))).collect();
        let mut seen = pods.clone();
        let settle = (0..40).map(|n| ([4, 5, 0][n % 3], i32::try_from(n % 7 % 3).unwrap_or(0), true));
        let settle = settle.flat_map(|pick| [(4, pick.1, true), (5, 0, true), (0, 0, true), (0, 1, true), (0, 2, true)]);
        for (what, ordinal, well) in picks.into_iter().chain(settle) {
            match what {
                // a pod becomes ready, or ends
                0 | 1 => {
                    if let Some(pod) = pods.get_mut(&ordinal).filter(|pod| !is_ready(pod) && !is_terminating(pod)) {
                        let mut next = member(&set, ordinal, revision_of(pod), well);
                        next.metadata.uid = pod.metadata.uid.clone();
                        if !well {
                            next.status.get_or_insert_default().phase = Some("Failed".into());
                        }
                        *pod = next;
                    }
                }
                // what is going is gone
                2 | 4 => pods.retain(|_, pod| !is_terminating(pod)),
                3 => seen = pods.clone(),
                _ => {
                    if well {
                        seen = pods.clone();
                    }
                    let plan = decide(&set, seen.values().cloned().collect());
                    for action in plan.groups.iter().flatten() {
                        match action {
                            Action::Create { object, .. } => {
                                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                                let ordinal = identity::ordinal_in("web", name).expect("an ordinal");
                                // The server has one pod of a name.
                                let revision = object["metadata"]["labels"][POD_REVISION].as_str().unwrap_or_default();
                                let born = pods.len() + ordinal as usize * 1_000 + usize::from(well);
                                pods.entry(ordinal).or_insert_with(|| {
                                    let mut pod = member(&set, ordinal, revision, false);
                                    pod.metadata.uid = Some(format!("{name}-{born}-{revision}"));
                                    pod
                                });
                            }
                            Action::Delete { target, uid, .. } => {
                                let ordinal = identity::ordinal_in("web", &target.name).expect("an ordinal");
                                if let Some(pod) = pods.get_mut(&ordinal).filter(|pod| pod.metadata.uid == *uid) {
                                    pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                                }
                            }
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                }
            }
        }
        prop_assert_eq!(pods.len(), 3);
        prop_assert!(pods.values().all(|pod| revision_of(pod) == "new" && is_ready(pod)), "{:?}", pods.values().map(|pod| (name(&pod.metadata), revision_of(pod), phase(pod))).collect::<Vec<_>>());
    }
}
