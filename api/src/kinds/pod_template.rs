//! Pod templates inside workloads.

use serde_json::Value;

use super::access::text;
use super::{object_meta, pod_spec};
use crate::field::{self, FieldError, FieldPath};

/// Everything wrong with a template of a workload whose pods run for ever and are made `replicas` times.
pub fn validate(workload_spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let template = workload_spec.get("template").unwrap_or(&none);
    let selector = workload_spec.get("selector").unwrap_or(&none);
    let metadata = template.get("metadata").unwrap_or(&none);
    let labels = metadata.get("labels");
    let at = path.child("template");
    let parsed = crate::selector::LabelSelector::from_object(selector);
    if let Ok(parsed) = parsed
        && !parsed.is_everything()
        && !super::label_selector::is_empty(selector)
        && !parsed.matches(labels.and_then(Value::as_object))
    {
        errors.push(field::invalid(
            at.child("metadata").child("labels"),
            labels.cloned().unwrap_or(Value::Null),
            "`selector` does not match template `labels`",
        ));
    }
    object_meta::labels(metadata, "labels", &at.child("labels"), errors);
    object_meta::annotations(metadata, &at.child("annotations"), errors);
    let spec = template.get("spec").unwrap_or(&none);
    pod_spec::validate(spec, &at.child("spec"), errors);
    let policy = text(spec, "restartPolicy");
    if policy != "Always" && !policy.is_empty() {
        errors.push(field::not_supported(at.child("spec").child("restartPolicy"), policy, &["Always"]));
    }
    if super::access::present(spec, "activeDeadlineSeconds").is_some() {
        errors.push(field::forbidden(
            at.child("spec").child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        ));
    }
}
