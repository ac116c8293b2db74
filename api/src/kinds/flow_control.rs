//! FlowSchemas and PriorityLevelConfigurations.

use serde_json::Value;

use super::access::{
    boolean, default_number, default_text, default_to, integer, items, present, struct_mut, text,
};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const VERBS: &[&str] =
    &["*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const PLAIN_VERBS: &[&str] =
    &["*", "connect", "delete", "get", "head", "options", "patch", "post", "put", "trace"];

/// What the status of a new object of either kind is.
pub fn initial_status() -> Value {
    serde_json::json!({})
}

/// Upstream's defaults of a FlowSchema.
pub fn default_schema(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_number(spec, "matchingPrecedence", 1000);
    }
}

/// Upstream's defaults of a PriorityLevelConfiguration.
pub fn default_level(object: &mut Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    match text(spec, "type") {
        "Exempt" => {
            if let Some(exempt) = struct_mut(spec, "exempt") {
                default_to(exempt, "nominalConcurrencyShares", 0);
                default_to(exempt, "lendablePercent", 0);
            }
        }
        "Limited" => {
            let Some(limited) = spec.get_mut("limited").filter(|limited| limited.is_object()) else { return };
            default_to(limited, "nominalConcurrencyShares", 30);
            default_to(limited, "lendablePercent", 0);
            if let Some(response) = struct_mut(limited, "limitResponse") {
                default_text(response, "type", "");
                if let Some(queuing) = response.get_mut("queuing").filter(|queuing| queuing.is_object()) {
                    default_number(queuing, "handSize", 8);
                    default_number(queuing, "queues", 64);
                    default_number(queuing, "queueLengthLimit", 50);
                }
            }
        }
        _ => {}
    }
}

/// Everything wrong with a new FlowSchema.
pub fn validate_schema(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    schema(object, &mut errors);
    errors
}

/// Everything wrong with a changed FlowSchema.
pub fn validate_schema_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    schema(new, &mut errors);
    errors
}

