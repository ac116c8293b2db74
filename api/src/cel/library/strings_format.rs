//! `format`: texts with clauses such as `%d` and `%.2f`.

use super::super::value::{Key, Value};
use super::super::{EvalError, failed};
use super::standard::double_text;
use super::time;

/// The most decimals that can be asked for.
const PRECISION_MAX: usize = 1_000;

/// Puts arguments into the clauses of a text.
pub(super) fn format(pattern: &str, arguments: &[Value<'_>]) -> Result<String, EvalError> {
    let mut made = String::new();
    let mut next = arguments.iter();
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            made.push(c);
            continue;
        }
        if characters.peek() == Some(&'%') {
            characters.next();
            made.push('%');
            continue;
        }
        let mut precision = None;
        if characters.peek() == Some(&'.') {
            characters.next();
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let number: usize = digits.parse().map_err(|_| failed("could not parse formatting clause"))?;
            if number > PRECISION_MAX {
                return Err(failed("precision specifier is too large"));
            }
            precision = Some(number);
        }
        let clause = characters.next().ok_or_else(|| failed("unexpected end of string"))?;
        let argument = next.next().ok_or_else(|| failed("index out of range"))?;
        made.push_str(&one(clause, precision, argument)?);
    }
    Ok(made)
}

fn one(clause: char, precision: Option<usize>, argument: &Value<'_>) -> Result<String, EvalError> {
    let refused = |wanted: &str| {
        failed(format!(
            "error during formatting: {clause} clause can only be used on {wanted}, was given {}",
            argument.type_name()
        ))
    };
    match (clause, argument) {
        ('s', argument) => Ok(shown(argument)),
        ('d', Value::Int(value)) => Ok(value.to_string()),
        ('d', Value::Uint(value)) => Ok(value.to_string()),
        ('d', Value::Double(value)) if value.fract() == 0.0 => Ok(format!("{value:.0}")),
        ('d', _) => Err(refused("integers")),
        ('f' | 'e', argument) => {
            let number = match argument {
                Value::Double(value) => *value,
                Value::Int(value) => *value as f64,
                Value::Uint(value) => *value as f64,
                _ => return Err(refused("doubles")),
            };
            let precision = precision.unwrap_or(6);
            if clause == 'f' || !number.is_finite() {
                return Ok(format!("{number:.precision$}"));
            }
            let text = format!("{number:.precision$e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            Ok(format!("{digits}e{sign}{:02}", exponent.abs()))
        }
        ('b', Value::Int(value)) => Ok(signed(*value, |value| format!("{value:b}"))),
        ('b', Value::Uint(value)) => Ok(format!("{value:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => Err(refused("integers and bools")),
        ('o', Value::Int(value)) => Ok(signed(*value, |value| format!("{value:o}"))),
        ('o', Value::Uint(value)) => Ok(format!("{value:o}")),
        ('o', _) => Err(refused("integers")),
        ('x' | 'X', argument) => {
            let text = match argument {
                Value::Int(value) => signed(*value, |value| format!("{value:x}")),
                Value::Uint(value) => format!("{value:x}"),
                Value::Bytes(bytes) => hex(bytes),
                other => match other.as_str() {
                    Some(text) => hex(text.as_bytes()),
                    None => return Err(refused("integers, byte buffers, and strings")),
                },
            };
            Ok(if clause == 'X' { text.to_uppercase() } else { text })
        }
        _ => Err(failed(format!(
            "could not parse formatting clause: unrecognized formatting clause \"{clause}\""
        ))),
    }
}

fn signed(value: i64, digits: impl Fn(u64) -> String) -> String {
    format!("{}{}", if value < 0 { "-" } else { "" }, digits(value.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as `%s` shows it.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double_text(*value),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(time) => time::timestamp_text(*time),
        Value::Duration(span) => time::duration_seconds_text(*span),
        Value::Type(name) => name.to_string(),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(range) => format!("{}/{}", range.address, range.prefix),
        other => {
            if let Some(text) = other.as_str() {
                return text.to_owned();
            }
            if let Some(items) = other.items() {
                let items: Vec<String> = items.iter().map(shown).collect();
                return format!("[{}]", items.join(", "));
            }
            let keys: Vec<Key<'_>> = other.keys().unwrap_or_default();
            let entries: Vec<String> = keys
                .iter()
                .map(|key| {
                    let value = other.entry(key).map(|value| shown(&value)).unwrap_or_default();
                    format!("{}: {value}", shown(&key.value()))
                })
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}
