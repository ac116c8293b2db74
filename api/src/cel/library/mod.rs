//! The functions of expressions, one file a library. Each has a table of signatures and what they run.

pub mod authorizer;
mod collections;
pub(super) mod format;
mod json_patch;
mod network;
mod operators;
mod optional;
mod quantity;
pub(super) mod regex;
mod semver;
mod sets;
mod standard;
mod strings;
mod strings_format;
pub(super) mod time;
mod time_functions;
pub(super) mod url;

pub(super) use collections::insert;

use super::overload::Row;
use super::value::Value;
use super::{EvalError, no_such_overload};

/// The rows of all tables.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    [
        operators::ROWS,
        standard::ROWS,
        time_functions::ROWS,
        strings::ROWS,
        collections::ROWS,
        sets::ROWS,
        optional::ROWS,
        regex::ROWS,
        url::ROWS,
        quantity::ROWS,
        network::ROWS,
        semver::ROWS,
        format::ROWS,
        json_patch::ROWS,
        authorizer::ROWS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The text among the arguments at `index`.
fn text<'v>(values: &'v [Value<'_>], index: usize) -> Result<&'v str, EvalError> {
    values.get(index).and_then(Value::as_str).ok_or_else(no_such_overload)
}

/// The whole number among the arguments at `index`.
fn whole(values: &[Value<'_>], index: usize) -> Result<i64, EvalError> {
    match values.get(index) {
        Some(Value::Int(value)) => Ok(*value),
        _ => Err(no_such_overload()),
    }
}

/// The items of the list among the arguments at `index`.
fn list<'a>(values: &[Value<'a>], index: usize) -> Result<Vec<Value<'a>>, EvalError> {
    values.get(index).and_then(Value::items).ok_or_else(no_such_overload)
}
