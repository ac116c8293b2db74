//! Short reads and writes over JSON objects, for defaulting and validation. A missing field, a null and the type's zero read the same, as
//! they do for the decoder of upstream's types.

use serde_json::{Map, Value};

/// A text field; empty when it is not there.
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A field that is there and not null.
pub fn present<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// The items of a list field; none when it is not there.
pub fn items<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a map field; `None` when it is not there.
pub fn map<'a>(object: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    object.get(key).and_then(Value::as_object)
}

/// A whole number; `None` when it is not there.
pub fn integer(object: &Value, key: &str) -> Option<i64> {
    object.get(key).and_then(Value::as_i64)
}

/// A boolean; false when it is not there.
pub fn boolean(object: &Value, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// Sets a field that is missing or null.
pub fn default_to(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut()
        && fields.get(key).is_none_or(Value::is_null)
    {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Sets a text field that is missing or empty.
pub fn default_text(object: &mut Value, key: &str, value: &str) {
    if text(object, key).is_empty()
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Sets a number that is missing or 0.
pub fn default_number(object: &mut Value, key: &str, value: i64) {
    if integer(object, key).unwrap_or_default() == 0
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Makes a field an object when it is missing, and gives it.
pub fn struct_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    default_to(object, key, Value::Object(Map::new()));
    object.get_mut(key).filter(|value| value.is_object())
}

/// Runs over the items of a list field.
pub fn each_mut(object: &mut Value, key: &str, change: impl FnMut(&mut Value)) {
    if let Some(list) = object.get_mut(key).and_then(Value::as_array_mut) {
        list.iter_mut().for_each(change);
    }
}

/// Sets a field.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Takes a field out.
pub fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.as_object_mut()?.remove(key)
}

/// Takes out fields that are null, at any depth: clients may write them, and they mean nothing.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether two fields mean the same: missing, null and empty are alike, and so are nested fields.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(|field| same(Some(field), None)),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match (a, b) {
        (None, None) => true,
        (Some(one), None) | (None, Some(one)) => empty(one),
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.iter().all(|(key, value)| same(Some(value), b.get(key)))
                && b.iter().all(|(key, value)| a.contains_key(key) || same(None, Some(value)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(a), Some(b)) => a == b || (empty(a) && empty(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_and_empty_mean_the_same() {
        assert!(same(Some(&json!({"a": "", "b": [], "c": {"d": null}})), Some(&json!({}))));
        assert!(same(Some(&json!([])), None));
        assert!(!same(Some(&json!({"a": 0})), Some(&json!({}))));
        assert!(!same(Some(&json!({"a": [1]})), Some(&json!({"a": [2]}))));
    }

    #[test]
    fn defaults_replace_zeros_only() {
        let mut object = json!({"a": "", "b": 0, "c": null, "d": "x"});
        default_text(&mut object, "a", "1");
        default_number(&mut object, "b", 2);
        default_to(&mut object, "c", true);
        default_text(&mut object, "d", "y");
        assert_eq!(object, json!({"a": "1", "b": 2, "c": true, "d": "x"}));
    }
}
