//! The tables of volumes, claims, classes and drivers.

use coracle_api::kinds::storage_class;
use coracle_api::meta;
use serde_json::Value;

use super::Context;
use super::cells::{NONE, age, list, name, text};
use super::columns::{AGE, Column, NAME, boolean, number as count, text as column};

const UNSET: &str = "<unset>";

fn access_modes(modes: &[Value]) -> Value {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown = known.iter().filter(|(mode, _)| modes.iter().any(|one| one == mode));
    shown.map(|(_, short)| *short).collect::<Vec<_>>().join(",").into()
}

fn phase(object: &Value) -> Value {
    if meta::is_being_deleted(object) {
        "Terminating".into()
    } else {
        text(object, &["status", "phase"]).into()
    }
}

fn or_unset(object: &Value, path: &[&str]) -> Value {
    meta::get(object, path).and_then(Value::as_str).unwrap_or(UNSET).into()
}

/// The class, which an annotation named before the field did.
fn class(object: &Value) -> Value {
    let annotated = meta::annotations(object)
        .and_then(|all| all.get(coracle_api::kinds::persistent_volume_claim::CLASS_ANNOTATION));
    annotated.and_then(Value::as_str).unwrap_or_else(|| text(object, &["spec", "storageClassName"])).into()
}

pub(super) const PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    column("Capacity", "How much the volume holds"),
    column("Access Modes", "How it can be mounted"),
    column("Reclaim Policy", "What becomes of it when its claim goes"),
    column("Status", "Whether it is bound"),
    column("Claim", "The claim it is bound to"),
    column("StorageClass", "The class it belongs to"),
    column("VolumeAttributesClass", "The class of its attributes"),
    column("Reason", "Why it is in its state"),
    AGE,
    column("VolumeMode", "What it is to its user").wide(),
];

pub(super) fn persistent_volume(object: &Value, context: &Context) -> Vec<Value> {
    let claim = |key| text(object, &["spec", "claimRef", key]);
    let claim = match (claim("namespace"), claim("name")) {
        ("", "") => String::new(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![
        name(object),
        text(object, &["spec", "capacity", "storage"]).into(),
        access_modes(list(object, &["spec", "accessModes"])),
        text(object, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase(object),
        claim.into(),
        class(object),
        or_unset(object, &["spec", "volumeAttributesClassName"]),
        text(object, &["status", "reason"]).into(),
        age(object, context),
        or_unset(object, &["spec", "volumeMode"]),
    ]
}

pub(super) const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    column("Status", "Whether it is bound"),
    column("Volume", "The volume it is bound to"),
    column("Capacity", "How much the volume holds"),
    column("Access Modes", "How it can be mounted"),
    column("StorageClass", "The class it asks for"),
    column("VolumeAttributesClass", "The class of attributes it asks for"),
    AGE,
    column("VolumeMode", "What it is to its user").wide(),
];

pub(super) fn persistent_volume_claim(object: &Value, context: &Context) -> Vec<Value> {
    let volume = text(object, &["spec", "volumeName"]);
    let bound = !volume.is_empty();
    let capacity = if bound { text(object, &["status", "capacity", "storage"]) } else { "" };
    let modes = if bound { list(object, &["status", "accessModes"]) } else { &[] };
    vec![
        name(object),
        phase(object),
        volume.into(),
        capacity.into(),
        access_modes(modes),
        class(object),
        or_unset(object, &["spec", "volumeAttributesClassName"]),
        age(object, context),
        or_unset(object, &["spec", "volumeMode"]),
    ]
}

pub(super) const STORAGE_CLASS: &[Column] = &[
    NAME,
    column("Provisioner", "The driver that makes volumes"),
    column("ReclaimPolicy", "What becomes of volumes when their claims go"),
    column("VolumeBindingMode", "When claims are bound"),
    column("AllowVolumeExpansion", "Whether claims may grow"),
    AGE,
];

pub(super) fn storage_class(object: &Value, context: &Context) -> Vec<Value> {
    let mut shown = meta::name(object).to_owned();
    if storage_class::is_default(object) {
        shown.push_str(" (default)");
    }
    let grows = object["allowVolumeExpansion"].as_bool().unwrap_or_default();
    vec![
        shown.into(),
        text(object, &["provisioner"]).into(),
        or_else(text(object, &["reclaimPolicy"]), "Delete"),
        or_else(text(object, &["volumeBindingMode"]), "Immediate"),
        grows.to_string().into(),
        age(object, context),
    ]
}

fn or_else(text: &str, other: &str) -> Value {
    if text.is_empty() { other.into() } else { text.into() }
}

pub(super) const VOLUME_ATTRIBUTES_CLASS: &[Column] =
    &[NAME, column("DriverName", "The driver that knows the attributes"), AGE];

pub(super) fn volume_attributes_class(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), text(object, &["driverName"]).into(), age(object, context)]
}

