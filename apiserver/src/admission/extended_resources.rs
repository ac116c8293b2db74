//! ExtendedResourceToleration: a pod that asks for a device tolerates the taint that keeps others off the nodes with such devices.

use std::collections::BTreeSet;

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Plugin, is_core};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if is_core(request, "pods") {
            tolerate(object);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Names outside kubernetes.io are those of devices.
fn is_extended(name: &str) -> bool {
    let ours = |domain: &str| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    !name.starts_with("requests.") && name.split_once('/').is_some_and(|(domain, _)| !ours(domain))
}

fn tolerate(pod: &mut Value) {
    let wanted: BTreeSet<String> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .flat_map(|container| container["resources"]["requests"].as_object().into_iter().flatten())
        .map(|(name, _)| name.clone())
        .filter(|name| is_extended(name))
        .collect();
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let missing = wanted.into_iter().filter_map(|name| {
        let toleration = json!({"key": name, "operator": "Exists", "effect": "NoSchedule"});
        let has_it = tolerations.iter().any(|held| {
            held["key"] == toleration["key"] && held["operator"] == "Exists" && held["effect"] == "NoSchedule"
        });
        (!has_it).then_some(toleration)
    });
    let missing: Vec<Value> = missing.collect();
    if !missing.is_empty() {
        tolerations.extend(missing);
        pod["spec"]["tolerations"] = tolerations.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_tolerated_once() {
        let mut pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"cpu": "1", "example.com/b": "1", "x.kubernetes.io/c": "1"}}}],
            "initContainers": [{"resources": {"requests": {"example.com/a": "1", "example.com/b": "2"}}}]}});
        tolerate(&mut pod);
        tolerate(&mut pod);
        let keys: Vec<&str> = pod["spec"]["tolerations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|toleration| toleration["key"].as_str())
            .collect();
        assert_eq!(keys, ["example.com/a", "example.com/b"]);
    }
}
