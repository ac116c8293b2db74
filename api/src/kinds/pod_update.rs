//! What may change in a pod after its creation, and in its status.

use serde_json::Value;

use super::access::{integer, items, present, remove, same, set, text};
use super::{affinity, object_meta};
use crate::field::{self, FieldError, FieldPath};

/// Everything wrong with a changed pod.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let (after, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    for list in ["containers", "initContainers"] {
        let at = path.child(list);
        if items(after, list).len() != items(before, list).len() {
            let problem = match list {
                "containers" => "pod updates may not add or remove containers",
                _ => "pod updates may not add or remove init containers",
            };
            errors.push(field::forbidden(at, problem));
            return errors;
        }
        for (index, container) in items(after, list).iter().enumerate() {
            let image = text(container, "image");
            if image.is_empty() {
                errors.push(field::required(at.index(index).child("image"), ""));
            } else if image.trim() != image {
                errors.push(field::invalid(
                    at.index(index).child("image"),
                    image,
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    deadline(after, before, &path, &mut errors);
    tolerations(after, before, &path, &mut errors);
    scheduling_gates(after, before, &path, &mut errors);
    if errors.is_empty() {
        rest(after, before, &path, &mut errors);
    }
    errors
}

/// The deadline may be set, or come closer; it may not be taken away.
fn deadline(after: &Value, before: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("activeDeadlineSeconds");
    match (integer(after, "activeDeadlineSeconds"), integer(before, "activeDeadlineSeconds")) {
        (Some(new), _) if !(1..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(field::invalid(at, new, crate::names::inclusive_range_error(1, i64::from(i32::MAX))));
        }
        (Some(new), Some(old)) if new > old => {
            errors.push(field::invalid(at, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(field::invalid(
                at,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

/// Tolerations may be added, not changed but for their seconds.
fn tolerations(after: &Value, before: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("tolerations");
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    for (index, toleration) in items(after, "tolerations").iter().enumerate() {
        if !items(before, "tolerations").contains(toleration) {
            affinity::validate_toleration(toleration, &at.index(index), errors);
        }
    }
    let kept = items(before, "tolerations").iter().all(|old| {
        items(after, "tolerations").iter().any(|new| without_seconds(new) == without_seconds(old))
    });
    if !kept {
        errors.push(field::forbidden(
            at,
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn scheduling_gates(after: &Value, before: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let added: Vec<&str> = items(after, "schedulingGates")
        .iter()
        .filter(|gate| !items(before, "schedulingGates").contains(gate))
        .map(|gate| text(gate, "name"))
        .collect();
    if !added.is_empty() {
        errors.push(field::forbidden(
            path.child("schedulingGates"),
            format!("only deletion is allowed, but found new scheduling gates '{}'", added.join(", ")),
        ));
    }
}

/// Nothing else may differ.
fn rest(after: &Value, before: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    const TEXT: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let mut allowed = after.clone();
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match before.get(name) {
            Some(value) => set(&mut allowed, name, value.clone()),
            None => {
                remove(&mut allowed, name);
            }
        }
    }
    for list in ["containers", "initContainers"] {
        if let Some(containers) = allowed.get_mut(list).and_then(Value::as_array_mut) {
            for (container, old) in containers.iter_mut().zip(items(before, list)) {
                set(container, "image", text(old, "image"));
            }
        }
    }
    if integer(after, "terminationGracePeriodSeconds") == Some(1)
        && integer(before, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && let Some(old) = before.get("terminationGracePeriodSeconds")
    {
        set(&mut allowed, "terminationGracePeriodSeconds", old.clone());
    }
    // A gated pod's place may still be narrowed down.
    if !items(before, "schedulingGates").is_empty() {
        for name in ["nodeSelector", "affinity"] {
            if let Some(value) = before.get(name) {
                set(&mut allowed, name, value.clone());
            } else {
                remove(&mut allowed, name);
            }
        }
    }
    let lines = differences(Some(&allowed), Some(before), "spec");
    if !lines.is_empty() {
        errors.push(field::forbidden(path, format!("{TEXT}\n{lines}\n")));
    }
}

/// What differs, a line `path: old -> new` each; empty when nothing does.
pub(super) fn differences(new: Option<&Value>, old: Option<&Value>, path: &str) -> String {
    let mut lines = Vec::new();
    collect_differences(new, old, path, &mut lines);
    lines.join("\n")
}

/// Lines `path: old -> new` of what differs, a few of them.
fn collect_differences(new: Option<&Value>, old: Option<&Value>, path: &str, lines: &mut Vec<String>) {
    const LINES_MAX: usize = 10;
    if same(new, old) || lines.len() >= LINES_MAX {
        return;
    }
    match (new, old) {
        (Some(Value::Object(after)), Some(Value::Object(before))) => {
            let mut keys: Vec<&String> = after.keys().chain(before.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                collect_differences(after.get(key), before.get(key), &format!("{path}.{key}"), lines);
            }
        }
        (Some(Value::Array(after)), Some(Value::Array(before))) if after.len() == before.len() => {
            for (index, (new, old)) in after.iter().zip(before).enumerate() {
                collect_differences(Some(new), Some(old), &format!("{path}[{index}]"), lines);
            }
        }
        _ => {
            let shown = |value: Option<&Value>| value.map_or("(unset)".to_owned(), ToString::to_string);
            lines.push(format!("  {path}: {} -> {}", shown(old), shown(new)));
        }
    }
}

/// Everything wrong with a pod's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let none = Value::Null;
    let (spec, old_spec) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    if text(spec, "nodeName") != text(old_spec, "nodeName") {
        errors.push(field::forbidden("spec.nodeName", "may not be changed directly"));
    }
    let path = FieldPath::new("status");
    let (status, old_status) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() {
        for problem in crate::names::dns1123_subdomain(nominated) {
            errors.push(field::invalid(path.child("nominatedNodeName"), nominated, problem));
        }
    }
    for (index, condition) in items(status, "conditions").iter().enumerate() {
        if text(condition, "type").is_empty() {
            errors.push(field::required(path.child("conditions").index(index).child("type"), ""));
        }
    }
    restarts(status, old_status, text(spec, "restartPolicy"), &path, &mut errors);
    for (list, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        for (index, address) in items(status, list).iter().enumerate() {
            for problem in crate::names::ip_address(text(address, "ip")) {
                errors.push(field::invalid(path.child(list).index(index), text(address, "ip"), problem));
            }
        }
        let first = items(status, list).first().map(|address| text(address, "ip")).unwrap_or_default();
        if list == "hostIPs" && !first.is_empty() && first != text(status, single) {
            errors.push(field::invalid(
                path.child("hostIPs").index(0).child("ip"),
                first,
                "must be equal to `hostIP`",
            ));
        }
    }
    errors
}

/// A container that ended does not run again where pods are not restarted.
fn restarts(status: &Value, old: &Value, policy: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if policy == "Always" {
        return;
    }
    for previous in items(old, "containerStatuses") {
        let terminated =
            |status: &Value| present(status, "state").and_then(|state| present(state, "terminated").cloned());
        let Some(ended) = terminated(previous) else { continue };
        if policy == "OnFailure" && integer(&ended, "exitCode") != Some(0) {
            continue;
        }
        for (index, current) in items(status, "containerStatuses").iter().enumerate() {
            if text(current, "name") == text(previous, "name") && terminated(current).is_none() {
                errors.push(field::forbidden(
                    path.child("containerStatuses").index(index).child("state"),
                    "may not be transitioned to non-terminated state",
                ));
            }
        }
    }
}
