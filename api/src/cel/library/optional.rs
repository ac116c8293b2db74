//! Values that may be missing. What evaluates its arguments only when needed is in the evaluation itself.

use std::sync::Arc;

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, failed, no_such_overload};

pub(super) const ROWS: &[Row] = &[
    ("optional.of(A): optional(A)", |values| Ok(Value::Optional(Some(Arc::new(values[0].clone()))))),
    ("optional.none(): optional(A)", |_| Ok(Value::Optional(None))),
    ("optional.ofNonZeroValue(A): optional(A)", |values| {
        Ok(Value::Optional((!is_zero(&values[0])).then(|| Arc::new(values[0].clone()))))
    }),
    (".hasValue(optional(A)): bool", |values| Ok(inside(&values[0])?.is_some().into())),
    (".value(optional(A)): A", |values| {
        inside(&values[0])?
            .map(|value| (**value).clone())
            .ok_or_else(|| failed("optional.none() dereference"))
    }),
];

fn inside<'v, 'a>(value: &'v Value<'a>) -> Result<Option<&'v Arc<Value<'a>>>, EvalError> {
    match value {
        Value::Optional(value) => Ok(value.as_ref()),
        _ => Err(no_such_overload()),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Optional(None) => true,
        Value::Double(value) => *value == 0.0,
        Value::Duration(span) => span.is_zero(),
        other => other.size() == Some(0),
    }
}
