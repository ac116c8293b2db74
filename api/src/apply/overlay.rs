//! An apply configuration laid over an object for nobody: what is in it is set, and no field has an owner.

use serde_json::Value;

use super::typed;
use crate::schema::{ListType, Schema};

/// `live` with what `applied` sets.
///
/// # Errors
/// A field that the kind does not have, list items that cannot be told apart, or a list, map or struct that could only be replaced as a whole.
pub fn overlay(live: &Value, applied: &Value, schema: &Schema) -> Result<Value, String> {
    typed::to_set(applied, schema)
        .map_err(|error| format!("failed to convert patch object to typed object: {error}"))?;
    let mut atomic = Vec::new();
    find_atomic(applied, schema, "", &mut atomic);
    if !atomic.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomic.join(", ")
        ));
    }
    Ok(typed::merge(live.clone(), applied, schema))
}

/// The paths of all lists, maps and structs that are one value.
fn find_atomic(value: &Value, schema: &Schema, path: &str, found: &mut Vec<String>) {
    match (value, schema) {
        (Value::Object(fields), Schema::Struct(object)) => {
            if object.atomic {
                found.push(path.to_owned());
            }
            for (name, field) in fields {
                if let Some(known) = object.field(name) {
                    find_atomic(field, &known.schema, &format!("{path}.{name}"), found);
                }
            }
        }
        (Value::Object(_), Schema::Map { atomic: true, .. }) => found.push(path.to_owned()),
        (Value::Array(list), Schema::List { items, list_type }) => {
            if *list_type == ListType::Atomic {
                found.push(path.to_owned());
            }
            for (index, item) in list.iter().enumerate() {
                find_atomic(item, items, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;
    use serde_json::json;

    fn laid(applied: &Value) -> Result<Value, String> {
        let live = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        overlay(&live, applied, schema::of_kind("", "v1", "Pod").expect("pods have a schema"))
    }

    #[test]
    fn what_is_set_is_merged_by_the_kinds_schema() {
        let applied = json!({"metadata": {"labels": {"b": "2"}},
            "spec": {"initContainers": [{"name": "mesh", "image": "m"}], "containers": [{"name": "c", "imagePullPolicy": "Always"}]}});
        assert_eq!(
            laid(&applied),
            Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "1", "b": "2"}},
                "spec": {"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}], "initContainers": [{"name": "mesh", "image": "m"}]}}))
        );
    }

    #[test]
    fn what_could_only_be_replaced_is_refused() {
        let applied =
            json!({"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "args": ["x"]}]}});
        assert_eq!(
            laid(&applied).expect_err("atomic"),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].args, .spec.nodeSelector"
        );
        assert_eq!(
            laid(&json!({"spec": {"none": 1}})).expect_err("unknown"),
            "failed to convert patch object to typed object: .spec.none: field not declared in schema"
        );
    }
}
