//! NamespaceAutoProvision makes the namespace that something is made in; NamespaceExists refuses whatever is done in one that is not there.

use std::sync::Arc;

use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::matching::namespace;
use super::{Plugin, refusal};
use crate::registry::Registry;
use crate::server::request_info::{RequestInfo, Verb};

/// Needs a registry that it may write to.
pub(super) struct NamespaceAutoProvision(pub(super) Arc<Registry>);

impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let name = request.namespace();
            let makes = is_inside(request) && old.is_none();
            if !makes || !namespace(&self.0, name).await.is_err_and(|error| error.code() == 404) {
                return Ok(());
            }
            let namespaces = resource::lookup("", "v1", "namespaces")
                .ok_or_else(|| ApiError::internal("no namespaces"))?;
            let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let making = RequestInfo {
                dry_run: request.dry_run,
                ..RequestInfo::internal(Verb::Create, namespaces, None, Some(name))
            };
            match self.0.create(&making, wanted).await {
                Ok(_) => Ok(()),
                Err(error) if error.code() == 409 => Ok(()),
                Err(error) => Err(refusal(request, Some(object), error.message())),
            }
        })
    }
}

pub(super) struct NamespaceExists;

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if is_inside(request) {
                namespace(registry, request.namespace()).await?;
            }
            Ok(())
        })
    }
}

/// Whether the request is about something in a namespace.
fn is_inside(request: &RequestInfo) -> bool {
    request.resource.namespaced && !request.namespace().is_empty()
}
