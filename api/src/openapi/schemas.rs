//! Component schemas: the published types' JSON schemas in the form and with the extensions that API clients expect.

use serde_json::{Map, Value, json};

use super::{Format, custom};
use crate::resource::{Resource, Served, Subresource};
use crate::schema::{ListType, definitions, field_fact, is_atomic_type};

/// The full type name of a resource's kind.
pub(super) fn type_name(resource: &Resource) -> Option<String> {
    if resource.custom.is_some() {
        return Some(custom::type_name(resource));
    }
    kind_name(resource.group, resource.version, resource.kind)
}

/// The full type name of what a subresource takes and gives.
pub(super) fn part_name(resource: &Resource, part: &Subresource) -> Option<String> {
    if part.kind == resource.kind {
        type_name(resource)
    } else {
        kind_name(part.group, part.version, part.kind)
    }
}

fn kind_name(group: &str, version: &str, kind: &str) -> Option<String> {
    definitions(group, version, kind).map(|(name, _)| name)
}

/// Adds the kind of a resource, its list and the kinds of its subresources, with all that they use.
pub(super) fn add_resource(resource: &Resource, format: Format, schemas: &mut Map<String, Value>) {
    let added = match resource.custom {
        Some(definition) => {
            // What the metadata consists of.
            add_kind("", "v1", "ConfigMap", format, schemas);
            let unused: Vec<String> =
                schemas.keys().filter(|name| name.ends_with(".v1.ConfigMap")).cloned().collect();
            unused.iter().for_each(|name| drop(schemas.remove(name)));
            Some(custom::add(resource, definition, format, schemas))
        }
        None => add_kind(resource.group, resource.version, resource.kind, format, schemas),
    };
    if let Some(name) = added
        && resource.has_verb("list")
    {
        add_list(resource, &name, format, schemas);
    }
    let parts = resource.subresources.iter();
    for subresource in parts.filter(|part| resource.custom.is_none() || part.kind != resource.kind) {
        add_kind(subresource.group, subresource.version, subresource.kind, format, schemas);
    }
}

/// Adds what every group uses: delete options, patches, status, list metadata, watch events.
pub(super) fn add_meta(served: &Served, format: Format, schemas: &mut Map<String, Value>) {
    for kind in ["DeleteOptions", "ListMeta", "Patch", "Status", "WatchEvent"] {
        let Some((name, types)) = definitions("meta", "v1", kind) else { continue };
        add_types(types, format, schemas);
        if let (Some(Value::Object(schema)), "DeleteOptions" | "Status" | "WatchEvent") =
            (schemas.get_mut(&name), kind)
        {
            let kinds: Vec<Value> = match kind {
                "Status" => vec![kind_of("", "v1", kind)],
                _ => served
                    .groups()
                    .iter()
                    .flat_map(|(group, versions)| {
                        versions.iter().map(move |version| kind_of(group, version, kind))
                    })
                    .collect(),
            };
            schema.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds));
        }
    }
}

