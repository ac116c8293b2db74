//! Events, in the core group and in `events.k8s.io`: one store, in the core form, from which they go by themselves after a time.

use coracle_api::field::FieldError;
use coracle_api::kinds::event;
use coracle_api::resource::{self, Resource};
use serde_json::Value;

use super::Strategy;
use super::common::text_at;
use crate::options::Options;
use crate::server::request_info::RequestInfo;

/// `events`.
pub struct Event;
/// `events.events.k8s.io`.
pub struct EventOfEventsGroup;

/// Labels of both groups, and where the value stands in the core form. The cache holds that form for both.
const FIELDS: &[(&str, &[&str])] = &[
    ("involvedObject.kind", &["involvedObject", "kind"]),
    ("involvedObject.namespace", &["involvedObject", "namespace"]),
    ("involvedObject.name", &["involvedObject", "name"]),
    ("involvedObject.uid", &["involvedObject", "uid"]),
    ("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    ("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    ("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    ("reason", &["reason"]),
    ("reportingComponent", &["reportingComponent"]),
    ("type", &["type"]),
    ("regarding.kind", &["involvedObject", "kind"]),
    ("regarding.namespace", &["involvedObject", "namespace"]),
    ("regarding.name", &["involvedObject", "name"]),
    ("regarding.uid", &["involvedObject", "uid"]),
    ("regarding.apiVersion", &["involvedObject", "apiVersion"]),
    ("regarding.resourceVersion", &["involvedObject", "resourceVersion"]),
    ("regarding.fieldPath", &["involvedObject", "fieldPath"]),
    ("reportingController", &["reportingComponent"]),
];
const CORE_NAMES: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const EVENTS_GROUP_NAMES: &[&str] = &[
    "reason",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reportingController",
    "type",
];

fn fields(stored: &Value) -> Vec<(&'static str, String)> {
    let source = match text_at(stored, &["source", "component"]) {
        component if component.is_empty() => text_at(stored, &["reportingComponent"]),
        component => component,
    };
    let mut fields: Vec<_> = FIELDS.iter().map(|(name, path)| (*name, text_at(stored, path))).collect();
    fields.push(("source", source));
    fields
}

fn seconds_to_live(options: &Options) -> Option<i64> {
    i64::try_from(options.event_ttl.get().as_secs()).ok()
}

impl Strategy for Event {
    fn default(&self, object: &mut Value) {
        event::default(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        event::validate(object)
    }

    fn validate_update(&self, _request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        event::validate_update(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        fields(object)
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        CORE_NAMES
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn time_to_live_seconds(&self, options: &Options) -> Option<i64> {
        seconds_to_live(options)
    }
}

impl Strategy for EventOfEventsGroup {
    fn default(&self, object: &mut Value) {
        let mut core = event::to_core_form(object.take());
        event::default(&mut core);
        *object = event::to_new_form(core);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        event::validate_new_form(object)
    }

    fn validate_update(&self, _request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        event::validate_new_form_update(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        fields(object)
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        EVENTS_GROUP_NAMES
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn stored_as(&self) -> Option<&'static Resource> {
        resource::lookup("", "v1", "events")
    }

    fn to_stored(&self, object: Value) -> Value {
        event::to_core_form(object)
    }

    fn from_stored(&self, object: Value) -> Value {
        event::to_new_form(object)
    }

    fn time_to_live_seconds(&self, options: &Options) -> Option<i64> {
        seconds_to_live(options)
    }
}
