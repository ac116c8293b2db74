//! NodeRestriction: a kubelet changes its own Node, its own Lease and the pods bound to it, nothing else.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::Plugin;
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let result = match request.user.name.strip_prefix(PREFIX) {
            Some(node) if request.user.in_group(GROUP) => check(node, request, object, old),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(result.map_err(|message| {
            ApiError::forbidden(request.resource.group_resource(), request.name(), message)
        })))
    }
}

fn check(
    node: &str,
    request: &RequestInfo,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), String> {
    let name = |fallback: Option<&Value>| match request.name() {
        "" => fallback.map(|object| meta::text(object, "name").to_owned()).unwrap_or_default(),
        name => name.to_owned(),
    };
    match (request.resource.plural, request.subresource()) {
        ("nodes", None | Some("status")) => {
            let target = name(object);
            if target != node {
                return Err(format!("node {node:?} is not allowed to modify node {target:?}"));
            }
            if object.is_none() {
                return Err(format!("node {node:?} is not allowed to delete nodes"));
            }
            if let (Some(new), Some(old)) = (object, old)
                && new["spec"]["taints"] != old["spec"]["taints"]
            {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            Ok(())
        }
        ("pods", None | Some("status" | "eviction")) => {
            let pod = old.or(object);
            let bound = pod.and_then(|pod| pod["spec"]["nodeName"].as_str()).unwrap_or_default();
            if bound == node {
                return Ok(());
            }
            Err(format!("node {node:?} can only change pods with spec.nodeName set to itself"))
        }
        ("leases", None) => {
            if request.namespace() != "kube-node-lease" {
                return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
            }
            if name(object) != node {
                return Err("can only access node lease with the same name as the requesting node".into());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::resource;
    use serde_json::json;

    use super::*;
    use crate::server::request_info::Verb;

    #[test]
    fn a_kubelet_reaches_only_what_is_its_own() {
        let nodes = resource::lookup("", "v1", "nodes").expect("nodes");
        let pods = resource::lookup("", "v1", "pods").expect("pods");
        let request =
            |resource, namespace, name| RequestInfo::internal(Verb::Update, resource, namespace, Some(name));
        let node = json!({"metadata": {"name": "a"}, "spec": {}});
        assert!(check("a", &request(nodes, None, "a"), Some(&node), Some(&node)).is_ok());
        assert!(check("a", &request(nodes, None, "b"), Some(&node), Some(&node)).is_err());
        let tainted = json!({"metadata": {"name": "a"}, "spec": {"taints": []}});
        assert!(check("a", &request(nodes, None, "a"), Some(&tainted), Some(&node)).is_err());
        let pod = json!({"spec": {"nodeName": "a"}});
        assert!(check("a", &request(pods, Some("x"), "p"), Some(&pod), Some(&pod)).is_ok());
        assert!(check("b", &request(pods, Some("x"), "p"), Some(&pod), Some(&pod)).is_err());
    }
}
