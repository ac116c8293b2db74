//! Deployments.

use serde_json::{Value, json};

use super::access::{default_text, default_to, integer, present, struct_mut, text};
use super::replica_set::{counts, immutable_selector, not_negative, selector};
use super::{int_or_percent, object_meta, pod_spec_defaults};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        default_to(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = struct_mut(spec, "strategy") {
            default_text(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = struct_mut(strategy, "rollingUpdate")
            {
                default_to(rolling, "maxUnavailable", "25%");
                default_to(rolling, "maxSurge", "25%");
            }
        }
        pod_spec_defaults::default_template(spec);
    }
    struct_mut(object, "status");
}

/// What a new Deployment's status is.
pub fn initial_status() -> Value {
    json!({})
}

/// Everything wrong with a new Deployment.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    not_negative(spec, "replicas", &path, errors);
    selector(spec, "deployment", &path, errors);
    super::pod_template::validate_of_replicas(spec, "ReplicaSet", &path, errors);
    strategy(spec.get("strategy").unwrap_or(&none), &path.child("strategy"), errors);
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        not_negative(spec, name, &path, errors);
    }
    if let Some(deadline) = integer(spec, "progressDeadlineSeconds") {
        not_negative(spec, "progressDeadlineSeconds", &path, errors);
        if deadline <= integer(spec, "minReadySeconds").unwrap_or(0) {
            errors.push(field::invalid(
                path.child("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
    }
}

fn strategy(strategy: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let rolling = present(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                errors.push(field::forbidden(
                    path.child("rollingUpdate"),
                    "may not be specified when strategy `type` is 'Recreate'",
                ));
            }
        }
        "RollingUpdate" => match rolling {
            None => errors.push(field::required(
                path.child("rollingUpdate"),
                "this should be defaulted and never be nil",
            )),
            Some(rolling) => rolling_update(rolling, &path.child("rollingUpdate"), errors),
        },
        other => errors.push(field::not_supported(path.child("type"), other, &["Recreate", "RollingUpdate"])),
    }
}

fn rolling_update(rolling: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for name in ["maxUnavailable", "maxSurge"] {
        if let Some(value) = rolling.get(name) {
            int_or_percent::validate(value, &path.child(name), errors);
        }
    }
    let unavailable = rolling.get("maxUnavailable");
    if int_or_percent::is_zero(unavailable) && int_or_percent::is_zero(rolling.get("maxSurge")) {
        let shown = unavailable.cloned().unwrap_or(Value::Null);
        errors.push(field::invalid(path.child("maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0"));
    }
    if let Some(unavailable) = unavailable {
        int_or_percent::validate_share(unavailable, &path.child("maxUnavailable"), errors);
    }
}

/// Everything wrong with a changed Deployment.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, &mut errors);
    immutable_selector(new, old, &mut errors);
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    let none = Value::Null;
    let (status, before) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let names = [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    counts(status, &names, &path, &mut errors);
    let number = |name: &str| integer(status, name).unwrap_or(0);
    for (name, most) in [
        ("updatedReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if number(name) > number(most) {
            let whose = if most == "replicas" { "status.replicas" } else { most };
            errors.push(field::invalid(
                path.child(name),
                number(name),
                format!("cannot be greater than {whose}"),
            ));
        }
    }
    if let Some(collisions) = integer(before, "collisionCount") {
        match integer(status, "collisionCount") {
            None => errors.push(field::invalid(
                path.child("collisionCount"),
                Value::Null,
                "cannot be unset once set",
            )),
            Some(now) if now < collisions => {
                errors.push(field::invalid(path.child("collisionCount"), now, "cannot be decremented"));
            }
            Some(_) => {}
        }
    }
    errors
}
