//! DefaultStorageClass and DefaultIngressClass: claims and Ingresses that name no class get the one that is marked as the default.

use coracle_api::kinds::{ingress, persistent_volume_claim, storage_class};
use coracle_api::meta;
use coracle_api::resource::{self, Resource};
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, is_core};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let silent = is_silent(object, "storageClassName", persistent_volume_claim::CLASS_ANNOTATION);
            if is_core(request, "persistentvolumeclaims") && old.is_none() && silent {
                let classes = resource::lookup("storage.k8s.io", "v1", "storageclasses");
                if let Some(name) = default_of(registry, classes, storage_class::is_default).await? {
                    object["spec"]["storageClassName"] = name.into();
                }
            }
            Ok(())
        })
    }
}

pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let is_ingress = request.resource.group == "networking.k8s.io"
                && request.resource.plural == "ingresses"
                && request.subresource.is_none();
            if is_ingress && old.is_none() && is_silent(object, "ingressClassName", ingress::CLASS_ANNOTATION)
            {
                let classes = resource::lookup("networking.k8s.io", "v1", "ingressclasses");
                if let Some(name) = default_of(registry, classes, is_default_ingress_class).await? {
                    object["spec"]["ingressClassName"] = name.into();
                }
            }
            Ok(())
        })
    }
}

fn is_silent(object: &Value, field: &str, annotation: &str) -> bool {
    object["spec"][field].is_null()
        && meta::annotations(object).is_none_or(|all| !all.contains_key(annotation))
}

fn is_default_ingress_class(class: &Value) -> bool {
    meta::annotations(class).and_then(|all| all.get(ingress::IS_DEFAULT)).is_some_and(|value| value == "true")
}

/// Of several defaults the newest counts, then the first by name.
async fn default_of(
    registry: &Registry,
    classes: Option<&'static Resource>,
    is_default: fn(&Value) -> bool,
) -> Result<Option<String>, ApiError> {
    let classes = classes.ok_or_else(|| ApiError::internal("no classes"))?;
    let mut defaults = registry.all_known(classes, "").await?;
    defaults.retain(|class| is_default(class));
    defaults.sort_by_key(|class| {
        (std::cmp::Reverse(meta::creation_timestamp(class)), meta::name(class).to_owned())
    });
    Ok(defaults.first().map(|class| meta::name(class).to_owned()))
}
