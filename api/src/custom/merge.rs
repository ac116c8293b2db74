//! How a custom resource merges under server-side apply: its structural schema as the tree that apply walks.

use super::structural::{Items, Kind, Structural};
use crate::schema::{self, Field, ListType, PatchStrategy, Schema, StringFormat, Struct};

/// A copy that lives as long as the process, as definitions do.
fn keep<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn keep_text(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// The tree of a custom resource, whose metadata is everybody's.
pub fn merge_schema(schema: &Structural) -> Schema {
    resource(schema)
}

fn resource(schema: &Structural) -> Schema {
    let mut fields: Vec<Field> = schema
        .properties
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
        .map(|(name, property)| field(name, shape(property)))
        .collect();
    fields.push(field("apiVersion", Schema::String(StringFormat::Plain)));
    fields.push(field("kind", Schema::String(StringFormat::Plain)));
    let metadata = schema::of_kind("", "v1", "ConfigMap").and_then(|built_in| built_in.child("metadata"));
    fields.push(field("metadata", metadata.unwrap_or(Schema::Any)));
    Schema::Struct(keep(Struct::new("", schema.atomic, schema.preserves_unknown, fields)))
}

fn field(name: &str, schema: Schema) -> Field {
    Field { name: keep_text(name), schema, patch: PatchStrategy::default() }
}

fn shape(schema: &Structural) -> Schema {
    if schema.int_or_string {
        return Schema::IntOrString;
    }
    match schema.kind {
        Kind::Any => Schema::Any,
        Kind::String => Schema::String(StringFormat::Plain),
        Kind::Integer => Schema::Integer { bits: 64 },
        Kind::Number => Schema::Number,
        Kind::Boolean => Schema::Boolean,
        Kind::Array => {
            let items = schema.items.as_deref().map_or(Schema::Any, shape);
            let list_type = match &schema.list_type {
                Items::Atomic => ListType::Atomic,
                Items::Set => ListType::Set,
                Items::Map(keys) => {
                    let keys: Vec<&'static str> = keys.iter().map(|key| keep_text(key)).collect();
                    ListType::Map(Box::leak(keys.into_boxed_slice()))
                }
            };
            Schema::List { items: keep(items), list_type }
        }
        Kind::Object if schema.embedded => resource(schema),
        Kind::Object => match &schema.additional {
            Some(values) => Schema::Map { values: keep(shape(values)), atomic: schema.atomic },
            None => {
                let fields =
                    schema.properties.iter().map(|(name, property)| field(name, shape(property))).collect();
                Schema::Struct(keep(Struct::new("", schema.atomic, schema.preserves_unknown, fields)))
            }
        },
    }
}
