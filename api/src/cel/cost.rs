//! What steps of an evaluation cost, in upstream's units (one is about 50 ns there).

use serde_json::Value as Json;

use super::value::Value;

/// Reading a variable or a field.
pub(super) const SELECT_AND_IDENT: u64 = 1;
/// Making a list.
pub(super) const LIST_CREATE: u64 = 10;
/// Making a map.
pub(super) const MAP_CREATE: u64 = 30;
/// Making an object.
pub(super) const OBJECT_CREATE: u64 = 40;
/// Going over a character.
pub(super) const TRAVERSAL: f64 = 0.1;
/// A character of a regular expression.
pub(super) const PATTERN: f64 = 0.25;
/// Asking for a permission; two of them fit into an expression.
pub(super) const AUTHORIZATION: u64 = 350_000;

/// `size * factor`, rounded up.
pub(super) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn size(value: &Value<'_>) -> u64 {
    value.size().map_or(1, |size| size as u64)
}

/// What calling a function with these values costs.
pub(super) fn of_call(name: &str, values: &[Value<'_>]) -> u64 {
    let first = values.first().map_or(0, size);
    let second = values.get(1).map_or(0, size);
    let is_text = values.first().is_some_and(|value| value.as_str().is_some());
    match name {
        "check" => AUTHORIZATION,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            if is_text {
                scaled(first, TRAVERSAL)
            } else {
                elements(&values[0])
            }
        }
        "sort" | "distinct" | "flatten" | "slice" | "reverse" => elements(&values[0]),
        "url"
        | "isURL"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "jsonpatch.escapeKey"
        | "quantity"
        | "isQuantity"
        | "validate"
        | "charAt" => scaled(first, TRAVERSAL),
        "ip" if is_text => scaled(first, TRAVERSAL),
        "replace" | "split" | "ip.isCanonical" | "strings.quote" | "format" => scaled(first, 2.0 * TRAVERSAL),
        "find" | "findAll" | "matches" => {
            scaled(first + 1, TRAVERSAL).saturating_mul(scaled(second, PATTERN))
        }
        "containsIP" | "containsCIDR" => scaled(32 + second, TRAVERSAL),
        "startsWith" | "endsWith" | "bytes" | "string" => scaled(first, TRAVERSAL),
        "@in" => match values.get(1) {
            Some(list @ (Value::List(_) | Value::JsonList(..))) => deep(list),
            _ => 1,
        },
        "_==_" | "_!=_" => scaled(deep(&values[0]).min(deep(&values[1])), TRAVERSAL),
        "_<_" | "_<=_" | "_>_" | "_>=_" => scaled(first.min(second), TRAVERSAL),
        "_+_" if is_text || matches!(values.first(), Some(Value::Bytes(_))) => {
            scaled(first + second, TRAVERSAL)
        }
        // Upstream shares the parts of a sum of lists; here they are copied.
        "_+_" if matches!(values.first(), Some(Value::List(_) | Value::JsonList(..))) => {
            1 + scaled(first + second, TRAVERSAL)
        }
        "contains" => scaled(first, TRAVERSAL).saturating_mul(scaled(second, TRAVERSAL)),
        "sets.contains" | "sets.intersects" | "sets.equivalent" => {
            let product = first.saturating_mul(second);
            1 + if name == "sets.equivalent" { product.saturating_mul(2) } else { product }
        }
        _ => 1,
    }
}

/// What making a result costs on top, where only the result tells.
pub(super) fn of_result(name: &str, result: &Value<'_>) -> u64 {
    if name == "join" { scaled(size(result), 2.0 * TRAVERSAL) } else { 0 }
}

/// The sizes of the items of a list, which all have to be looked at.
fn elements(list: &Value<'_>) -> u64 {
    let items = list.items().unwrap_or_default();
    items
        .iter()
        .map(|item| 1 + item.as_str().map_or_else(|| deep(item), |text| scaled(text.len() as u64, TRAVERSAL)))
        .sum()
}

/// How much comparing a value looks at: parts within parts count, unlike upstream, so that large data in few items has its price.
fn deep(value: &Value<'_>) -> u64 {
    match value {
        Value::JsonList(items, _) => items.iter().map(parts).sum(),
        Value::JsonMap(fields, _) | Value::Object(fields, _) => fields.values().map(parts).sum(),
        Value::List(items) => items.iter().map(|item| deep(item).max(1)).sum(),
        Value::Map(entries) => entries.values().map(|value| deep(value).max(1)).sum(),
        Value::Made(made) => made.fields.values().map(|value| deep(value).max(1)).sum(),
        other => size(other),
    }
}

fn parts(json: &Json) -> u64 {
    match json {
        Json::Array(items) => 1 + items.iter().map(parts).sum::<u64>(),
        Json::Object(fields) => 1 + fields.values().map(parts).sum::<u64>(),
        _ => 1,
    }
}
