//! ConfigMaps.

use serde_json::Value;

use super::access::{boolean, map, same};
use super::object_meta;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// All values together, in bytes.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Upstream has no defaults.
pub fn default(_object: &mut Value) {}

/// Everything wrong with a new ConfigMap.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let mut total = 0;
    for (key, value) in map(object, "data").into_iter().flatten() {
        let path = FieldPath::new("data").key(key);
        for problem in names::config_map_key(key) {
            errors.push(field::invalid(&path, key.as_str(), problem));
        }
        if map(object, "binaryData").is_some_and(|binary| binary.contains_key(key)) {
            errors.push(field::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
        }
        total += value.as_str().unwrap_or_default().len();
    }
    for (key, value) in map(object, "binaryData").into_iter().flatten() {
        let path = FieldPath::new("binaryData").key(key);
        for problem in names::config_map_key(key) {
            errors.push(field::invalid(&path, key.as_str(), problem));
        }
        total += decoded_length(value.as_str().unwrap_or_default());
    }
    if total > DATA_BYTES_MAX {
        errors.push(field::too_long("[]", DATA_BYTES_MAX));
    }
}

/// The length of what base64 text stands for.
pub fn decoded_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// Everything wrong with a changed ConfigMap: an immutable one keeps its data, and stays immutable.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    immutability(new, old, &["data", "binaryData"], &mut errors);
    content(new, &mut errors);
    errors
}

/// What an immutable ConfigMap or Secret keeps.
pub fn immutability(new: &Value, old: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    const TEXT: &str = "field is immutable when `immutable` is set";
    if !boolean(old, "immutable") {
        return;
    }
    if !boolean(new, "immutable") {
        errors.push(field::forbidden("immutable", TEXT));
    }
    for name in fields {
        if !same(new.get(name), old.get(name)) {
            errors.push(field::forbidden(*name, TEXT));
        }
    }
}
