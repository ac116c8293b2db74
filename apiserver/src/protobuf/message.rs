//! One message to the fields that it has in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::meta;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::table::{self, Field, Kind, Message, Shape};
use super::wire::{Payload, Reader};
use super::{DEPTH_MAX, DecodeError};

/// Adds a message's fields to `into`. Of a field that comes twice the last value counts, and messages merge.
pub(super) fn decode(
    bytes: &[u8],
    message: &Message,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError::Depth);
    }
    let mut fields = Reader::new(bytes);
    while let Some((tag, payload)) = fields.next_field()? {
        let Some(field) = message.get(&tag) else { continue };
        match field.shape {
            Shape::Inline => decode(self::bytes(payload, field.name)?, inner(field)?, into, depth + 1)?,
            Shape::One => one(payload, field, into, depth)?,
            Shape::List => list(payload, field, into, depth)?,
            Shape::Map => entry(payload, field, into, depth)?,
        }
    }
    Ok(())
}

/// The message that a field holds.
fn inner(field: &Field) -> Result<&'static Message, DecodeError> {
    match field.kind {
        Kind::Message(name) | Kind::Either(name) => table::message(name),
        _ => None,
    }
    .ok_or(DecodeError::FieldType(field.name))
}

fn one(
    payload: Payload<'_>,
    field: &Field,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let value = if let Kind::Message(_) = field.kind {
        let mut fields = match into.remove(field.name) {
            Some(Value::Object(earlier)) => earlier,
            _ => Map::new(),
        };
        decode(bytes(payload, field.name)?, inner(field)?, &mut fields, depth + 1)?;
        Value::Object(fields)
    } else {
        value(payload, field, depth)?
    };
    if value.is_null() || (field.omits_zero && is_zero(&value)) {
        into.remove(field.name);
    } else {
        into.insert(field.name.to_owned(), value);
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn list(
    payload: Payload<'_>,
    field: &Field,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let items = into.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(items) = items else {
        return Err(DecodeError::FieldType(field.name));
    };
    match payload {
        Payload::Bytes(packed) if matches!(field.kind, Kind::Bool | Kind::Int32 | Kind::Int64) => {
            let mut numbers = Reader::new(packed);
            while let Some(number) = numbers.next_packed()? {
                items.push(value(Payload::Varint(number), field, depth)?);
            }
        }
        _ => items.push(value(payload, field, depth)?),
    }
    Ok(())
}

/// One entry of a map: a message of key and value.
fn entry(
    payload: Payload<'_>,
    field: &Field,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let mut parts = Reader::new(bytes(payload, field.name)?);
    let mut key = "";
    let mut held = Payload::Bytes(&[]);
    while let Some((tag, payload)) = parts.next_field()? {
        match tag {
            1 => key = text(payload, field.name)?,
            2 => held = payload,
            _ => {}
        }
    }
    let held = value(held, field, depth)?;
    let entries = into.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(entries) = entries else {
        return Err(DecodeError::FieldType(field.name));
    };
    entries.insert(key.to_owned(), held);
    Ok(())
}

/// A single value; null for a time that is not set and for JSON that is empty.
fn value(payload: Payload<'_>, field: &Field, depth: usize) -> Result<Value, DecodeError> {
    let name = field.name;
    Ok(match field.kind {
        Kind::String => text(payload, name)?.into(),
        Kind::Bool => (varint(payload, name)? != 0).into(),
        Kind::Int32 => int32(varint(payload, name)?).into(),
        Kind::Int64 => int64(varint(payload, name)?).into(),
        Kind::Double => double(payload, name)?,
        Kind::Bytes => STANDARD.encode(bytes(payload, name)?).into(),
        Kind::Strings => strings(bytes(payload, name)?, name)?,
        Kind::IntOrString => int_or_string(bytes(payload, name)?, name)?,
        Kind::Quantity => quantity(bytes(payload, name)?, name)?,
        Kind::Time => time(bytes(payload, name)?, name)?.map(meta::format_time).into(),
        Kind::MicroTime => time(bytes(payload, name)?, name)?.map(meta::format_micro_time).into(),
        Kind::Json => json(bytes(payload, name)?, name)?,
        Kind::Message(_) => {
            let mut fields = Map::new();
            decode(bytes(payload, name)?, inner(field)?, &mut fields, depth + 1)?;
            Value::Object(fields)
        }
        Kind::Either(_) => {
            let mut fields = Map::new();
            decode(bytes(payload, name)?, inner(field)?, &mut fields, depth + 1)?;
            either(fields)
        }
    })
}

/// The one value that JSON has of such a message: an object before a list, a list before a truth value.
fn either(fields: Map<String, Value>) -> Value {
    let rank = |value: &Value| match value {
        Value::Object(_) => 0,
        Value::Array(_) => 1,
        _ => 2,
    };
    fields.into_values().min_by_key(rank).unwrap_or(Value::Null)
}

/// The payload of a field that has a length.
pub(super) fn bytes<'a>(payload: Payload<'a>, name: &'static str) -> Result<&'a [u8], DecodeError> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        _ => Err(DecodeError::FieldType(name)),
    }
}

