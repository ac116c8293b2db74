//! Tables of claims and volumes, and a world in which both are written in turn with stale copies.

use proptest::prelude::*;

use super::claim::Class;
use super::*;

fn volume(name: &str, size: &str, more: Value) -> PersistentVolume {
    let mut object = json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1"},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Available"}});
    merge(&mut object, &more);
    serde_json::from_value(object).expect("a volume")
}

fn claim(size: &str, more: Value) -> PersistentVolumeClaim {
    let mut object = json!({"metadata": {"name": "c", "namespace": "n", "uid": "uid-c", "resourceVersion": "1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}, "status": {"phase": "Pending"}});
    merge(&mut object, &more);
    serde_json::from_value(object).expect("a claim")
}

fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in fields {
                if value.is_null() {
                    into.as_object_mut().expect("an object").remove(key);
                } else {
                    merge(&mut into[key.as_str()], value);
                }
            }
        }
        other => *into = other.clone(),
    }
}

fn class(mode: &str, provisioner: &str) -> StorageClass {
    serde_json::from_value(
        json!({"metadata": {"name": "fast"}, "provisioner": provisioner, "volumeBindingMode": mode}),
    )
    .expect("a class")
}

/// Reasons of events, and what is written where.
fn shown(actions: &[Action]) -> Vec<String> {
    let one = |action: &Action| match action {
        Action::Event { reason, .. } => (*reason).to_owned(),
        Action::Patch { target, subresource, patch } => {
            let phase = patch["status"]["phase"].as_str().unwrap_or_default();
            format!("{}/{}/{subresource}{phase}", target.resource.plural, target.name)
        }
        other => panic!("{other:?}"),
    };
    actions.iter().map(one).collect()
}

#[test]
fn the_smallest_volume_that_fits_is_taken() {
    let owned = json!({"spec": {"claimRef": {"name": "other", "namespace": "n", "uid": "x"}}});
    let many = json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}});
    let volumes = [
        volume("small", "1Gi", json!({})),
        volume("owned", "2Gi", owned),
        volume("many", "2Gi", many),
        volume("large", "9Gi", json!({})),
        volume("good", "5Gi", json!({"metadata": {"labels": {"a": "b"}}})),
        volume("classy", "3Gi", json!({"spec": {"storageClassName": "fast"}})),
        volume("block", "3Gi", json!({"spec": {"volumeMode": "Block"}})),
        volume("released", "3Gi", json!({"status": {"phase": "Released"}})),
    ];
    let best = |size: &str, more: Value, waits: bool| {
        let claim = claim(size, more);
        matching::best(&claim, volumes.iter(), waits).map(|volume| name(&volume.metadata).to_owned())
    };
    assert_eq!(best("2Gi", json!({}), false).as_deref(), Some("good"));
    assert_eq!(best("6Gi", json!({}), false).as_deref(), Some("large"));
    assert_eq!(best("10Gi", json!({}), false), None);
    assert_eq!(best("1Gi", json!({"spec": {"storageClassName": "fast"}}), false).as_deref(), Some("classy"));
    assert_eq!(best("1Gi", json!({"spec": {"storageClassName": "fast"}}), true), None);
    assert_eq!(best("1Gi", json!({"spec": {"volumeMode": "Block"}}), false).as_deref(), Some("block"));
    assert_eq!(
        best("1Gi", json!({"spec": {"accessModes": ["ReadOnlyMany"]}}), false).as_deref(),
        Some("many")
    );
    let selector = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
    assert_eq!(best("1Gi", selector, false).as_deref(), Some("good"));
    let kept = volume("kept", "9Gi", json!({"spec": {"claimRef": {"name": "c", "namespace": "n"}}}));
    let found = matching::best(&claim("1Gi", json!({})), volumes.iter().chain([&kept]), true);
    assert_eq!(found.map(|volume| name(&volume.metadata)), Some("kept"));
}

