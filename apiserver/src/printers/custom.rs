//! Tables of custom resources: the name, then the columns that their definition asks for.

use coracle_api::custom::{Column, Definition};
use coracle_api::meta;
use serde_json::Value;

use super::Context;
use super::cells::{name, since};
use super::columns::NAME;

pub(super) fn columns(definition: &Definition) -> Vec<Value> {
    let own = definition.columns.iter().map(|column| column.definition.clone());
    std::iter::once(NAME.definition()).chain(own).collect()
}

pub(super) fn cells(definition: &Definition, object: &Value, context: &Context) -> Vec<Value> {
    let own = definition.columns.iter().map(|column| cell(column, object, context));
    std::iter::once(name(object)).chain(own).collect()
}

/// What a column shows; null where there is nothing, or nothing of its type.
fn cell(column: &Column, object: &Value, context: &Context) -> Value {
    let Some(value) = column.path.find(object).first().copied() else { return Value::Null };
    match (column.kind.as_str(), value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).into()
        }
        ("number", Value::Number(number)) => number.as_f64().into(),
        ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match meta::parse_time(text) {
            Some(time) => since(Some(time), context).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
