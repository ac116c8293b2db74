//! Everything in a custom resource that its structural schema refuses, in upstream's words.

use serde_json::{Number, Value};

use super::formats::has_format;
use super::structural::{Bound, Items, Kind, Structural};
use crate::field::{self, FieldError, FieldErrorKind, FieldPath, go_quote};

/// What a schema says of a value: what is wrong, and how much is right, which tells the closest of several alternatives.
#[derive(Default)]
struct Judgement {
    errors: Vec<FieldError>,
    matches: usize,
}

impl Judgement {
    fn take(&mut self, other: Judgement) {
        self.errors.extend(other.errors);
        self.matches += other.matches;
    }
}

/// Everything wrong with the value at `path`, which is the root for a whole object.
pub fn validate(value: &Value, schema: &Structural, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = judge(value, schema, path).errors;
    item_identities(value, schema, path, &mut errors);
    errors
}

/// The type of a value in a schema's words.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &Number) -> bool {
    number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn wrong_type(path: &FieldPath, wanted: &str, found: &str) -> FieldError {
    let detail = format!("{path} in body must be of type {wanted}: {}", go_quote(found));
    field::type_invalid(path, found, detail)
}

fn type_error(value: &Value, schema: &Structural, path: &FieldPath) -> Option<FieldError> {
    let wanted =
        if schema.int_or_string && schema.kind == Kind::Any { "integer,string" } else { schema.kind.name() };
    let fits = match value {
        _ if wanted.is_empty() => true,
        Value::Null => schema.nullable,
        Value::Number(number) => {
            let whole = !number.is_f64() || is_whole(number);
            schema.kind == Kind::Number || (whole && (schema.kind == Kind::Integer || schema.int_or_string))
        }
        value => wanted.split(',').any(|kind| kind == kind_of(value)),
    };
    (!fits).then(|| wrong_type(path, wanted, kind_of(value)))
}

fn judge(value: &Value, schema: &Structural, path: &FieldPath) -> Judgement {
    let mut found = Judgement::default();
    match type_error(value, schema, path) {
        Some(error) => found.errors.push(error),
        None => found.matches += 1,
    }
    if value.is_null() {
        return found;
    }
    alternatives(value, schema, path, &mut found);
    let before = found.errors.len();
    let invalid = |detail: String, bad: Value| field::invalid(path, bad, format!("{path} in body {detail}"));
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(max) = schema.length.max.filter(|max| length > *max) {
                let error = field::too_long(path, usize::try_from(max).unwrap_or(usize::MAX));
                found.errors.push(error);
            }
            if let Some(min) = schema.length.min.filter(|min| length < *min) {
                found.errors.push(invalid(format!("should be at least {min} chars long"), value.clone()));
            }
            if let Some((pattern, regex)) = &schema.pattern
                && !regex.is_match(text)
            {
                found.errors.push(invalid(format!("should match '{pattern}'"), value.clone()));
            }
            if !has_format(&schema.format, text) {
                found.errors.push(wrong_type(path, &schema.format, text));
            }
        }
        Value::Number(number) => {
            let mut refuse = |detail: String| found.errors.push(invalid(detail, value.clone()));
            let shown = |limit: &Number| limit_text(limit, number.is_f64());
            if let Some(bound) = &schema.maximum
                && beyond(number, bound)
            {
                let or_equal = if bound.exclusive { "" } else { " or equal to" };
                refuse(format!("should be less than{or_equal} {}", shown(&bound.limit)));
            }
            if let Some(bound) = &schema.minimum
                && below(number, bound)
            {
                let or_equal = if bound.exclusive { "" } else { " or equal to" };
                refuse(format!("should be greater than{or_equal} {}", shown(&bound.limit)));
            }
            if let (Some(factor), Some(number)) =
                (schema.multiple_of.as_ref().and_then(Number::as_f64), number.as_f64())
                && factor > 0.0
                && (number / factor).fract() != 0.0
            {
                refuse(format!("should be a multiple of {}", go_float(factor)));
            }
        }
        Value::Array(items) => {
            if let Some(shape) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    found.take(judge(item, shape, &path.index(index)));
                }
            }
            let count = items.len() as u64;
            if let Some(min) = schema.item_count.min.filter(|min| count < *min) {
                found.errors.push(invalid(format!("should have at least {min} items"), count.into()));
            }
            if let Some(max) = schema.item_count.max.filter(|max| count > *max) {
                found.errors.push(field::too_many(path, items.len(), max as usize));
            }
        }
        Value::Object(fields) => {
            let count = fields.len() as u64;
            if let Some(min) = schema.property_count.min.filter(|min| count < *min) {
                found.errors.push(invalid(format!("should have at least {min} properties"), count.into()));
            }
            if let Some(max) = schema.property_count.max.filter(|max| count > *max) {
                found.errors.push(field::too_many(path, fields.len(), max as usize));
            }
            for (name, field) in fields {
                let child = match (schema.properties.contains_key(name), schema.field(name)) {
                    (true, Some(shape)) | (false, Some(shape)) => Some((path.child(name), shape)),
                    _ => None,
                };
                if let Some((path, shape)) = child {
                    found.take(judge(field, shape, &path));
                }
            }
            for name in schema.required.iter().filter(|name| !fields.contains_key(name.as_str())) {
                found.errors.push(field::required(path.child(name), ""));
            }
        }
        _ => {}
    }
    if let Some(allowed) = &schema.allowed
        && !allowed.iter().any(|one| same_value(one, value))
    {
        found.errors.push(not_allowed(value, allowed, path));
    }
    if found.errors.len() == before {
        found.matches += 1;
    }
    found
}