#[test]
fn a_claim_is_bound_waits_or_is_lost() {
    let free = volume("v", "5Gi", json!({}));
    let plan = |claim: &PersistentVolumeClaim, class, volumes: &[PersistentVolume]| {
        shown(&claim::plan(claim, class, volumes.iter(), &[]))
    };
    let all = [
        "persistentvolumes/v/",
        "persistentvolumes/v/statusBound",
        "persistentvolumeclaims/c/",
        "persistentvolumeclaims/c/statusBound",
    ];
    let new = claim("1Gi", json!({}));
    assert_eq!(plan(&new, Class::None, std::slice::from_ref(&free)), all);
    assert_eq!(plan(&new, Class::None, &[]), ["FailedBinding"]);
    let late = class("WaitForFirstConsumer", "x.io/p");
    let fast = claim("1Gi", json!({"spec": {"storageClassName": "fast"}}));
    assert_eq!(plan(&fast, Class::Known(&late), &[]), ["WaitForFirstConsumer"]);
    let now = class("Immediate", "x.io/p");
    let nobody = class("Immediate", "kubernetes.io/no-provisioner");
    assert_eq!(plan(&fast, Class::Known(&now), &[]), ["persistentvolumeclaims/c/"]);
    assert_eq!(plan(&fast, Class::Known(&nobody), &[]), ["ProvisioningFailed"]);
    assert_eq!(plan(&fast, Class::Missing, &[]), ["ProvisioningFailed"]);
    assert_eq!(plan(&new, Class::Default(&now), &[]), ["persistentvolumeclaims/c/"]);
    let named = claim("1Gi", json!({"spec": {"volumeName": "v"}}));
    assert_eq!(plan(&named, Class::None, std::slice::from_ref(&free)), all);
    assert_eq!(plan(&named, Class::None, &[]), [""; 0]);
    let big = claim("7Gi", json!({"spec": {"volumeName": "v"}}));
    assert_eq!(plan(&big, Class::None, std::slice::from_ref(&free)), ["VolumeMismatch"]);
    let taken =
        volume("v", "5Gi", json!({"spec": {"claimRef": {"name": "o", "namespace": "n", "uid": "o"}}}));
    assert_eq!(plan(&named, Class::None, std::slice::from_ref(&taken)), ["FailedBinding"]);
    let done = claim(
        "1Gi",
        json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}),
    );
    assert_eq!(plan(&done, Class::None, &[]), ["persistentvolumeclaims/c/statusLost", "ClaimLost"]);
    assert_eq!(plan(&done, Class::None, &[taken]), ["persistentvolumeclaims/c/statusLost", "ClaimMisbound"]);
}

/// Reason and text of the one event, and the annotations of the one write.
fn said(actions: &[Action]) -> (String, Value) {
    let mut found = (String::new(), Value::Null);
    for action in actions {
        match action {
            Action::Event { reason, message, .. } => found.0 = format!("{reason}: {message}"),
            Action::Patch { patch, .. } => found.1 = patch["metadata"]["annotations"].clone(),
            other => panic!("{other:?}"),
        }
    }
    found
}

