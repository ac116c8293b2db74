//! Where pods with claims can run, together with the other plugins that look at volumes.

use serde_json::{Value, json};

use super::*;
use crate::pod_info::{PodInfo, PodToSchedule};
use crate::profile::Profile;
use crate::schedule::{Decision, Relief, Turn, schedule};
use crate::testing::{merge, node, pod_from};

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("object"))
}

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a", "zone-a"), ("b", "zone-b")] {
        snapshot.set_node(node(name, "4", zone));
    }
    for (name, mode, provisioner) in [
        ("now", "Immediate", "example.com/disk"),
        ("late", "WaitForFirstConsumer", "example.com/disk"),
        ("local", "WaitForFirstConsumer", "kubernetes.io/no-provisioner"),
    ] {
        snapshot.volumes.set_class(parsed(json!({
            "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
        })));
    }
    snapshot
}

fn claim(snapshot: &mut Snapshot, name: &str, extra: Value) {
    let mut fields = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "now", "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    merge(&mut fields, extra);
    snapshot.volumes.set_claim(parsed(fields));
}

fn bound_to(volume: &str) -> Value {
    json!({
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume}, "status": {"phase": "Bound"},
    })
}

fn volume(snapshot: &mut Snapshot, name: &str, host: &str, extra: Value) {
    let mut fields = json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}},
        },
        "status": {"phase": "Available"},
    });
    merge(&mut fields, extra);
    snapshot.volumes.set_volume(parsed(fields));
}

fn user(name: &str, claims: &[&str]) -> Arc<k8s_openapi::api::core::v1::Pod> {
    let volumes: Vec<_> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    pod_from(json!({"metadata": {"name": name}, "spec": {"volumes": volumes}}))
}

/// The node, or why there is none.
fn place(snapshot: &Snapshot, claims: &[&str]) -> Result<String, String> {
    let pod = PodToSchedule::new(user("p", claims));
    match schedule(&Profile::new("default-scheduler"), &pod, snapshot, Turn::default()) {
        Decision::Assigned(assignment) => Ok(assignment.node.to_string()),
        Decision::Failed(error) => Err(error),
        Decision::Unschedulable(error, _) => {
            let text = error.to_string();
            let text = text.strip_prefix("0/2 nodes are available: ").unwrap_or(&text);
            Err(text.split(" no new claims").next().unwrap_or_default().to_owned())
        }
    }
}

