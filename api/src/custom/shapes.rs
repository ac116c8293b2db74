//! What expressions see of custom resources: the shape of a structural schema, with the sizes it allows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::structural::{Kind, Structural};
use crate::cel::{Field, ObjectType, REQUEST_BYTES_MAX, Shape, Type, escape};

/// The most characters of a time, a date and a span of time as JSON.
const DATE_TIME_CHARACTERS_MAX: u64 = 37;
const DATE_CHARACTERS: u64 = 12;
const DURATION_CHARACTERS_MAX: u64 = 32;

/// What expressions see of objects with this schema.
pub fn shape_of(schema: &Structural) -> Option<Shape> {
    shape(schema, true)
}

/// The shape of a schema; `None` for what expressions cannot see. `is_resource` for what has a kind and metadata of its own.
pub(super) fn shape(schema: &Structural, is_resource: bool) -> Option<Shape> {
    named("selfType", schema, is_resource)
}

fn named(name: &str, schema: &Structural, is_resource: bool) -> Option<Shape> {
    if schema.int_or_string {
        let size = schema.length.max.map_or(REQUEST_BYTES_MAX - 2, |length| length.saturating_mul(4));
        return Some(Shape::plain(Type::Dyn, size, 1));
    }
    if is_resource {
        return Some(object(name, schema, true));
    }
    match schema.kind {
        Kind::Array => {
            let items = schema.items.as_deref()?;
            let item = named(&format!("{name}.@idx"), items, items.embedded)?;
            let fitting = (REQUEST_BYTES_MAX - 2) / (item.json_bytes_min + 1);
            Some(Shape::list(item, schema.item_count.max.unwrap_or(fitting)))
        }
        Kind::Object => match &schema.additional {
            Some(values) => {
                let value = named(&format!("{name}.@elem"), values, values.embedded)?;
                let fitting = (REQUEST_BYTES_MAX - 2) / (value.json_bytes_min + 6);
                Some(Shape::map(value, schema.property_count.max.unwrap_or(fitting)))
            }
            None => Some(object(name, schema, false)),
        },
        Kind::String => Some(text(schema)),
        Kind::Boolean => Some(Shape::plain(Type::Bool, 0, 4)),
        Kind::Number => Some(Shape::plain(Type::Double, 0, 1)),
        Kind::Integer => Some(Shape::plain(Type::Int, 0, 1)),
        Kind::Any => None,
    }
}

fn text(schema: &Structural) -> Shape {
    let whole = REQUEST_BYTES_MAX - 2;
    match schema.format.as_str() {
        "byte" => Shape::plain(Type::Bytes, schema.length.max.unwrap_or(whole), 2),
        "duration" => Shape::plain(Type::Duration, DURATION_CHARACTERS_MAX, 4),
        "date" => Shape::plain(Type::Timestamp, DATE_CHARACTERS, DATE_CHARACTERS),
        "date-time" => Shape::plain(Type::Timestamp, DATE_TIME_CHARACTERS_MAX, 22),
        _ => {
            let longest = schema.allowed.as_ref().map(|allowed| {
                allowed.iter().filter_map(|one| one.as_str()).map(|one| one.len() as u64).max().unwrap_or(0)
            });
            // A character has at most four bytes.
            let size = schema.length.max.map(|length| length.saturating_mul(4)).or(longest).unwrap_or(whole);
            Shape::plain(Type::String, size, 2)
        }
    }
}

fn object(name: &str, schema: &Structural, is_resource: bool) -> Shape {
    let mut fields: BTreeMap<String, Field> = BTreeMap::new();
    let mut json_bytes_min = 2;
    for (field, property) in &schema.properties {
        let Some(shape) = named(&format!("{name}.{field}"), property, property.embedded) else { continue };
        if schema.required.contains(field) && property.default.is_none() {
            json_bytes_min += field.len() as u64 + shape.json_bytes_min + 4;
        }
        if let Some(escaped) = escape(field) {
            fields.insert(escaped, Field { json: field.clone(), shape });
        }
    }
    if is_resource {
        let text = || Shape::plain(Type::String, REQUEST_BYTES_MAX - 2, 2);
        let metadata =
            Shape::object(&format!("{name}.metadata"), [("name", text()), ("generateName", text())]);
        for (field, shape) in [("apiVersion", text()), ("kind", text()), ("metadata", metadata)] {
            fields.insert(field.to_owned(), Field { json: field.to_owned(), shape });
        }
    }
    let ty = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields }));
    Shape::plain(ty, 0, json_bytes_min)
}
