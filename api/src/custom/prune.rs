//! Takes out the fields that a structural schema does not list.

use serde_json::Value;

use super::structural::Structural;

/// Fields that every object with a kind of its own has.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops the fields of a custom resource that its schema does not list, and names them with their paths.
pub fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, Some(schema), true, false, &mut String::new(), &mut unknown);
    unknown
}

/// `keeps` is inherited from a parent that keeps what it does not know; it ends where a shape is given.
fn walk(
    value: &mut Value,
    schema: Option<&Structural>,
    is_resource: bool,
    keeps: bool,
    path: &mut String,
    unknown: &mut Vec<String>,
) {
    let keeps = schema.map_or(keeps, |schema| schema.preserves_unknown);
    let is_resource = is_resource || schema.is_some_and(|schema| schema.embedded);
    let length = path.len();
    match value {
        Value::Object(fields) => fields.retain(|name, field| {
            if is_resource && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let known = schema.and_then(|schema| schema.field(name));
            if known.is_none() && keeps {
                return true;
            }
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            if known.is_some() {
                walk(field, known, false, keeps, path, unknown);
            } else {
                unknown.push(path.clone());
            }
            path.truncate(length);
            known.is_some()
        }),
        Value::Array(items) => {
            let shape = schema.and_then(|schema| schema.items.as_deref());
            if shape.is_none() && keeps {
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(item, shape, false, keeps, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_listed_goes_unless_it_is_to_be_kept() {
        let schema = Structural::of(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"strict": {"type": "object", "properties": {"c": {"type": "string"}}}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}}}}));
        let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "extra": 1, "spec": {
            "list": [{"a": "x", "z": 1}], "map": {"k": {"b": "x", "z": 1}},
            "free": {"any": {"thing": 1}, "strict": {"c": "x", "z": 1}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"z": 1}, "z": 1}}});
        let unknown = prune(&mut object, &schema);
        assert_eq!(
            unknown,
            [
                "extra",
                "spec.free.strict.z",
                "spec.list[0].z",
                "spec.map.k.z",
                "spec.pod.spec.z",
                "spec.pod.z"
            ]
        );
        assert_eq!(object["spec"]["free"], json!({"any": {"thing": 1}, "strict": {"c": "x"}}));
        assert_eq!(object["spec"]["list"], json!([{"a": "x"}]));
        assert_eq!(object["metadata"], json!({"name": "x"}));
    }
}
