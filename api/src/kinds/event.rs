//! Events of both groups. They are stored in the core group's form; the field names of the other group are translated on the way.

use serde_json::{Map, Value, json};

use super::access::{present, struct_mut, text};
use super::object_meta;
use crate::field::{self, FieldError};
use crate::names;

/// Upstream has no defaults but the structures that are always shown.
pub fn default(object: &mut Value) {
    struct_mut(object, "metadata");
    struct_mut(object, "source");
    struct_mut(object, "involvedObject");
    for name in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        super::access::default_to(object, name, Value::Null);
    }
    for name in ["reportingComponent", "reportingInstance"] {
        super::access::default_to(object, name, "");
    }
}

/// Everything wrong with an event in the core group's form.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    about_namespace(object, "involvedObject", &mut errors);
    errors
}

/// An event about an object stands in its namespace, or in `default` when the object has none.
fn about_namespace(object: &Value, about: &str, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let involved = object.get(about).unwrap_or(&none);
    let (own, others) = (crate::meta::namespace(object), text(involved, "namespace"));
    let path = format!("{about}.namespace");
    if others.is_empty() {
        if !matches!(own, "default" | "kube-system" | "") {
            errors.push(field::invalid(path, others, "does not match event.namespace"));
        }
    } else if others != own {
        errors.push(field::invalid(path, others, "does not match event.namespace"));
    }
}

/// Everything wrong with an event in the form of `events.k8s.io/v1`, when it is made.
pub fn validate_new_form(object: &Value) -> Vec<FieldError> {
    const NOTE_BYTES_MAX: usize = 1024;
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    about_namespace(object, "regarding", &mut errors);
    if present(object, "eventTime").is_none() {
        errors.push(field::required("eventTime", ""));
    }
    let controller = text(object, "reportingController");
    if controller.is_empty() {
        errors.push(field::required("reportingController", ""));
    }
    for problem in names::qualified_name(controller) {
        errors.push(field::invalid("reportingController", controller, problem));
    }
    for (name, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = text(object, name);
        if value.is_empty() {
            errors.push(field::required(name, ""));
        } else if value.len() > max {
            errors.push(field::invalid(name, "", format!("can have at most {max} characters")));
        }
    }
    if text(object, "note").len() > NOTE_BYTES_MAX {
        errors.push(field::invalid("message", "", format!("can have at most {NOTE_BYTES_MAX} characters")));
    }
    let kind = text(object, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(field::invalid("type", "", format!("has invalid value: {kind}")));
    }
    errors
}

/// Everything wrong with a changed event.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    object_meta::validate_update(new, old)
}

/// The names that differ: core's, and those of `events.k8s.io`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The form of `events.k8s.io/v1` of a core event.
pub fn to_new_form(object: Value) -> Value {
    renamed(object, "events.k8s.io/v1", |name| {
        RENAMED.iter().find(|(core, _)| *core == name).map(|(_, new)| *new)
    })
}

/// The core form of an event of `events.k8s.io/v1`.
pub fn to_core_form(object: Value) -> Value {
    renamed(object, "v1", |name| RENAMED.iter().find(|(_, new)| *new == name).map(|(core, _)| *core))
}

fn renamed(object: Value, api_version: &str, other: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = object else { return object };
    let mut out = Map::new();
    for (name, value) in fields {
        match other(&name) {
            Some(renamed) => out.insert(renamed.to_owned(), value),
            None => out.insert(name, value),
        };
    }
    out.insert("apiVersion".into(), json!(api_version));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_same_event() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "count": 2, "source": {"component": "c"}, "reason": "R"});
        let new = to_new_form(core.clone());
        assert_eq!(new["note"], "m");
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(new["apiVersion"], "events.k8s.io/v1");
        assert_eq!(to_core_form(new), core);
    }
}
