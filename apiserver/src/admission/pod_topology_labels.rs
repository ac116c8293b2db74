//! PodTopologyLabels: a pod carries the zone and region of the node it is bound to, so that its containers can be told of them.

use std::collections::BTreeMap;

use component_base::feature_gates::FeatureGates;
use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, creates_pod};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// The feature gate without which it does nothing.
const GATE: &str = "PodTopologyLabelsAdmission";

pub(super) struct PodTopologyLabels {
    is_on: bool,
}

impl PodTopologyLabels {
    /// By the feature gates.
    pub(super) fn new(gates: &FeatureGates) -> Self {
        Self { is_on: gates.is_on(GATE) }
    }
}

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let node = node_of(request, object, old).filter(|_| self.is_on);
            let Some(name) = node.map(str::to_owned) else { return Ok(()) };
            let nodes = resource::lookup("", "v1", "nodes").ok_or_else(|| ApiError::internal("no nodes"))?;
            match registry.known_labels(nodes, "", &name).await {
                Ok(labels) => {
                    copy(&labels, object);
                    Ok(())
                }
                // Pods may be bound to nodes that are still to come.
                Err(error) if error.code() == 404 => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// The node that the pod goes to by this request.
fn node_of<'a>(request: &RequestInfo, object: &'a Value, old: Option<&Value>) -> Option<&'a str> {
    let binds = request.resource.group.is_empty()
        && request.resource.plural == "pods"
        && request.subresource() == Some("binding")
        && matches!(object["target"]["kind"].as_str(), Some("Node"));
    let name = if binds {
        &object["target"]["name"]
    } else if creates_pod(request, old) {
        &object["spec"]["nodeName"]
    } else {
        return None;
    };
    name.as_str().filter(|name| !name.is_empty())
}

/// What the binding or pod says itself stays.
fn copy(node: &BTreeMap<String, String>, object: &mut Value) {
    for label in LABELS {
        if let Some(value) = node.get(label)
            && object["metadata"]["labels"][label].is_null()
        {
            object["metadata"]["labels"][label] = value.as_str().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_already_stays() {
        let node = [(LABELS[0], "r"), (LABELS[1], "z"), ("x", "y")];
        let node = node.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut binding = json!({"metadata": {"labels": {LABELS[1]: "mine"}}});
        copy(&node, &mut binding);
        assert_eq!(binding["metadata"]["labels"], json!({LABELS[0]: "r", LABELS[1]: "mine"}));
    }
}
