//! Deployments and ReplicaSets: a spec with a generation, a status that only the controller writes.

use coracle_api::field::FieldError;
use coracle_api::kinds::{access, deployment, replica_set};
use serde_json::Value;

use super::Strategy;
use super::common::{
    Validate, ValidateUpdate, differs, is_status, keep, keep_all_but_status, next_generation, set_generation,
};
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// A kind that makes pods.
pub struct Workload {
    default: fn(&mut Value),
    initial_status: fn() -> Value,
    validate: Validate,
    validate_update: ValidateUpdate,
    validate_status_update: ValidateUpdate,
    /// Whether a change of annotations counts as a generation.
    annotations_count: bool,
    fields: &'static [&'static str],
}

/// `deployments.apps`.
pub static DEPLOYMENT: Workload = Workload {
    default: deployment::default,
    initial_status: deployment::initial_status,
    validate: deployment::validate,
    validate_update: deployment::validate_update,
    validate_status_update: deployment::validate_status_update,
    annotations_count: true,
    fields: &[],
};
/// `replicasets.apps`.
pub static REPLICA_SET: Workload = Workload {
    default: replica_set::default,
    initial_status: replica_set::initial_status,
    validate: replica_set::validate,
    validate_update: replica_set::validate_update,
    validate_status_update: replica_set::validate_status_update,
    annotations_count: false,
    fields: &["status.replicas"],
};

impl Strategy for Workload {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        set_generation(object, 1);
        access::set(object, "status", (self.initial_status)());
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        (self.validate)(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if is_status(request) {
            keep_all_but_status(new, old);
            meta::copy_field(old, new, "labels");
            return;
        }
        keep(new, old, "status");
        let annotations =
            |object: &Value| coracle_api::meta::annotations(object).cloned().unwrap_or_default();
        let annotated = self.annotations_count && annotations(new) != annotations(old);
        if annotated || differs(new, old, "spec") {
            next_generation(new, old);
        }
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        if is_status(request) {
            (self.validate_status_update)(new, old)
        } else {
            (self.validate_update)(new, old)
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.fields
            .iter()
            .map(|field| {
                let path: Vec<&str> = field.split('.').collect();
                let number = coracle_api::meta::get(object, &path).and_then(Value::as_i64).unwrap_or(0);
                (*field, number.to_string())
            })
            .collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        self.fields
    }
}
