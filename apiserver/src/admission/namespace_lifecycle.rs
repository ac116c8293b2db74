//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and the system's namespaces stay.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Plugin;
use super::matching::{Operation, namespace};
use crate::registry::{Registry, meta};
use crate::server::request_info::{RequestInfo, Verb};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
            if is_namespace
                && object.is_none()
                && request.verb == Verb::Delete
                && IMMORTAL.contains(&request.name())
            {
                let message = "this namespace may not be deleted";
                return Err(ApiError::forbidden(request.resource.group_resource(), request.name(), message));
            }
            // Access checks are no objects of the namespace they ask about.
            let creates = Operation::of(request, object, old) == Operation::Create;
            if !creates || !request.resource.namespaced || request.resource.group == "authorization.k8s.io" {
                return Ok(());
            }
            check(registry, request, object).await
        })
    }
}

async fn check(registry: &Registry, request: &RequestInfo, object: Option<&Value>) -> Result<(), ApiError> {
    let name = request.namespace();
    let namespace = namespace(registry, name).await?;
    if namespace["status"]["phase"] != "Terminating" && !meta::is_deleting(&namespace) {
        return Ok(());
    }
    let object_name = object.map(|object| meta::text(object, "name")).unwrap_or_default();
    let message = format!("unable to create new content in namespace {name} because it is being terminated");
    Err(ApiError::forbidden(request.resource.group_resource(), object_name, message).with_cause(json!({
        "reason": "NamespaceTerminating",
        "message": format!("namespace {name} is being terminated"),
        "field": "metadata.namespace",
    })))
}
