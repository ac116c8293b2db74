//! ResourceQuotas: names of what can be counted, and the scopes that narrow down what counts.

use serde_json::Value;

use super::access::{items, map, present, text};
use super::{object_meta, resources};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// What of pods can be counted beside their number.
const COMPUTE: &[&str] = &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Scopes that are there or not, without values.
const PLAIN_SCOPES: &[&str] =
    &["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "Terminating"];
const CONFLICTS: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn is_scope(name: &str) -> bool {
    PLAIN_SCOPES.contains(&name) || matches!(name, "PriorityClass" | "VolumeAttributesClass")
}

/// Whether what is counted can be narrowed down so.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => resource == "pods" || COMPUTE.contains(&resource),
    }
}

/// What a new quota's status is.
pub fn initial_status() -> Value {
    serde_json::json!({})
}

/// Everything wrong with a new quota.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let Some(spec) = present(object, "spec") else { return };
    amounts(spec, "hard", &path, errors);
    scopes(spec, &path, errors);
    scope_selector(spec, &path, errors);
}

fn amounts(object: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (name, value) in map(object, key).into_iter().flatten() {
        let at = path.child(key).key(name);
        let problems = names::qualified_name(name);
        let well_formed = problems.is_empty();
        errors.extend(problems.into_iter().map(|problem| field::invalid(&at, name.as_str(), problem)));
        if well_formed && !name.contains('/') && !is_standard(name) {
            errors.push(field::invalid(&at, name.as_str(), "must be a standard resource for quota"));
        }
        let counted = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
        resources::validate_value(counted, value, &at, errors);
    }
}

fn hard(spec: &Value) -> impl Iterator<Item = &String> {
    map(spec, "hard").into_iter().flat_map(|hard| hard.keys())
}

fn conflict<'a>(scopes: impl Iterator<Item = &'a str>) -> bool {
    let all: Vec<&str> = scopes.collect();
    CONFLICTS.iter().any(|pair| pair.iter().all(|scope| all.contains(scope)))
}

fn scopes(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let list = items(spec, "scopes");
    let at = path.child("scopes");
    let mut wrong = |text: &str| errors.push(field::invalid(&at, Value::Array(list.to_vec()), text));
    let names = || list.iter().filter_map(Value::as_str);
    for scope in names() {
        if !is_scope(scope) {
            wrong("unsupported scope");
        }
        for _ in hard(spec).filter(|name| is_standard(name) && !fits(scope, name)) {
            wrong("unsupported scope applied to resource");
        }
    }
    if conflict(names()) {
        wrong("conflicting scopes");
    }
}

fn scope_selector(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(selector) = present(spec, "scopeSelector") else { return };
    let at = path.child("scopeSelector").child("matchExpressions");
    let terms = items(selector, "matchExpressions");
    for term in terms {
        let (scope, operator) = (text(term, "scopeName"), text(term, "operator"));
        let values = items(term, "values");
        if !is_scope(scope) {
            errors.push(field::invalid(at.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in hard(spec).filter(|name| is_standard(name) && !fits(scope, name)) {
            errors.push(field::invalid(&at, selector.clone(), "unsupported scope applied to resource"));
        }
        if PLAIN_SCOPES.contains(&scope) && operator != "Exists" {
            errors.push(field::invalid(
                at.child("operator"),
                operator,
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(field::required(
                at.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(field::invalid(
                at.child("values"),
                Value::Array(values.to_vec()),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(field::invalid(at.child("operator"), other, "not a valid selector operator"))
            }
        }
    }
    if conflict(terms.iter().map(|term| text(term, "scopeName"))) {
        errors.push(field::invalid(at, selector.clone(), "conflicting scopes"));
    }
}

/// Everything wrong with a changed quota: its scopes stay.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    let scopes = |object: &Value| {
        let list = object.get("spec").map(|spec| items(spec, "scopes")).unwrap_or_default();
        let mut names: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    if scopes(new) != scopes(old) {
        let shown = new.pointer("/spec/scopes").cloned().unwrap_or(Value::Null);
        errors.push(object_meta::immutable("spec.scopes", Some(&shown)));
    }
    errors
}

/// Everything wrong with a quota's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    if let Some(status) = present(new, "status") {
        amounts(status, "hard", &FieldPath::new("status"), &mut errors);
        amounts(status, "used", &FieldPath::new("status"), &mut errors);
    }
    errors
}
