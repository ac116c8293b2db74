//! HorizontalPodAutoscalers of `autoscaling/v1`: another view of the objects of `autoscaling/v2`, which know all the rules.

use coracle_api::autoscaler_versions::{to_v1, to_v2};
use coracle_api::field::FieldError;
use coracle_api::resource::{self, Resource};
use serde_json::Value;

use super::Strategy;
use super::workload::HORIZONTAL_POD_AUTOSCALER as V2;
use crate::server::request_info::RequestInfo;

/// `horizontalpodautoscalers.v1.autoscaling`.
pub struct AutoscalerV1;

/// Changes an object in its other form.
fn as_v2(object: &mut Value, change: impl FnOnce(&mut Value)) {
    let mut other = to_v2(object.take());
    change(&mut other);
    *object = to_v1(other);
}

impl Strategy for AutoscalerV1 {
    fn default(&self, object: &mut Value) {
        as_v2(object, |object| V2.default(object));
    }

    fn prepare_for_create(&self, request: &RequestInfo, object: &mut Value) {
        as_v2(object, |object| V2.prepare_for_create(request, object));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        V2.validate(&to_v2(object.clone()))
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        let old = to_v2(old.clone());
        as_v2(new, |new| V2.prepare_for_update(request, new, &old));
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        V2.validate_update(request, &to_v2(new.clone()), &to_v2(old.clone()))
    }

    fn stored_as(&self) -> Option<&'static Resource> {
        resource::lookup("autoscaling", "v2", "horizontalpodautoscalers")
    }

    fn to_stored(&self, object: Value) -> Value {
        to_v2(object)
    }

    fn from_stored(&self, object: Value) -> Value {
        to_v1(object)
    }
}
