//! Arithmetic, comparison and membership.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::overload::Row;
use super::super::value::{Key, Value};
use super::super::{EvalError, failed, no_such_overload};

pub(super) const ROWS: &[Row] = &[
    ("_+_(int, int): int", add),
    ("_+_(uint, uint): uint", add),
    ("_+_(double, double): double", add),
    ("_+_(string, string): string", add),
    ("_+_(bytes, bytes): bytes", add),
    ("_+_(list(A), list(A)): list(A)", add),
    ("_+_(timestamp, duration): timestamp", add),
    ("_+_(duration, timestamp): timestamp", add),
    ("_+_(duration, duration): duration", add),
    ("_-_(int, int): int", subtract),
    ("_-_(uint, uint): uint", subtract),
    ("_-_(double, double): double", subtract),
    ("_-_(timestamp, timestamp): duration", subtract),
    ("_-_(timestamp, duration): timestamp", subtract),
    ("_-_(duration, duration): duration", subtract),
    ("_*_(int, int): int", multiply),
    ("_*_(uint, uint): uint", multiply),
    ("_*_(double, double): double", multiply),
    ("_/_(int, int): int", divide),
    ("_/_(uint, uint): uint", divide),
    ("_/_(double, double): double", divide),
    ("_%_(int, int): int", modulo),
    ("_%_(uint, uint): uint", modulo),
    ("-_(int): int", negate),
    ("-_(double): double", negate),
    ("_==_(A, A): bool", |values| Ok(Value::Bool(values[0].equals(&values[1])))),
    ("_!=_(A, A): bool", |values| Ok(Value::Bool(!values[0].equals(&values[1])))),
    ("@in(A, list(A)): bool", contains),
    ("@in(A, map(A, B)): bool", contains),
    ("_<_(bool, bool): bool", less),
    ("_<_(int, int): bool", less),
    ("_<_(int, uint): bool", less),
    ("_<_(int, double): bool", less),
    ("_<_(uint, uint): bool", less),
    ("_<_(uint, int): bool", less),
    ("_<_(uint, double): bool", less),
    ("_<_(double, double): bool", less),
    ("_<_(double, int): bool", less),
    ("_<_(double, uint): bool", less),
    ("_<_(string, string): bool", less),
    ("_<_(bytes, bytes): bool", less),
    ("_<_(timestamp, timestamp): bool", less),
    ("_<_(duration, duration): bool", less),
    ("_<=_(bool, bool): bool", less_or_equal),
    ("_<=_(int, int): bool", less_or_equal),
    ("_<=_(int, uint): bool", less_or_equal),
    ("_<=_(int, double): bool", less_or_equal),
    ("_<=_(uint, uint): bool", less_or_equal),
    ("_<=_(uint, int): bool", less_or_equal),
    ("_<=_(uint, double): bool", less_or_equal),
    ("_<=_(double, double): bool", less_or_equal),
    ("_<=_(double, int): bool", less_or_equal),
    ("_<=_(double, uint): bool", less_or_equal),
    ("_<=_(string, string): bool", less_or_equal),
    ("_<=_(bytes, bytes): bool", less_or_equal),
    ("_<=_(timestamp, timestamp): bool", less_or_equal),
    ("_<=_(duration, duration): bool", less_or_equal),
    ("_>_(bool, bool): bool", greater),
    ("_>_(int, int): bool", greater),
    ("_>_(int, uint): bool", greater),
    ("_>_(int, double): bool", greater),
    ("_>_(uint, uint): bool", greater),
    ("_>_(uint, int): bool", greater),
    ("_>_(uint, double): bool", greater),
    ("_>_(double, double): bool", greater),
    ("_>_(double, int): bool", greater),
    ("_>_(double, uint): bool", greater),
    ("_>_(string, string): bool", greater),
    ("_>_(bytes, bytes): bool", greater),
    ("_>_(timestamp, timestamp): bool", greater),
    ("_>_(duration, duration): bool", greater),
    ("_>=_(bool, bool): bool", greater_or_equal),
    ("_>=_(int, int): bool", greater_or_equal),
    ("_>=_(int, uint): bool", greater_or_equal),
    ("_>=_(int, double): bool", greater_or_equal),
    ("_>=_(uint, uint): bool", greater_or_equal),
    ("_>=_(uint, int): bool", greater_or_equal),
    ("_>=_(uint, double): bool", greater_or_equal),
    ("_>=_(double, double): bool", greater_or_equal),
    ("_>=_(double, int): bool", greater_or_equal),
    ("_>=_(double, uint): bool", greater_or_equal),
    ("_>=_(string, string): bool", greater_or_equal),
    ("_>=_(bytes, bytes): bool", greater_or_equal),
    ("_>=_(timestamp, timestamp): bool", greater_or_equal),
    ("_>=_(duration, duration): bool", greater_or_equal),
];

