//! Evicts a pod: a deletion that disruption budgets may refuse. No disruption budgets are served, so none refuses.

use std::sync::Arc;

use coracle_api::status::ApiError;
use serde_json::Value;

use super::done;
use crate::registry::delete::DeleteOptions;
use crate::registry::{Registry, meta};
use crate::server::request_info::{RequestInfo, Verb};

/// Deletes the pod with the eviction's options.
///
/// # Errors
/// As a deletion: 404, 409 for preconditions.
pub async fn evict(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    eviction: &Value,
) -> Result<Value, ApiError> {
    let name = meta::text(eviction, "name");
    if !name.is_empty() && name != info.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let namespace = meta::text(eviction, "namespace");
    if !namespace.is_empty() && namespace != info.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let wanted = eviction.get("deleteOptions").filter(|options| options.is_object());
    let options = DeleteOptions::decode(wanted, &info.query)?;
    let mut request = info.clone();
    request.verb = Verb::Delete;
    request.subresource = None;
    request.dry_run |= options.dry_run;
    registry.delete(&request, &options).await?;
    Ok(done())
}
