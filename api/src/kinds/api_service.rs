//! APIServices: which server answers for a group and version.

use serde_json::{Value, json};

use super::access::{boolean, default_to, integer, items, present, struct_mut, text};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(service) = object.pointer_mut("/spec/service").filter(|service| service.is_object()) {
        default_to(service, "port", 443);
    }
    struct_mut(object, "status");
}

/// What a new APIService's status is: groups of this server can be reached, those of another one have to show it.
pub fn initial_status(object: &Value, now: &str) -> Value {
    if object.get("spec").and_then(|spec| present(spec, "service")).is_some() {
        return json!({});
    }
    let message = "Local APIServices are always available";
    json!({"conditions": [
        {"type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local", "message": message},
    ]})
}

/// Everything wrong with a new APIService.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any(object, false, names::path_segment);
    content(object, &mut errors);
    errors
}

/// Everything wrong with a changed APIService.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    content(new, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    if crate::meta::name(object) != wanted {
        let text = format!("must be `spec.version+\".\"+spec.group`: {}", field::go_quote(&wanted));
        errors.push(field::invalid("metadata.name", crate::meta::name(object), text));
    }
    if group.is_empty() {
        if version != "v1" {
            let text = "only v1 may have an empty group and it better be legacy kube";
            errors.push(field::required(path.child("group"), text));
        }
    } else {
        check::name(group, names::dns1123_subdomain, &path.child("group"), errors);
    }
    check::name(version, names::dns1035_label, &path.child("version"), errors);
    for (name, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = integer(spec, name).unwrap_or(0);
        if !(1..=most).contains(&priority) {
            let text = format!("must be positive and less than {most}");
            errors.push(field::invalid(path.child(name), priority, text));
        }
    }
    let insecure = boolean(spec, "insecureSkipTLSVerify");
    let bundle = text(spec, "caBundle");
    let mut wrong = |text: &str| errors.push(field::invalid(path.child("insecureSkipTLSVerify"), true, text));
    let Some(service) = present(spec, "service") else {
        if insecure {
            wrong("local APIServices may not have insecureSkipTLSVerify");
        }
        if !bundle.is_empty() {
            let text = "local APIServices may not have a caBundle";
            errors.push(field::invalid(path.child("caBundle"), bundle, text));
        }
        return;
    };
    if insecure && !bundle.is_empty() {
        wrong("may not be true if caBundle is present");
    }
    let at = path.child("service");
    check::required(service, "namespace", &at, errors);
    check::required(service, "name", &at, errors);
    if let Some(port) = integer(service, "port") {
        for problem in names::port_number(port) {
            errors.push(field::invalid(at.child("port"), port, format!("port is not valid: {problem}")));
        }
    }
}

/// Everything wrong with an APIService's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    let path = FieldPath::new("status").child("conditions");
    let conditions = new.get("status").map(|status| items(status, "conditions")).unwrap_or_default();
    for (index, condition) in conditions.iter().enumerate() {
        let at = path.index(index).child("status");
        check::one_of(text(condition, "status"), &["False", "True", "Unknown"], &at, &mut errors);
    }
    errors
}
