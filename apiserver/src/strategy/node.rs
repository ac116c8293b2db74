//! Nodes: the kubelet registers them with a status and writes it later through `nodes/status`.

use coracle_api::field::FieldError;
use coracle_api::kinds::node;
use serde_json::Value;

use super::Strategy;
use super::common::{boolean_at, is_status, keep, keep_all_but_status};
use crate::server::request_info::RequestInfo;

/// `nodes`.
pub struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        node::default(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        node::validate(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if is_status(request) {
            keep_all_but_status(new, old);
        } else {
            keep(new, old, "status");
        }
    }

    fn validate_update(&self, _request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        node::validate_update(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", boolean_at(object, &["spec", "unschedulable"]))]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }
}