fn int<'a>(value: Option<i64>) -> Result<Value<'a>, EvalError> {
    value.map(Value::Int).ok_or_else(|| failed("integer overflow"))
}

fn uint<'a>(value: Option<u64>) -> Result<Value<'a>, EvalError> {
    value.map(Value::Uint).ok_or_else(|| failed("unsigned integer overflow"))
}

fn duration<'a>(value: Option<jiff::SignedDuration>) -> Result<Value<'a>, EvalError> {
    value.map(Value::Duration).ok_or_else(|| failed("duration overflow"))
}

fn timestamp<'a>(value: Result<jiff::Timestamp, jiff::Error>) -> Result<Value<'a>, EvalError> {
    value.map(Value::Timestamp).map_err(|_| failed("timestamp overflow"))
}

fn add<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match (&values[0], &values[1]) {
        (Value::Int(one), Value::Int(other)) => int(one.checked_add(*other)),
        (Value::Uint(one), Value::Uint(other)) => uint(one.checked_add(*other)),
        (Value::Double(one), Value::Double(other)) => Ok(Value::Double(one + other)),
        (Value::Bytes(one), Value::Bytes(other)) => Ok(Value::Bytes([&**one, &**other].concat().into())),
        (Value::Duration(one), Value::Duration(other)) => duration(one.checked_add(*other)),
        (Value::Timestamp(time), Value::Duration(span)) | (Value::Duration(span), Value::Timestamp(time)) => {
            timestamp(time.checked_add(*span))
        }
        (one, other) => match (one.as_str(), other.as_str()) {
            (Some(one), Some(other)) => Ok(format!("{one}{other}").into()),
            _ => {
                let mut items = one.items().ok_or_else(no_such_overload)?;
                items.extend(other.items().ok_or_else(no_such_overload)?);
                Ok(Value::List(Arc::new(items)))
            }
        },
    }
}

fn subtract<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match (&values[0], &values[1]) {
        (Value::Int(one), Value::Int(other)) => int(one.checked_sub(*other)),
        (Value::Uint(one), Value::Uint(other)) => uint(one.checked_sub(*other)),
        (Value::Double(one), Value::Double(other)) => Ok(Value::Double(one - other)),
        (Value::Duration(one), Value::Duration(other)) => duration(one.checked_sub(*other)),
        (Value::Timestamp(one), Value::Timestamp(other)) => Ok(Value::Duration(one.duration_since(*other))),
        (Value::Timestamp(time), Value::Duration(span)) => timestamp(time.checked_sub(*span)),
        _ => Err(no_such_overload()),
    }
}

fn multiply<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match (&values[0], &values[1]) {
        (Value::Int(one), Value::Int(other)) => int(one.checked_mul(*other)),
        (Value::Uint(one), Value::Uint(other)) => uint(one.checked_mul(*other)),
        (Value::Double(one), Value::Double(other)) => Ok(Value::Double(one * other)),
        _ => Err(no_such_overload()),
    }
}

fn divide<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match (&values[0], &values[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(failed("division by zero")),
        (Value::Int(one), Value::Int(other)) => int(one.checked_div(*other)),
        (Value::Uint(one), Value::Uint(other)) => uint(one.checked_div(*other)),
        (Value::Double(one), Value::Double(other)) => Ok(Value::Double(one / other)),
        _ => Err(no_such_overload()),
    }
}

fn modulo<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match (&values[0], &values[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(failed("modulus by zero")),
        (Value::Int(one), Value::Int(other)) => int(one.checked_rem(*other)),
        (Value::Uint(one), Value::Uint(other)) => uint(one.checked_rem(*other)),
        _ => Err(no_such_overload()),
    }
}

fn negate<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match &values[0] {
        Value::Int(value) => int(value.checked_neg()),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(no_such_overload()),
    }
}

fn contains<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    if values[1].has_entries() {
        return Ok(Value::Bool(Key::of(&values[0]).is_ok_and(|key| values[1].entry(&key).is_some())));
    }
    let count = values[1].size().ok_or_else(no_such_overload)?;
    let found = (0..count).filter_map(|index| values[1].item(index)).any(|item| item.equals(&values[0]));
    Ok(Value::Bool(found))
}

fn ordered<'a>(values: &[Value<'a>], holds: impl Fn(Ordering) -> bool) -> Result<Value<'a>, EvalError> {
    // What has no order (a number that is none) is neither smaller nor larger.
    Ok(Value::Bool(values[0].compare(&values[1])?.is_some_and(holds)))
}

fn less<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(values, Ordering::is_lt)
}

fn less_or_equal<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(values, Ordering::is_le)
}

fn greater<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(values, Ordering::is_gt)
}

fn greater_or_equal<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    ordered(values, Ordering::is_ge)
}
