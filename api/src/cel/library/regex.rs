//! Regular expressions, in Go's syntax as far as the library `regex` has it; in linear time whatever they are.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, failed, no_such_overload};
use super::{text, whole};

pub(super) const ROWS: &[Row] = &[
    (".find(string, string): string", |values| {
        let found = of(&values[1])?.find(text(values, 0)?).map(|found| found.as_str().to_owned());
        Ok(found.unwrap_or_default().into())
    }),
    (".findAll(string, string): list(string)", |values| find_all(values, -1)),
    (".findAll(string, string, int): list(string)", |values| find_all(values, whole(values, 2)?)),
];

/// The most bytes that a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A pattern, compiled.
///
/// # Errors
/// It is none, or it is too large.
pub(in crate::cel) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    let compiled = RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    compiled.map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        failed(format!("error parsing regexp: {reason}: `{pattern}`"))
    })
}

/// The pattern that a value is.
pub(super) fn of(value: &Value<'_>) -> Result<Arc<Regex>, EvalError> {
    match value {
        Value::Pattern(regex) => Ok(Arc::clone(regex)),
        other => compile(other.as_str().ok_or_else(no_such_overload)?).map(Arc::new),
    }
}

fn find_all<'a>(values: &[Value<'a>], limit: i64) -> Result<Value<'a>, EvalError> {
    let regex = of(&values[1])?;
    let found = regex.find_iter(text(values, 0)?).take(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found.map(|one| Value::from(one.as_str().to_owned())).collect::<Vec<_>>().into())
}
