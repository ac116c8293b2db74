//! Reading and writing `metadata` of objects held as JSON, and the time and name formats that it uses.
//!
//! Never validates: see [`crate::names`] and [`crate::kinds`].

use jiff::Timestamp;
use serde_json::{Map, Value};

/// `metadata.KEY` as a string; empty when it is not there.
fn metadata_str<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, or an empty string.
pub fn name(object: &Value) -> &str {
    metadata_str(object, "name")
}

/// `metadata.generateName`, or an empty string.
pub fn generate_name(object: &Value) -> &str {
    metadata_str(object, "generateName")
}

/// `metadata.namespace`, or an empty string.
pub fn namespace(object: &Value) -> &str {
    metadata_str(object, "namespace")
}

/// `metadata.uid`, or an empty string.
pub fn uid(object: &Value) -> &str {
    metadata_str(object, "uid")
}

/// `metadata.resourceVersion`, or an empty string.
pub fn resource_version(object: &Value) -> &str {
    metadata_str(object, "resourceVersion")
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    get(object, &["metadata", "generation"]).and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.creationTimestamp`, when it is there and well-formed.
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(metadata_str(object, "creationTimestamp"))
}

/// `metadata.deletionTimestamp`, when it is there and well-formed.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(metadata_str(object, "deletionTimestamp"))
}

/// Whether deletion of the object has begun.
pub fn is_being_deleted(object: &Value) -> bool {
    get(object, &["metadata", "deletionTimestamp"]).is_some_and(|value| !value.is_null())
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    get(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64)
}

/// `metadata.labels`, when there are any.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    get(object, &["metadata", "labels"]).and_then(Value::as_object)
}

/// `metadata.annotations`, when there are any.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    get(object, &["metadata", "annotations"]).and_then(Value::as_object)
}

/// `metadata.finalizers` as strings.
pub fn finalizers(object: &Value) -> Vec<&str> {
    get(object, &["metadata", "finalizers"])
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// `metadata.ownerReferences` as a slice.
pub fn owner_references(object: &Value) -> &[Value] {
    get(object, &["metadata", "ownerReferences"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|reference| reference.get("controller") == Some(&Value::Bool(true)))
}

/// The API group in an `apiVersion` (`apps/v1` gives `apps`, `v1` gives an empty string) and its version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The `apiVersion` of a group and version.
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The value at a path of field names.
pub fn get<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// `metadata` as a map to write to; makes one when there is none. A non-object is replaced.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// The field `key` as a map to write to; makes one when there is none. A non-object is replaced.
pub fn child_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = as_map(object).entry(key).or_insert_with(|| Value::Object(Map::new()));
    as_map(slot)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("the value was made an object above"),
    }
}

/// Sets `metadata.KEY`.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(key.to_owned(), value.into());
}

/// Removes `metadata.KEY` and returns what was there.
pub fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(key)
}

/// Sets `metadata.resourceVersion`.
pub fn set_resource_version(object: &mut Value, revision: u64) {
    set(object, "resourceVersion", revision.to_string());
}

/// Adds `finalizer` unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    let list = metadata_mut(object).entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    if let Value::Array(items) = list
        && !items.iter().any(|item| item.as_str() == Some(finalizer))
    {
        items.push(finalizer.into());
    }
}

/// Removes `finalizer`; an emptied list goes too. Says whether it was there.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) -> bool {
    let metadata = metadata_mut(object);
    let Some(Value::Array(items)) = metadata.get_mut("finalizers") else { return false };
    let before = items.len();
    items.retain(|item| item.as_str() != Some(finalizer));
    let removed = items.len() != before;
    if items.is_empty() {
        metadata.remove("finalizers");
    }
    removed
}

/// A `metav1.Time`: RFC 3339 in UTC with whole seconds.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A `metav1.MicroTime`: RFC 3339 in UTC with six decimals.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads either time format, with any offset.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The letters and digits of generated name suffixes: none that could spell a word or be mixed up.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The bytes of a generated suffix.
const SUFFIX_LENGTH: usize = 5;
/// The longest base kept of `generateName`, so that base and suffix make a DNS label.
const GENERATED_BASE_MAX_LENGTH: usize = 63 - SUFFIX_LENGTH;

/// The name made of a `generateName` base and five letters drawn from `random`.
pub fn generated_name(base: &str, random: [u8; SUFFIX_LENGTH]) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for byte in random {
        name.push(char::from(SUFFIX_ALPHABET[usize::from(byte) % SUFFIX_ALPHABET.len()]));
    }
    name
}

/// A random (version 4) UUID in its text form, of 16 random bytes.
pub fn uuid(mut random: [u8; 16]) -> String {
    random[6] = (random[6] & 0x0f) | 0x40;
    random[8] = (random[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in random.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_metadata_and_tolerates_its_absence() {
        let pod = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"},
            "ownerReferences": [{"name": "r"}, {"name": "s", "controller": true}]}});
        assert_eq!((name(&pod), namespace(&pod), uid(&pod)), ("a", "b", ""));
        assert_eq!(labels(&pod).map(Map::len), Some(1));
        assert_eq!(controller_of(&pod).and_then(|owner| owner["name"].as_str()), Some("s"));
        assert_eq!(name(&json!(null)), "");
    }

    #[test]
    fn finalizers_come_and_go() {
        let mut object = json!({});
        add_finalizer(&mut object, "x");
        add_finalizer(&mut object, "x");
        assert_eq!(finalizers(&object), vec!["x"]);
        assert!(remove_finalizer(&mut object, "x"));
        assert!(!remove_finalizer(&mut object, "x"));
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn times_print_in_both_precisions() {
        let time: Timestamp = "2026-11-21T05:48:09.123456789Z".parse().expect("a timestamp");
        assert_eq!(format_time(time), "2026-11-21T05:48:09Z");
        assert_eq!(format_micro_time(time), "2026-11-21T05:48:09.123456Z");
        assert!(parse_time("2026-11-21T07:48:09+02:00").is_some());
        assert!(parse_time("").is_none());
    }

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generated_name("web-", [0, 1, 26, 27, 28]), "web-bc9bc");
        assert_eq!(generated_name(&"x".repeat(80), [0; 5]).len(), 63);
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