/// Equal as JSON: `1` and `1.0` are.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

fn not_allowed(value: &Value, allowed: &[Value], path: &FieldPath) -> FieldError {
    let quoted: Vec<String> = allowed
        .iter()
        .map(|one| go_quote(&one.as_str().map_or_else(|| one.to_string(), str::to_owned)))
        .collect();
    let detail = format!("supported values: {}", quoted.join(", "));
    FieldError { kind: FieldErrorKind::NotSupported, ..field::invalid(path, value.clone(), detail) }
}

fn beyond(number: &Number, bound: &Bound) -> bool {
    match compare(number, &bound.limit) {
        Some(std::cmp::Ordering::Greater) => true,
        Some(std::cmp::Ordering::Equal) => bound.exclusive,
        _ => false,
    }
}

fn below(number: &Number, bound: &Bound) -> bool {
    match compare(number, &bound.limit) {
        Some(std::cmp::Ordering::Less) => true,
        Some(std::cmp::Ordering::Equal) => bound.exclusive,
        _ => false,
    }
}

fn compare(one: &Number, other: &Number) -> Option<std::cmp::Ordering> {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// Bounds of whole numbers are shown as such.
fn limit_text(limit: &Number, fraction: bool) -> String {
    match limit.as_f64() {
        Some(number) if !fraction => format!("{}", number.trunc() as i64),
        Some(number) => go_float(number),
        None => limit.to_string(),
    }
}

/// A number as Go's `%v` shows it.
fn go_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number}"),
    }
}

/// An error of the object as a whole, which upstream gives no path.
fn composite(text: String) -> FieldError {
    field::invalid("<nil>", "", text)
}

fn alternatives(value: &Value, schema: &Structural, path: &FieldPath, found: &mut Judgement) {
    let quoted = go_quote(path.as_str());
    if !schema.any_of.is_empty() {
        let mut judged: Vec<Judgement> =
            schema.any_of.iter().map(|branch| judge(value, branch, path)).collect();
        if !judged.iter().any(|one| one.errors.is_empty()) {
            found.errors.push(composite(format!("{quoted} must validate at least one schema (anyOf)")));
            take_closest(&mut judged, found);
        }
    }
    if !schema.one_of.is_empty() {
        let mut judged: Vec<Judgement> =
            schema.one_of.iter().map(|branch| judge(value, branch, path)).collect();
        let valid = judged.iter().filter(|one| one.errors.is_empty()).count();
        if valid != 1 {
            let more = match valid {
                0 => "Found none valid".to_owned(),
                count => format!("Found {count} valid alternatives"),
            };
            found
                .errors
                .push(composite(format!("{quoted} must validate one and only one schema (oneOf). {more}")));
            if valid == 0 {
                take_closest(&mut judged, found);
            }
        }
    }
    if !schema.all_of.is_empty() {
        let mut valid = 0;
        for branch in &schema.all_of {
            let judged = judge(value, branch, path);
            valid += usize::from(judged.errors.is_empty());
            found.take(judged);
        }
        if valid != schema.all_of.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            found.errors.push(composite(format!("{quoted} must validate all the schemas (allOf){more}")));
        }
    }
    if let Some(not) = &schema.not
        && judge(value, not, path).errors.is_empty()
    {
        found.errors.push(composite(format!("{quoted} must not validate the schema (not)")));
    }
}

