//! Tables of claims that ask for more.

use serde_json::Value;

use super::*;

fn claim(wants: &str, has: &str, annotations: Value) -> PersistentVolumeClaim {
    serde_json::from_value(
        json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": annotations},
        "spec": {"volumeName": "v", "resources": {"requests": {"storage": wants}}},
        "status": {"phase": "Bound", "capacity": {"storage": has}}}),
    )
    .expect("a claim")
}

fn volume(of: &str, source: Value, annotations: Value) -> PersistentVolume {
    let mut object = json!({"metadata": {"name": "v", "annotations": annotations},
        "spec": {"claimRef": {"name": "c", "namespace": "n", "uid": of}}});
    for (key, value) in source.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("a volume")
}

fn said(actions: &[Action]) -> Vec<(bool, String)> {
    let events = actions.iter().filter_map(|action| match action {
        Action::Event { warning, message, reason: "ExternalExpanding", .. } => {
            Some((*warning, message.clone()))
        }
        _ => None,
    });
    events.collect()
}

#[test]
fn who_makes_a_volume_larger_is_told() {
    let csi = || volume("u", json!({"csi": {"driver": "x.io", "volumeHandle": "h"}}), json!({}));
    let waiting = "waiting for an external controller to expand this PVC".to_owned();
    let more = claim("2Gi", "1Gi", json!({}));
    assert_eq!(plan(&claim("1Gi", "1Gi", json!({})), &csi()), Ok(vec![]));
    assert_eq!(plan(&more, &csi()).map(|all| said(&all)), Ok(vec![(false, waiting.clone())]));
    let nfs = volume("u", json!({"nfs": {"server": "s", "path": "/"}}), json!({}));
    assert_eq!(plan(&more, &nfs).map(|all| said(&all)), Ok(vec![(true, waiting.clone())]));
    assert_eq!(plan(&more, &volume("other", json!({}), json!({}))), Err(NotBound));
    let growing =
        volume("u", json!({"csi": {"driver": "x.io", "volumeHandle": "h"}}), json!({PRE_RESIZE: "1Gi"}));
    let enough = claim("2Gi", "2Gi", json!({}));
    assert_eq!(plan(&enough, &growing).map(|all| said(&all)), Ok(vec![(false, waiting)]));
}

#[test]
fn a_former_plugins_volume_is_its_drivers() {
    let disk = volume("u", json!({"awsElasticBlockStore": {"volumeID": "vol-1"}}), json!({}));
    let actions = plan(&claim("2Gi", "1Gi", json!({})), &disk).expect("a plan");
    let text =
        "CSI migration enabled for kubernetes.io/aws-ebs; waiting for external resizer to expand the pvc";
    assert_eq!(said(&actions), [(false, text.to_owned())]);
    let Action::Patch { subresource: "status", patch, .. } = &actions[1] else { panic!("a write") };
    assert_eq!(patch["metadata"]["annotations"], json!({RESIZER: "ebs.csi.aws.com"}));
    let told = plan(&claim("2Gi", "1Gi", json!({RESIZER: "ebs.csi.aws.com"})), &disk).expect("a plan");
    assert_eq!(told.len(), 1);
}

#[test]
fn only_growth_needs_a_look() {
    let of = |wants, has| claim(wants, has, json!({}));
    assert!(matters(None, &of("1Gi", "1Gi")));
    assert!(!matters(Some(&of("1Gi", "1Gi")), &of("1Gi", "1Gi")));
    assert!(matters(Some(&of("1Gi", "1Gi")), &of("2Gi", "1Gi")));
    assert!(matters(Some(&of("2Gi", "1Gi")), &of("2Gi", "2Gi")));
    assert!(!matters(Some(&of("2Gi", "1Gi")), &of("1.5Gi", "1Gi")));
    let mut waits = of("2Gi", "1Gi");
    waits.status.as_mut().expect("a status").phase = Some("Pending".into());
    assert!(!matters(None, &waits));
}
