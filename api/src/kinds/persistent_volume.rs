//! PersistentVolumes.

use serde_json::{Map, Value};

use super::access::{default_text, default_to, integer, items, map, present, remove, same, struct_mut, text};
use super::{affinity, check, csi_driver, object_meta, resources, volume};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// How a volume may be mounted.
pub const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// What a volume is to its user.
pub const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// The kinds of volumes, in upstream's order, with the texts that each needs.
const SOURCES: &[(&str, &[&str])] = &[
    ("hostPath", &[]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &[]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["shareName", "secretName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &[]),
    ("storageos", &[]),
    ("csi", &["volumeHandle"]),
];

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_to(spec, "volumeMode", "Filesystem");
        if let Some(host_path) = spec.get_mut("hostPath").filter(|source| source.is_object()) {
            default_to(host_path, "type", "");
        }
        default_source(spec);
    }
    if let Some(status) = struct_mut(object, "status") {
        default_text(status, "phase", "Pending");
    }
}

fn default_source(spec: &mut Value) {
    for (source, name, value) in [
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
        ("azureDisk", "cachingMode", "ReadWrite"),
        ("azureDisk", "fsType", "ext4"),
        ("azureDisk", "kind", "Shared"),
    ] {
        if let Some(source) = spec.get_mut(source).filter(|source| source.is_object()) {
            default_text(source, name, value);
        }
    }
    if let Some(disk) = spec.get_mut("azureDisk").filter(|source| source.is_object()) {
        default_to(disk, "readOnly", false);
    }
}