/// The errors of the alternative that fits best, the first of several.
fn take_closest(judged: &mut Vec<Judgement>, found: &mut Judgement) {
    let mut best = 0;
    for (index, one) in judged.iter().enumerate() {
        if one.matches > judged[best].matches {
            best = index;
        }
    }
    if best < judged.len() {
        found.take(judged.swap_remove(best));
    }
}

/// Items of sets and of lists with keys must be different.
fn item_identities(value: &Value, schema: &Structural, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(shape) = schema.properties.get(name) {
                    item_identities(field, shape, &path.child(name), errors);
                } else if let Some(shape) = &schema.additional {
                    item_identities(field, shape, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list_type {
                Items::Atomic => {}
                Items::Set => duplicates(items.clone(), path, errors),
                Items::Map(keys) => {
                    let odd = items.iter().position(|item| !item.is_object() && !item.is_null());
                    if let Some(index) = odd {
                        let detail = "must be an object for an array of list-type map";
                        errors.push(field::invalid(path.index(index), items[index].clone(), detail));
                    } else {
                        let identity = |item: &Value| {
                            let present =
                                keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                            Value::Object(present.collect())
                        };
                        duplicates(items.iter().map(identity).collect(), path, errors);
                    }
                }
            }
            if let Some(shape) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    item_identities(item, shape, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

/// Names the second of several equal identities.
fn duplicates(identities: Vec<Value>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen = std::collections::HashMap::new();
    for (index, identity) in identities.into_iter().enumerate() {
        let times = seen.entry(identity.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            errors.push(field::duplicate(path.index(index), identity));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: Value, object: Value) -> Vec<String> {
        validate(&object, &Structural::of(&schema), &FieldPath::root())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn values_out_of_their_schema_are_named_in_upstreams_words() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["image"], "properties": {
            "cron": {"type": "string", "pattern": "^a+$"}, "image": {"type": "string"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10}, "mode": {"type": "string", "enum": ["b", "a"]},
            "short": {"type": "string", "maxLength": 2}, "long": {"type": "string", "minLength": 2},
            "when": {"type": "string", "format": "date-time"}, "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
            "port": {"x-kubernetes-int-or-string": true}}}}});
        assert_eq!(texts(schema.clone(), json!({})), ["spec: Required value"]);
        assert_eq!(
            texts(
                schema.clone(),
                json!({"spec": {"cron": "b", "list": [1, "x"], "long": "x", "mode": "c", "port": true, "replicas": 11, "short": "xyz", "when": "x"}})
            ),
            [
                "spec.cron: Invalid value: \"b\": spec.cron in body should match '^a+$'",
                "spec.list[0]: Invalid value: \"integer\": spec.list[0] in body must be of type string: \"integer\"",
                "spec.list: Too many: 2: must have at most 1 item",
                "spec.long: Invalid value: \"x\": spec.long in body should be at least 2 chars long",
                "spec.mode: Unsupported value: \"c\": supported values: \"b\", \"a\"",
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
                "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
                "spec.short: Too long: may not be more than 2 bytes",
                "spec.when: Invalid value: \"x\": spec.when in body must be of type date-time: \"x\"",
                "spec.image: Required value",
            ]
        );
        assert_eq!(
            texts(schema.clone(), json!({"spec": {"image": null, "replicas": "1"}})),
            [
                "spec.image: Invalid value: \"null\": spec.image in body must be of type string: \"null\"",
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
            ]
        );
        assert!(texts(schema, json!({"spec": {"image": "x", "port": "http", "replicas": 1.0}})).is_empty());
    }

    #[test]
    fn alternatives_tell_what_came_closest() {
        let one_of = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}});
        assert_eq!(
            texts(one_of.clone(), json!({"spec": {}})),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "spec.a: Required value",
            ]
        );
        assert_eq!(
            texts(one_of, json!({"spec": {"a": "x", "b": "x"}})),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
            ]
        );
        let not = json!({"type": "object", "properties": {"a": {"type": "string", "not": {"enum": ["x"]}}}});
        assert_eq!(
            texts(not, json!({"a": "x"})),
            ["<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)"]
        );
    }

    #[test]
    fn items_of_sets_and_keyed_lists_are_different() {
        let schema = json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}});
        assert_eq!(
            texts(schema, json!({"map": [{"k": "a"}, {"k": "a"}], "set": ["x", "y", "x", "x"]})),
            ["map[1]: Duplicate value: {\"k\":\"a\"}", "set[2]: Duplicate value: \"x\""]
        );
    }

    #[test]
    fn numbers_read_as_go_prints_them() {
        assert_eq!(
            (go_float(0.5), go_float(65535.0), go_float(1e30)),
            ("0.5".into(), "65535".into(), "1e+30".into())
        );
    }
}