#[test]
fn a_claim_that_cannot_be_used_is_named() {
    let mut snapshot = cluster();
    let refused = |snapshot: &Snapshot, expected: &str| {
        assert_eq!(place(snapshot, &["data"]), Err(expected.to_owned()))
    };
    refused(&snapshot, "persistentvolumeclaim \"data\" not found.");
    claim(&mut snapshot, "data", json!({}));
    refused(&snapshot, "pod has unbound immediate PersistentVolumeClaims.");
    claim(
        &mut snapshot,
        "data",
        json!({"spec": {"storageClassName": "late"}, "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    refused(&snapshot, "persistentvolumeclaim \"data\" is being deleted.");
    claim(&mut snapshot, "data", json!({"spec": {"volumeName": "gone"}, "status": {"phase": "Lost"}}));
    refused(&snapshot, "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"gone\".");
    claim(&mut snapshot, "data", bound_to("gone"));
    refused(&snapshot, "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).");
    let own = pod_from(
        json!({"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "scratch", "ephemeral": {}}]}}),
    );
    let own = PodToSchedule::new(own);
    let said = |snapshot: &Snapshot| match schedule(&Profile::new("s"), &own, snapshot, Turn::default()) {
        Decision::Unschedulable(error, _) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(said(&snapshot).contains(
        "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-scratch\""
    ));
    claim(&mut snapshot, "p-scratch", json!({}));
    assert!(
        said(&snapshot)
            .contains("PVC default/p-scratch was not created for pod default/p (pod is not owner)")
    );
}

#[test]
fn a_bound_volume_keeps_pods_where_it_can_be_reached() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "data", bound_to("disk"));
    volume(&mut snapshot, "disk", "b", json!({}));
    assert_eq!(place(&snapshot, &["data"]), Ok("b".into()));
    volume(&mut snapshot, "disk", "elsewhere", json!({}));
    assert_eq!(
        place(&snapshot, &["data"]),
        Err("2 node(s) didn't match PersistentVolume's node affinity.".into())
    );
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-a__zone-c"}}, "spec": {"nodeAffinity": null}});
    volume(&mut snapshot, "disk", "b", zone);
    assert_eq!(place(&snapshot, &["data"]), Ok("a".into()));
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-c"}}, "spec": {"nodeAffinity": null}});
    volume(&mut snapshot, "disk", "b", zone);
    assert_eq!(place(&snapshot, &["data"]), Err("2 node(s) had no available volume zone.".into()));
}

#[test]
fn a_claim_that_waits_gets_a_volume_where_the_pod_goes() {
    let mut snapshot = cluster();
    let local = json!({"spec": {"storageClassName": "local"}});
    claim(&mut snapshot, "one", local.clone());
    claim(&mut snapshot, "two", local);
    assert_eq!(
        place(&snapshot, &["one"]),
        Err("2 node(s) didn't find available persistent volumes to bind.".into())
    );
    volume(&mut snapshot, "small-a", "a", json!({"spec": {"capacity": {"storage": "500Mi"}}}));
    volume(&mut snapshot, "large-b", "b", json!({"spec": {"capacity": {"storage": "9Gi"}}}));
    volume(&mut snapshot, "fitting-b", "b", json!({}));
    assert_eq!(place(&snapshot, &["one"]), Ok("b".into()));
    let pod = PodToSchedule::new(user("p", &["one", "two"]));
    let bound = |snapshot: &Snapshot| -> Vec<(String, String)> {
        let steps = steps(Cycle { pod: &pod, snapshot, extenders: &[] }, "b");
        let pair = |step: VolumeStep| match step {
            VolumeStep::Bind(volume, claim) => (
                claim.metadata.name.clone().unwrap_or_default(),
                volume.metadata.name.clone().unwrap_or_default(),
            ),
            VolumeStep::Provision(claim) => (claim.metadata.name.clone().unwrap_or_default(), "new".into()),
        };
        steps.into_iter().map(pair).collect()
    };
    assert_eq!(bound(&snapshot), [("one".into(), "fitting-b".into()), ("two".into(), "large-b".into())]);
    // A volume that is on its way to another claim is not to be had.
    snapshot.volumes.promise("fitting-b", ("default".into(), "third".into()));
    assert!(bound(&snapshot).is_empty());
    snapshot.volumes.release("fitting-b");
    assert_eq!(bound(&snapshot).len(), 2);
}

#[test]
fn a_volume_that_is_made_on_demand_is_made_for_the_chosen_node() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "data", json!({"spec": {"storageClassName": "late"}}));
    let pod = PodToSchedule::new(user("p", &["data"]));
    let steps = steps(Cycle { pod: &pod, snapshot: &snapshot, extenders: &[] }, "a");
    assert!(matches!(steps.as_slice(), [VolumeStep::Provision(_)]), "{steps:?}");
    claim(
        &mut snapshot,
        "data",
        json!({"spec": {"storageClassName": "late"}, "metadata": {"annotations": {SELECTED_NODE: "b"}}}),
    );
    assert_eq!(place(&snapshot, &["data"]), Ok("b".into()));
    snapshot.volumes.set_class(parsed(json!({
        "metadata": {"name": "late"}, "provisioner": "example.com/disk", "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["zone-a"]}]}],
    })));
    assert!(place(&snapshot, &["data"]).is_err(), "b is not in zone-a");
    claim(&mut snapshot, "data", json!({"spec": {"storageClassName": "late"}}));
    assert_eq!(place(&snapshot, &["data"]), Ok("a".into()));
}

#[test]
fn a_claim_for_one_pod_has_one_pod() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "data", bound_to("disk"));
    claim(&mut snapshot, "data", {
        let mut once = bound_to("disk");
        merge(&mut once, json!({"spec": {"accessModes": ["ReadWriteOncePod"]}}));
        once
    });
    volume(&mut snapshot, "disk", "a", json!({"spec": {"nodeAffinity": null}}));
    assert!(place(&snapshot, &["data"]).is_ok());
    snapshot.place(Arc::new(PodInfo::new(user("first", &["data"]))), "b");
    assert_eq!(
        place(&snapshot, &["data"]),
        Err(
            "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
                .into()
        )
    );
    let urgent = pod_from(json!({"metadata": {"name": "urgent"}, "spec": {"priority": 5, "volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}));
    let urgent = PodToSchedule::new(urgent);
    match schedule(&Profile::new("s"), &urgent, &snapshot, Turn::default()) {
        Decision::Unschedulable(_, Relief::Preempt(preemption)) => {
            assert_eq!(preemption.victims[0].name(), "first")
        }
        other => panic!("{other:?}"),
    }
    snapshot.remove_pod("uid-first");
    assert!(place(&snapshot, &["data"]).is_ok());
}

#[test]
fn a_node_takes_as_many_volumes_as_its_driver_says() {
    let mut snapshot = cluster();
    for at in 0..3 {
        claim(&mut snapshot, &format!("c{at}"), bound_to(&format!("v{at}")));
        let csi = json!({"spec": {"nodeAffinity": null, "csi": {"driver": "disk.example.com", "volumeHandle": format!("h{at}")}}});
        volume(&mut snapshot, &format!("v{at}"), "a", csi);
    }
    for node in ["a", "b"] {
        snapshot.volumes.set_drivers(parsed(json!({"metadata": {"name": node}, "spec": {"drivers": [
            {"name": "disk.example.com", "nodeID": node, "allocatable": {"count": 1}}]}})));
    }
    assert_eq!(place(&snapshot, &["c0", "c1"]), Err("2 node(s) exceed max volume count.".into()));
    snapshot.place(Arc::new(PodInfo::new(user("first", &["c0"]))), "a");
    assert_eq!(place(&snapshot, &["c1"]), Ok("b".into()));
    // The same volume counts once.
    snapshot.place(Arc::new(PodInfo::new(user("second", &["c1"]))), "b");
    assert_eq!(place(&snapshot, &["c0"]), Ok("a".into()));
    assert!(place(&snapshot, &["c2"]).is_err());
}

#[test]
fn some_disks_can_be_on_a_node_once() {
    let mut snapshot = cluster();
    let disk = |name: &str, read_only: bool| {
        pod_from(json!({"metadata": {"name": name}, "spec": {"volumes": [
            {"name": "v", "gcePersistentDisk": {"pdName": "d", "readOnly": read_only}}]}}))
    };
    snapshot.place(Arc::new(PodInfo::new(disk("first", true))), "a");
    let chosen =
        |pod| match schedule(&Profile::new("s"), &PodToSchedule::new(pod), &snapshot, Turn::default()) {
            Decision::Assigned(assignment) => assignment.node.to_string(),
            Decision::Unschedulable(error, _) => error.to_string(),
            Decision::Failed(error) => error,
        };
    assert_eq!(chosen(disk("writer", false)), "b");
}

#[test]
fn a_volume_is_made_where_its_driver_has_room() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "data", json!({"spec": {"storageClassName": "late"}}));
    let driver = |snapshot: &mut Snapshot, publishes: bool| {
        let driver =
            json!({"metadata": {"name": "example.com/disk"}, "spec": {"storageCapacity": publishes}});
        snapshot.volumes.set_driver(&parsed(driver));
    };
    let capacity = |snapshot: &mut Snapshot, class: &str, zone: &str, extra: Value| {
        let mut fields = json!({
            "metadata": {"name": format!("{class}-{zone}"), "namespace": "kube-system"}, "storageClassName": class,
            "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": zone}},
        });
        merge(&mut fields, extra);
        snapshot.volumes.set_capacity(parsed(fields));
    };
    driver(&mut snapshot, false);
    assert!(place(&snapshot, &["data"]).is_ok(), "it does not say");
    driver(&mut snapshot, true);
    let none = Err("2 node(s) did not have enough free storage.".to_owned());
    assert_eq!(place(&snapshot, &["data"]), none);
    capacity(&mut snapshot, "now", "zone-a", json!({"capacity": "9Gi"}));
    capacity(&mut snapshot, "late", "zone-a", json!({"capacity": "9Gi", "maximumVolumeSize": "1023Mi"}));
    capacity(&mut snapshot, "late", "zone-c", json!({"capacity": "9Gi"}));
    capacity(&mut snapshot, "late", "nowhere", json!({"capacity": "9Gi", "nodeTopology": null}));
    assert_eq!(place(&snapshot, &["data"]), none);
    capacity(&mut snapshot, "late", "zone-b", json!({"capacity": "1Gi"}));
    assert_eq!(place(&snapshot, &["data"]), Ok("b".into()));
}
