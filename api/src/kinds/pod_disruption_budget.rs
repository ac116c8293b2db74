//! PodDisruptionBudgets.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::access::{default_to, integer, items, present, struct_mut, text};
use super::replica_set::not_negative;
use super::{int_or_percent, label_selector, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const COUNTS: &[&str] = &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Upstream's defaults: the numbers of the status are always written.
pub fn default(object: &mut Value) {
    struct_mut(object, "spec");
    if let Some(status) = struct_mut(object, "status") {
        for name in COUNTS {
            default_to(status, name, 0);
        }
    }
}

/// What a new budget's status is.
pub fn initial_status() -> Value {
    json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
}

/// Everything wrong with a new budget.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::path_segment);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let bounds = ["minAvailable", "maxUnavailable"];
    if bounds.iter().all(|name| present(spec, name).is_some()) {
        errors.push(field::invalid(
            &path,
            spec.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for name in bounds {
        if let Some(value) = present(spec, name) {
            int_or_percent::validate(value, &path.child(name), errors);
            int_or_percent::validate_share(value, &path.child(name), errors);
        }
    }
    if let Some(selector) = present(spec, "selector") {
        label_selector::validate(selector, &path.child("selector"), errors);
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    if let Some(policy) = present(spec, "unhealthyPodEvictionPolicy").and_then(Value::as_str)
        && !policies.contains(&policy)
    {
        errors.push(field::not_supported(path.child("unhealthyPodEvictionPolicy"), policy, &policies));
    }
}

/// Everything wrong with a changed budget.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, &mut errors);
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    let none = Value::Null;
    let status = new.get("status").unwrap_or(&none);
    conditions(items(status, "conditions"), &path.child("conditions"), &mut errors);
    for name in COUNTS {
        not_negative(status, name, &path, &mut errors);
    }
    errors
}

/// `metav1.Condition`s.
fn conditions(list: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (index, condition) in list.iter().enumerate() {
        let at = path.index(index);
        let kind = text(condition, "type");
        if !taken.insert(kind) {
            errors.push(field::duplicate(at.child("type"), kind));
        }
        let problems = names::qualified_name(kind);
        errors.extend(problems.into_iter().map(|problem| field::invalid(at.child("type"), kind, problem)));
        let status = text(condition, "status");
        if !matches!(status, "True" | "False" | "Unknown") {
            errors.push(field::not_supported(at.child("status"), status, &["False", "True", "Unknown"]));
        }
        if integer(condition, "observedGeneration").is_some_and(|generation| generation < 0) {
            not_negative(condition, "observedGeneration", &at, errors);
        }
        if text(condition, "lastTransitionTime").is_empty() {
            errors.push(field::required(at.child("lastTransitionTime"), "must be set"));
        }
        reason(text(condition, "reason"), &at.child("reason"), errors);
        if text(condition, "message").len() > MESSAGE_BYTES_MAX {
            errors.push(field::too_long(at.child("message"), MESSAGE_BYTES_MAX));
        }
    }
}

/// One word in CamelCase.
fn reason(reason: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if reason.len() > REASON_BYTES_MAX {
        errors.push(field::too_long(path, REASON_BYTES_MAX));
    }
    if reason.is_empty() {
        errors.push(field::required(path, "must be set"));
        return;
    }
    let bytes = reason.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = bytes[0].is_ascii_alphabetic()
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b',' | b':'))
        && bytes.last().is_some_and(|last| word(*last));
    if !fits {
        errors.push(field::invalid(
            path,
            reason,
            names::regex_error(
                "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
                "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
                &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn a_budget(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        default(&mut object);
        object
    }

    #[test]
    fn one_bound_that_can_be_kept_is_wanted() {
        let selector = json!({"matchLabels": {"app": "web"}});
        let good = a_budget(json!({"minAvailable": "50%", "selector": selector}));
        assert_eq!(texts(&validate(&good)), Vec::<String>::new());
        assert_eq!(good["status"], initial_status());
        let errors = texts(&validate(&a_budget(
            json!({"minAvailable": "110%", "maxUnavailable": -1, "unhealthyPodEvictionPolicy": "Never"}),
        )));
        assert!(errors[0].ends_with("minAvailable and maxUnavailable cannot be both set"));
        assert_eq!(
            errors[1..],
            [
                "spec.minAvailable: Invalid value: \"110%\": must not be greater than 100%",
                "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ]
        );
    }

    #[test]
    fn conditions_have_their_form() {
        let old = a_budget(json!({"minAvailable": 1}));
        let mut new = old.clone();
        new["status"]["disruptionsAllowed"] = json!(-1);
        new["status"]["conditions"] = json!([
            {"type": "DisruptionAllowed", "status": "Maybe", "reason": "SufficientPods", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "DisruptionAllowed", "status": "True", "reason": ""}]);
        assert_eq!(
            texts(&validate_status_update(&new, &old)),
            [
                "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
                "status.conditions[1].type: Duplicate value: \"DisruptionAllowed\"",
                "status.conditions[1].lastTransitionTime: Required value: must be set",
                "status.conditions[1].reason: Required value: must be set",
                "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