/// The payload of a field that holds text.
pub(super) fn text<'a>(payload: Payload<'a>, name: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes(payload, name)?)
        .map_err(|_| DecodeError::FieldValue(name, "text that is not UTF-8"))
}

fn varint(payload: Payload<'_>, name: &'static str) -> Result<u64, DecodeError> {
    match payload {
        Payload::Varint(number) => Ok(number),
        _ => Err(DecodeError::FieldType(name)),
    }
}

/// A whole number stands in JSON without a fraction, as Go writes it.
fn double(payload: Payload<'_>, name: &'static str) -> Result<Value, DecodeError> {
    /// From here on not every whole number has a floating-point form.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    match payload {
        Payload::Double(number) if number.fract() == 0.0 && number.abs() <= WHOLE_MAX => {
            Ok((number as i64).into())
        }
        Payload::Double(number) if number.is_finite() => Ok(number.into()),
        Payload::Double(_) => Err(DecodeError::FieldValue(name, "a number that JSON cannot write")),
        _ => Err(DecodeError::FieldType(name)),
    }
}

/// Negative numbers are written in 64 bits, also those of 32.
fn int32(number: u64) -> i32 {
    number as i32
}

fn int64(number: u64) -> i64 {
    number as i64
}

fn strings(bytes: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    let mut fields = Reader::new(bytes);
    let mut items = Vec::new();
    while let Some((tag, payload)) = fields.next_field()? {
        if tag == 1 {
            items.push(Value::from(text(payload, name)?));
        }
    }
    Ok(Value::Array(items))
}

/// `{type, intVal, strVal}`, with type 1 for text.
fn int_or_string(bytes: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    let mut fields = Reader::new(bytes);
    let (mut kind, mut number, mut string) = (0, 0, "");
    while let Some((tag, payload)) = fields.next_field()? {
        match tag {
            1 => kind = varint(payload, name)?,
            2 => number = int32(varint(payload, name)?),
            3 => string = text(payload, name)?,
            _ => {}
        }
    }
    match kind {
        0 => Ok(number.into()),
        1 => Ok(string.into()),
        _ => Err(DecodeError::FieldValue(name, "neither a number nor text")),
    }
}

fn quantity(bytes: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    let mut fields = Reader::new(bytes);
    let mut string = "";
    while let Some((tag, payload)) = fields.next_field()? {
        if tag == 1 {
            string = text(payload, name)?;
        }
    }
    Ok(if string.is_empty() { "0" } else { string }.into())
}

/// `{seconds, nanos}` since 1970; without any field the time is not set.
fn time(bytes: &[u8], name: &'static str) -> Result<Option<Timestamp>, DecodeError> {
    let mut fields = Reader::new(bytes);
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((tag, payload)) = fields.next_field()? {
        match tag {
            1 => seconds = int64(varint(payload, name)?),
            2 => nanos = int32(varint(payload, name)?),
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    Timestamp::new(seconds, nanos)
        .map(Some)
        .map_err(|_| DecodeError::FieldValue(name, "a time beyond the calendar"))
}

/// `{raw}`, whose bytes are JSON.
fn json(bytes: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    let mut fields = Reader::new(bytes);
    let mut raw: &[u8] = &[];
    while let Some((tag, payload)) = fields.next_field()? {
        if tag == 1 {
            raw = self::bytes(payload, name)?;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|_| DecodeError::FieldValue(name, "bytes that are not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_beyond_the_deepest_level_are_refused() {
        let pod = table::message("v1/Pod").expect("pods");
        let spec_of_nothing = [0x12, 0x00];
        let read = |depth| decode(&spec_of_nothing, pod, &mut Map::new(), depth);
        assert_eq!(read(DEPTH_MAX - 1), Ok(()));
        assert_eq!(read(DEPTH_MAX), Err(DecodeError::Depth));
    }
}
