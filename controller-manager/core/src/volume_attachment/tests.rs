//! Tables of nodes with pods and attachments.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;

use super::wanted::{Lookup, User, Wanted};
use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn later(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

fn disk(exclusive: bool) -> Volume {
    Volume { name: "pv".into(), driver: "x.io".into(), handle: "h".into(), exclusive }
}

fn node(report: &[&str], in_use: &[&str], ready: &str, taint: Option<&str>) -> Node {
    let report: Vec<Value> = report.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
    let taints: Vec<Value> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "n", "annotations": {MANAGED: "true"}},
        "spec": {"taints": taints},
        "status": {"volumesAttached": report, "volumesInUse": in_use,
            "conditions": [{"type": "Ready", "status": ready}]},
    }))
    .expect("a node")
}

fn pod(namespace: &str, name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace}})).expect("a pod")
}

fn attachment(status: Value, deleted: bool) -> VolumeAttachment {
    let mut object = json!({
        "metadata": {"name": disk(true).attachment("n"), "uid": "u", "creationTimestamp": NOW.to_string()},
        "spec": {"attacher": "x.io", "nodeName": "n", "source": {"persistentVolumeName": "pv"}},
        "status": status,
    });
    if deleted {
        object["metadata"]["deletionTimestamp"] = json!(NOW.to_string());
    }
    serde_json::from_value(object).expect("an attachment")
}

struct Case<'a> {
    node: Option<&'a Node>,
    pods: &'a [&'a Pod],
    attachments: &'a [&'a VolumeAttachment],
    exclusive: bool,
    elsewhere: Option<Vec<User>>,
    is_gone: bool,
    never_by_force: bool,
    at: i64,
}

