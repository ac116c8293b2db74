//! AlwaysPullImages: nobody runs an image that is there because somebody else was allowed to pull it.

use coracle_api::kinds::pod_spec_defaults::CONTAINER_LISTS;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, is_core, refusal};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if concerns(request, object, old) {
            each_policy(object, |_, policy| *policy = "Always".into());
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let pod = object.filter(|pod| concerns(request, pod, old));
        let decided = pod.and_then(|pod| other_policy(pod).map(|text| refusal(request, Some(pod), &text)));
        Box::pin(std::future::ready(decided.map_or(Ok(()), Err)))
    }
}

/// Whether the request makes a pod, or gives one images that it did not have.
fn concerns(request: &RequestInfo, pod: &Value, old: Option<&Value>) -> bool {
    let is_pod = is_core(request, "pods")
        || (request.resource.plural == "pods" && request.subresource() == Some("ephemeralcontainers"));
    is_pod && old.is_none_or(|old| images(pod).any(|image| !images(old).any(|known| known == image)))
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

fn images(pod: &Value) -> impl Iterator<Item = &str> {
    containers(pod).filter_map(|container| container["image"].as_str())
}

fn each_policy(pod: &mut Value, mut change: impl FnMut(&str, &mut Value)) {
    for list in CONTAINER_LISTS {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            change(&format!("spec.{list}[{index}].imagePullPolicy"), &mut container["imagePullPolicy"]);
        }
    }
    let volumes = pod["spec"].get_mut("volumes").and_then(Value::as_array_mut);
    for (index, volume) in volumes.into_iter().flatten().enumerate() {
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            change(&format!("spec.volumes[{index}].image.pullPolicy"), &mut image["pullPolicy"]);
        }
    }
}

/// What a webhook may have made of it.
fn other_policy(pod: &Value) -> Option<String> {
    let mut found = None;
    each_policy(&mut pod.clone(), |path, policy| {
        if policy != "Always" && found.is_none() {
            let text = policy.as_str().unwrap_or_default();
            found = Some(format!("{path}: Unsupported value: {text:?}: supported values: \"Always\""));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_and_volumes_pull_always() {
        let mut pod = json!({"spec": {"containers": [{"image": "a", "imagePullPolicy": "Never"}],
            "initContainers": [{"image": "b"}], "volumes": [{"image": {"reference": "c"}}, {"emptyDir": {}}]}});
        assert_eq!(
            other_policy(&pod).as_deref(),
            Some(
                "spec.initContainers[0].imagePullPolicy: Unsupported value: \"\": supported values: \"Always\""
            )
        );
        each_policy(&mut pod, |_, policy| *policy = "Always".into());
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(pod["spec"]["initContainers"][0]["imagePullPolicy"], "Always");
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"image": {"reference": "c", "pullPolicy": "Always"}}, {"emptyDir": {}}])
        );
        assert_eq!(other_policy(&pod), None);
    }
}
