//! Binds a pod to a node: the scheduler's one write.

use std::sync::Arc;

use coracle_api::field;
use coracle_api::meta::get;
use coracle_api::status::{ApiError, GroupKind, GroupResource};
use serde_json::{Value, json};

use super::{conditions, core, done};
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

const BINDING: GroupKind<'_> = GroupKind { group: "", kind: "Binding" };
const PODS_BINDING: GroupResource<'_> = GroupResource { group: "", resource: "pods/binding" };

/// Sets the pod's node.
///
/// # Errors
/// 404, 409 when the pod has a node or is not the one meant, 422 for a malformed binding.
pub async fn bind(registry: &Arc<Registry>, info: &RequestInfo, binding: Value) -> Result<Value, ApiError> {
    let name = meta::text(&binding, "name");
    if info.name.as_deref().is_some_and(|wanted| !name.is_empty() && wanted != name) {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let name = info.name.clone().unwrap_or_else(|| name.to_owned());
    if name.is_empty() {
        return Err(ApiError::bad_request("name is required"));
    }
    let namespace = meta::text(&binding, "namespace");
    if !namespace.is_empty() && namespace != info.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    check(&binding, &name)?;
    let pods = core("pods")?;
    let now = meta::time_after(meta::now(), 0);
    if info.dry_run {
        bound(&registry.read(pods, info.namespace(), &name).await?, &binding, &now)?;
    } else {
        let change = |pod: &Value| bound(pod, &binding, &now);
        registry.guaranteed_update(pods, info.namespace(), &name, &change).await?;
    }
    Ok(done())
}

fn check(binding: &Value, name: &str) -> Result<(), ApiError> {
    let target = |key: &str| get(binding, &["target", key]).and_then(Value::as_str).unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(target("kind"), "" | "Node") {
        errors.push(field::not_supported_in_order("target.kind", target("kind"), &["Node", "<empty>"]));
    }
    if target("name").is_empty() {
        errors.push(field::required("target.name", ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(BINDING, name, errors)) }
}

/// The pod with its node. Pure.
fn bound(pod: &Value, binding: &Value, now: &str) -> Result<Value, ApiError> {
    let name = meta::text(pod, "name");
    let conflict = |text: String| ApiError::conflict(PODS_BINDING, name, text);
    for field in ["uid", "resourceVersion"] {
        let (wanted, found) = (meta::text(binding, field), meta::text(pod, field));
        if !wanted.is_empty() && wanted != found {
            let what = if field == "uid" { "UID" } else { "ResourceVersion" };
            return Err(conflict(format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            )));
        }
    }
    if meta::is_deleting(pod) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = get(pod, &["spec", "nodeName"]).and_then(Value::as_str).unwrap_or_default();
    if !node.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {node:?}")));
    }
    if get(pod, &["spec", "schedulingGates"]).and_then(Value::as_array).is_some_and(|gates| !gates.is_empty())
    {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for key in ["annotations", "labels"] {
        if let Some(added) = get(binding, &["metadata", key]).and_then(Value::as_object) {
            for (name, value) in added {
                pod["metadata"][key][name.as_str()] = value.clone();
            }
        }
    }
    set_scheduled(&mut pod, now);
    // Where it might have gone no longer matters to anybody.
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    Ok(pod)
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null});
    if pod["metadata"]["generation"].is_i64() {
        condition["observedGeneration"] = pod["metadata"]["generation"].clone();
    }
    conditions::put(pod, condition, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {}, "status": {"phase": "Pending", "nominatedNodeName": "m",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        let binding = json!({"metadata": {"name": "a", "annotations": {"x": "y"}}, "target": {"kind": "Node", "name": "n"}});
        let pod = bound(&pod, &binding, "t").expect("binds");
        assert_eq!(pod["spec"]["nodeName"], "n");
        assert_eq!(pod["metadata"]["annotations"]["x"], "y");
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        assert!(pod["status"]["conditions"][0].get("reason").is_none());
        assert!(pod["status"].get("nominatedNodeName").is_none());
        let error = bound(&pod, &binding, "t").expect_err("has a node");
        assert_eq!(
            error.message(),
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n\""
        );
        assert_eq!(check(&json!({"target": {"kind": "Pod"}}), "a").expect_err("malformed").code(), 422);
    }
}