fn schema(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let precedence = integer(spec, "matchingPrecedence").unwrap_or(0);
    let mut wrong = |text: String| {
        errors.push(field::invalid(path.child("matchingPrecedence"), precedence, text));
    };
    if precedence <= 0 {
        wrong("must be a positive value".to_owned());
    }
    if precedence > PRECEDENCE_MAX {
        wrong(format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && crate::meta::name(object) != "exempt" {
        wrong("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if let Some(method) = present(spec, "distinguisherMethod") {
        let at = path.child("distinguisherMethod").child("type");
        check::one_of(text(method, "type"), &["ByNamespace", "ByUser"], &at, errors);
    }
    let at = path.child("priorityLevelConfiguration").child("name");
    match present(spec, "priorityLevelConfiguration").map(|level| text(level, "name")).unwrap_or_default() {
        "" => errors.push(field::required(at, "must reference a priority level")),
        name => check::name(name, names::dns1123_subdomain, &at, errors),
    }
    for (index, rule) in items(spec, "rules").iter().enumerate() {
        policy_rule(rule, &path.child("rules").index(index), errors);
    }
}

fn policy_rule(rule: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let subjects = items(rule, "subjects");
    if subjects.is_empty() {
        errors.push(field::required(path.child("subjects"), "subjects must contain at least one value"));
    }
    for (index, one) in subjects.iter().enumerate() {
        subject(one, &path.child("subjects").index(index), errors);
    }
    let (resource_rules, plain_rules) = (items(rule, "resourceRules"), items(rule, "nonResourceRules"));
    if resource_rules.is_empty() && plain_rules.is_empty() {
        let text = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(field::required(path, text));
    }
    for (index, one) in resource_rules.iter().enumerate() {
        let at = path.child("resourceRules").index(index);
        wildcard_list(one, "verbs", "verbs must contain at least one value", &at, errors);
        verbs(one, VERBS, &at, errors);
        wildcard_list(one, "apiGroups", "resource rules must supply at least one api group", &at, errors);
        wildcard_list(one, "resources", "resource rules must supply at least one resource", &at, errors);
        if items(one, "namespaces").is_empty() && !boolean(one, "clusterScope") {
            let text = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(field::required(at.child("namespaces"), text));
        }
    }
    for (index, one) in plain_rules.iter().enumerate() {
        let at = path.child("nonResourceRules").index(index);
        wildcard_list(one, "verbs", "verbs must contain at least one value", &at, errors);
        verbs(one, PLAIN_VERBS, &at, errors);
        let text = "nonResourceURLs must contain at least one value";
        wildcard_list(one, "nonResourceURLs", text, &at, errors);
    }
}

fn wildcard_list(rule: &Value, key: &str, missing: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let list = items(rule, key);
    let at = path.child(key);
    if list.is_empty() {
        errors.push(field::required(at, missing));
    } else if list.len() > 1 && list.iter().any(|one| one == "*") {
        let what = match key {
            "apiGroups" => "api groups",
            "nonResourceURLs" => "non-resource URLs",
            other => other,
        };
        let text = format!("if '*' is present, must not specify other {what}");
        errors.push(field::invalid(at, Value::Array(list.to_vec()), text));
    }
}

fn verbs(rule: &Value, known: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let list = items(rule, "verbs");
    if list.iter().filter_map(Value::as_str).any(|verb| !known.contains(&verb)) {
        errors.push(field::not_supported(path.child("verbs"), Value::Array(list.to_vec()), known));
    }
}

fn subject(subject: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = text(subject, "kind");
    let (key, own_name) = match kind {
        "User" => ("user", "subject kind is User"),
        "Group" => ("group", "subject kind is Group"),
        "ServiceAccount" => ("serviceAccount", "subject kind is ServiceAccount"),
        other => {
            let kinds = &["Group", "ServiceAccount", "User"];
            errors.push(field::not_supported(path.child("kind"), other, kinds));
            return;
        }
    };
    for other in ["user", "group", "serviceAccount"].into_iter().filter(|other| *other != key) {
        if present(subject, other).is_some() {
            let text = format!("{other} is forbidden when {own_name}");
            errors.push(field::forbidden(path.child(other), text));
        }
    }
    let at = path.child(key);
    let Some(named) = present(subject, key) else {
        errors.push(field::required(at, format!("{key} is required when {own_name}")));
        return;
    };
    check::required(named, "name", &at, errors);
    if key == "serviceAccount" {
        let namespace = text(named, "namespace");
        check::required(named, "namespace", &at, errors);
        if !namespace.is_empty() {
            check::name(namespace, names::dns1123_label, &at.child("namespace"), errors);
        }
    }
}

/// Everything wrong with a new PriorityLevelConfiguration.
pub fn validate_level(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    level(object, &mut errors);
    errors
}

/// Everything wrong with a changed PriorityLevelConfiguration.
pub fn validate_level_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    level(new, &mut errors);
    errors
}

fn level(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let kind = text(spec, "type");
    if (kind == "Exempt") != (crate::meta::name(object) == "exempt") {
        let text = "type must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(field::invalid(path.child("type"), kind, text));
    }
    let (exempt, limited) = (present(spec, "exempt"), present(spec, "limited"));
    match kind {
        "Exempt" => {
            if limited.is_some() {
                let text = "must be nil if the type is not Limited";
                errors.push(field::forbidden(path.child("limited"), text));
            }
            if let Some(exempt) = exempt {
                shares(exempt, &path.child("exempt"), errors);
            }
        }
        "Limited" => {
            if exempt.is_some() {
                let text = "must be nil if the type is Limited";
                errors.push(field::forbidden(path.child("exempt"), text));
            }
            let at = path.child("limited");
            match limited {
                None => errors.push(field::required(at, "must not be empty when type is Limited")),
                Some(limited) => {
                    shares(limited, &at, errors);
                    limit_response(limited, &at.child("limitResponse"), errors);
                }
            }
        }
        other => errors.push(field::not_supported(path.child("type"), other, &["Exempt", "Limited"])),
    }
}

fn shares(part: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(shares) = integer(part, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let text = "must be a non-negative integer";
        errors.push(field::invalid(path.child("nominalConcurrencyShares"), shares, text));
    }
    if let Some(percent) = integer(part, "lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        let text = "must be between 0 and 100, inclusive";
        errors.push(field::invalid(path.child("lendablePercent"), percent, text));
    }
    if let Some(percent) = integer(part, "borrowingLimitPercent").filter(|percent| *percent < 0) {
        let text = "if specified, must be a non-negative integer";
        errors.push(field::invalid(path.child("borrowingLimitPercent"), percent, text));
    }
}

fn limit_response(limited: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let response = limited.get("limitResponse").unwrap_or(&none);
    let at = path.child("queuing");
    match (text(response, "type"), present(response, "queuing")) {
        ("Reject", Some(_)) => {
            errors.push(field::forbidden(at, "must be nil if limited.limitResponse.type is not Limited"));
        }
        ("Queue", None) => {
            errors.push(field::required(at, "must not be empty if limited.limitResponse.type is Limited"));
        }
        ("Queue", Some(queuing)) => {
            let number = |name: &str| integer(queuing, name).unwrap_or(0);
            let (hand, queues) = (number("handSize"), number("queues"));
            for name in ["queueLengthLimit", "queues", "handSize"] {
                if number(name) <= 0 {
                    errors.push(field::invalid(at.child(name), number(name), "must be positive"));
                }
            }
            if queues > QUEUES_MAX {
                let text = format!("must not be greater than {QUEUES_MAX}");
                errors.push(field::invalid(at.child("queues"), queues, text));
            }
            if hand > queues {
                let text = format!("should not be greater than queues ({queues})");
                errors.push(field::invalid(at.child("handSize"), hand, text));
            }
        }
        ("Reject", None) => {}
        (other, _) => errors.push(field::not_supported(path.child("type"), other, &["Queue", "Reject"])),
    }
}
