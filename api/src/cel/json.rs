//! From the values of expressions back to JSON.

use base64::Engine;
use serde_json::{Map, Number, Value as Json};

use super::library::time;
use super::value::{Key, Value};

/// The largest whole number of which all smaller ones are numbers of JavaScript too.
const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

impl Value<'_> {
    /// The value as JSON: bytes in base64, times and spans as text.
    ///
    /// # Errors
    /// There is no JSON for a value within it.
    pub fn to_json(&self) -> Result<Json, String> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Uint(value) => (*value).into(),
            Value::Double(value) => number(*value)?,
            Value::String(text) => Json::String((**text).to_owned()),
            Value::Pattern(pattern) => pattern.as_str().into(),
            Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Value::Timestamp(time) => time::timestamp_text(*time).into(),
            Value::Duration(span) => time::duration_seconds_text(*span).into(),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect::<Result<_, _>>()?),
            Value::JsonList(items, _) => Json::Array(items.to_vec()),
            Value::Map(entries) => {
                let entry = |(key, value): (&Key<'_>, &Value<'_>)| match key {
                    Key::String(name) => Ok(((**name).to_owned(), value.to_json()?)),
                    other => {
                        Err(format!("a key of a map is of type {}, not string", other.value().type_name()))
                    }
                };
                Json::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Value::JsonMap(fields, _) | Value::Object(fields, _) => Json::Object((*fields).clone()),
            Value::Made(made) => {
                let field = |(name, value): (&std::sync::Arc<str>, &Value<'_>)| {
                    Ok::<_, String>((name.to_string(), value.to_json()?))
                };
                Json::Object(made.fields.iter().map(field).collect::<Result<Map<_, _>, _>>()?)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => return Err("optional.none() dereference".to_owned()),
            other => return Err(format!("type conversion error from '{}' to JSON", other.type_name())),
        })
    }
}

/// A whole number is written as one.
fn number(value: f64) -> Result<Json, String> {
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        return Ok((value as i64).into());
    }
    Number::from_f64(value).map(Json::Number).ok_or_else(|| format!("{value} is no number of JSON"))
}
