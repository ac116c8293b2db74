//! PersistentVolumeClaimResize: a claim asks for more only when it is bound and its class lets volumes grow.

use coracle_api::kinds::access::{boolean, text};
use coracle_api::kinds::persistent_volume_claim::CLASS_ANNOTATION;
use coracle_api::meta;
use coracle_api::quantity::Quantity;
use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, is_core};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
            if !is_core(request, "persistentvolumeclaims") || size(new) <= size(old) {
                return Ok(());
            }
            let refused =
                |text| Err(ApiError::forbidden(request.resource.group_resource(), request.name(), text));
            if text(&old["status"], "phase") != "Bound" {
                return refused("Only bound persistent volume claims can be expanded");
            }
            if !may_grow(registry, class(new), class(old)).await? {
                return refused(
                    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
                );
            }
            Ok(())
        })
    }
}

/// Nothing is less than anything.
fn size(claim: &Value) -> Option<Quantity> {
    claim.pointer("/spec/resources/requests/storage")?.as_str()?.parse().ok()
}

/// The claim's class; the annotation of old counts more than the field.
fn class(claim: &Value) -> &str {
    let annotation = meta::annotations(claim).and_then(|all| all.get(CLASS_ANNOTATION)?.as_str());
    annotation.unwrap_or_else(|| text(&claim["spec"], "storageClassName"))
}

async fn may_grow(registry: &Registry, new: &str, old: &str) -> Result<bool, ApiError> {
    if new.is_empty() || new != old {
        return Ok(false);
    }
    let Some(classes) = resource::lookup("storage.k8s.io", "v1", "storageclasses") else { return Ok(false) };
    match registry.known(classes, "", new).await {
        Ok(class) => Ok(boolean(&class, "allowVolumeExpansion")),
        Err(error) if error.code() == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_and_classes_are_read_where_they_may_be() {
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}, "storageClassName": "fast"}});
        assert!(size(&claim("1Gi")) < size(&claim("1025Mi")) && size(&json!({})) < size(&claim("1")));
        let mut old = claim("1Gi");
        assert_eq!(class(&old), "fast");
        old["metadata"]["annotations"][CLASS_ANNOTATION] = "slow".into();
        assert_eq!(class(&old), "slow");
    }
}
