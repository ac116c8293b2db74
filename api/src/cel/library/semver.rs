//! Semantic versions.

use std::cmp::Ordering;

use semver::Version;

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, failed, no_such_overload};
use super::text;

pub(super) const ROWS: &[Row] = &[
    ("semver(string): kubernetes.Semver", made),
    ("semver(string, bool): kubernetes.Semver", made),
    ("isSemver(string): bool", |values| Ok(made(values).is_ok().into())),
    ("isSemver(string, bool): bool", |values| Ok(made(values).is_ok().into())),
    (".major(kubernetes.Semver): int", |values| number(of(values, 0)?.major)),
    (".minor(kubernetes.Semver): int", |values| number(of(values, 0)?.minor)),
    (".patch(kubernetes.Semver): int", |values| number(of(values, 0)?.patch)),
    (".isLessThan(kubernetes.Semver, kubernetes.Semver): bool", |values| {
        Ok((order(values)? == Ordering::Less).into())
    }),
    (".isGreaterThan(kubernetes.Semver, kubernetes.Semver): bool", |values| {
        Ok((order(values)? == Ordering::Greater).into())
    }),
    (".compareTo(kubernetes.Semver, kubernetes.Semver): int", |values| Ok(Value::Int(order(values)? as i64))),
];

fn made<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let given = text(values, 0)?;
    let normalized = match values.get(1) {
        Some(Value::Bool(true)) => Some(normalize(given)),
        _ => None,
    };
    let parsed = Version::parse(normalized.as_deref().unwrap_or(given));
    parsed.map(|version| Value::Semver(version.into())).map_err(|error| failed(error.to_string()))
}

/// Without a leading `v`, with all three numbers, and without their leading zeros.
fn normalize(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers
        .splitn(3, '.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            trimmed => trimmed,
        })
        .collect();
    // A shortened version has nothing behind it.
    if rest.is_empty() {
        parts.resize(parts.len().max(3), "0");
    }
    format!("{}{rest}", parts.join("."))
}

fn of<'v>(values: &'v [Value<'_>], index: usize) -> Result<&'v Version, EvalError> {
    match values.get(index) {
        Some(Value::Semver(version)) => Ok(version),
        _ => Err(no_such_overload()),
    }
}

fn number<'a>(part: u64) -> Result<Value<'a>, EvalError> {
    i64::try_from(part).map(Value::Int).map_err(|_| failed("integer overflow"))
}

/// What follows a `+` does not count.
fn order(values: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(of(values, 0)?.cmp_precedence(of(values, 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_normalized_where_that_is_wanted() {
        for (given, normal) in
            [("v1.2", "1.2.0"), ("01.2.003", "1.2.3"), ("1", "1.0.0"), ("v1.0.0-rc.1", "1.0.0-rc.1")]
        {
            assert_eq!(normalize(given), normal);
        }
    }
}
