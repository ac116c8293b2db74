//! What lists can do.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::overload::Row;
use super::super::value::{Key, Value};
use super::super::{EvalError, failed, no_such_overload};
use super::{list, whole};

pub(super) const ROWS: &[Row] = &[
    (".isSorted(list(A)): bool", is_sorted),
    (".sum(list(int)): int", sum),
    (".sum(list(uint)): uint", sum),
    (".sum(list(double)): double", sum),
    (".sum(list(duration)): duration", sum),
    (".min(list(A)): A", |values| extreme(values, "min", Ordering::is_lt)),
    (".max(list(A)): A", |values| extreme(values, "max", Ordering::is_gt)),
    (".indexOf(list(A), A): int", |values| position(values, false)),
    (".lastIndexOf(list(A), A): int", |values| position(values, true)),
    (".distinct(list(A)): list(A)", distinct),
    (".reverse(list(A)): list(A)", |values| {
        let mut items = list(values, 0)?;
        items.reverse();
        Ok(items.into())
    }),
    (".slice(list(A), int, int): list(A)", slice),
    (".sort(list(A)): list(A)", sort),
    (".flatten(list(list(A))): list(A)", |values| flatten(values, 1)),
    (".flatten(list(dyn), int): list(dyn)", |values| flatten(values, whole(values, 1)?)),
    ("lists.range(int): list(int)", range),
    ("cel.@mapInsert(map(A, B), A, B): map(A, B)", |values| insert(values[0].clone(), &values[1..])),
    ("cel.@mapInsert(map(A, B), map(A, B)): map(A, B)", |values| insert(values[0].clone(), &values[1..])),
];

/// The longest list that is made of nothing.
const RANGE_MAX: i64 = 100_000;

/// The map with an entry, or with those of another map, none of which may be there already.
pub(in crate::cel) fn insert<'a>(map: Value<'a>, added: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let Value::Map(mut entries) = map else { return Err(no_such_overload()) };
    let added = match added {
        [key, value] => vec![(Key::of(key)?, value.clone())],
        [others] => {
            let keys = others.keys().ok_or_else(no_such_overload)?;
            keys.into_iter().filter_map(|key| others.entry(&key).map(|value| (key, value))).collect()
        }
        _ => return Err(no_such_overload()),
    };
    let known = Arc::make_mut(&mut entries);
    for (key, value) in added {
        if known.insert(key.clone(), value).is_some() {
            let key = key.value();
            return Err(failed(format!(
                "insert failed: key {} already exists",
                key.as_str().unwrap_or_default()
            )));
        }
    }
    Ok(Value::Map(entries))
}

fn is_sorted<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let items = list(values, 0)?;
    for pair in items.windows(2) {
        if pair[0].compare(&pair[1])?.is_none_or(Ordering::is_gt) {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut total: Option<Value<'a>> = None;
    for item in list(values, 0)? {
        total = Some(match (total, item) {
            (None, item) => item,
            (Some(Value::Int(one)), Value::Int(other)) => {
                Value::Int(one.checked_add(other).ok_or_else(|| failed("integer overflow"))?)
            }
            (Some(Value::Uint(one)), Value::Uint(other)) => {
                Value::Uint(one.checked_add(other).ok_or_else(|| failed("unsigned integer overflow"))?)
            }
            (Some(Value::Double(one)), Value::Double(other)) => Value::Double(one + other),
            (Some(Value::Duration(one)), Value::Duration(other)) => {
                Value::Duration(one.checked_add(other).ok_or_else(|| failed("duration overflow"))?)
            }
            _ => return Err(no_such_overload()),
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

fn extreme<'a>(
    values: &[Value<'a>],
    name: &str,
    better: impl Fn(Ordering) -> bool,
) -> Result<Value<'a>, EvalError> {
    let mut best: Option<Value<'a>> = None;
    for item in list(values, 0)? {
        best = match best {
            Some(best) if !item.compare(&best)?.is_some_and(&better) => Some(best),
            _ => Some(item),
        };
    }
    best.ok_or_else(|| failed(format!("{name} called on empty list")))
}

fn position<'a>(values: &[Value<'a>], last: bool) -> Result<Value<'a>, EvalError> {
    let items = list(values, 0)?;
    let found = |item: &Value<'a>| item.equals(&values[1]);
    let index = if last { items.iter().rposition(found) } else { items.iter().position(found) };
    Ok(Value::Int(index.map_or(-1, |index| index as i64)))
}

/// The most items whose differences are looked for one by one.
const DISTINCT_MAX: usize = 5_000;

fn distinct<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let items = list(values, 0)?;
    if items.len() > DISTINCT_MAX {
        return Err(failed(format!("distinct() called on a list of more than {DISTINCT_MAX} items")));
    }
    let mut kept: Vec<Value<'a>> = Vec::new();
    for item in items {
        if !kept.iter().any(|known| known.equals(&item)) {
            kept.push(item);
        }
    }
    Ok(kept.into())
}

fn slice<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (items, start, end) = (list(values, 0)?, whole(values, 1)?, whole(values, 2)?);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let part = range.and_then(|(start, end)| items.get(start..end));
    part.map(|part| part.to_vec().into())
        .ok_or_else(|| failed(format!("cannot slice({start}, {end}), list is length {}", items.len())))
}

fn sort<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut items = list(values, 0)?;
    let mut odd = None;
    items.sort_by(|one, other| match one.compare(other) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            odd = Some(error);
            Ordering::Equal
        }
    });
    odd.map_or(Ok(items.into()), Err)
}

fn flatten<'a>(values: &[Value<'a>], levels: i64) -> Result<Value<'a>, EvalError> {
    if levels < 0 {
        return Err(failed("level must be non-negative"));
    }
    let mut items = list(values, 0)?;
    for _ in 0..levels {
        if !items.iter().any(|item| item.items().is_some()) {
            break;
        }
        items =
            items.into_iter().flat_map(|item| item.items().unwrap_or_else(|| vec![item.clone()])).collect();
    }
    Ok(items.into())
}

fn range<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let count = whole(values, 0)?;
    if !(0..=RANGE_MAX).contains(&count) {
        return Err(failed(format!("lists.range(): {count} is not within 0 and {RANGE_MAX}")));
    }
    Ok((0..count).map(Value::Int).collect::<Vec<_>>().into())
}
