//! RuntimeClasses.

use serde_json::{Value, json};

use super::access::{items, map, present, text};
use super::{affinity, check, object_meta, resources};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Everything wrong with a new class.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    check::name(text(object, "handler"), names::dns1123_label, &FieldPath::new("handler"), &mut errors);
    if let Some(overhead) = present(object, "overhead") {
        let as_limits = json!({"limits": map(overhead, "podFixed").cloned().unwrap_or_default()});
        resources::validate(&as_limits, &FieldPath::new("overhead"), &mut errors);
    }
    if let Some(scheduling) = present(object, "scheduling") {
        let path = FieldPath::new("scheduling");
        affinity::validate_node_selector(scheduling, &path, &mut errors);
        affinity::validate_tolerations(scheduling, &path, &mut errors);
        let tolerations = items(scheduling, "tolerations");
        for (index, toleration) in tolerations.iter().enumerate() {
            if tolerations[..index].contains(toleration) {
                let at = path.child("tolerations").index(index);
                errors.push(field::duplicate(at, toleration.clone()));
            }
        }
    }
    errors
}

/// Everything wrong with a changed class: its handler stays.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("handler");
    object_meta::check_immutable(new.get("handler"), old.get("handler"), &path, &mut errors);
    errors
}
