//! The fields that an object has in JSON to its message, byte for byte as upstream's generated code writes it: by ascending tags, what Go holds
//! without a pointer always, maps by their keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::table::{self, Field, Kind, Message, Shape};
use super::wire::Writer;
use super::{DEPTH_MAX, EncodeError};

/// Writes a message's fields, the last first.
pub(super) fn message(
    message: &Message,
    fields: &Map<String, Value>,
    into: &mut Writer,
    depth: usize,
) -> Result<(), EncodeError> {
    if depth > DEPTH_MAX {
        return Err(EncodeError::Depth);
    }
    for (tag, field) in message.iter().rev() {
        let held = fields.get(field.name).filter(|value| !value.is_null());
        match (field.shape, held) {
            (Shape::Inline, _) => {
                let end = into.end();
                self::message(inner(field)?, fields, into, depth + 1)?;
                into.close(*tag, end);
            }
            (Shape::One, Some(held)) => value(*tag, field, held, into, depth)?,
            (Shape::One, None) if field.always => value(*tag, field, &Value::Null, into, depth)?,
            (Shape::List, Some(Value::Array(items))) => {
                for item in items.iter().rev() {
                    value(*tag, field, item, into, depth)?;
                }
            }
            (Shape::Map, Some(Value::Object(entries))) => {
                for (key, held) in entries.iter().rev() {
                    let end = into.end();
                    value(2, field, held, into, depth)?;
                    into.bytes(1, key.as_bytes());
                    into.close(*tag, end);
                }
            }
            (_, None) => {}
            (_, Some(_)) => return Err(EncodeError::Field(field.name)),
        }
    }
    Ok(())
}

fn inner(field: &Field) -> Result<&'static Message, EncodeError> {
    match field.kind {
        Kind::Message(name) | Kind::Either(name) => table::message(name),
        _ => None,
    }
    .ok_or(EncodeError::Field(field.name))
}

/// Writes one value; null is the type's zero.
fn value(tag: u64, field: &Field, value: &Value, into: &mut Writer, depth: usize) -> Result<(), EncodeError> {
    let wrong = || EncodeError::Field(field.name);
    let end = into.end();
    match (field.kind, value) {
        (Kind::String | Kind::Bytes, Value::Null) => into.bytes(tag, &[]),
        (Kind::String, Value::String(text)) => into.bytes(tag, text.as_bytes()),
        (Kind::Bytes, Value::String(text)) => {
            into.bytes(tag, &STANDARD.decode(text).map_err(|_| wrong())?);
        }
        (Kind::Bool, Value::Null) => into.number(tag, 0),
        (Kind::Bool, Value::Bool(value)) => into.number(tag, u64::from(*value)),
        (Kind::Int32 | Kind::Int64, Value::Null) => into.number(tag, 0),
        // Negative numbers take 64 bits, also those of 32.
        (Kind::Int32 | Kind::Int64, Value::Number(number)) => {
            into.number(tag, number.as_i64().ok_or_else(wrong)? as u64);
        }
        (Kind::Double, Value::Null) => into.double(tag, 0.0),
        (Kind::Double, Value::Number(number)) => into.double(tag, number.as_f64().ok_or_else(wrong)?),
        (Kind::Strings, Value::Null) => into.close(tag, end),
        (Kind::Strings, Value::Array(items)) => {
            for item in items.iter().rev() {
                into.bytes(1, item.as_str().ok_or_else(wrong)?.as_bytes());
            }
            into.close(tag, end);
        }
        (Kind::IntOrString, value) => {
            let (is_text, number, text) = match value {
                Value::Null => (0, 0, ""),
                Value::Number(number) => (0, number.as_i64().ok_or_else(wrong)?, ""),
                Value::String(text) => (1, 0, text.as_str()),
                _ => return Err(wrong()),
            };
            into.bytes(3, text.as_bytes());
            into.number(2, number as u64);
            into.number(1, is_text);
            into.close(tag, end);
        }
        (Kind::Quantity, value) => {
            match value {
                Value::Null => into.bytes(1, b"0"),
                Value::String(text) => into.bytes(1, text.as_bytes()),
                Value::Number(number) => into.bytes(1, number.to_string().as_bytes()),
                _ => return Err(wrong()),
            }
            into.close(tag, end);
        }
        (Kind::Time | Kind::MicroTime, Value::Null) => into.close(tag, end),
        (Kind::Time | Kind::MicroTime, Value::String(text)) => {
            let time: Timestamp = text.parse().map_err(|_| wrong())?;
            // The nanoseconds of a time before 1970 count upwards too.
            let (seconds, nanos) = match (time.as_second(), time.subsec_nanosecond()) {
                (seconds, nanos) if nanos < 0 => (seconds - 1, nanos + 1_000_000_000),
                exact => exact,
            };
            let nanos = if field.kind == Kind::Time { 0 } else { nanos / 1000 * 1000 };
            into.number(2, nanos as u64);
            into.number(1, seconds as u64);
            into.close(tag, end);
        }
        (Kind::Json, Value::Null) => into.close(tag, end),
        (Kind::Json, value) => {
            into.bytes(1, &serde_json::to_vec(value).map_err(|_| wrong())?);
            into.close(tag, end);
        }
        (Kind::Message(_), Value::Null) => {
            message(inner(field)?, &Map::new(), into, depth + 1)?;
            into.close(tag, end);
        }
        (Kind::Message(_), Value::Object(fields)) => {
            message(inner(field)?, fields, into, depth + 1)?;
            into.close(tag, end);
        }
        (Kind::Either(_), value) => {
            either(inner(field)?, value, into, depth + 1)?;
            into.close(tag, end);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Writes the one field whose type the value has. A truth value beside an object is true: upstream reads it so from JSON.
fn either(message: &Message, held: &Value, into: &mut Writer, depth: usize) -> Result<(), EncodeError> {
    for (tag, field) in message.iter().rev() {
        match (field.shape, field.kind, held) {
            (Shape::One, Kind::Message(_), Value::Object(_)) | (Shape::One, Kind::Bool, Value::Bool(_)) => {
                value(*tag, field, held, into, depth)?;
            }
            (Shape::One, Kind::Bool, Value::Object(_)) => into.number(*tag, 1),
            (Shape::List, _, Value::Array(items)) => {
                for item in items.iter().rev() {
                    value(*tag, field, item, into, depth)?;
                }
            }
            (_, _, Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {}
            _ => return Err(EncodeError::Field(field.name)),
        }
    }
    Ok(())
}
