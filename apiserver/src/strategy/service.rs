//! Services: addresses and node ports are taken and given back round each write by the allocator.

use coracle_api::field::FieldError;
use coracle_api::kinds::{access, service};
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::common::{is_status, keep, keep_all_but_status, text_at};
use super::{Dependencies, Strategy};
use crate::allocator;
use crate::server::request_info::RequestInfo;

/// `services`.
pub struct Service;

const FIELDS: &[&str] = &["spec.clusterIP", "spec.type"];

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        service::default(object);
        service::default_status(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        access::set(object, "status", json!({"loadBalancer": {}}));
        if let Some(spec) = object.get_mut("spec") {
            service::normalize(spec, None);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        service::validate(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if is_status(request) {
            return keep_all_but_status(new, old);
        }
        keep(new, old, "status");
        let none = Value::Null;
        let before = old.get("spec").unwrap_or(&none);
        if let Some(spec) = new.get_mut("spec") {
            service::normalize(spec, Some(before));
        }
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        if is_status(request) {
            service::validate_status_update(new, old)
        } else {
            service::validate_update(new, old)
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        FIELDS.iter().map(|field| (*field, text_at(object, &field.split('.').collect::<Vec<_>>()))).collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn before_create<'a>(
        &'a self,
        dependencies: &'a Dependencies,
        _request: &'a RequestInfo,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(allocator::service::take(dependencies, object, None))
    }

    fn after_failed_create<'a>(
        &'a self,
        dependencies: &'a Dependencies,
        object: &'a Value,
    ) -> BoxFuture<'a, ()> {
        Box::pin(allocator::service::release_difference(dependencies, object, None))
    }

    fn before_update<'a>(
        &'a self,
        dependencies: &'a Dependencies,
        request: &'a RequestInfo,
        new: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if is_status(request) {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(allocator::service::take(dependencies, new, Some(old)))
    }

    fn after_update<'a>(
        &'a self,
        dependencies: &'a Dependencies,
        new: &'a Value,
        old: &'a Value,
        stored: bool,
    ) -> BoxFuture<'a, ()> {
        let (from, to) = if stored { (old, new) } else { (new, old) };
        Box::pin(allocator::service::release_difference(dependencies, from, Some(to)))
    }

    fn after_delete<'a>(&'a self, dependencies: &'a Dependencies, object: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(allocator::service::release_difference(dependencies, object, None))
    }
}
