//! The number of replicas of a workload, as autoscaling/v1 `Scale`.

use std::sync::Arc;

use coracle_api::field;
use coracle_api::meta::get;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{ApiError, GroupKind};
use http::Request;
use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::registry::meta;
use crate::registry::patch::{Patch, PatchType};
use crate::registry::update::Change;
use crate::server::request_info::RequestInfo;
use crate::server::{body, negotiate};

const SCALE: GroupKind<'_> = GroupKind { group: "autoscaling", kind: "Scale" };

/// The workload's scale.
///
/// # Errors
/// 404.
pub async fn read(registry: &Arc<Registry>, info: &RequestInfo) -> Result<Value, ApiError> {
    Ok(scale_of(&registry.read(info.resource, info.namespace(), info.name()).await?))
}

/// Sets the replicas.
///
/// # Errors
/// 404, 409, 422.
pub async fn replace(registry: &Arc<Registry>, info: &RequestInfo, scale: Value) -> Result<Value, ApiError> {
    if meta::text(&scale, "name").is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    let change = |workload: Value| scaled(workload, &scale);
    scale_from(registry, info, Change::With(&change)).await
}

/// Changes the scale by a patch of it.
///
/// # Errors
/// 404, 409, 415 for strategic merge and apply patches, 422.
pub async fn patch(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    request: Request<Incoming>,
) -> Result<Value, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut patch_type = PatchType::of(negotiate::media_type(content_type))?;
    if patch_type == PatchType::Strategic {
        // A Scale has no lists: both merges are the same.
        patch_type = PatchType::Merge;
    }
    if patch_type == PatchType::Apply {
        return Err(ApiError::not_implemented(
            "applying a Scale is not implemented by Coracle yet: use a merge patch",
        ));
    }
    let bytes = body::read(request.into_body()).await?;
    let patch = Patch::decode(info, patch_type, &bytes)?;
    let change = |workload: Value| {
        let wanted = patch.apply(info, &scale_of(&workload))?;
        scaled(workload, &wanted)
    };
    scale_from(registry, info, Change::With(&change)).await
}

async fn scale_from(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    change: Change<'_>,
) -> Result<Value, ApiError> {
    Ok(scale_of(&registry.update(info, change).await?.value()?))
}

fn scale_of(workload: &Value) -> Value {
    let number = |path: &[&str]| get(workload, path).and_then(Value::as_i64).unwrap_or_default();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        metadata[field] = meta::text(workload, field).into();
    }
    let mut status = json!({"replicas": number(&["status", "replicas"])});
    if let Some(selector) = selector_of(workload) {
        status["selector"] = selector.to_string().into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": number(&["spec", "replicas"])},
        "status": status,
    })
}

/// What the workload selects. That of a ReplicationController is a plain map of labels.
fn selector_of(workload: &Value) -> Option<LabelSelector> {
    let selector = get(workload, &["spec", "selector"])?;
    if workload["kind"] == "ReplicationController" {
        return selector.as_object().map(LabelSelector::from_labels);
    }
    LabelSelector::from_object(selector).ok()
}

/// The workload with the scale's replicas. Pure.
fn scaled(mut workload: Value, scale: &Value) -> Result<Value, ApiError> {
    let replicas = get(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let error = field::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid(SCALE, meta::text(&workload, "name"), vec![error]));
    }
    workload["spec"]["replicas"] = replicas.into();
    // What the client saw must still hold.
    for field in ["uid", "resourceVersion"] {
        let seen = meta::text(scale, field);
        if !seen.is_empty() {
            meta::set_text(&mut workload, field, seen);
        }
    }
    Ok(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_and_sets_replicas() {
        let workload = json!({"metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2}});
        let mut scale = scale_of(&workload);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
        scale["spec"]["replicas"] = 5.into();
        assert_eq!(scaled(workload.clone(), &scale).expect("scales")["spec"]["replicas"], 5);
        let controller = json!({"kind": "ReplicationController", "spec": {"selector": {"a": "b", "c": "d"}}});
        assert_eq!(scale_of(&controller)["status"]["selector"], "a=b,c=d");
        scale["spec"]["replicas"] = (-1).into();
        let error = scaled(workload, &scale).expect_err("is refused");
        assert_eq!(
            error.message(),
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}
