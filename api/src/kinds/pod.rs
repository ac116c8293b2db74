//! Pods.

use serde_json::{Value, json};

use super::access::{items, struct_mut, text};
use super::{object_meta, pod_qos, pod_spec, pod_spec_defaults};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        pod_spec_defaults::default_pod_spec(spec);
        pod_spec_defaults::default_pod_only(spec);
    }
    struct_mut(object, "status");
}

/// The status a new pod starts with.
pub fn initial_status(spec: &Value) -> Value {
    let mut status = json!({"phase": "Pending", "qosClass": pod_qos::class(spec)});
    if !items(spec, "schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": null,
        }]);
    }
    status
}

/// Everything wrong with a new pod.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    pod_spec::validate(spec, &path, &mut errors);
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.push(field::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
    }
    errors
}

/// Everything wrong with a changed pod.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    super::pod_update::validate_update(new, old)
}

/// Everything wrong with a pod's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    super::pod_update::validate_status_update(new, old)
}

/// Whether all containers of the pod have ended for good.
pub fn is_finished(object: &Value) -> bool {
    object.get("status").is_some_and(|status| matches!(text(status, "phase"), "Succeeded" | "Failed"))
}
