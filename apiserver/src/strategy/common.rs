//! What several kinds do alike when objects are made and changed: the parts that a request may not touch, and generations.

use coracle_api::field::FieldError;
use coracle_api::kinds::access;
use serde_json::{Map, Value};

use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// Everything wrong with a new object.
pub type Validate = fn(&Value) -> Vec<FieldError>;
/// Everything wrong with a changed object, the stored one second.
pub type ValidateUpdate = fn(&Value, &Value) -> Vec<FieldError>;

/// Whether the request writes the status alone.
pub fn is_status(request: &RequestInfo) -> bool {
    request.subresource() == Some("status")
}

/// Takes over a top-level field of the stored object, its absence included.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    let Some(fields) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => fields.insert(key.to_owned(), value.clone()),
        None => fields.remove(key),
    };
}

/// A write of the status: everything but the status and the metadata is the stored object's.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let keys: Vec<String> = [&*new, old]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(Map::keys)
        .filter(|key| !matches!(key.as_str(), "metadata" | "status"))
        .cloned()
        .collect();
    for key in keys {
        keep(new, old, &key);
    }
}

/// Sets `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = meta::metadata_mut(object) {
        metadata.insert("generation".into(), generation.into());
    }
}

/// Counts the generation up from the stored one.
pub fn next_generation(new: &mut Value, old: &Value) {
    set_generation(new, coracle_api::meta::generation(old) + 1);
}

/// Whether a top-level field differs in meaning.
pub fn differs(new: &Value, old: &Value, key: &str) -> bool {
    !access::same(new.get(key), old.get(key))
}

/// A text at a path of field names; empty when it is not there.
pub fn text_at(object: &Value, path: &[&str]) -> String {
    coracle_api::meta::get(object, path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A boolean at a path of field names, as field selectors write it.
pub fn boolean_at(object: &Value, path: &[&str]) -> String {
    coracle_api::meta::get(object, path).and_then(Value::as_bool).unwrap_or_default().to_string()
}
