//! PriorityClasses, and the two that every cluster has.

use serde_json::Value;

use super::access::{default_text, default_to, integer, text};
use super::object_meta;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// The highest value that users may define.
pub const USER_VALUE_MAX: i64 = 1_000_000_000;
/// Names that begin so belong to the system.
pub const SYSTEM_PREFIX: &str = "system-";

/// The classes that every cluster has: name, value, description.
pub const SYSTEM_CLASSES: &[(&str, i64, &str)] = &[
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    default_text(object, "preemptionPolicy", "PreemptLowerPriority");
    default_to(object, "value", 0);
}

/// Everything wrong with a new class.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    let name = crate::meta::name(object);
    let value = integer(object, "value").unwrap_or(0);
    if name.starts_with(SYSTEM_PREFIX) {
        let known =
            SYSTEM_CLASSES.iter().any(|(known, known_value, _)| *known == name && *known_value == value);
        if !known {
            errors.push(field::forbidden(
                "metadata.name",
                "priority class names with 'system-' prefix are reserved for system use only",
            ));
        }
    } else if value > USER_VALUE_MAX {
        errors.push(field::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}"),
        ));
    }
    let policy = text(object, "preemptionPolicy");
    if !matches!(policy, "" | "Never" | "PreemptLowerPriority") {
        errors.push(field::not_supported("preemptionPolicy", policy, &["Never", "PreemptLowerPriority"]));
    }
    errors
}

/// Everything wrong with a changed class: value and policy stay.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    if integer(new, "value") != integer(old, "value") {
        errors.push(field::forbidden("value", "may not be changed in an update."));
    }
    object_meta::check_immutable(
        new.get("preemptionPolicy"),
        old.get("preemptionPolicy"),
        &FieldPath::new("preemptionPolicy"),
        &mut errors,
    );
    errors
}
