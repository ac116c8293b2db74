//! Schemas of custom resources: what their definitions say, with the fields that every object has.

use serde_json::{Map, Value, json};

use super::Format;
use crate::custom::Definition;
use crate::resource::Resource;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// What OpenAPI v2 cannot express, or what its readers take for something else.
const NOT_IN_V2: [&str; 6] = ["nullable", "allOf", "anyOf", "oneOf", "not", "x-kubernetes-validations"];
const PRESERVE_UNKNOWN: &str = "x-kubernetes-preserve-unknown-fields";

/// The full type name: the group's parts from the last to the first, version and kind.
pub(super) fn type_name(resource: &Resource) -> String {
    let group: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), resource.version, resource.kind)
}

/// Adds the kind's schema. Gives its full type name.
pub(super) fn add(
    resource: &Resource,
    definition: &Definition,
    format: Format,
    schemas: &mut Map<String, Value>,
) -> String {
    // Old readers would refuse all other fields as soon as some are listed.
    let listed = definition
        .open_api
        .clone()
        .filter(|schema| format == Format::V3 || !is_set(schema, PRESERVE_UNKNOWN));
    let has_fields = listed.is_some();
    let mut schema = listed.unwrap_or_else(|| json!({"type": "object"}));
    convert(&mut schema, format);
    if let Value::Object(schema) = &mut schema {
        if has_fields {
            add_meta_fields(schema, format);
        }
        schema.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([{"group": resource.group, "version": resource.version, "kind": resource.kind}]),
        );
    }
    let name = type_name(resource);
    schemas.insert(name.clone(), schema);
    name
}

fn add_meta_fields(schema: &mut Map<String, Value>, format: Format) {
    let reference = format.reference(OBJECT_META);
    let metadata = match format {
        Format::V2 => json!({"description": METADATA, "$ref": reference["$ref"]}),
        Format::V3 => json!({"description": METADATA, "allOf": [reference]}),
    };
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
        properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
        properties.insert("metadata".into(), metadata);
    }
}

fn is_set(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

/// Takes out of a schema itself, not of what is within it, what OpenAPI v2 and its readers do not cope with.
fn reduce_to_v2(schema: &mut Value) {
    let (keeps_unknown, nullable) = (is_set(schema, PRESERVE_UNKNOWN), is_set(schema, "nullable"));
    let int_or_string = is_set(schema, "x-kubernetes-int-or-string");
    let Value::Object(object) = schema else { return };
    for key in NOT_IN_V2 {
        object.remove(key);
    }
    if keeps_unknown || nullable {
        object.remove("items");
        object.remove("properties");
    }
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    let array_of_anything = kind == "array" && !object.contains_key("items");
    if nullable || int_or_string || array_of_anything || (keeps_unknown && kind == "object") {
        object.remove("type");
    }
    // What may be null has lost its type: to ask for it would be to ask for more than a null.
    let may_be_null = |name: &Value| {
        let property = name.as_str().and_then(|name| object.get("properties")?.get(name));
        property.is_some_and(|property| is_set(property, "nullable"))
    };
    let values_may_be_null =
        object.get("additionalProperties").is_some_and(|values| is_set(values, "nullable"));
    let required = object.get("required").and_then(Value::as_array).map(|names| {
        names.iter().filter(|name| !values_may_be_null && !may_be_null(name)).cloned().collect::<Vec<Value>>()
    });
    match required {
        Some(names) if names.is_empty() => object.remove("required"),
        Some(names) => object.insert("required".into(), Value::Array(names)),
        None => None,
    };
}

/// Brings a schema and all within it into the document's form.
fn convert(schema: &mut Value, format: Format) {
    if format == Format::V2 {
        reduce_to_v2(schema);
    }
    let Value::Object(object) = schema else { return };
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner) = object.get_mut(key) {
            convert(inner, format);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(|property| convert(property, format));
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(branches)) = object.get_mut(key) {
            branches.iter_mut().for_each(|branch| convert(branch, format));
        }
    }
    let keeps_unknown = object.get(PRESERVE_UNKNOWN) == Some(&Value::Bool(true));
    if object.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true))
        && (format == Format::V3 || !keeps_unknown)
    {
        add_meta_fields(object, format);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_has_metadata_and_old_readers_get_what_they_understand() {
        let mut schema = json!({"type": "object", "properties": {
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "maybe": {"type": "string", "nullable": true}}});
        let mut new = schema.clone();
        convert(&mut new, Format::V3);
        assert_eq!(new, schema);
        convert(&mut schema, Format::V2);
        assert_eq!(schema["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
        assert_eq!(schema["properties"]["free"], json!({"x-kubernetes-preserve-unknown-fields": true}));
        assert_eq!(schema["properties"]["maybe"], json!({}));
    }

    #[test]
    fn old_readers_are_not_asked_for_what_may_be_null_nor_shown_lists_of_anything() {
        let mut schema = json!({"type": "object", "required": ["a", "b"], "allOf": [{"required": ["c"]}], "properties": {
            "a": {"type": "string", "nullable": true}, "b": {"type": "array", "items": {"type": "string"}},
            "c": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "object"}}}});
        convert(&mut schema, Format::V2);
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {}, "b": {"type": "array", "items": {"type": "string"}},
                "c": {"x-kubernetes-preserve-unknown-fields": true}}})
        );
    }
}
