//! Brings an object into the form that decoding into its type and encoding it again would give.
//!
//! Unknown fields go (and are named), nulls go, quantities and times take their canonical text.

use serde_json::Value;

use super::{Schema, StringFormat};
use crate::meta;
use crate::quantity::Quantity;

/// A field that the kind does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Its path, for example `spec.containers[0].foo`.
    pub path: String,
}

impl std::fmt::Display for UnknownField {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&crate::decode::unknown_field_text(&self.path))
    }
}

/// Drops unknown fields and nulls from `value`, makes quantities and times canonical, and names the unknown fields. Values
/// of a wrong type stay as they are: [`super::check_types`] refuses them.
pub fn prune(value: &mut Value, schema: &Schema) -> Vec<UnknownField> {
    let mut unknown = Vec::new();
    walk(value, schema, &mut String::new(), &mut unknown);
    unknown
}

fn walk(value: &mut Value, schema: &Schema, path: &mut String, unknown: &mut Vec<UnknownField>) {
    let length = path.len();
    match (schema, &mut *value) {
        (Schema::Struct(object), Value::Object(fields)) => {
            fields.retain(|name, field| {
                let Some(known) = object.field(name) else {
                    push_field(path, name);
                    unknown.push(UnknownField { path: path.clone() });
                    path.truncate(length);
                    return false;
                };
                if field.is_null() {
                    return false;
                }
                if is_nested(&known.schema) {
                    push_field(path, name);
                    walk(field, &known.schema, path, unknown);
                    path.truncate(length);
                } else {
                    canonical(field, &known.schema);
                }
                true
            });
        }
        (Schema::Map { values, .. }, Value::Object(entries)) => {
            for (key, entry) in entries.iter_mut() {
                push_field(path, key);
                walk(entry, values, path, unknown);
                path.truncate(length);
            }
        }
        (Schema::List { items, .. }, Value::Array(list)) => {
            for (index, item) in list.iter_mut().enumerate() {
                if is_nested(items) {
                    path.push_str(&format!("[{index}]"));
                    walk(item, items, path, unknown);
                    path.truncate(length);
                } else {
                    canonical(item, items);
                }
            }
        }
        _ => canonical(value, schema),
    }
}

fn push_field(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn is_nested(schema: &Schema) -> bool {
    matches!(schema, Schema::Struct(_) | Schema::Map { .. } | Schema::List { .. })
}

/// Gives a scalar its canonical form; a null inside a list or map becomes its type's zero.
fn canonical(value: &mut Value, schema: &Schema) {
    let replacement = match (schema, &*value) {
        (Schema::Quantity, Value::String(text)) => text
            .parse::<Quantity>()
            .ok()
            .map(|quantity| quantity.to_string())
            .filter(|canonical| canonical != text),
        (Schema::Quantity, Value::Number(number)) => {
            number.to_string().parse::<Quantity>().ok().map(|quantity| quantity.to_string())
        }
        (Schema::Quantity, Value::Null) => Some("0".to_owned()),
        (Schema::String(StringFormat::Time), Value::String(text))
            if text.len() != 20 || !text.ends_with('Z') =>
        {
            meta::parse_time(text).map(meta::format_time)
        }
        (Schema::String(StringFormat::MicroTime), Value::String(text))
            if text.len() != 27 || !text.ends_with('Z') =>
        {
            meta::parse_time(text).map(meta::format_micro_time)
        }
        (Schema::String(_), Value::Null) => Some(String::new()),
        (Schema::Struct(_), Value::Null) => {
            *value = Value::Object(serde_json::Map::new());
            None
        }
        _ => None,
    };
    if let Some(text) = replacement {
        *value = Value::String(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::of_kind;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut pod = json!({"kind": "Pod", "foo": 1, "metadata": {"labels": {"any": "x"}, "managedFields": [{"fieldsV1": {"f:x": {}}}]},
            "spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x", "image": null}], "nodeName": null}});
        let unknown = prune(&mut pod, of_kind("", "v1", "Pod").expect("pods"));
        let texts: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        assert_eq!(texts, vec!["unknown field \"foo\"", "unknown field \"spec.containers[1].imagee\""]);
        assert_eq!(pod["spec"], json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        assert_eq!(pod["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:x": {}}));
    }

    #[test]
    fn quantities_and_times_become_canonical() {
        let mut pod = json!({"metadata": {"creationTimestamp": "2026-01-01T02:00:00+02:00"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "0.5"}}}]}});
        prune(&mut pod, of_kind("", "v1", "Pod").expect("pods"));
        assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
        );
    }
}