#[test]
fn a_claim_is_handed_to_its_provisioner() {
    let asked = |annotations: Value| {
        claim("1Gi", json!({"metadata": {"annotations": annotations}, "spec": {"storageClassName": "fast"}}))
    };
    let plan = |claim: &PersistentVolumeClaim, class: &StorageClass, pods: &[&str]| {
        said(&claim::plan(claim, Class::Known(class), [].iter(), pods))
    };
    let waiting = |driver: &str| {
        format!(
            "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner '{driver}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        )
    };
    for (provisioner, driver) in [("x.io/p", "x.io/p"), ("kubernetes.io/aws-ebs", "ebs.csi.aws.com")] {
        let class = class("Immediate", provisioner);
        let (event, written) = plan(&asked(json!({})), &class, &[]);
        assert_eq!(
            (&*event, &written[PROVISIONER], &written[PROVISIONER_BETA]),
            ("", &json!(driver), &json!(driver))
        );
        let marked = asked(json!({PROVISIONER: driver, PROVISIONER_BETA: driver}));
        assert_eq!(plan(&marked, &class, &[]), (waiting(driver), Value::Null));
    }
    // A claim that waits for its pod is handed over when the scheduler has chosen a node.
    let late = class("WaitForFirstConsumer", "x.io/p");
    let event = |claim: &PersistentVolumeClaim, pods: &[&str]| plan(claim, &late, pods).0;
    assert_eq!(
        event(&asked(json!({})), &[]),
        "WaitForFirstConsumer: waiting for first consumer to be created before binding"
    );
    assert_eq!(event(&asked(json!({})), &["a"]), "WaitForPodScheduled: waiting for pod a to be scheduled");
    assert_eq!(
        event(&asked(json!({})), &["a", "b"]),
        "WaitForPodScheduled: waiting for pods a,b to be scheduled"
    );
    let placed = asked(json!({SELECTED_NODE: "n1", PROVISIONER: "x.io/p"}));
    assert_eq!(event(&placed, &["a"]), waiting("x.io/p"));
    let nobody = class("Immediate", "kubernetes.io/no-provisioner");
    assert_eq!(
        plan(&asked(json!({})), &nobody, &[]).0,
        "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"
    );
    let missing = claim::plan(&asked(json!({})), Class::Missing, [].iter(), &[]);
    assert_eq!(said(&missing).0, "ProvisioningFailed: storageclass.storage.k8s.io \"fast\" not found");
    // What an older release has asked a plugin for is its driver's now, and what says so wrongly is put right.
    let old = asked(json!({PROVISIONER_BETA: "kubernetes.io/gce-pd"}));
    assert_eq!(plan(&old, &late, &[]).1, json!({in_tree::MIGRATED_TO: "pd.csi.storage.gke.io"}));
    let wrong = asked(json!({PROVISIONER: "x.io/p", in_tree::MIGRATED_TO: "pd.csi.storage.gke.io"}));
    assert_eq!(plan(&wrong, &late, &[]).1, json!({in_tree::MIGRATED_TO: null}));
}

#[test]
fn a_volume_is_left_to_its_deleter() {
    let released = |more: Value| {
        let mut object = json!({"spec": {"claimRef": {"name": "c", "namespace": "n", "uid": "uid-c"},
            "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Bound"}});
        merge(&mut object, &more);
        volume("v", "5Gi", object)
    };
    let by = |provisioner: &str| json!({"metadata": {"annotations": {PROVISIONED_BY: provisioner}}});
    let plan = |more: Value| volume::plan(&released(more), None);
    let csi = json!({"spec": {"csi": {"driver": "x.io", "volumeHandle": "h"}}});
    for external in [by("x.io"), csi] {
        assert_eq!(shown(&plan(external)), ["persistentvolumes/v/statusReleased"]);
    }
    let failed = plan(json!({"spec": {"nfs": {"server": "s", "path": "/"}}}));
    assert_eq!(shown(&failed), ["persistentvolumes/v/statusFailed", "VolumeFailedDelete"]);
    assert_eq!(
        said(&failed).0,
        "VolumeFailedDelete: error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched"
    );
    // A plugin's volume is its driver's, which takes the finalizer's place with its own.
    let mut migrated = by("kubernetes.io/aws-ebs");
    migrated["metadata"]["finalizers"] = json!(["a", "kubernetes.io/pv-controller"]);
    let Action::Patch { patch, .. } = &plan(migrated.clone())[0] else { panic!("a write") };
    assert_eq!(patch["metadata"]["finalizers"], json!(["a"]));
    assert_eq!(patch["metadata"]["annotations"], json!({in_tree::MIGRATED_TO: "ebs.csi.aws.com"}));
    migrated["metadata"]["finalizers"] = json!(["a"]);
    migrated["metadata"]["annotations"][in_tree::MIGRATED_TO] = json!("ebs.csi.aws.com");
    assert_eq!(shown(&plan(migrated)), ["persistentvolumes/v/statusReleased"]);
    // One of a plugin that nobody took over is kept until somebody looks.
    let mut lonely = by("kubernetes.io/host-path");
    let Action::Patch { patch, .. } = &plan(lonely.clone())[0] else { panic!("a write") };
    assert_eq!(patch["metadata"]["finalizers"], json!(["kubernetes.io/pv-controller"]));
    lonely["metadata"]["finalizers"] = json!(["kubernetes.io/pv-controller"]);
    assert_eq!(
        said(&plan(lonely)).0,
        "VolumeFailedDelete: no volume plugin matched name: kubernetes.io/host-path"
    );
    let block = claim("1Gi", json!({"spec": {"volumeMode": "Block"}}));
    assert_eq!(
        shown(&volume::plan(&released(json!({})), Some(&block))),
        ["VolumeMismatch", "VolumeMismatch"]
    );
}

#[test]
fn a_volume_follows_its_claim() {
    let of = |more: Value| {
        let mut reference = json!({"spec": {"claimRef": {"name": "c", "namespace": "n", "uid": "uid-c"}}});
        merge(&mut reference, &more);
        volume("v", "5Gi", reference)
    };
    let plan = |volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>| {
        shown(&volume::plan(volume, claim))
    };
    let fresh = volume("v", "5Gi", json!({"status": {"phase": "Pending"}}));
    assert_eq!(plan(&fresh, None), ["persistentvolumes/v/statusAvailable"]);
    let bound = claim("1Gi", json!({"spec": {"volumeName": "v"}}));
    assert_eq!(plan(&of(json!({})), Some(&bound)), ["persistentvolumes/v/statusBound"]);
    assert_eq!(plan(&of(json!({})), Some(&claim("1Gi", json!({})))), [""; 0]);
    assert_eq!(plan(&of(json!({})), None), ["persistentvolumes/v/statusReleased"]);
    assert_eq!(plan(&of(json!({"status": {"phase": "Released"}})), None), [""; 0]);
    let delete = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    assert_eq!(plan(&of(delete.clone()), None), ["persistentvolumes/v/statusFailed", "VolumeFailedDelete"]);
    let mut external = delete;
    external["metadata"]["annotations"][PROVISIONED_BY] = json!("x.io/p");
    assert_eq!(plan(&of(external), None), ["persistentvolumes/v/statusReleased"]);
    let elsewhere = claim("1Gi", json!({"spec": {"volumeName": "w"}}));
    let ours =
        json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: "yes"}}, "status": {"phase": "Bound"}});
    let unbound = volume::plan(&of(ours), Some(&elsewhere));
    assert_eq!(shown(&unbound), ["persistentvolumes/v/", "persistentvolumes/v/statusAvailable"]);
    let Action::Patch { patch, .. } = &unbound[0] else { panic!("a write") };
    assert_eq!(patch["spec"]["claimRef"], Value::Null);
    let kept = volume::plan(&of(json!({"status": {"phase": "Bound"}})), Some(&elsewhere));
    let Action::Patch { patch, .. } = &kept[0] else { panic!("a write") };
    assert_eq!(patch["spec"]["claimRef"], json!({"uid": null}));
}

