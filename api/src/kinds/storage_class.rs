//! StorageClasses and VolumeAttributesClasses: a driver and its parameters, which never change.

use serde_json::Value;

use super::access::{default_text, default_to, items, map, present, same, text};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// The annotation of the class that claims without one get.
pub const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 << 10;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    default_text(object, "reclaimPolicy", "Delete");
    default_to(object, "volumeBindingMode", "Immediate");
}

/// Everything wrong with a new StorageClass.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    provisioner(object, "provisioner", &mut errors);
    parameters(object, &mut errors);
    let path = FieldPath::new("reclaimPolicy");
    check::one_of(text(object, "reclaimPolicy"), &["Delete", "Retain"], &path, &mut errors);
    let path = FieldPath::new("volumeBindingMode");
    let modes = &["Immediate", "WaitForFirstConsumer"];
    check::one_of(text(object, "volumeBindingMode"), modes, &path, &mut errors);
    allowed_topologies(object, &mut errors);
    errors
}

/// A driver's name, of which the case does not count.
fn provisioner(object: &Value, key: &str, errors: &mut Vec<FieldError>) {
    let (name, path) = (text(object, key).to_lowercase(), FieldPath::new(key));
    check::required_name(&name, names::qualified_name, &path, errors);
}

fn parameters(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("parameters");
    let Some(parameters) = map(object, "parameters") else { return };
    if parameters.len() > PARAMETERS_MAX {
        errors.push(field::too_long(path, PARAMETERS_MAX));
        return;
    }
    let mut bytes = 0;
    for (key, value) in parameters {
        if key.is_empty() {
            errors.push(field::invalid(&path, "", "field can not be empty."));
        }
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.push(field::too_long(path, PARAMETERS_BYTES_MAX));
    }
}

fn allowed_topologies(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("allowedTopologies");
    let terms = items(object, "allowedTopologies");
    for (index, term) in terms.iter().enumerate() {
        let at = path.index(index).child("matchLabelExpressions");
        let mut taken: Vec<&str> = Vec::new();
        for (number, requirement) in items(term, "matchLabelExpressions").iter().enumerate() {
            let at = at.index(number);
            let (key, values) = (text(requirement, "key"), items(requirement, "values"));
            if values.is_empty() {
                errors.push(field::required(at.child("values"), ""));
            }
            for (place, value) in values.iter().enumerate() {
                if values[..place].contains(value) {
                    errors.push(field::duplicate(at.child("values").index(place), value.clone()));
                }
            }
            check::name(key, names::qualified_name, &at.child("key"), errors);
            if taken.contains(&key) {
                errors.push(field::duplicate(at.child("key"), key));
            }
            taken.push(key);
        }
        if terms[..index].iter().any(|earlier| same(Some(earlier), Some(term))) {
            errors.push(field::duplicate(at, ""));
        }
    }
}

/// Everything wrong with a changed StorageClass.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    forbid_changes(new, old, &["parameters", "provisioner", "reclaimPolicy"], &mut errors);
    let path = FieldPath::new("volumeBindingMode");
    object_meta::check_immutable(
        new.get("volumeBindingMode"),
        old.get("volumeBindingMode"),
        &path,
        &mut errors,
    );
    allowed_topologies(new, &mut errors);
    errors
}

fn forbid_changes(new: &Value, old: &Value, names: &[&str], errors: &mut Vec<FieldError>) {
    for name in names {
        if !same(new.get(name), old.get(name)) {
            errors.push(field::forbidden(*name, format!("updates to {name} are forbidden.")));
        }
    }
}

/// Whether claims without a class get this one.
pub fn is_default(object: &Value) -> bool {
    let annotations = crate::meta::annotations(object);
    let marked = |name: &str| annotations.and_then(|all| all.get(name)).is_some_and(|value| value == "true");
    marked(IS_DEFAULT) || marked("storageclass.beta.kubernetes.io/is-default-class")
}

/// Everything wrong with a new VolumeAttributesClass.
pub fn validate_attributes(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    attributes(object, &mut errors);
    errors
}

fn attributes(object: &Value, errors: &mut Vec<FieldError>) {
    provisioner(object, "driverName", errors);
    parameters(object, errors);
    if present(object, "parameters").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
        errors.push(field::required("parameters", "must contain at least one key/value pair"));
    }
}

/// Everything wrong with a changed VolumeAttributesClass.
pub fn validate_attributes_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    forbid_changes(new, old, &["driverName", "parameters"], &mut errors);
    attributes(new, &mut errors);
    errors
}
