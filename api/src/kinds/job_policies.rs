//! A Job's policies: which failures of pods count, and when it has succeeded.

use serde_json::Value;

use super::access::{integer, items, present, text};
use super::job_indexes;
use super::replica_set::not_negative;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// Everything wrong with `podFailurePolicy` of a Job's spec.
pub fn validate_failure(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(policy) = present(spec, "podFailurePolicy") else { return };
    let at = path.child("podFailurePolicy").child("rules");
    let rules = items(policy, "rules");
    if rules.len() > RULES_MAX {
        errors.push(field::too_many(&at, rules.len(), RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        failure_rule(spec, rule, &at.index(index), errors);
    }
}

fn failure_rule(spec: &Value, rule: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("action");
    match text(rule, "action") {
        "FailIndex" if present(spec, "backoffLimitPerIndex").is_none() => {
            errors.push(field::invalid(at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
        action => choice(action, ACTIONS, at, errors),
    }
    let codes = present(rule, "onExitCodes");
    let conditions = items(rule, "onPodConditions");
    if let Some(codes) = codes {
        exit_codes(spec, codes, &path.child("onExitCodes"), errors);
    }
    pod_conditions(conditions, &path.child("onPodConditions"), errors);
    match (codes.is_some(), conditions.is_empty()) {
        (true, false) => errors.push(field::invalid_state(
            path,
            "specifying both OnExitCodes and OnPodConditions is not supported",
        )),
        (false, true) => errors.push(field::invalid_state(
            path,
            "specifying one of OnExitCodes and OnPodConditions is required",
        )),
        _ => {}
    }
}

/// A text that has to be one of a few.
fn choice(value: &str, allowed: &[&str], path: FieldPath, errors: &mut Vec<FieldError>) {
    if value.is_empty() {
        let quoted: Vec<String> = allowed.iter().map(|value| field::go_quote(value)).collect();
        errors.push(field::required(path, format!("valid values: [{}]", quoted.join(" "))));
    } else if !allowed.contains(&value) {
        errors.push(field::not_supported(path, value, allowed));
    }
}

fn pod_conditions(patterns: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if patterns.len() > CONDITIONS_MAX {
        errors.push(field::too_many(path, patterns.len(), CONDITIONS_MAX));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let at = path.index(index);
        let kind = text(pattern, "type");
        let problems = names::qualified_name(kind);
        errors.extend(problems.into_iter().map(|problem| field::invalid(at.child("type"), kind, problem)));
        choice(text(pattern, "status"), STATUSES, at.child("status"), errors);
    }
}

fn exit_codes(spec: &Value, codes: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let operator = text(codes, "operator");
    choice(operator, OPERATORS, path.child("operator"), errors);
    if let Some(name) = present(codes, "containerName").and_then(Value::as_str) {
        let pod = crate::meta::get(spec, &["template", "spec"]);
        let known = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| pod.map(|pod| items(pod, list)).unwrap_or_default())
            .any(|container| text(container, "name") == name);
        if !known {
            errors.push(field::invalid(
                path.child("containerName"),
                name,
                "must be one of the container or initContainer names in the pod template",
            ));
        }
    }
    let at = path.child("values");
    let values: Vec<i64> = items(codes, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        let shown = codes.get("values").cloned().unwrap_or(Value::Null);
        errors.push(field::invalid(&at, shown, "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(field::too_many(&at, values.len(), EXIT_CODES_MAX));
    }
    for (index, code) in values.iter().enumerate() {
        if operator == "In" && *code == 0 {
            errors.push(field::invalid(at.index(index), 0, "must not be 0 for the In operator"));
        }
        if values[..index].contains(code) {
            errors.push(field::duplicate(at.index(index), *code));
        }
    }
    if !values.is_sorted() {
        errors.push(field::invalid(at, values, "must be ordered"));
    }
}

/// Everything wrong with `successPolicy` of a Job's spec.
pub fn validate_success(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(policy) = present(spec, "successPolicy") else { return };
    let at = path.child("successPolicy");
    if text(spec, "completionMode") != "Indexed" {
        errors.push(field::invalid(at, policy.clone(), "requires indexed completion mode"));
        return;
    }
    let at = at.child("rules");
    let rules = items(policy, "rules");
    if rules.is_empty() {
        errors.push(field::required(
            &at,
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if rules.len() > RULES_MAX {
        errors.push(field::too_many(&at, rules.len(), RULES_MAX));
    }
    // Without completions there is nothing to compare with; that they are missing is told elsewhere.
    let Some(completions) = integer(spec, "completions") else { return };
    for (index, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &at.index(index), errors);
    }
}

fn success_rule(rule: &Value, completions: i64, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let indexes = present(rule, "succeededIndexes").and_then(Value::as_str);
    let count = integer(rule, "succeededCount");
    if indexes.is_none() && count.is_none() {
        errors.push(field::required(
            path,
            "at least one of succeededCount or succeededIndexes must be specified",
        ));
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let at = path.child("succeededIndexes");
        if indexes.len() > INDEXES_BYTES_MAX {
            errors.push(field::too_long(&at, INDEXES_BYTES_MAX));
        }
        match job_indexes::parse(indexes, completions) {
            Ok(intervals) => total = job_indexes::count(&intervals),
            Err(problem) => {
                errors.push(field::invalid(at, indexes, format!("error parsing succeededIndexes: {problem}")))
            }
        }
    }
    let Some(count) = count else { return };
    not_negative(rule, "succeededCount", path, errors);
    let at = path.child("succeededCount");
    if count > completions {
        errors.push(field::invalid(
            &at,
            count,
            format!("must be less than or equal to {completions} (the number of specified completions)"),
        ));
    }
    if indexes.is_some() && count > total {
        errors.push(field::invalid(
            at,
            count,
            format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(check: fn(&Value, &FieldPath, &mut Vec<FieldError>), spec: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(spec, &FieldPath::new("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn failure_rules_are_checked() {
        let spec = json!({"template": {"spec": {"containers": [{"name": "c"}]}}, "podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1, 42]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"containerName": "d", "operator": "In", "values": [3, 0, 3]}},
            {"action": ""}
        ]}});
        assert_eq!(
            texts(validate_failure, &spec),
            [
                "spec.podFailurePolicy.rules[2].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "spec.podFailurePolicy.rules[2].onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in the pod template",
                "spec.podFailurePolicy.rules[2].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[2].onExitCodes.values[2]: Duplicate value: 3",
                "spec.podFailurePolicy.rules[2].onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
                "spec.podFailurePolicy.rules[3].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
                "spec.podFailurePolicy.rules[3]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ]
        );
    }

    #[test]
    fn success_rules_are_checked() {
        let mut spec = json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [
            {"succeededIndexes": "0-2", "succeededCount": 4}, {}, {"succeededIndexes": "7"}]}});
        assert_eq!(
            texts(validate_success, &spec),
            [
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
                "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                "spec.successPolicy.rules[2].succeededIndexes: Invalid value: \"7\": error parsing succeededIndexes: too large index: \"7\"",
            ]
        );
        spec["completionMode"] = json!("NonIndexed");
        assert!(texts(validate_success, &spec)[0].ends_with("requires indexed completion mode"));
    }
}
