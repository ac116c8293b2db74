//! RuntimeClass: a pod takes over the overhead and the scheduling rules of its class.

use std::sync::Arc;

use coracle_api::kinds::access::same;
use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, creates_pod};
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if !creates_pod(request, old) {
                return Ok(());
            }
            let name = object["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
            let refused = |object: &Value, text: String| {
                ApiError::forbidden(request.resource.group_resource(), meta::text(object, "name"), text)
            };
            let class = if name.is_empty() {
                Arc::default()
            } else {
                let classes = resource::lookup("node.k8s.io", "v1", "runtimeclasses")
                    .ok_or_else(|| ApiError::internal("no runtime classes"))?;
                registry.known(classes, "", &name).await.map_err(|_| {
                    refused(object, format!("pod rejected: RuntimeClass \"{name}\" not found"))
                })?
            };
            apply(object, &class).map_err(|text| refused(object, text))
        })
    }
}

fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    let overhead = &class["overhead"]["podFixed"];
    let given = &pod["spec"]["overhead"];
    let has_given = !same(Some(given), None);
    if overhead.is_object() {
        if has_given && given != overhead {
            return Err(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned()
            );
        }
        pod["spec"]["overhead"] = overhead.clone();
    } else if has_given {
        return Err(
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned()
        );
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let given = &pod["spec"]["nodeSelector"][key];
        if !given.is_null() && given != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                given.as_str().unwrap_or_default()
            ));
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    let given = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let wanted = class["scheduling"]["tolerations"].as_array().into_iter().flatten();
    let added: Vec<Value> = wanted.filter(|toleration| !given.contains(toleration)).cloned().collect();
    if !added.is_empty() {
        pod["spec"]["tolerations"] = given.into_iter().chain(added).collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overhead_and_places_come_from_the_class() {
        let class = json!({"overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]}});
        let mut pod = json!({"spec": {}});
        assert_eq!(apply(&mut pod, &class), Ok(()));
        assert_eq!(
            pod["spec"],
            json!({"overhead": {"cpu": "250m"}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]})
        );
        assert!(apply(&mut json!({"spec": {"overhead": {"cpu": "1"}}}), &class).is_err());
        assert!(apply(&mut json!({"spec": {"nodeSelector": {"a": "c"}}}), &class).is_err());
        assert!(apply(&mut json!({"spec": {"overhead": {"cpu": "1"}}}), &Value::Null).is_err());
        let mut plain = json!({"spec": {}});
        assert_eq!((apply(&mut plain, &Value::Null), &plain), (Ok(()), &json!({"spec": {}})));
    }
}
