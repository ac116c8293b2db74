//! The metadata of objects within custom resources (`x-kubernetes-embedded-resource`): its shape is every object's, whatever the schema says of it.

use serde_json::Value;

use super::structural::Structural;
use crate::schema::{self, Schema};

/// Checks the types of the metadata of objects within, drops what no metadata has, and names it with its path.
///
/// # Errors
/// A sentence about a value whose type is not its field's.
pub(super) fn decode(
    object: &mut Value,
    schema: &Structural,
    metadata: &Schema,
) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    walk(object, schema, metadata, &mut String::new(), &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

fn walk(
    value: &mut Value,
    schema: &Structural,
    metadata: &Schema,
    path: &mut String,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                if schema.embedded && name == "metadata" {
                    schema::check_types(field, metadata).map_err(|error| format!("{path}: {error}"))?;
                    let found = schema::prune(field, metadata);
                    unknown.extend(found.into_iter().map(|field| format!("{path}.{}", field.path)));
                } else if let Some(known) = schema.field(name) {
                    walk(field, known, metadata, path, unknown)?;
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(shape) = schema.items.as_deref() else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(item, shape, metadata, path, unknown)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_within_have_metadata_like_any_other() {
        let schema = Structural::of(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "templates": {"type": "array", "items": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}},
            "plain": {"type": "object", "properties": {"metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}}}),
        );
        let built_in = schema::of_kind("", "v1", "ConfigMap").expect("is built in");
        let metadata = built_in.child("metadata").expect("has metadata");
        let mut object = json!({"spec": {
            "templates": [{"kind": "A", "metadata": {"name": "a", "odd": 1, "labels": {"x": "y"}}, "odd": 2}],
            "plain": {"metadata": {"odd": 3}}}});
        let unknown = decode(&mut object, &schema, &metadata).expect("types are right");
        assert_eq!(unknown, ["spec.templates[0].metadata.odd"]);
        assert_eq!(
            object["spec"]["templates"],
            json!([{"kind": "A", "metadata": {"name": "a", "labels": {"x": "y"}}, "odd": 2}])
        );
        assert_eq!(object["spec"]["plain"]["metadata"], json!({"odd": 3}));
        let mut wrong = json!({"spec": {"templates": [{"metadata": {"labels": {"x": 1}}}]}});
        let error = decode(&mut wrong, &schema, &metadata).expect_err("a label is text");
        assert!(error.starts_with("spec.templates[0].metadata: "), "{error}");
    }
}
