//! Pod templates: the kind, and those inside workloads.

use serde_json::Value;

use super::access::{present, text};
use super::{object_meta, pod_spec, pod_spec_defaults};
use crate::field::{self, FieldError, FieldPath};
use crate::names;
use crate::selector::LabelSelector;

/// Upstream's defaults of a PodTemplate.
pub fn default(object: &mut Value) {
    pod_spec_defaults::default_template(object);
}

/// Everything wrong with a new PodTemplate.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    let none = Value::Null;
    let template = object.get("template").unwrap_or(&none);
    validate_template(template, &FieldPath::new("template"), &mut errors);
    errors
}

/// Everything wrong with a changed PodTemplate.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let none = Value::Null;
    let template = new.get("template").unwrap_or(&none);
    validate_template(template, &FieldPath::new("template"), &mut errors);
    errors
}

/// Everything wrong with a template of a workload whose pods run for ever and are made `replicas` times. `what` is the kind that upstream
/// names in the refusal.
pub fn validate_of_replicas(
    workload_spec: &Value,
    what: &str,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let none = Value::Null;
    let template = workload_spec.get("template").unwrap_or(&none);
    let at = path.child("template");
    check_selected(workload_spec.get("selector"), template, &at, errors);
    validate_template(template, &at, errors);
    check_endless(template, what, &at, errors);
}

/// Labels, annotations and spec of a template.
pub fn validate_template(template: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    validate_metadata(template, path, errors);
    pod_spec::validate(template.get("spec").unwrap_or(&none), &path.child("spec"), errors);
}

/// Labels and annotations of a template.
pub fn validate_metadata(template: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let metadata = template.get("metadata").unwrap_or(&none);
    object_meta::labels(metadata, "labels", &path.child("labels"), errors);
    object_meta::annotations(metadata, &path.child("annotations"), errors);
}

/// A workload has to select the pods that it makes. Without a selector it selects none.
pub fn check_selected(
    selector: Option<&Value>,
    template: &Value,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let labels = template.get("metadata").and_then(|metadata| metadata.get("labels"));
    let matches = match selector.filter(|selector| !selector.is_null()).map(LabelSelector::from_object) {
        Some(Ok(selector)) => selector.matches(labels.and_then(Value::as_object)),
        // What is wrong with it is told elsewhere.
        Some(Err(_)) => true,
        None => false,
    };
    if !matches {
        errors.push(field::invalid(
            path.child("metadata").child("labels"),
            labels.cloned().unwrap_or(Value::Null),
            "`selector` does not match template `labels`",
        ));
    }
}

/// What pods that run for ever may not have.
pub fn check_endless(template: &Value, what: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let (spec, at) = (template.get("spec").unwrap_or(&none), path.child("spec"));
    let policy = text(spec, "restartPolicy");
    if policy != "Always" && !policy.is_empty() {
        errors.push(field::not_supported(at.child("restartPolicy"), policy, &["Always"]));
    }
    if present(spec, "activeDeadlineSeconds").is_some() {
        errors.push(field::forbidden(
            at.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {what} is not Supported"),
        ));
    }
}
