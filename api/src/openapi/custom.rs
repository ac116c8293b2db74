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
const NOT_IN_V2: [&str; 5] = ["nullable", "anyOf", "oneOf", "not", "x-kubernetes-validations"];

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
    let mut schema = definition.open_api.clone().unwrap_or_else(|| json!({"type": "object"}));
    convert(&mut schema, format);
    if let Value::Object(schema) = &mut schema {
        add_meta_fields(schema, format);
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

/// Brings a schema and all within it into the document's form.
fn convert(schema: &mut Value, format: Format) {
    let Value::Object(object) = schema else { return };
    if format == Format::V2 {
        let keeps_unknown = object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        let nullable = object.get("nullable") == Some(&Value::Bool(true));
        for key in NOT_IN_V2 {
            object.remove(key);
        }
        // Old readers would refuse what is not listed, or what is null or of two types.
        if keeps_unknown || nullable {
            for key in ["properties", "items", "additionalProperties"].iter().filter(|_| keeps_unknown) {
                object.remove(*key);
            }
            object.remove("type");
        }
        if object.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            object.remove("type");
        }
    }
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
    if object.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) && !object.is_empty() {
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
}