fn kind_of(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn add_kind(
    group: &str,
    version: &str,
    kind: &str,
    format: Format,
    schemas: &mut Map<String, Value>,
) -> Option<String> {
    let (name, types) = definitions(group, version, kind)?;
    add_types(types, format, schemas);
    if let Some(Value::Object(schema)) = schemas.get_mut(&name) {
        schema.insert("x-kubernetes-group-version-kind".into(), json!([kind_of(group, version, kind)]));
    }
    Some(name)
}

fn add_list(resource: &Resource, item: &str, format: Format, schemas: &mut Map<String, Value>) {
    let kind = resource.list_kind();
    let (list_meta, types) = match definitions("meta", "v1", "ListMeta") {
        Some(found) => found,
        None => return,
    };
    add_types(types, format, schemas);
    let text = |description: &str| json!({"type": "string", "description": description});
    let described = |reference: Value, description: &str| with_description(reference, description, format);
    let items = match format {
        Format::V2 => format.reference(item),
        Format::V3 => json!({"allOf": [format.reference(item)], "default": {}}),
    };
    schemas.insert(
        format!("{item}List"),
        json!({
            "type": "object",
            "description": format!("{kind} is a list of {} objects.", resource.kind),
            "required": ["items"],
            "properties": {
                "apiVersion": text("The version of the schema of this list."),
                "kind": text("The kind of this list."),
                "metadata": described(format.reference(&list_meta), "Metadata of the list: its resourceVersion, and how to go on with the next part."),
                "items": {"type": "array", "description": format!("The {} objects.", resource.kind), "items": items},
            },
            "x-kubernetes-group-version-kind": [kind_of(resource.group, resource.version, &kind)],
        }),
    );
}

fn add_types(types: Map<String, Value>, format: Format, schemas: &mut Map<String, Value>) {
    for (name, mut schema) in types {
        if schemas.contains_key(&name) {
            continue;
        }
        if name.ends_with(".intstr.IntOrString") || name.ends_with(".resource.Quantity") {
            schema = int_or_string(&name, &schema, format);
        }
        if let Value::Object(object) = &mut schema {
            // Upstream's documents describe types of several shapes, JSON itself among them, and say no more.
            if name.contains(".apiextensions.v1.JSON") && !object.contains_key("properties") {
                object.retain(|key, _| key == "description");
            }
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                for (field, property) in properties.iter_mut() {
                    convert(property, format);
                    add_extensions(&name, field, property);
                }
            }
            if is_atomic_type(&name) {
                object.insert("x-kubernetes-map-type".into(), "atomic".into());
            }
        }
        schemas.insert(name, schema);
    }
}

fn int_or_string(name: &str, schema: &Value, format: Format) -> Value {
    let description = schema.get("description").cloned().unwrap_or_default();
    let is_quantity = name.ends_with("Quantity");
    match (format, is_quantity) {
        (Format::V2, true) => json!({"type": "string", "description": description}),
        (Format::V2, false) => {
            json!({"type": "string", "format": "int-or-string", "description": description})
        }
        (Format::V3, true) => {
            json!({"oneOf": [{"type": "string"}, {"type": "number"}], "description": description})
        }
        (Format::V3, false) => json!({
            "oneOf": [{"type": "integer"}, {"type": "string"}],
            "format": "int-or-string",
            "description": description,
        }),
    }
}

/// A reference with a description. OpenAPI 3.0 ignores what stands beside `$ref`, so it goes into an `allOf`.
fn with_description(reference: Value, description: &str, format: Format) -> Value {
    let mut object = Map::new();
    match (format, reference) {
        (Format::V2, Value::Object(reference)) => object = reference,
        (_, reference) => {
            object.insert("allOf".into(), json!([reference]));
        }
    }
    object.insert("description".into(), description.into());
    Value::Object(object)
}

/// Points references to where the document keeps its schemas.
fn convert(schema: &mut Value, format: Format) {
    let Value::Object(object) = schema else { return };
    if let Some(Value::String(reference)) = object.get("$ref") {
        let target = format.reference(reference.rsplit('/').next().unwrap_or_default());
        let description = object.get("description").and_then(Value::as_str).map(str::to_owned);
        *schema = match description {
            Some(description) => with_description(target, &description, format),
            None => target,
        };
        return;
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            convert(inner, format);
        }
    }
}

fn add_extensions(type_name: &str, field: &str, property: &mut Value) {
    let Value::Object(property) = property else { return };
    let fact = field_fact(type_name, field);
    if property.get("type").and_then(Value::as_str) == Some("array") {
        let list_type = fact.map_or(ListType::Atomic, |fact| fact.list_type);
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map(keys) => {
                property.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                "map"
            }
        };
        property.insert("x-kubernetes-list-type".into(), name.into());
    }
    let Some(fact) = fact else { return };
    if fact.map_atomic && property.contains_key("additionalProperties") {
        property.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if !fact.patch.merge_key.is_empty() {
        property.insert("x-kubernetes-patch-merge-key".into(), fact.patch.merge_key.into());
    }
    let strategies = match (fact.patch.merge, fact.patch.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return,
    };
    property.insert("x-kubernetes-patch-strategy".into(), strategies.into());
}
