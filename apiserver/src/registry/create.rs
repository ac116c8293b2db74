//! Creates objects: names, system metadata, defaults, admission, validation, then one create-if-absent in the store.

use std::sync::Arc;

use coracle_api::apply::{self, Operation};
use coracle_api::resource::Resource;
use coracle_api::schema;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::{Registry, Written, meta};
use crate::server::request_info::RequestInfo;
use crate::storage::{Swap, keys};
use crate::strategy::{self, Strategy};

/// How many generated names are tried when one is taken.
const GENERATED_NAMES_MAX: u32 = 8;

impl Registry {
    /// Creates an object of the request's resource.
    ///
    /// # Errors
    /// 409 when the name is taken, 422 when it is not valid, what admission says, and the store's errors.
    pub async fn create(
        self: &Arc<Self>,
        request: &RequestInfo,
        mut object: Value,
    ) -> Result<Written, ApiError> {
        let resource = request.resource;
        settle_namespace(request, &mut object)?;
        if !matches!(meta::text(&object, "resourceVersion"), "" | "0") {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = meta::text(&object, "generateName").to_owned();
        let generated = meta::text(&object, "name").is_empty() && !prefix.is_empty();
        if !generated {
            return self.create_named(request, object).await;
        }
        let mut request = request.clone();
        request.generated_name = true;
        let mut tried = 0;
        loop {
            let mut attempt = object.clone();
            meta::set_text(&mut attempt, "name", &generate_name(&prefix)?);
            tried += 1;
            match self.create_named(&request, attempt).await {
                Err(error) if is_already_exists(&error) && tried < GENERATED_NAMES_MAX => {
                    tracing::debug!(resource = resource.plural, prefix, "generated name is taken");
                }
                result => return result,
            }
        }
    }

    async fn create_named(
        self: &Arc<Self>,
        request: &RequestInfo,
        mut object: Value,
    ) -> Result<Written, ApiError> {
        let resource = request.resource;
        let strategy = strategy::for_resource(resource);
        let now = meta::now();
        strategy.default(&mut object);
        self.admit_mutating(request, &mut object, None).await?;
        fill_system_metadata(&mut object, now);
        meta::drop_empty(&mut object);
        strategy.prepare_for_create(request, &mut object);
        if !request.field_manager.is_empty() {
            object = apply::track_update(
                None,
                object,
                &request.field_manager,
                Operation::Update,
                request.subresource().unwrap_or_default(),
                schema::of(resource),
                now,
            );
        }
        let errors = strategy.validate(&object);
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource.group_kind(), meta::text(&object, "name"), errors));
        }
        let name = meta::text(&object, "name").to_owned();
        check_name(&name)?;
        for warning in strategy.warnings(&object, None) {
            request.warnings.add(warning);
        }
        self.admit_validating(request, Some(&object), None).await?;
        let dependencies = self.dependencies();
        strategy.before_create(&dependencies, request, &mut object).await?;
        let result = self.store_new(request, resource, strategy, &name, &object).await;
        if result.is_err() || request.dry_run {
            strategy.after_failed_create(&dependencies, &object).await;
        }
        result
    }

    async fn store_new(
        &self,
        request: &RequestInfo,
        resource: &'static Resource,
        strategy: &dyn Strategy,
        name: &str,
        object: &Value,
    ) -> Result<Written, ApiError> {
        let namespace = request.namespace();
        let taken = || ApiError::already_exists(resource.group_resource(), name);
        if request.dry_run {
            if self.fresh(resource, namespace, name).await?.is_some() {
                return Err(taken());
            }
            let json = serde_json::to_vec(object).map_err(ApiError::internal)?;
            return Ok(Written { json: json.into(), created: true });
        }
        let stored = self.stored_bytes(resource, strategy, object).await?;
        let lease = match strategy.time_to_live_seconds(&self.options) {
            Some(seconds) if seconds > 0 => self.storage.lease_for(seconds).await?,
            _ => 0,
        };
        let key = self.key(resource, namespace, name);
        match self.storage.put_if(&key, stored.clone(), 0, lease).await? {
            Swap::Done { revision } => {
                Ok(Written { json: self.answer(resource, &stored, revision).await?, created: true })
            }
            Swap::Conflict { .. } => Err(taken()),
        }
    }
}

fn is_already_exists(error: &ApiError) -> bool {
    error.reason() == "AlreadyExists"
}

/// Gives the object the request's namespace, or refuses it when it states another.
pub(super) fn settle_namespace(request: &RequestInfo, object: &mut Value) -> Result<(), ApiError> {
    if !request.resource.namespaced {
        meta::remove(object, "namespace");
        return Ok(());
    }
    match (meta::text(object, "namespace"), request.namespace()) {
        (_, "") => Err(ApiError::bad_request("namespace is required to create this resource")),
        ("", wanted) => {
            meta::set_text(object, "namespace", wanted);
            Ok(())
        }
        (found, wanted) if found == wanted => Ok(()),
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// What only the server sets.
fn fill_system_metadata(object: &mut Value, now: jiff::Timestamp) {
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"]
    {
        meta::remove(object, field);
    }
    meta::set_text(object, "uid", &uuid::Uuid::new_v4().to_string());
    meta::set_text(object, "creationTimestamp", &meta::time_after(now, 0));
}

/// A name that can be a key. Kinds have stricter rules, which validation has checked by now.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::bad_request("name or generateName is required"));
    }
    keys::check_segment(name).map_err(ApiError::bad_request)
}

fn generate_name(prefix: &str) -> Result<String, ApiError> {
    let mut random = [0_u8; 5];
    getrandom::fill(&mut random).map_err(ApiError::internal)?;
    Ok(coracle_api::meta::generated_name(prefix, random))
}
