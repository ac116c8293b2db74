//! ReplicaSets.

use serde_json::{Value, json};

use super::access::{default_to, integer, present, set, struct_mut};
use super::{label_selector, object_meta, pod_spec_defaults};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_to(spec, "replicas", 1);
        pod_spec_defaults::default_template(spec);
    }
    if let Some(status) = struct_mut(object, "status") {
        default_to(status, "replicas", 0);
    }
}

/// What a new ReplicaSet's status is.
pub fn initial_status() -> Value {
    json!({"replicas": 0})
}

/// Everything wrong with a new ReplicaSet.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    for name in ["replicas", "minReadySeconds"] {
        not_negative(spec, name, &path, errors);
    }
    selector(spec, "deployment", &path, errors);
    super::pod_template::validate_of_replicas(spec, "ReplicaSet", &path, errors);
}

/// A number that may not be below 0.
pub fn not_negative(object: &Value, name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(value) = integer(object, name)
        && value < 0
    {
        errors.push(field::invalid(path.child(name), value, "must be greater than or equal to 0"));
    }
}

/// A controller's selector: there, and selecting something. `what` is the word upstream uses in the refusal.
pub fn selector(spec: &Value, what: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("selector");
    match present(spec, "selector") {
        None => errors.push(field::required(at, "")),
        Some(selector) => {
            label_selector::validate(selector, &at, errors);
            if label_selector::is_empty(selector) {
                errors.push(field::invalid(
                    at,
                    selector.clone(),
                    format!("empty selector is invalid for {what}"),
                ));
            }
        }
    }
}

/// Everything wrong with a changed ReplicaSet.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, &mut errors);
    immutable_selector(new, old, &mut errors);
    errors
}

/// A controller keeps its selector.
pub fn immutable_selector(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let selector = |object: &Value| crate::meta::get(object, &["spec", "selector"]).cloned();
    object_meta::check_immutable(
        selector(new).as_ref(),
        selector(old).as_ref(),
        &FieldPath::new("spec").child("selector"),
        errors,
    );
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    let none = Value::Null;
    let status = new.get("status").unwrap_or(&none);
    counts(
        status,
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        &path,
        &mut errors,
    );
    let number = |name: &str| integer(status, name).unwrap_or(0);
    for name in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if number(name) > number("replicas") {
            errors.push(field::invalid(
                path.child(name),
                number(name),
                "cannot be greater than status.replicas",
            ));
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        errors.push(field::invalid(
            path.child("availableReplicas"),
            number("availableReplicas"),
            "cannot be greater than readyReplicas",
        ));
    }
    errors
}

/// Counts of a status that may not be below 0, and `observedGeneration`.
pub fn counts(status: &Value, names: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    not_negative(status, "observedGeneration", path, errors);
    for name in names {
        not_negative(status, name, path, errors);
    }
}

/// Sets `spec.replicas`, as a scale does.
pub fn set_replicas(object: &mut Value, replicas: i64) {
    if let Some(spec) = struct_mut(object, "spec") {
        set(spec, "replicas", replicas);
    }
}
