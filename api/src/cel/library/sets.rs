//! Lists as sets.

use super::super::EvalError;
use super::super::overload::Row;
use super::super::value::Value;
use super::list;

pub(super) const ROWS: &[Row] = &[
    ("sets.contains(list(A), list(A)): bool", |values| Ok(within(values, 1, 0)?.into())),
    ("sets.equivalent(list(A), list(A)): bool", |values| {
        Ok((within(values, 1, 0)? && within(values, 0, 1)?).into())
    }),
    ("sets.intersects(list(A), list(A)): bool", |values| {
        let (one, other) = (list(values, 0)?, list(values, 1)?);
        Ok(one.iter().any(|item| other.iter().any(|known| known.equals(item))).into())
    }),
];

/// Whether every item of one list is in the other.
fn within(values: &[Value<'_>], part: usize, whole: usize) -> Result<bool, EvalError> {
    let (part, whole) = (list(values, part)?, list(values, whole)?);
    Ok(part.iter().all(|item| whole.iter().any(|known| known.equals(item))))
}
