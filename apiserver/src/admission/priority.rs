//! Priority: a pod's class becomes its number. Pods without a class get the global default's, if there is one.

use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, creates_pod};
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

pub(super) struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if creates_pod(request, old) {
                resolve(registry, request, object).await?;
            }
            Ok(())
        })
    }
}

async fn resolve(registry: &Registry, request: &RequestInfo, pod: &mut Value) -> Result<(), ApiError> {
    let classes = resource::lookup("scheduling.k8s.io", "v1", "priorityclasses")
        .ok_or_else(|| ApiError::internal("no priority classes"))?;
    let forbidden = |message: String| {
        ApiError::forbidden(request.resource.group_resource(), meta::text(pod, "name"), message)
    };
    let wanted = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if wanted.is_empty() {
        let values = registry.all_known(classes, "").await?.into_iter();
        values.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
    } else {
        let found = registry.known(classes, "", &wanted).await;
        Some(found.map_err(|_| forbidden(format!("no PriorityClass with name {wanted} was found")))?)
    };
    let priority = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
    if pod["spec"]["priority"].as_i64().is_some_and(|given| given != priority) {
        return Err(forbidden(format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {priority} from the given \
             PriorityClass name",
            pod["spec"]["priority"]
        )));
    }
    let policy =
        class.as_ref().and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    let spec = &mut pod["spec"];
    if let Some(class) = &class {
        spec["priorityClassName"] = meta::text(class, "name").into();
    }
    spec["priority"] = priority.into();
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}
