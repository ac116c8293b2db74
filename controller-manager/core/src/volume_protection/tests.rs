//! Tables of claims, volumes and pods.

use serde_json::Value;

use super::*;

fn claim(metadata: Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({ "metadata": metadata })).expect("a claim")
}

fn pod(metadata: Value, node: &str, volume: Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": metadata, "spec": {"nodeName": node, "containers": [], "volumes": [volume]}}),
    )
    .expect("a pod")
}

#[test]
fn finalizers_come_and_go() {
    let of = |metadata: Value| claim_step(&claim(metadata));
    let finalizers = |step: Step| match step {
        Step::Protect(Action::Patch { patch, .. }) => ("protect", patch["metadata"]["finalizers"].clone()),
        Step::ReleaseIfUnused(Action::Patch { patch, .. }) => {
            ("release", patch["metadata"]["finalizers"].clone())
        }
        _ => ("nothing", Value::Null),
    };
    let gone = "2024-01-01T00:00:00Z";
    assert_eq!(finalizers(of(json!({"name": "a"}))), ("protect", json!([OF_CLAIMS])));
    assert_eq!(finalizers(of(json!({"finalizers": ["x", OF_CLAIMS]}))), ("nothing", Value::Null));
    assert_eq!(
        finalizers(of(json!({"finalizers": ["x", OF_CLAIMS], "deletionTimestamp": gone}))),
        ("release", json!(["x"]))
    );
    assert_eq!(
        finalizers(of(json!({"finalizers": [OF_CLAIMS], "deletionTimestamp": gone}))),
        ("release", Value::Null)
    );
    assert_eq!(
        finalizers(of(json!({"finalizers": ["x"], "deletionTimestamp": gone}))),
        ("nothing", Value::Null)
    );
    let bound: PersistentVolume =
        serde_json::from_value(json!({"metadata": {}, "status": {"phase": "Bound"}})).expect("a volume");
    assert!(is_volume_used(&bound));
    assert!(matches!(volume_step(&bound), Step::Protect(_)));
}

#[test]
fn pods_on_nodes_use_their_claims() {
    let mine = claim(json!({"name": "data", "namespace": "n"}));
    let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    let at = json!({"name": "p", "namespace": "n", "uid": "u"});
    assert!(uses(&pod(at.clone(), "node", named.clone()), &mine));
    assert!(!uses(&pod(at.clone(), "", named.clone()), &mine));
    assert!(!uses(&pod(json!({"name": "p", "namespace": "m"}), "node", named), &mine));
    let made = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
    let owned = claim(json!({"name": "p-v", "namespace": "n", "ownerReferences": owner}));
    assert_eq!(claims_of(&pod(at.clone(), "node", made.clone())), ["p-v"]);
    assert!(uses(&pod(at.clone(), "node", made.clone()), &owned));
    assert!(!uses(&pod(at, "node", made.clone()), &claim(json!({"name": "p-v", "namespace": "n"}))));
    let done = json!({"name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
    assert!(!uses(&pod(done, "node", made), &owned));
}
