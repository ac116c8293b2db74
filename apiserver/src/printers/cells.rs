//! What cells of several kinds have in common.

use coracle_api::meta::{self, get};
use coracle_api::selector::LabelSelector;
use jiff::Timestamp;
use serde_json::Value;

use super::Context;
use super::duration::human;

/// What stands for nothing.
pub(super) const NONE: &str = "<none>";
/// What stands for a time that is not there.
pub(super) const UNKNOWN: &str = "<unknown>";

/// The text at a path, or an empty one.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    get(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a path, or 0.
pub(super) fn number(object: &Value, path: &[&str]) -> i64 {
    get(object, path).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a path, or an empty one.
pub(super) fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    get(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The number of entries of the map at a path.
pub(super) fn size(object: &Value, path: &[&str]) -> i64 {
    get(object, path).and_then(Value::as_object).map_or(0, |map| map.len() as i64)
}

/// The text, or `<none>`.
pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// How long ago a time was.
pub(super) fn since(time: Option<Timestamp>, context: &Context) -> String {
    match time {
        Some(time) => human(context.now.as_second().saturating_sub(time.as_second())),
        None => UNKNOWN.to_owned(),
    }
}

/// The time at a path.
pub(super) fn time(object: &Value, path: &[&str]) -> Option<Timestamp> {
    meta::parse_time(text(object, path))
}

/// The name.
pub(super) fn name(object: &Value) -> Value {
    meta::name(object).into()
}

/// The age.
pub(super) fn age(object: &Value, context: &Context) -> Value {
    since(meta::creation_timestamp(object), context).into()
}

/// A label selector as text.
pub(super) fn selector(selector: Option<&Value>) -> Value {
    let parsed = selector.map(LabelSelector::from_object);
    match parsed {
        Some(Ok(selector)) => or_none(&selector.to_string()),
        Some(Err(_)) => "<invalid>".into(),
        None => NONE.into(),
    }
}

/// A map of labels as `a=b,c=d`.
pub(super) fn labels(map: Option<&Value>) -> Value {
    let pairs: Vec<String> = map
        .and_then(Value::as_object)
        .map(|map| {
            map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
        })
        .unwrap_or_default();
    or_none(&pairs.join(","))
}

/// Names and images of a workload's containers.
pub(super) fn containers(object: &Value) -> (Value, Value) {
    containers_at(object, &["spec", "template", "spec", "containers"])
}

/// Names and images of the containers at a path.
pub(super) fn containers_at(object: &Value, path: &[&str]) -> (Value, Value) {
    let all = list(object, path);
    let joined = |key| all.iter().map(|c| text(c, &[key])).collect::<Vec<_>>().join(",");
    (joined("name").into(), joined("image").into())
}

/// Cells of kinds without a layout of their own.
pub(super) fn name_and_creation(object: &Value, _: &Context) -> Vec<Value> {
    vec![name(object), text(object, &["metadata", "creationTimestamp"]).into()]
}