#[test]
fn the_youngest_default_class_is_the_default() {
    let class = |name: &str, created: &str, default: &str| -> StorageClass {
        serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {DEFAULT_CLASS: default}}, "provisioner": "p"}))
        .expect("a class")
    };
    let all = [
        class("old", "2024-01-01T00:00:00Z", "true"),
        class("new", "2024-02-01T00:00:00Z", "true"),
        class("newest", "2024-03-01T00:00:00Z", "false"),
    ];
    assert_eq!(default_class(all.iter()).map(|class| name(&class.metadata)), Some("new"));
}

proptest! {
    /// However stale the copies and wherever plans end halfway: no two claims end up with one volume, and all that fit get one.
    #[test]
    fn claims_and_volumes_pair_off(steps in proptest::collection::vec((0..3_usize, any::<bool>(), 0..6_usize, any::<bool>()), 1..80)) {
        let mut volumes: Vec<Vec<Value>> = (0..3).map(|index| vec![json!(volume(&format!("v{index}"), "5Gi", json!({})))]).collect();
        let mut claims: Vec<Vec<Value>> = (0..3)
            .map(|index| vec![json!(claim("1Gi", json!({"metadata": {"name": format!("c{index}"), "uid": format!("uid-c{index}")}})))])
            .collect();
        let seen = |history: &[Value], stale: bool| history[history.len().saturating_sub(if stale { 2 } else { 1 })].clone();
        let apply = |history: &mut Vec<Value>, patch: &Value| {
            let mut now = history.last().cloned().expect("a version");
            let wanted = &patch["metadata"]["resourceVersion"];
            if !wanted.is_null() && *wanted != now["metadata"]["resourceVersion"] {
                return false;
            }
            merge(&mut now, patch);
            now["metadata"]["resourceVersion"] = json!((history.len() + 1).to_string());
            history.push(now);
            true
        };
        let run = |volumes: &mut Vec<Vec<Value>>, claims: &mut Vec<Vec<Value>>, index: usize, is_claim: bool, most: usize, stale: bool| {
            let actions = if is_claim {
                let all: Vec<PersistentVolume> = volumes.iter().map(|h| serde_json::from_value(seen(h, stale)).expect("a volume")).collect();
                let one: PersistentVolumeClaim = serde_json::from_value(seen(&claims[index], stale)).expect("a claim");
                claim::plan(&one, Class::None, all.iter(), &[])
            } else {
                let one: PersistentVolume = serde_json::from_value(seen(&volumes[index], stale)).expect("a volume");
                let of = claim_ref(&one).and_then(|reference| reference.name.clone()).and_then(|name| name[1..].parse::<usize>().ok());
                let claim: Option<PersistentVolumeClaim> = of.map(|of| serde_json::from_value(seen(&claims[of], stale)).expect("a claim"));
                volume::plan(&one, claim.as_ref())
            };
            for action in actions.iter().filter(|action| matches!(action, Action::Patch { .. })).take(most) {
                let Action::Patch { target, patch, .. } = action else { continue };
                let at = target.name[1..].parse::<usize>().expect("a number");
                let history = if target.resource == PERSISTENT_VOLUMES { &mut volumes[at] } else { &mut claims[at] };
                if !apply(history, patch) {
                    break;
                }
            }
        };
        for (index, is_claim, most, stale) in steps {
            run(&mut volumes, &mut claims, index, is_claim, most, stale);
        }
        for _ in 0..4 {
            for index in 0..3 {
                run(&mut volumes, &mut claims, index, true, 9, false);
                run(&mut volumes, &mut claims, index, false, 9, false);
            }
        }
        let mut taken: Vec<String> = claims
            .iter()
            .map(|history| history.last().and_then(|claim| claim["spec"]["volumeName"].as_str()).unwrap_or_default().to_owned())
            .collect();
        taken.sort();
        prop_assert_eq!(&taken, &["v0", "v1", "v2"]);
        for history in volumes.iter().chain(&claims) {
            prop_assert_eq!(&history.last().expect("a version")["status"]["phase"], "Bound");
        }
    }
}
