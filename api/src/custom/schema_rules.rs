//! What the schema of a custom resource may say: it has to be structural, in upstream's words where it is not.

use serde_json::{Map, Value, json};

use super::rule_checks;
use super::structural::{Structural, compile};
use crate::field::{self, FieldError, FieldPath};
use crate::kinds::access::{boolean, items, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What only the main structure may have, with what upstream says where it is nested in `allOf` and the like.
const FORBIDDEN_NESTED: [(&str, &str); 14] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("externalDocs", "must be undefined to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];
/// Parts of JSON Schema that are not taken over.
const NOT_SUPPORTED: [&str; 6] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Adds everything wrong with an `openAPIV3Schema`.
pub fn check(schema: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut found = Vec::new();
    structure(schema, Level::Root, path, &mut found);
    complete(schema, schema, path, &mut found);
    // Rules are about the fields that a schema has: its own errors come first.
    if found.is_empty() {
        rule_checks::check(schema, path, &mut found);
    }
    found.sort_by_cached_key(ToString::to_string);
    errors.extend(found);
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn structure(schema: &Value, level: Level, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    not_supported(schema, path, errors);
    match schema.get("items") {
        Some(Value::Array(_)) => errors
            .push(field::forbidden(path.child("items"), "items must be a schema object and not an array")),
        Some(shape) => structure(shape, Level::Item, &path.child("items"), errors),
        None if kind == "array" => errors.push(field::required(path.child("items"), "must be specified")),
        None => {}
    }
    for (name, property) in properties(schema) {
        structure(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if let Some(values) = schema.get("additionalProperties") {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(field::forbidden(&path, "must not be used at the root"));
        }
        if properties(schema).next().is_some() && values != &Value::Bool(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.push(field::forbidden(&path, detail));
        }
        if values.is_object() {
            structure(values, Level::Field, &path, errors);
        }
    }
    extensions(schema, path, errors);
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let is_pattern = |schema: &Value| schema.get("anyOf") == Some(&pattern);
    let first_of_all = items(schema, "allOf").first().is_some_and(is_pattern);
    values(schema, is_pattern(schema), first_of_all, path, errors);
    types(schema, kind, level, path, errors);
    let is_resource = level == Level::Root || boolean(schema, "x-kubernetes-embedded-resource");
    for name in ["apiVersion", "kind"].iter().filter(|_| is_resource) {
        if let Some(property) = schema.get("properties").and_then(|properties| properties.get(name))
            && text(property, "type") != "string"
        {
            let path = path.child("properties").key(name).child("type");
            errors.push(field::invalid(path, text(property, "type"), "must be string"));
        }
    }
    if let Some(metadata) = schema.get("properties").and_then(|properties| properties.get("metadata")) {
        let path = path.child("properties").key("metadata");
        if is_resource && text(metadata, "type") != "object" {
            errors.push(field::invalid(path.child("type"), text(metadata, "type"), "must be object"));
        }
        let only_names =
            properties(metadata).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        let others = metadata.as_object().into_iter().flat_map(Map::keys);
        let plain =
            others.into_iter().all(|key| matches!(key.as_str(), "type" | "properties" | "description"));
        if level == Level::Root && !(only_names && plain) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(field::forbidden(path, detail));
        }
    }
}

fn types(schema: &Value, kind: &str, level: Level, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("type");
    if boolean(schema, "x-kubernetes-embedded-resource") && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            field::required(at, detail)
        } else {
            field::invalid(at, kind, detail)
        });
    } else if kind.is_empty()
        && !boolean(schema, "x-kubernetes-int-or-string")
        && !boolean(schema, "x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(field::required(at, detail));
    } else if kind == "null" {
        errors.push(field::forbidden(at, "type cannot be set to null, use nullable as an alternative"));
    } else if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(field::not_supported(at, kind, &TYPES));
    } else if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(field::invalid(at, kind, "must be object at the root"));
    }
    if boolean(schema, "x-kubernetes-embedded-resource") {
        if schema.get("additionalProperties").is_some() {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(field::forbidden(path.child("additionalProperties"), detail));
        }
        if !boolean(schema, "x-kubernetes-preserve-unknown-fields") && properties(schema).next().is_none() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(field::required(path.child("properties"), detail));
        }
    }
}

