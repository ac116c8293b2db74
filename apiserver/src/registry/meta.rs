//! `metadata` over JSON values, as far as the registry itself reads and writes it. Pure.

use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::{Map, Value};

/// 404 with upstream's text.
pub fn not_found(resource: &Resource, name: &str) -> ApiError {
    ApiError::not_found(resource.group_resource(), name)
}

/// 409 with upstream's text for a lost race.
pub fn modified(resource: &Resource, name: &str) -> ApiError {
    ApiError::conflict(
        resource.group_resource(),
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// `metadata`, made if it is not there (or no object).
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let object = object.as_object_mut()?;
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// A text field of `metadata`; empty when it is not there.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The name that an object has to bear, that of the path it is sent to.
///
/// # Errors
/// 400 for another name, and for none.
pub fn check_named(object: &Value, wanted: &str) -> Result<(), ApiError> {
    match text(object, "name") {
        name if name == wanted => Ok(()),
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        name => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
    }
}

/// Sets a text field of `metadata`.
pub fn set_text(object: &mut Value, field: &str, value: &str) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert(field.to_owned(), Value::String(value.to_owned()));
    }
}

/// Takes over a field of `metadata` from another object, its absence included.
pub fn copy_field(from: &Value, to: &mut Value, field: &str) {
    let value = from.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
    if let Some(metadata) = metadata_mut(to) {
        match value {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
}

/// Removes a field of `metadata`.
pub fn remove(object: &mut Value, field: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove(field);
    }
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get("finalizers"))
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Sets `metadata.finalizers`; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    if finalizers.is_empty() {
        return remove(object, "finalizers");
    }
    let list = finalizers.iter().map(|f| Value::String((*f).to_owned())).collect();
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("finalizers".into(), Value::Array(list));
    }
}

/// Removes the lists and maps of `metadata` that hold nothing: an object does not show what it has none of.
pub fn drop_empty(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| match value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        });
    }
}

/// Whether a deletion was asked for.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn grace_period(object: &Value) -> Option<i64> {
    object.get("metadata")?.get("deletionGracePeriodSeconds")?.as_i64()
}

/// The time `seconds` after `now`, as objects have it: UTC, whole seconds.
pub fn time_after(now: jiff::Timestamp, seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(now);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The edge to the system's clock: everything below takes the time as an argument.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_copied_with_their_absence() {
        let (from, mut to) =
            (json!({"metadata": {"uid": "1"}}), json!({"metadata": {"uid": "2", "generation": 3}}));
        copy_field(&from, &mut to, "uid");
        copy_field(&from, &mut to, "generation");
        assert_eq!(to, json!({"metadata": {"uid": "1"}}));
        set_finalizers(&mut to, &["a"]);
        assert_eq!(finalizers(&to), ["a"]);
        set_finalizers(&mut to, &[]);
        assert_eq!(to, json!({"metadata": {"uid": "1"}}));
    }

    #[test]
    fn what_holds_nothing_is_not_shown() {
        let mut object =
            json!({"metadata": {"name": "a", "finalizers": [], "labels": {}, "annotations": {"b": ""}}});
        drop_empty(&mut object);
        assert_eq!(object, json!({"metadata": {"name": "a", "annotations": {"b": ""}}}));
    }

    #[test]
    fn times_have_whole_seconds() {
        let now: jiff::Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("time");
        assert_eq!(time_after(now, 30), "2026-01-02T03:04:35Z");
    }
}
