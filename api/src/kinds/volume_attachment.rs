//! VolumeAttachments and CSIStorageCapacities: what attachers and provisioners tell each other.

use serde_json::Value;

use super::access::{default_to, integer, map, present, struct_mut, text};
use super::{check, csi_driver, label_selector, object_meta, persistent_volume};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const METADATA_BYTES_MAX: usize = 256 << 10;
const MESSAGE_BYTES_MAX: usize = 1024;

/// What a new VolumeAttachment's status is.
pub fn initial_status() -> Value {
    serde_json::json!({"attached": false})
}

/// Upstream's defaults of a VolumeAttachment.
pub fn default(object: &mut Value) {
    if let Some(status) = struct_mut(object, "status") {
        default_to(status, "attached", false);
    }
}

/// Everything wrong with a new VolumeAttachment.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    content(object, &mut errors);
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    csi_driver::driver_name(text(spec, "attacher"), &FieldPath::new("spec.attacher"), &mut errors);
    let source = spec.get("source").unwrap_or(&none);
    if let Some(volume) = present(source, "persistentVolumeName").and_then(Value::as_str) {
        let path = FieldPath::new("spec.source.persistentVolumeName");
        check::name(volume, names::dns1123_subdomain, &path, &mut errors);
    }
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = FieldPath::new("spec");
    check::required(spec, "attacher", &path, errors);
    source(spec.get("source").unwrap_or(&none), &path.child("source"), errors);
    check::name(text(spec, "nodeName"), names::dns1123_subdomain, &path.child("nodeName"), errors);
    status(object, errors);
}

fn source(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (present(source, "inlineVolumeSpec"), present(source, "persistentVolumeName")) {
        (None, None) => errors.push(field::required(path, ONE)),
        (Some(_), Some(_)) => errors.push(field::forbidden(path, ONE)),
        (None, Some(name)) => {
            if name.as_str().unwrap_or_default().is_empty() {
                errors.push(field::required(
                    path.child("persistentVolumeName"),
                    "must specify non empty persistentVolumeName",
                ));
            }
        }
        (Some(inline), None) => {
            persistent_volume::validate_inline(inline, &path.child("inlineVolumeSpec"), errors);
        }
    }
}

fn status(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("status");
    let Some(status) = present(object, "status") else { return };
    let bytes: usize = map(status, "attachmentMetadata")
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len())
        .sum();
    if bytes > METADATA_BYTES_MAX {
        errors.push(field::too_long(path.child("attachmentMetadata"), METADATA_BYTES_MAX));
    }
    for name in ["attachError", "detachError"] {
        let Some(error) = present(status, name) else { continue };
        let at = path.child(name);
        if text(error, "message").len() > MESSAGE_BYTES_MAX {
            errors.push(field::too_long(at.child("message"), METADATA_BYTES_MAX));
        }
        if let Some(code) = integer(error, "errorCode").filter(|code| *code < 0) {
            let text = names::inclusive_range_error(0, i64::from(i32::MAX));
            errors.push(field::invalid(at.child("errorCode"), code, text));
        }
    }
}

/// Everything wrong with a changed VolumeAttachment.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    object_meta::check_immutable(new.get("spec"), old.get("spec"), &FieldPath::new("spec"), &mut errors);
    errors
}

/// Everything wrong with a new CSIStorageCapacity.
pub fn validate_capacity(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    if let Some(topology) = present(object, "nodeTopology") {
        label_selector::validate(topology, &FieldPath::new("nodeTopology"), &mut errors);
    }
    let path = FieldPath::new("storageClassName");
    check::name(text(object, "storageClassName"), names::dns1123_subdomain, &path, &mut errors);
    if let Some(capacity) = present(object, "capacity") {
        super::resources::validate_value("storage", capacity, &FieldPath::new("capacity"), &mut errors);
    }
    errors
}

/// Everything wrong with a changed CSIStorageCapacity.
pub fn validate_capacity_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    for name in ["nodeTopology", "storageClassName"] {
        object_meta::check_immutable(new.get(name), old.get(name), &FieldPath::new(name), &mut errors);
    }
    errors
}