fn not_supported(schema: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for key in NOT_SUPPORTED.iter().filter(|key| schema.get(**key).is_some()) {
        errors.push(field::forbidden(path.child(key), format!("{key} is not supported")));
    }
    if boolean(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(field::forbidden(path.child("uniqueItems"), detail));
    }
}

fn extensions(schema: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if boolean(schema, "x-kubernetes-int-or-string") {
        for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if boolean(schema, key) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(field::invalid(path.child(key), true, detail));
            }
        }
    }
    let kind = text(schema, "type");
    let mut needs = |key: &str, wanted: &str| {
        let (at, detail) = (path.child("type"), format!("must be {wanted} if {key} is specified"));
        if kind != wanted {
            errors.push(if kind.is_empty() {
                field::required(at, detail)
            } else {
                field::invalid(at, kind, detail)
            });
        }
    };
    if schema.get("x-kubernetes-list-type").is_some() {
        needs("x-kubernetes-list-type", "array");
    }
    if schema.get("x-kubernetes-map-type").is_some() {
        needs("x-kubernetes-map-type", "object");
    }
    let unknown = "x-kubernetes-preserve-unknown-fields";
    if schema.get(unknown) == Some(&Value::Bool(false)) {
        errors.push(field::invalid(path.child(unknown), false, "must be true or undefined"));
    }
    let list_type = text(schema, "x-kubernetes-list-type");
    let keys = items(schema, "x-kubernetes-list-map-keys");
    let (type_path, keys_path) =
        (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
    if !matches!(list_type, "" | "atomic" | "set" | "map") {
        errors.push(field::not_supported(&type_path, list_type, &["atomic", "map", "set"]));
    }
    let map_type = text(schema, "x-kubernetes-map-type");
    if !matches!(map_type, "" | "atomic" | "granular") {
        let path = path.child("x-kubernetes-map-type");
        errors.push(field::not_supported(path, map_type, &["atomic", "granular"]));
    }
    if !keys.is_empty() && list_type != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list_type.is_empty() {
            field::required(type_path, detail)
        } else {
            field::invalid(type_path, list_type, detail)
        });
    } else if list_type == "map" {
        map_keys(schema, keys, path, &keys_path, errors);
    }
}

