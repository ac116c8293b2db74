//! `metav1.LabelSelector` fields.

use serde_json::Value;

use super::access::{items, text};
use super::object_meta;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Everything wrong with a selector.
pub fn validate(selector: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    object_meta::labels(selector, "matchLabels", &path.child("matchLabels"), errors);
    for (index, requirement) in items(selector, "matchExpressions").iter().enumerate() {
        validate_requirement(requirement, &path.child("matchExpressions").index(index), errors);
    }
}

fn validate_requirement(requirement: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let values = items(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.push(field::required(
                    path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.push(field::forbidden(
                    path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
        }
        other => errors.push(field::invalid(path.child("operator"), other, "not a valid selector operator")),
    }
    let key = text(requirement, "key");
    for problem in names::qualified_name(key) {
        errors.push(field::invalid(path.child("key"), key, problem));
    }
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        for problem in names::label_value(value) {
            errors.push(field::invalid(path.child("values").index(index), value, problem));
        }
    }
}

/// Whether a selector restricts nothing.
pub fn is_empty(selector: &Value) -> bool {
    items(selector, "matchExpressions").is_empty()
        && super::access::map(selector, "matchLabels").is_none_or(serde_json::Map::is_empty)
}
