//! CustomResourceDefinitions: their status is the server's own controllers' matter, their deletion waits until no custom resource is left.

use coracle_api::field::FieldError;
use coracle_api::kinds::custom_resource_definition as kind;
use serde_json::Value;

use super::Strategy;
use super::common::{differs, is_status, keep, keep_all_but_status, next_generation, set_generation};
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// `customresourcedefinitions.apiextensions.k8s.io`.
pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        kind::default(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        set_generation(object, 1);
        kind::reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        kind::validate(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if is_status(request) {
            keep_all_but_status(new, old);
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                meta::copy_field(old, new, field);
            }
            return;
        }
        keep(new, old, "status");
        if differs(new, old, "spec") {
            next_generation(new, old);
        }
        kind::note_storage_version(new);
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        if is_status(request) {
            kind::validate_status_update(new, old)
        } else {
            kind::validate_update(new, old)
        }
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn blocks_deletion(&self, object: &Value) -> bool {
        // The first deletion only marks: the finalizer that it leaves holds the definition until its objects are gone.
        !meta::is_deleting(object)
    }

    fn mark_deleting(&self, object: &mut Value) {
        kind::mark_deleting(object, meta::now());
    }
}
