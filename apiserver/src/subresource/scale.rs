//! The number of replicas of a workload, as autoscaling/v1 `Scale`.

use std::sync::Arc;

use coracle_api::field;
use coracle_api::meta::get;
use coracle_api::resource::Resource;
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

/// Where the parts of a scale are in the objects that it scales.
struct Places<'a> {
    spec_replicas: Vec<&'a str>,
    status_replicas: Vec<&'a str>,
    /// Where the selector is as text; `None`: it is the one of the spec.
    selector: Option<Vec<&'a str>>,
}

impl<'a> Places<'a> {
    fn of(resource: &'a Resource) -> Self {
        fn texts(path: &[String]) -> Vec<&str> {
            path.iter().map(String::as_str).collect()
        }
        match resource.custom.and_then(|custom| custom.scale.as_ref()) {
            Some(scale) => Self {
                spec_replicas: texts(&scale.spec_replicas),
                status_replicas: texts(&scale.status_replicas),
                selector: Some(texts(&scale.selector)),
            },
            None => Self {
                spec_replicas: vec!["spec", "replicas"],
                status_replicas: vec!["status", "replicas"],
                selector: None,
            },
        }
    }
}

const SCALE: GroupKind<'_> = GroupKind { group: "autoscaling", kind: "Scale" };

/// The workload's scale.
///
/// # Errors
/// 404.
pub async fn read(registry: &Arc<Registry>, info: &RequestInfo) -> Result<Value, ApiError> {
    Ok(scale_of(&registry.read(info.resource, info.namespace(), info.name()).await?, info.resource))
}

/// Sets the replicas.
///
/// # Errors
/// 404, 409, 422.
pub async fn replace(registry: &Arc<Registry>, info: &RequestInfo, scale: Value) -> Result<Value, ApiError> {
    meta::check_named(&scale, info.name())?;
    let change = |workload: Value| scaled(workload, &scale, info.resource);
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
    let mut patch_type = PatchType::of(negotiate::media_type(content_type), info.resource)?;
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
        let wanted = patch.apply(info, &scale_of(&workload, info.resource))?;
        scaled(workload, &wanted, info.resource)
    };
    scale_from(registry, info, Change::With(&change)).await
}

async fn scale_from(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    change: Change<'_>,
) -> Result<Value, ApiError> {
    Ok(scale_of(&registry.update(info, change).await?.value()?, info.resource))
}

/// The scale of a workload. Pure.
pub(crate) fn scale_of(workload: &Value, resource: &Resource) -> Value {
    let places = Places::of(resource);
    let number = |path: &[&str]| get(workload, path).and_then(Value::as_i64).unwrap_or_default();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        metadata[field] = meta::text(workload, field).into();
    }
    let mut status = json!({"replicas": number(&places.status_replicas)});
    let selector = match &places.selector {
        Some(path) if path.is_empty() => None,
        Some(path) => get(workload, path).and_then(Value::as_str).map(str::to_owned),
        None => selector_of(workload).map(|selector| selector.to_string()),
    };
    if let Some(selector) = selector {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": number(&places.spec_replicas)},
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
pub(crate) fn scaled(mut workload: Value, scale: &Value, resource: &Resource) -> Result<Value, ApiError> {
    let replicas = get(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let error = field::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid(SCALE, meta::text(&workload, "name"), vec![error]));
    }
    let mut place = &mut workload;
    for field in Places::of(resource).spec_replicas {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[field];
    }
    *place = replicas.into();
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
        let deployments = coracle_api::resource::lookup("apps", "v1", "deployments").expect("in the table");
        let workload = json!({"metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2}});
        let mut scale = scale_of(&workload, deployments);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
        scale["spec"]["replicas"] = 5.into();
        assert_eq!(scaled(workload.clone(), &scale, deployments).expect("scales")["spec"]["replicas"], 5);
        let controller = json!({"kind": "ReplicationController", "spec": {"selector": {"a": "b", "c": "d"}}});
        assert_eq!(scale_of(&controller, deployments)["status"]["selector"], "a=b,c=d");
        scale["spec"]["replicas"] = (-1).into();
        let error = scaled(workload, &scale, deployments).expect_err("is refused");
        assert_eq!(
            error.message(),
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}
