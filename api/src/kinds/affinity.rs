//! Where pods may run: node selectors, affinities, tolerations, topology spread.

use serde_json::Value;

use super::access::{integer, items, present, text};
use super::{label_selector, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Everything wrong with `spec.affinity`.
pub fn validate(affinity: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(node) = present(affinity, "nodeAffinity") {
        node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = present(affinity, name) {
            pod_affinity(pods, &path.child(name), errors);
        }
    }
}

fn weight(term: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let weight = integer(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(field::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn node_affinity(affinity: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(required) = present(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
        validate_terms(required, &path.child("requiredDuringSchedulingIgnoredDuringExecution"), errors);
    }
    let key = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in items(affinity, key).iter().enumerate() {
        let at = path.child(key).index(index);
        weight(term, &at, errors);
        node_term(term.get("preference").unwrap_or(&Value::Null), &at.child("preference"), errors);
    }
}

/// Everything wrong with a selector of nodes (`v1.NodeSelector`).
pub fn validate_terms(selector: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("nodeSelectorTerms");
    let terms = items(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(field::required(&at, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, &at.index(index), errors);
    }
}

fn node_term(term: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, requirement) in items(term, "matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        node_requirement(requirement, &at, errors);
        let key = text(requirement, "key");
        let problems = names::qualified_name(key);
        errors.extend(problems.into_iter().map(|problem| field::invalid(at.child("key"), key, problem)));
    }
    for (index, requirement) in items(term, "matchFields").iter().enumerate() {
        let at = path.child("matchFields").index(index);
        let (key, operator) = (text(requirement, "key"), text(requirement, "operator"));
        if key != "metadata.name" {
            errors.push(field::invalid(at.child("key"), key, "not a valid field selector key"));
        }
        if !matches!(operator, "In" | "NotIn") {
            errors.push(field::invalid(at.child("operator"), operator, "not a valid selector operator"));
        } else if items(requirement, "values").len() != 1 {
            errors.push(field::required(
                at.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ));
        }
    }
}

fn node_requirement(requirement: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let values = items(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => errors.push(field::required(
            path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(field::forbidden(
            path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values.len() != 1 => errors.push(field::required(
            path.child("values"),
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(field::invalid(path.child("operator"), other, "not a valid selector operator")),
    }
}

fn pod_affinity(affinity: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in items(affinity, required).iter().enumerate() {
        pod_term(term, &path.child(required).index(index), errors);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in items(affinity, preferred).iter().enumerate() {
        let at = path.child(preferred).index(index);
        weight(term, &at, errors);
        let inner = term.get("podAffinityTerm").unwrap_or(&Value::Null);
        pod_term(inner, &at.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = present(term, name) {
            label_selector::validate(selector, &path.child(name), errors);
        }
    }
    for (index, namespace) in items(term, "namespaces").iter().enumerate() {
        let namespace = namespace.as_str().unwrap_or_default();
        let at = path.child("namespaces").index(index);
        let problems = names::dns1123_label(namespace);
        errors.extend(problems.into_iter().map(|problem| field::invalid(&at, namespace, problem)));
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(field::required(path.child("topologyKey"), "can not be empty"));
    }
    let problems = names::qualified_name(key);
    errors
        .extend(problems.into_iter().map(|problem| field::invalid(path.child("topologyKey"), key, problem)));
}

/// Everything wrong with `spec.nodeSelector`.
pub fn validate_node_selector(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    object_meta::labels(spec, "nodeSelector", &path.child("nodeSelector"), errors);
}

/// Everything wrong with a node's taint.
pub fn validate_taint(taint: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
    let problems = names::qualified_name(key);
    errors.extend(problems.into_iter().map(|problem| field::invalid(path.child("key"), key, problem)));
    let problems = names::label_value(value);
    errors.extend(problems.into_iter().map(|problem| field::invalid(path.child("value"), value, problem)));
    if effect.is_empty() {
        errors.push(field::required(path.child("effect"), ""));
    } else if !TAINT_EFFECTS.contains(&effect) {
        errors.push(field::not_supported_in_order(path.child("effect"), effect, TAINT_EFFECTS));
    }
}

/// Everything wrong with `spec.tolerations`.
pub fn validate_tolerations(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, toleration) in items(spec, "tolerations").iter().enumerate() {
        validate_toleration(toleration, &path.child("tolerations").index(index), errors);
    }
}

/// Everything wrong with one toleration.
pub fn validate_toleration(toleration: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
    if !key.is_empty() {
        let problems = names::qualified_name(key);
        errors.extend(problems.into_iter().map(|problem| field::invalid(path.child("key"), key, problem)));
    }
    if key.is_empty() && operator != "Exists" {
        errors.push(field::invalid(
            path.child("operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ));
    }
    if present(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
        errors.push(field::invalid(
            path.child("effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    match operator {
        "" | "Equal" => {
            let problems = names::label_value(value);
            errors.extend(
                problems.into_iter().map(|problem| field::invalid(path.child("operator"), value, problem)),
            );
        }
        "Exists" => {
            if !value.is_empty() {
                errors.push(field::invalid(
                    path.child("operator"),
                    toleration.clone(),
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
        }
        other => errors.push(field::not_supported(path.child("operator"), other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() && !TAINT_EFFECTS.contains(&effect) {
        errors.push(field::not_supported_in_order(path.child("effect"), effect, TAINT_EFFECTS));
    }
}

/// Everything wrong with `spec.topologySpreadConstraints`.
pub fn validate_topology_spread(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut taken = Vec::new();
    for (index, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = path.child("topologySpreadConstraints").index(index);
        let skew = integer(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(field::invalid(at.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            errors.push(field::required(at.child("topologyKey"), "can not be empty"));
        } else {
            let problems = names::qualified_name(key);
            errors.extend(
                problems.into_iter().map(|problem| field::invalid(at.child("topologyKey"), key, problem)),
            );
        }
        let when = text(constraint, "whenUnsatisfiable");
        let supported: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
        if !supported.contains(&when) {
            errors.push(field::not_supported(at.child("whenUnsatisfiable"), when, supported));
        }
        if taken.contains(&(key, when)) {
            errors.push(field::duplicate(
                at.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{key}, {when}}}"),
            ));
        }
        taken.push((key, when));
        if let Some(domains) = integer(constraint, "minDomains") {
            if domains <= 0 {
                errors.push(field::invalid(at.child("minDomains"), domains, "must be greater than zero"));
            }
            if when != "DoNotSchedule" {
                errors.push(field::invalid(
                    at.child("minDomains"),
                    domains,
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"),
                ));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = present(constraint, name).and_then(Value::as_str)
                && !matches!(policy, "Ignore" | "Honor")
            {
                errors.push(field::not_supported(at.child(name), policy, &["Honor", "Ignore"]));
            }
        }
        if let Some(selector) = present(constraint, "labelSelector") {
            label_selector::validate(selector, &at.child("labelSelector"), errors);
        }
    }
}
