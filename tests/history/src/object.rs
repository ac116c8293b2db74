//! Reading objects as JSON: what the invariants need of metadata and pods. Absent fields read as empty, zero or false.

use std::collections::BTreeMap;

use serde_json::Value;

fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |value, part| &value[*part])
}

/// A text.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// A whole number.
pub fn number(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).as_i64()
}

/// A list.
pub fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The names of a map's entries.
pub fn names<'a>(object: &'a Value, path: &[&str]) -> Vec<&'a str> {
    at(object, path).as_object().map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.generation`.
pub fn generation(object: &Value) -> i64 {
    number(object, &["metadata", "generation"]).unwrap_or(0)
}

/// The owner that controls the object: kind and uid.
pub fn controller(object: &Value) -> Option<(&str, &str)> {
    let owners = list(object, &["metadata", "ownerReferences"]);
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((text(owner, &["kind"]), text(owner, &["uid"])))
}

/// The uid of the controller if it is of this kind.
pub fn controller_of_kind<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    controller(object).filter(|(its, _)| *its == kind).map(|(_, uid)| uid)
}

/// Whether the object is being deleted.
pub fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether the pod has ended.
pub fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// Whether the pod counts for its set.
pub fn is_active(pod: &Value) -> bool {
    !is_terminating(pod) && !is_finished(pod)
}

/// A condition of this type that is `True`.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = list(object, &["status", "conditions"]);
    all.iter().find(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Whether the pod is ready and stays.
pub fn is_healthy(pod: &Value) -> bool {
    is_active(pod) && condition(pod, "Ready").is_some()
}

/// The node the pod is on; empty if none.
pub fn node(pod: &Value) -> &str {
    text(pod, &["spec", "nodeName"])
}

/// Whether a `LabelSelector` is there and matches; an empty one matches everything.
pub fn selects(selector: &Value, object: &Value) -> bool {
    let labels: BTreeMap<&str, &str> = object["metadata"]["labels"]
        .as_object()
        .map(|map| {
            map.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
        })
        .unwrap_or_default();
    if !selector.is_object() {
        return false;
    }
    let equal = selector["matchLabels"].as_object().is_none_or(|wanted| {
        wanted.iter().all(|(key, value)| labels.get(key.as_str()).copied() == value.as_str())
    });
    equal
        && list(selector, &["matchExpressions"]).iter().all(|requirement| {
            let found = labels.get(text(requirement, &["key"]));
            let listed =
                found.is_some_and(|found| list(requirement, &["values"]).iter().any(|value| value == found));
            match text(requirement, &["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

/// A number or a percentage of `whole`, as `maxSurge` and the like have it.
pub fn scaled(value: &Value, whole: i64, up: bool) -> i64 {
    if let Some(number) = value.as_i64() {
        return number;
    }
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok()).unwrap_or(0);
    if up { (percent * whole + 99) / 100 } else { percent * whole / 100 }
}
