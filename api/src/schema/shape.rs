//! What expressions see of the built-in kinds: the shapes of their schemas.

use std::sync::Arc;

use super::{Schema, StringFormat};
use crate::cel::{Field, ObjectType, Shape, Type, escape};

/// Deeper types are not looked into: those that contain themselves have no end.
const DEPTH_MAX: usize = 16;

/// The shape of a schema whose type is called `name`.
pub fn shape(schema: &Schema, name: &str) -> Shape {
    at(schema, name, &mut Vec::new())
}

fn at(schema: &Schema, name: &str, above: &mut Vec<&'static str>) -> Shape {
    match schema {
        Schema::Any | Schema::IntOrString | Schema::Quantity => Shape::dynamic(),
        Schema::Struct(object) => {
            if object.open || above.len() > DEPTH_MAX || above.contains(&object.type_name) {
                return Shape::dynamic();
            }
            above.push(object.type_name);
            let fields = object
                .fields()
                .iter()
                .filter_map(|field| {
                    let shape = at(&field.schema, &format!("{name}.{}", field.name), above);
                    Some((escape(field.name)?, Field { json: field.name.to_owned(), shape }))
                })
                .collect();
            above.pop();
            Shape::plain(Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields })), 0, 2)
        }
        Schema::Map { values, .. } => Shape::map(at(values, &format!("{name}.@elem"), above), u64::MAX),
        Schema::List { items, .. } => Shape::list(at(items, &format!("{name}.@idx"), above), u64::MAX),
        Schema::String(StringFormat::Plain) => Shape::text(),
        Schema::String(StringFormat::Bytes) => Shape::plain(Type::Bytes, u64::MAX, 2),
        Schema::String(StringFormat::Time | StringFormat::MicroTime) => Shape::plain(Type::Timestamp, 0, 22),
        Schema::Integer { .. } => Shape::plain(Type::Int, 0, 1),
        Schema::Number => Shape::plain(Type::Double, 0, 1),
        Schema::Boolean => Shape::plain(Type::Bool, 0, 4),
    }
}
