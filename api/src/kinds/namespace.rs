//! Namespaces.

use serde_json::{Value, json};

use super::access::{items, set, struct_mut};
use super::object_meta;
use crate::field::{FieldError, FieldPath};
use crate::names;

/// The finalizer that stands for the content.
pub const KUBERNETES_FINALIZER: &str = "kubernetes";
/// The label that carries every namespace's name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Upstream's defaults: the label that lets selectors name a namespace.
pub fn default(object: &mut Value) {
    struct_mut(object, "spec");
    struct_mut(object, "status");
    let name = crate::meta::name(object).to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = struct_mut(object, "metadata").and_then(|metadata| struct_mut(metadata, "labels")) {
        set(labels, NAME_LABEL, name);
    }
}

/// What a new namespace starts with: active, kept until its content is gone.
pub fn prepare_for_create(object: &mut Value) {
    set(object, "status", json!({"phase": "Active"}));
    if let Some(spec) = struct_mut(object, "spec") {
        let mut finalizers = items(spec, "finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == KUBERNETES_FINALIZER) {
            finalizers.push(KUBERNETES_FINALIZER.into());
        }
        set(spec, "finalizers", finalizers);
    }
}

/// Everything wrong with a new namespace.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_label);
    finalizers(object, &mut errors);
    errors
}

fn finalizers(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("finalizers");
    let listed = object.get("spec").map(|spec| items(spec, "finalizers")).unwrap_or_default();
    for (index, finalizer) in listed.iter().enumerate() {
        object_meta::validate_finalizer(finalizer.as_str().unwrap_or_default(), &path.index(index), errors);
    }
}

/// Everything wrong with a changed namespace.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    object_meta::validate_update(new, old)
}

/// Everything wrong with changed finalizers.
pub fn validate_finalize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    finalizers(new, &mut errors);
    errors
}

/// The phase agrees with whether a deletion was asked for.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let phase = crate::meta::get(new, &["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
    let path = "status.Phase";
    if crate::meta::is_being_deleted(new) {
        if phase != "Terminating" {
            errors.push(crate::field::invalid(
                path,
                phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            ));
        }
    } else if phase != "Active" {
        errors.push(crate::field::invalid(
            path,
            phase,
            "may only be 'Active' if `deletionTimestamp` is empty",
        ));
    }
    errors
}