fn map_keys(
    schema: &Value,
    keys: &[Value],
    path: &FieldPath,
    keys_path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if keys.is_empty() {
        errors.push(field::required(keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let none = Value::Null;
    let shape = schema.get("items").unwrap_or(&none);
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        if keys[..index].contains(key) {
            errors.push(field::duplicate(keys_path.index(index), name));
        }
        let Some(property) = shape.get("properties").and_then(|properties| properties.get(name)) else {
            let detail = "entries must all be names of item properties";
            errors.push(field::invalid(keys_path.index(index), name, detail));
            continue;
        };
        let at = path.child("items").child("properties").key(name);
        if matches!(text(property, "type"), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(field::invalid(at.child("type"), text(property, "type"), detail));
        }
        if property.get("default").is_none() && !items(shape, "required").contains(key) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(field::required(at.child("default"), detail));
        }
    }
}

/// What restricts values: its branches may only restrict what the main structure has.
fn values(
    schema: &Value,
    skip_any: bool,
    skip_first_all: bool,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    for key in ["anyOf", "oneOf", "allOf"].iter().filter(|key| !(skip_any && **key == "anyOf")) {
        for (index, branch) in items(schema, key).iter().enumerate() {
            let skips = skip_first_all && *key == "allOf" && index == 0;
            nested(branch, skips, &path.child(key).index(index), errors);
        }
    }
    if let Some(branch) = schema.get("not") {
        nested(branch, false, &path.child("not"), errors);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(problem) = compile(pattern)
    {
        let reason = problem.to_string();
        let reason = reason.lines().last().unwrap_or_default();
        let detail = format!("must be a valid regular expression, but isn't: {reason}");
        errors.push(field::invalid(path.child("pattern"), pattern, detail));
    }
}

fn nested(branch: &Value, skip_any: bool, path: &FieldPath, errors: &mut Vec<FieldError>) {
    not_supported(branch, path, errors);
    values(branch, skip_any, false, path, errors);
    if let Some(shape) = branch.get("items") {
        nested(shape, false, &path.child("items"), errors);
    }
    for (name, property) in properties(branch) {
        nested(property, false, &path.child("properties").key(name), errors);
    }
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    for (key, detail) in FORBIDDEN_NESTED {
        if branch.get(key).is_some_and(|value| !empty(value)) {
            errors.push(field::forbidden(path.child(key), detail));
        }
    }
    if branch.get("properties").is_some_and(|properties| properties.get("metadata").is_some()) {
        let detail = "must not be specified in a nested context";
        errors.push(field::forbidden(path.child("properties").key("metadata"), detail));
    }
}

/// Every field that a branch restricts is also in the main structure, and every default fits its schema.
fn complete(schema: &Value, whole: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for key in ["anyOf", "oneOf", "allOf"] {
        for (index, branch) in items(schema, key).iter().enumerate() {
            covered(branch, whole, path, &path.child(key).index(index), errors);
        }
    }
    if let Some(branch) = schema.get("not") {
        covered(branch, whole, path, &path.child("not"), errors);
    }
    if let Some(default) = schema.get("default") {
        let at = path.child("default");
        let structural = Structural::of(schema);
        let mut filled = default.clone();
        super::default(&mut filled, &structural);
        errors.extend(super::validate(&filled, &structural, &at));
    }
    if let Some(shape) = schema.get("items").filter(|shape| shape.is_object()) {
        complete(shape, shape, &path.child("items"), errors);
    }
    if let Some(shape) = schema.get("additionalProperties").filter(|shape| shape.is_object()) {
        complete(shape, shape, &path.child("additionalProperties"), errors);
    }
    for (name, property) in properties(schema) {
        complete(property, property, &path.child("properties").key(name), errors);
    }
}

fn covered(
    branch: &Value,
    main: &Value,
    main_path: &FieldPath,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    for key in ["anyOf", "oneOf", "allOf"] {
        for (index, inner) in items(branch, key).iter().enumerate() {
            covered(inner, main, main_path, &path.child(key).index(index), errors);
        }
    }
    if let Some(inner) = branch.get("not") {
        covered(inner, main, main_path, &path.child("not"), errors);
    }
    if let Some(inner) = branch.get("items") {
        let main_path = main_path.child("items");
        match main.get("items") {
            Some(main) => covered(inner, main, &main_path, &path.child("items"), errors),
            None => errors.push(missing(&main_path, &path.child("items"))),
        }
    }
    for (name, inner) in properties(branch) {
        let (main_path, path) = (main_path.child("properties").key(name), path.child("properties").key(name));
        match main.get("properties").and_then(|properties| properties.get(name)) {
            Some(main) => covered(inner, main, &main_path, &path, errors),
            None => errors.push(missing(&main_path, &path)),
        }
    }
}

fn missing(main_path: &FieldPath, path: &FieldPath) -> FieldError {
    field::required(main_path, format!("because it is defined in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(schema: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&schema, &FieldPath::new("s"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_structural_schema_passes() {
        let none: Vec<String> = Vec::new();
        assert_eq!(
            texts(json!({"type": "object", "properties": {
                "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}},
                "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "size": {"type": "integer", "default": 1, "minimum": 1},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}},
                "oneOf": [{"required": ["port"]}, {"properties": {"size": {"maximum": 3}}}]})),
            none
        );
    }

    #[test]
    fn what_is_not_structural_is_named() {
        assert_eq!(
            texts(json!({"type": "object", "properties": {
                "a": {}, "b": {"type": "array"}, "c": {"type": "string", "pattern": "("}, "d": {"type": "integer", "default": "x"},
                "e": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object"}}},
                "anyOf": [{"type": "object", "properties": {"z": {"minimum": 1}}}]})),
            [
                "s.anyOf[0].type: Forbidden: must be empty to be structural",
                "s.properties[a].type: Required value: must not be empty for specified object fields",
                "s.properties[b].items: Required value: must be specified",
                "s.properties[c].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error: unclosed group",
                "s.properties[d].default: Invalid value: \"string\": s.properties[d].default in body must be of type integer: \"string\"",
                "s.properties[e].x-kubernetes-list-map-keys[0]: Invalid value: \"k\": entries must all be names of item properties",
                "s.properties[z]: Required value: because it is defined in s.anyOf[0].properties[z]",
            ]
        );
    }
}