pub(super) const CSI_DRIVER: &[Column] = &[
    NAME,
    boolean("AttachRequired", "Whether volumes are attached to nodes first"),
    boolean("PodInfoOnMount", "Whether the driver is told about the pod"),
    boolean("StorageCapacity", "Whether the scheduler asks for free capacity"),
    column("TokenRequests", "For whom the driver is given tokens"),
    boolean("RequiresRepublish", "Whether volumes are published again and again"),
    column("Modes", "Kinds of volumes it makes"),
    AGE,
];

pub(super) fn csi_driver(object: &Value, context: &Context) -> Vec<Value> {
    let flag = |key: &str, default: bool| Value::Bool(object["spec"][key].as_bool().unwrap_or(default));
    let joined = |items: Vec<&str>, none: &str| or_else(&items.join(","), none);
    let audiences =
        list(object, &["spec", "tokenRequests"]).iter().map(|request| text(request, &["audience"]));
    let modes = list(object, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
    vec![
        name(object),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        joined(audiences.collect(), UNSET),
        flag("requiresRepublish", false),
        joined(modes.collect(), NONE),
        age(object, context),
    ]
}

pub(super) const CSI_NODE: &[Column] = &[NAME, count("Drivers", "Number of drivers on the node"), AGE];

pub(super) fn csi_node(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), (list(object, &["spec", "drivers"]).len() as i64).into(), age(object, context)]
}

pub(super) const CSI_STORAGE_CAPACITY: &[Column] = &[
    NAME,
    column("StorageClassName", "The class whose volumes fit"),
    column("Capacity", "How much is free"),
];

pub(super) fn csi_storage_capacity(object: &Value, _: &Context) -> Vec<Value> {
    let capacity = or_else(text(object, &["capacity"]), UNSET);
    vec![name(object), text(object, &["storageClassName"]).into(), capacity]
}

pub(super) const VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    column("Attacher", "The driver that attaches"),
    column("PV", "The volume"),
    column("Node", "The node"),
    boolean("Attached", "Whether it is attached"),
    AGE,
];

pub(super) fn volume_attachment(object: &Value, context: &Context) -> Vec<Value> {
    vec![
        name(object),
        text(object, &["spec", "attacher"]).into(),
        text(object, &["spec", "source", "persistentVolumeName"]).into(),
        text(object, &["spec", "nodeName"]).into(),
        object["status"]["attached"].as_bool().unwrap_or_default().into(),
        age(object, context),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Context {
        Context { now: "2026-01-01T00:01:00Z".parse().expect("time") }
    }

    #[test]
    fn a_claim_shows_what_it_got_once_it_is_bound() {
        let mut claim = json!({"metadata": {"name": "data", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": "Pending", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
        assert_eq!(
            Value::from(persistent_volume_claim(&claim, &context())),
            json!(["data", "Pending", "", "", "", "fast", "<unset>", "60s", "Filesystem"])
        );
        claim["spec"]["volumeName"] = "pv-1".into();
        claim["status"]["phase"] = "Bound".into();
        assert_eq!(
            Value::from(persistent_volume_claim(&claim, &context())),
            json!(["data", "Bound", "pv-1", "1Gi", "RWO,RWX", "fast", "<unset>", "60s", "Filesystem"])
        );
    }

    #[test]
    fn the_default_class_says_so() {
        let class = json!({"metadata": {"name": "fast", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "p", "allowVolumeExpansion": true});
        assert_eq!(
            Value::from(storage_class(&class, &context())),
            json!(["fast (default)", "p", "Delete", "Immediate", "true", "60s"])
        );
    }
}
