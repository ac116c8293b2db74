//! ControllerRevisions: snapshots of what a controller once made, which never change.

use serde_json::Value;

use super::access::{default_to, present};
use super::object_meta;
use super::replica_set::not_negative;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream has none but the number that is always written.
pub fn default(object: &mut Value) {
    default_to(object, "revision", 0);
}

/// Everything wrong with a new ControllerRevision.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    if present(object, "data").is_none() {
        errors.push(field::required("data", "data is mandatory"));
    }
    not_negative(object, "revision", &FieldPath::root(), errors);
}

/// Everything wrong with a changed ControllerRevision.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    object_meta::check_immutable(new.get("data"), old.get("data"), &FieldPath::new("data"), &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_there_and_stays() {
        let mut old =
            json!({"metadata": {"name": "db-1", "namespace": "default"}, "data": {"spec": {"a": 1}}});
        default(&mut old);
        assert!(validate(&old).is_empty() && old["revision"] == 0);
        let mut new = old.clone();
        new["revision"] = json!(2);
        assert!(validate_update(&new, &old).is_empty());
        new["data"]["spec"]["a"] = json!(2);
        assert_eq!(
            validate_update(&new, &old)[0].to_string(),
            "data: Invalid value: {\"spec\":{\"a\":2}}: field is immutable"
        );
        new["data"] = Value::Null;
        assert_eq!(validate(&new)[0].to_string(), "data: Required value: data is mandatory");
    }
}