/// Everything wrong with a new volume.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    access_modes(spec, "", &path, errors);
    capacity(spec, &path, errors);
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    let policies = &["Delete", "Recycle", "Retain"];
    check::one_of(policy, policies, &path.child("persistentVolumeReclaimPolicy"), errors);
    let required = present(spec, "nodeAffinity").and_then(|affinity| {
        let at = path.child("nodeAffinity");
        let required = present(affinity, "required");
        match required {
            Some(required) => affinity::validate_terms(required, &at.child("required"), errors),
            None => {
                errors.push(field::required(at.child("required"), "must specify required node constraints"))
            }
        }
        required
    });
    sources(spec, &path, errors);
    if present(spec, "local").is_some() && required.is_none() {
        errors.push(field::required(path.child("nodeAffinity"), "Local volume requires node affinity"));
    }
    let is_root = |source: &Value| text(source, "path").split('/').all(|part| matches!(part, "" | "."));
    if policy == "Recycle" && present(spec, "hostPath").is_some_and(is_root) {
        errors.push(field::forbidden(
            path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
    class_name(spec, "storageClassName", &path, errors);
    check::one_of(text(spec, "volumeMode"), VOLUME_MODES, &path.child("volumeMode"), errors);
    if let Some(name) = present(spec, "volumeAttributesClassName").and_then(Value::as_str) {
        if name.is_empty() {
            let at = path.child("volumeAttributesClassName");
            errors.push(field::required(at, "an empty string is disallowed"));
        }
        class_name(spec, "volumeAttributesClassName", &path, errors);
        if present(spec, "csi").is_none() {
            let text = "has to be specified when using volumeAttributesClassName";
            errors.push(field::required(path.child("csi"), text));
        }
    }
}

/// `accessModes` of a volume or claim; `missing` is what is said when there are none.
pub fn access_modes(spec: &Value, missing: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("accessModes");
    let modes = items(spec, "accessModes");
    if modes.is_empty() {
        errors.push(field::required(&at, missing));
    }
    for mode in modes {
        check::one_of(mode.as_str().unwrap_or_default(), ACCESS_MODES, &at, errors);
    }
    let is_known = |mode: &Value| mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode));
    let alone = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    if alone && modes.iter().any(|mode| mode != "ReadWriteOncePod" && is_known(mode)) {
        errors.push(field::forbidden(at, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// The name of a class, where there is one.
pub fn class_name(spec: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let name = text(spec, key);
    if !name.is_empty() {
        check::name(name, names::dns1123_subdomain, &path.child(key), errors);
    }
}

fn capacity(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("capacity");
    let empty = Map::new();
    let capacity = map(spec, "capacity").unwrap_or(&empty);
    if capacity.is_empty() {
        errors.push(field::required(&at, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(field::not_supported(&at, Value::Object(capacity.clone()), &["storage"]));
    }
    for (name, value) in capacity {
        resources::validate_value(name, value, &at.key(name), errors);
    }
    check::positive_quantities(spec, "capacity", path, errors);
}

fn sources(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut found = 0;
    for (name, needed) in SOURCES {
        let Some(source) = present(spec, name) else { continue };
        let at = path.child(name);
        found += 1;
        if found > 1 {
            errors.push(field::forbidden(at, "may not specify more than 1 volume type"));
            continue;
        }
        for key in *needed {
            check::required(source, key, &at, errors);
        }
        source_details(name, source, &at, errors);
    }
    if found == 0 {
        errors.push(field::required(path, "must specify a volume type"));
    }
}

fn source_details(name: &str, source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match name {
        "hostPath" => volume::host_path(source, path, errors),
        "nfs" if !text(source, "path").starts_with('/') => {
            errors.push(field::invalid(path.child("path"), text(source, "path"), "must be an absolute path"));
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            if let Some(partition) = integer(source, "partition").filter(|number| !(0..=255).contains(number))
            {
                let text = names::inclusive_range_error(0, 255);
                errors.push(field::invalid(path.child("partition"), partition, text));
            }
        }
        "iscsi" => {
            if let Some(lun) = integer(source, "lun").filter(|number| !(0..=255).contains(number)) {
                errors.push(field::invalid(path.child("lun"), lun, names::inclusive_range_error(0, 255)));
            }
        }
        "cephfs" | "rbd" if items(source, "monitors").is_empty() => {
            errors.push(field::required(path.child("monitors"), ""));
        }
        "fc" if items(source, "targetWWNs").is_empty() && items(source, "wwids").is_empty() => {
            errors.push(field::required(
                path.child("targetWWNs"),
                "must specify either targetWWNs or wwids, but not both",
            ));
        }
        "local" => local(source, path, errors),
        "csi" => csi(source, path, errors),
        _ => {}
    }
}

fn local(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let target = text(source, "path");
    if target.is_empty() {
        errors.push(field::required(path.child("path"), ""));
    } else if target.split('/').any(|part| part == "..") {
        errors.push(field::invalid(path.child("path"), target, "must not contain '..'"));
    }
}

fn csi(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    csi_driver::driver_name(text(source, "driver"), &path.child("driver"), errors);
    for name in [
        "controllerPublishSecretRef",
        "nodeStageSecretRef",
        "nodePublishSecretRef",
        "controllerExpandSecretRef",
        "nodeExpandSecretRef",
    ] {
        let Some(secret) = present(source, name) else { continue };
        check::required(secret, "name", &path.child(name), errors);
        check::required(secret, "namespace", &path.child(name), errors);
    }
}

/// Everything wrong with the volume that a VolumeAttachment describes itself.
pub fn validate_inline(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    const NOT_HERE: &str = "may not be specified in the context of inline volumes";
    for name in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        if !same(spec.get(name), None) {
            errors.push(field::forbidden(path.child(name), NOT_HERE));
        }
    }
    if present(spec, "csi").is_none() {
        errors
            .push(field::required(path.child("csi"), "has to be specified in the context of inline volumes"));
    }
    access_modes(spec, "", path, errors);
    sources(spec, path, errors);
}

/// Everything wrong with a changed volume: what it is stays.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    let none = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let mut after = only_source(spec);
    let earlier = only_source(before);
    // A secret for expansion may be given later, once.
    let has_secret = |source: &Value| {
        source.get("csi").is_some_and(|csi| present(csi, "controllerExpandSecretRef").is_some())
    };
    if !has_secret(&earlier)
        && earlier.get("csi").is_some()
        && let Some(csi) = after.get_mut("csi")
    {
        remove(csi, "controllerExpandSecretRef");
    }
    if !same(Some(&after), Some(&earlier)) {
        let lines = super::pod_update::differences(Some(&after), Some(&earlier), "spec");
        errors.push(field::forbidden(
            "spec.persistentvolumesource",
            format!("spec.persistentvolumesource is immutable after creation\n{lines}\n"),
        ));
    }
    let path = FieldPath::new("volumeMode");
    object_meta::check_immutable(spec.get("volumeMode"), before.get("volumeMode"), &path, &mut errors);
    if present(before, "nodeAffinity").is_some() {
        let path = FieldPath::new("nodeAffinity");
        object_meta::check_immutable(
            spec.get("nodeAffinity"),
            before.get("nodeAffinity"),
            &path,
            &mut errors,
        );
    }
    let class = "volumeAttributesClassName";
    if present(before, class).is_some() && present(spec, class).is_none() {
        let text = "update from non-nil value to nil is forbidden";
        errors.push(field::forbidden(FieldPath::new("spec").child(class), text));
    }
    errors
}

fn only_source(spec: &Value) -> Value {
    let kept = spec.as_object().into_iter().flatten();
    kept.filter(|(name, _)| SOURCES.iter().any(|(source, _)| source == name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}

/// What a new volume's status is.
pub fn initial_status() -> Value {
    serde_json::json!({"phase": "Pending"})
}