impl<'a> Case<'a> {
    fn of(node: &'a Node, pods: &'a [&'a Pod], attachments: &'a [&'a VolumeAttachment]) -> Self {
        Self {
            node: Some(node),
            pods,
            attachments,
            exclusive: true,
            elsewhere: None,
            is_gone: false,
            never_by_force: false,
            at: 0,
        }
    }

    fn plan(&self, memory: &mut Memory) -> Plan {
        let wanted = Wanted { volume: disk(self.exclusive), pods: self.pods.to_vec() };
        let wanted = if self.pods.is_empty() { Vec::new() } else { vec![wanted] };
        let seen = Seen {
            name: "n",
            node: self.node,
            wanted: &wanted,
            attachments: self.attachments,
            volume_of: &|_| (!self.is_gone).then(|| disk(true)),
            elsewhere: &|_| self.elsewhere.clone(),
            never_by_force: self.never_by_force,
            now: later(self.at),
        };
        plan(&seen, memory)
    }

    fn shown(&self) -> Vec<String> {
        self.shown_with(&mut Memory::default())
    }

    fn shown_with(&self, memory: &mut Memory) -> Vec<String> {
        let plan = self.plan(memory);
        let mut all: Vec<String> = plan.attach.iter().map(|_| "attach".to_owned()).collect();
        if let Some(Action::Patch { patch, subresource: "status", .. }) = &plan.report {
            let list = patch["status"]["volumesAttached"].as_array().cloned().unwrap_or_default();
            let names: Vec<&str> = list.iter().filter_map(|volume| volume["name"].as_str()).collect();
            all.push(format!("report {}", names.join(",")));
        }
        all.extend(plan.detach.iter().map(|one| format!("detach ask={}", one.ask)));
        all.extend(plan.events.iter().map(|event| match event {
            Action::Event { regarding, reason, message, .. } => {
                format!("{}: {reason}: {message}", regarding.name.as_deref().unwrap_or_default())
            }
            other => panic!("{other:?}"),
        }));
        all
    }
}

const NAME: &str = "kubernetes.io/csi/x.io^h";

#[test]
fn names_are_upstreams() {
    assert_eq!(disk(true).on_node(), NAME);
    // sha256sum of "hx.ion".
    assert_eq!(
        disk(true).attachment("n"),
        "csi-b392fd7a2346f14b4d82851efb5f5a6986736a475e2d8a75dacfc432409bd9ad"
    );
}

#[test]
fn a_wanted_volume_is_attached_then_reported_then_told() {
    let (plain, with) = (node(&[], &[], "True", None), node(&[NAME], &[], "True", None));
    let web = pod("d", "web");
    let pods = [&web];
    assert_eq!(Case::of(&plain, &pods, &[]).shown(), ["attach"]);
    let asked = attachment(Value::Null, false);
    assert_eq!(Case::of(&plain, &pods, &[&asked]).shown(), [""; 0]);
    let attached = attachment(json!({"attached": true}), false);
    let told = format!("report {NAME}");
    let event = "web: SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"pv\" ";
    let mut memory = Memory::default();
    assert_eq!(Case::of(&plain, &pods, &[&attached]).shown_with(&mut memory), [&*told, event]);
    // Our copy of the node is behind: nothing is told twice.
    assert_eq!(Case::of(&plain, &pods, &[&attached]).shown_with(&mut memory), [&*told]);
    assert_eq!(Case::of(&with, &pods, &[&attached]).shown(), [""; 0]);
    // Its end has begun: nobody may mount it any more, and it is attached again after that.
    let ending = attachment(json!({"attached": true}), true);
    assert_eq!(Case::of(&with, &pods, &[&ending]).shown(), ["report "]);
    let mut own = with.clone();
    own.metadata.annotations = None;
    assert_eq!(Case::of(&own, &pods, &[]).shown(), [""; 0]);
}

#[test]
fn failures_are_told_once_each_and_silence_every_two_minutes() {
    let plain = node(&[], &[], "True", None);
    let web = pod("d", "web");
    let pods = [&web];
    let failed = |message: &str| {
        attachment(
            json!({"attached": false, "attachError": {"message": message, "time": NOW.to_string()}}),
            false,
        )
    };
    let (full, lost) = (failed("no slot"), failed("no disk"));
    let mut memory = Memory::default();
    let text =
        |why: &str| format!("web: FailedAttachVolume: AttachVolume.Attach failed for volume \"pv\" : {why}");
    assert_eq!(Case::of(&plain, &pods, &[&full]).shown_with(&mut memory), [text("no slot")]);
    assert_eq!(Case::of(&plain, &pods, &[&full]).shown_with(&mut memory), [""; 0]);
    assert_eq!(Case::of(&plain, &pods, &[&lost]).shown_with(&mut memory), [text("no disk")]);
    let silent = attachment(json!({"attached": false}), false);
    let silence = text("timed out waiting for external-attacher of x.io CSI driver to attach volume h");
    let mut memory = Memory::default();
    let attachments = [&silent];
    let at = |seconds| Case { at: seconds, ..Case::of(&plain, &pods, &attachments) };
    assert_eq!(at(119).plan(&mut memory).wake, Some(SignedDuration::from_secs(1)));
    assert_eq!(at(120).shown_with(&mut memory), [&*silence]);
    assert_eq!(at(239).shown_with(&mut memory), [""; 0]);
    assert_eq!(at(240).shown_with(&mut memory), [&*silence]);
}

#[test]
fn an_exclusive_volume_waits_for_the_other_node() {
    let plain = node(&[], &[], "True", None);
    let web = pod("d", "web");
    let pods = [&web];
    let user = |namespace: &str, name: &str| User { namespace: namespace.into(), name: name.into() };
    let with = |users: &[User], exclusive| Case {
        elsewhere: Some(users.to_vec()),
        exclusive,
        ..Case::of(&plain, &pods, &[])
    };
    let told = |why: &str| format!("web: FailedAttachVolume: Multi-Attach error for volume \"pv\" {why}");
    let table: [(&[User], &str); 4] = [
        (&[], "Volume is already exclusively attached to one node and can't be attached to another"),
        (&[user("d", "a"), user("d", "b")], "Volume is already used by pod(s) a, b"),
        (
            &[user("d", "a"), user("e", "b")],
            "Volume is already used by pod(s) a and 1 pod(s) in different namespaces",
        ),
        (&[user("e", "b")], "Volume is already used by 1 pod(s) in different namespaces"),
    ];
    for (users, why) in table {
        let mut memory = Memory::default();
        assert_eq!(with(users, true).shown_with(&mut memory), [told(why)]);
        assert_eq!(with(users, true).shown_with(&mut memory), [""; 0], "told once");
        assert_eq!(with(users, false).shown(), ["attach"]);
    }
}

#[test]
fn a_volume_nobody_wants_is_taken_when_it_is_safe() {
    let attached = attachment(json!({"attached": true}), false);
    let all = [&attached];
    let idle = node(&[NAME], &[], "True", None);
    assert_eq!(Case::of(&idle, &[], &all).shown(), ["report ", "detach ask=true"]);
    let busy = node(&[NAME], &[NAME], "True", None);
    let silent = node(&[NAME], &[NAME], "Unknown", None);
    let off = node(&[NAME], &[NAME], "Unknown", Some("node.kubernetes.io/out-of-service"));
    let since = || Memory { unwanted: [(disk(true).attachment("n"), NOW)].into(), ..Memory::default() };
    for (node, at, expected) in [
        (&busy, 0, &[][..]),
        (&busy, 361, &[]),
        (&silent, 360, &[]),
        (&silent, 361, &["report ", "detach ask=false"]),
        (&off, 0, &["report ", "detach ask=false"]),
    ] {
        assert_eq!(
            Case { at, ..Case::of(node, &[], &all) }.shown_with(&mut since()),
            expected,
            "{node:?} {at}"
        );
    }
    let patient = Case { at: 9_999, never_by_force: true, ..Case::of(&silent, &[], &all) };
    assert_eq!(patient.shown_with(&mut since()), [""; 0]);
    assert_eq!(
        Case::of(&silent, &[], &all).plan(&mut Memory::default()).wake,
        Some(SignedDuration::from_secs(361))
    );
    // A pod that wants it again starts the clock anew.
    let web = pod("d", "web");
    let mut memory = since();
    Case { at: 100, ..Case::of(&silent, &[&web], &all) }.plan(&mut memory);
    assert!(memory.unwanted.is_empty());
    // The volume is gone, and the node's report still tells what the attachment attached; one of somebody else is not ours.
    assert_eq!(Case { is_gone: true, ..Case::of(&idle, &[], &all) }.shown(), ["report ", "detach ask=true"]);
    assert_eq!(Case { is_gone: true, ..Case::of(&node(&[], &[], "True", None), &[], &all) }.shown(), [""; 0]);
    let mut foreign = attached.clone();
    foreign.metadata.name = Some("somebodys".into());
    assert_eq!(Case::of(&node(&[], &[], "True", None), &[], &[&foreign]).shown(), [""; 0]);
    // The node itself is gone.
    assert_eq!(Case { node: None, ..Case::of(&idle, &[], &all) }.shown(), ["detach ask=true"]);
    // What other plugins have reported stays.
    let other = node(&["kubernetes.io/fc/1", NAME], &[], "True", None);
    assert_eq!(Case::of(&other, &[], &all).shown(), ["report kubernetes.io/fc/1", "detach ask=true"]);
}

#[derive(Default)]
struct Objects {
    claims: Vec<PersistentVolumeClaim>,
    volumes: Vec<PersistentVolume>,
    drivers: Vec<CSIDriver>,
}

impl Lookup for Objects {
    fn claim(&self, _: &str, wanted: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.iter().find(|claim| name(&claim.metadata) == wanted).cloned().map(Arc::new)
    }

    fn volume(&self, wanted: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| name(&volume.metadata) == wanted).cloned().map(Arc::new)
    }

    fn driver(&self, wanted: &str) -> Option<Arc<CSIDriver>> {
        self.drivers.iter().find(|driver| name(&driver.metadata) == wanted).cloned().map(Arc::new)
    }
}

#[test]
fn pods_want_the_volumes_of_their_bound_claims() {
    let claim = |phase: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"volumeName": "pv"}, "status": {"phase": phase}})).expect("a claim")
    };
    let volume = |of: &str, mode: &str| -> PersistentVolume {
        serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"accessModes": [mode],
            "csi": {"driver": "x.io", "volumeHandle": "h"}, "claimRef": {"uid": of}}}))
        .expect("a volume")
    };
    let driver = |attaches: bool| -> CSIDriver {
        serde_json::from_value(json!({"metadata": {"name": "x.io"}, "spec": {"attachRequired": attaches}}))
            .expect("a driver")
    };
    let user: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
    .expect("a pod");
    let of = |claim: PersistentVolumeClaim, volume: PersistentVolume, drivers: Vec<CSIDriver>| {
        wanted::of_pod(&user, &Objects { claims: vec![claim], volumes: vec![volume], drivers })
    };
    assert_eq!(of(claim("Bound"), volume("u", "ReadWriteOnce"), vec![]), [disk(true)]);
    assert_eq!(of(claim("Bound"), volume("u", "ReadWriteMany"), vec![driver(true)]), [disk(false)]);
    assert_eq!(of(claim("Bound"), volume("u", "ReadWriteOnce"), vec![driver(false)]), []);
    assert_eq!(of(claim("Pending"), volume("u", "ReadWriteOnce"), vec![]), []);
    assert_eq!(of(claim("Bound"), volume("other", "ReadWriteOnce"), vec![]), []);
    assert_eq!(wanted::of_pod(&user, &Objects::default()), []);
}

#[test]
fn ended_pods_need_no_volumes() {
    let pod = |deleted: bool, phase: &str, terminated: bool| -> Pod {
        let state = if terminated { json!({"terminated": {"exitCode": 0}}) } else { json!({}) };
        let mut object = json!({"metadata": {"name": "p"}, "status": {"phase": phase,
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}});
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!(NOW.to_string());
        }
        serde_json::from_value(object).expect("a pod")
    };
    let mut keeps = node(&[], &[], "True", None);
    let plain = keeps.clone();
    if let Some(annotations) = &mut keeps.metadata.annotations {
        annotations.insert("volumes.kubernetes.io/keep-terminated-pod-volumes".into(), "true".into());
    }
    for (pod, needs) in [
        (pod(false, "Running", false), true),
        (pod(true, "Running", false), true),
        (pod(true, "Running", true), false),
        (pod(false, "Running", true), true),
        (pod(false, "Succeeded", true), false),
        (pod(false, "Failed", false), false),
    ] {
        assert_eq!(wanted::needs_volumes(&pod, Some(&plain)), needs, "{pod:?}");
        assert!(wanted::needs_volumes(&pod, Some(&keeps)));
    }
}
