//! Leases.

use serde_json::Value;

use super::access::{integer, present, struct_mut, text};
use super::object_meta;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream has no defaults but the empty spec.
pub fn default(object: &mut Value) {
    struct_mut(object, "spec");
}

/// Everything wrong with a new Lease.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any(object, true, names::dns1123_subdomain);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let Some(spec) = present(object, "spec") else { return };
    if let Some(seconds) = integer(spec, "leaseDurationSeconds")
        && seconds <= 0
    {
        errors.push(field::invalid(path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    if let Some(transitions) = integer(spec, "leaseTransitions")
        && transitions < 0
    {
        errors.push(field::invalid(
            path.child("leaseTransitions"),
            transitions,
            "must be greater than or equal to 0",
        ));
    }
    let strategy = text(spec, "strategy");
    if !matches!(strategy, "" | "OldestEmulationVersion") && !strategy.contains('/') {
        errors.push(field::not_supported(path.child("strategy"), strategy, &["OldestEmulationVersion"]));
    }
    if !text(spec, "preferredHolder").is_empty() && strategy.is_empty() {
        errors.push(field::forbidden(
            path.child("preferredHolder"),
            "may only be specified when `strategy` is defined",
        ));
    }
}

/// Everything wrong with a changed Lease.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    spec(new, &mut errors);
    errors
}
