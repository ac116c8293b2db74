//! Events of both groups. They are stored in the core group's form; the field names of the other group are translated on the way.

use serde_json::{Map, Value, json};

use super::access::{integer, present, same, struct_mut, text};
use super::object_meta;
use crate::field::{self, FieldError};
use crate::meta::parse_time;
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

/// Everything wrong with a new event of the core group.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::path_segment);
    check(object, "reportingComponent", &mut errors);
    errors
}

/// Everything wrong with a changed event of the core group: what it may not be at all.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    check(new, "reportingComponent", &mut errors);
    errors
}

/// Everything wrong with a new event of `events.k8s.io/v1`. Causes name the fields as the core group does.
pub fn validate_new_form(object: &Value) -> Vec<FieldError> {
    let object = &to_core_form(object.clone());
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    check(object, "reportingController", &mut errors);
    check_series(object, &mut errors);
    if present(object, "eventTime").is_none() {
        errors.push(field::required("eventTime", ""));
    }
    let kind = text(object, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(field::invalid("type", "", format!("has invalid value: {kind}")));
    }
    let source = object.get("source").unwrap_or(&Value::Null);
    for (name, is_set) in [
        ("firstTimestamp", present(object, "firstTimestamp").is_some()),
        ("lastTimestamp", present(object, "lastTimestamp").is_some()),
        ("count", integer(object, "count").unwrap_or_default() != 0),
        ("source", !text(source, "component").is_empty() || !text(source, "host").is_empty()),
    ] {
        if is_set {
            errors.push(field::invalid(name, "", "needs to be unset"));
        }
    }
    errors
}

/// Everything wrong with a changed event of `events.k8s.io/v1`: only its series may go on.
pub fn validate_new_form_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (&to_core_form(new.clone()), &to_core_form(old.clone()));
    let mut errors = object_meta::validate_update(new, old);
    check(new, "reportingController", &mut errors);
    if !same(new.get("series"), old.get("series")) {
        check_series(new, &mut errors);
    }
    for (name, shown) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        let (after, before) = (new.get(name), old.get(name));
        if !same(after, before) && !same_instant(after, before) {
            errors.push(object_meta::immutable(shown, after));
        }
    }
    errors
}

/// What holds for every event, whichever group it comes through. `object` is in the core form; `controller` is what the request's group
/// calls the controller that reports.
fn check(object: &Value, controller: &str, errors: &mut Vec<FieldError>) {
    const NOTE_BYTES_MAX: usize = 1024;
    let about = object.get("involvedObject").unwrap_or(&Value::Null);
    let (own, others) = (crate::meta::namespace(object), text(about, "namespace"));
    let is_new = present(object, "eventTime").is_some();
    let stands_right = match (is_new, others) {
        (false, "") => matches!(own, "" | "default"),
        (false, others) => others == own,
        (true, "") => matches!(own, "default" | "kube-system"),
        (true, _) => true,
    };
    if !stands_right {
        errors.push(field::invalid("involvedObject.namespace", others, "does not match event.namespace"));
    }
    // Events without a time of their own are of the old kind, which may lack the rest.
    if !is_new {
        return;
    }
    let reporting = text(object, "reportingComponent");
    if reporting.is_empty() {
        errors.push(field::required(controller, ""));
    }
    errors.extend(
        names::qualified_name(reporting)
            .into_iter()
            .map(|problem| field::invalid(controller, reporting, problem)),
    );
    for (name, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = text(object, name);
        if value.is_empty() {
            errors.push(field::required(name, ""));
        } else if value.len() > max {
            errors.push(field::invalid(name, "", format!("can have at most {max} characters")));
        }
    }
    if text(object, "message").len() > NOTE_BYTES_MAX {
        errors.push(field::invalid("message", "", format!("can have at most {NOTE_BYTES_MAX} characters")));
    }
}

fn check_series(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(series) = present(object, "series") else { return };
    if integer(series, "count").unwrap_or_default() < 2 {
        errors.push(field::invalid("series.count", "", "should be at least 2"));
    }
    if present(series, "lastObservedTime").is_none() {
        errors.push(field::required("series.lastObservedTime", ""));
    }
}

/// Whether two texts are the same time: clients write one in more than one way.
fn same_instant(a: Option<&Value>, b: Option<&Value>) -> bool {
    let instant = |value: Option<&Value>| {
        value.and_then(Value::as_str).and_then(parse_time).map(|time| time.as_microsecond())
    };
    instant(a).is_some_and(|a| instant(b) == Some(a))
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
    use crate::schema::{Schema, of_kind};

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
    #[test]
    fn after_renaming_both_versions_have_the_same_fields() {
        let fields = |group: &str| match of_kind(group, "v1", "Event") {
            Some(Schema::Struct(object)) => object.fields().iter().map(|field| field.name).collect(),
            _ => Vec::new(),
        };
        let mut translated: Vec<&str> = fields("")
            .into_iter()
            .map(|name| RENAMED.iter().find(|(core, _)| *core == name).map_or(name, |(_, new)| *new))
            .collect();
        translated.sort_unstable();
        assert!(!translated.is_empty());
        assert_eq!(translated, fields("events.k8s.io"));
    }

    #[test]
    fn a_time_written_in_another_way_is_no_change() {
        let event = |time: &str| {
            json!({"metadata": {"name": "a", "namespace": "n"}, "regarding": {"namespace": "n"}, "eventTime": time, "action": "Do",
                "reason": "Test", "type": "Normal", "reportingController": "c", "reportingInstance": "i"})
        };
        let old = event("2017-09-19T13:49:16.000000Z");
        assert_eq!(validate_new_form(&old), []);
        assert_eq!(validate_new_form_update(&event("2017-09-19T13:49:16Z"), &old), []);
        let errors = validate_new_form_update(&event("2017-09-19T13:49:17Z"), &old);
        assert_eq!(errors, [object_meta::immutable("eventTime", Some(&json!("2017-09-19T13:49:17Z")))]);
    }
}
