//! Sizes, tests of texts and conversions between types.

use super::super::overload::Row;
use super::super::value::{Text, Value};
use super::super::{EvalError, failed, no_such_overload};
use super::time;
use super::{regex, text};

pub(super) const ROWS: &[Row] = &[
    ("size(string): int", size),
    ("size(bytes): int", size),
    ("size(list(A)): int", size),
    ("size(map(A, B)): int", size),
    (".size(string): int", size),
    (".size(bytes): int", size),
    (".size(list(A)): int", size),
    (".size(map(A, B)): int", size),
    (".contains(string, string): bool", |values| Ok(text(values, 0)?.contains(text(values, 1)?).into())),
    (".startsWith(string, string): bool", |values| Ok(text(values, 0)?.starts_with(text(values, 1)?).into())),
    (".endsWith(string, string): bool", |values| Ok(text(values, 0)?.ends_with(text(values, 1)?).into())),
    ("matches(string, string): bool", matches),
    (".matches(string, string): bool", matches),
    ("int(int): int", to_int),
    ("int(uint): int", to_int),
    ("int(double): int", to_int),
    ("int(string): int", to_int),
    ("int(timestamp): int", to_int),
    ("uint(uint): uint", to_uint),
    ("uint(int): uint", to_uint),
    ("uint(double): uint", to_uint),
    ("uint(string): uint", to_uint),
    ("double(double): double", to_double),
    ("double(int): double", to_double),
    ("double(uint): double", to_double),
    ("double(string): double", to_double),
    ("bool(bool): bool", to_bool),
    ("bool(string): bool", to_bool),
    ("string(string): string", to_string),
    ("string(bool): string", to_string),
    ("string(int): string", to_string),
    ("string(uint): string", to_string),
    ("string(double): string", to_string),
    ("string(bytes): string", to_string),
    ("string(timestamp): string", to_string),
    ("string(duration): string", to_string),
    ("string(net.IP): string", to_string),
    ("string(net.CIDR): string", to_string),
    ("bytes(bytes): bytes", |values| Ok(values[0].clone())),
    ("bytes(string): bytes", |values| Ok(Value::Bytes(text(values, 0)?.as_bytes().into()))),
    ("dyn(A): dyn", |values| Ok(values[0].clone())),
    ("type(A): type", |values| Ok(Value::Type(values[0].type_name().into()))),
    ("timestamp(timestamp): timestamp", |values| Ok(values[0].clone())),
    ("timestamp(int): timestamp", |values| match &values[0] {
        Value::Int(seconds) => jiff::Timestamp::from_second(*seconds)
            .map(Value::Timestamp)
            .map_err(|_| failed("timestamp overflow")),
        _ => Err(no_such_overload()),
    }),
    ("timestamp(string): timestamp", |values| {
        time::parse_timestamp(text(values, 0)?)
            .map(Value::Timestamp)
            .ok_or_else(|| failed("type conversion error from 'string' to 'google.protobuf.Timestamp'"))
    }),
    ("duration(duration): duration", |values| Ok(values[0].clone())),
    ("duration(string): duration", |values| {
        time::parse_duration(text(values, 0)?)
            .map(Value::Duration)
            .ok_or_else(|| failed("type conversion error from 'string' to 'google.protobuf.Duration'"))
    }),
];

fn size<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    values[0].size().map(|size| Value::Int(size as i64)).ok_or_else(no_such_overload)
}

fn matches<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(regex::of(&values[1])?.is_match(text(values, 0)?).into())
}

fn unconvertible(value: &Value<'_>, to: &str) -> EvalError {
    failed(format!("type conversion error from '{}' to '{to}'", value.type_name()))
}

fn to_int<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let value = &values[0];
    let overflow = || failed("integer overflow");
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Uint(number) => i64::try_from(*number).map(Value::Int).map_err(|_| overflow()),
        Value::Double(number) if number.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*number as i64)),
        Value::Double(_) => Err(overflow()),
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        _ => text(values, 0)?.parse().map(Value::Int).map_err(|_| unconvertible(value, "int")),
    }
}

fn to_uint<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let value = &values[0];
    let overflow = || failed("unsigned integer overflow");
    match value {
        Value::Uint(_) => Ok(value.clone()),
        Value::Int(number) => u64::try_from(*number).map(Value::Uint).map_err(|_| overflow()),
        Value::Double(number) if *number >= 0.0 && *number < 18_446_744_073_709_551_615.0 => {
            Ok(Value::Uint(*number as u64))
        }
        Value::Double(_) => Err(overflow()),
        _ => text(values, 0)?.parse().map(Value::Uint).map_err(|_| unconvertible(value, "uint")),
    }
}

fn to_double<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let value = &values[0];
    match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::Uint(number) => Ok(Value::Double(*number as f64)),
        _ => text(values, 0)?.parse().map(Value::Double).map_err(|_| unconvertible(value, "double")),
    }
}

fn to_bool<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match (&values[0], values[0].as_str()) {
        (Value::Bool(_), _) => Ok(values[0].clone()),
        (_, Some("true" | "TRUE" | "True" | "t" | "1")) => Ok(Value::Bool(true)),
        (_, Some("false" | "FALSE" | "False" | "f" | "0")) => Ok(Value::Bool(false)),
        (value, _) => Err(unconvertible(value, "bool")),
    }
}

fn to_string<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let value = &values[0];
    Ok(match value {
        Value::String(_) => value.clone(),
        Value::Pattern(pattern) => Value::String(Text::Shared(pattern.as_str().into())),
        Value::Bool(value) => value.to_string().into(),
        Value::Int(value) => value.to_string().into(),
        Value::Uint(value) => value.to_string().into(),
        Value::Double(value) => double_text(*value).into(),
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes);
            text.map(|text| text.to_owned().into())
                .map_err(|_| failed("invalid UTF-8 in bytes, cannot convert to string"))?
        }
        Value::Timestamp(time) => time::timestamp_text(*time).into(),
        Value::Duration(span) => time::duration_seconds_text(*span).into(),
        Value::Ip(address) => address.to_string().into(),
        Value::Cidr(range) => format!("{}/{}", range.address, range.prefix).into(),
        _ => return Err(no_such_overload()),
    })
}

/// A number as Go prints it by default: the shortest form, with an exponent where that is large.
pub(super) fn double_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value}"),
    }
}
