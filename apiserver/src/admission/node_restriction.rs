//! NodeRestriction: a kubelet changes its own Node, its own Lease and the pods bound to it, nothing else, and gets tokens only for these pods.

use coracle_api::kinds::access::{boolean, items, same, text};
use coracle_api::meta::get;
use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::Plugin;
use crate::authz::node_graph::{self, Kind};
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Labels of the system's domains that a kubelet sets on its Node.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Domains whose labels a kubelet may set.
const OWN_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_LABEL_DOMAIN: &str = "node-restriction.kubernetes.io";

pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let find = |plural: &str, namespace: &str, name: &str| {
            let known = registry.cached(resource::lookup("", "v1", plural)?, namespace, name)?;
            known.value().ok()
        };
        let result = match request.user.name.strip_prefix(PREFIX) {
            Some(node) if request.user.in_group(GROUP) => check(node, request, object, old, &find),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(result.map_err(|message| {
            ApiError::forbidden(request.resource.group_resource(), request.name(), message)
        })))
    }
}

/// An object of the core group as the cache has it, by plural, namespace and name.
type Find<'a> = &'a dyn Fn(&str, &str, &str) -> Option<Value>;

fn check(
    node: &str,
    request: &RequestInfo,
    object: Option<&Value>,
    old: Option<&Value>,
    find: Find<'_>,
) -> Result<(), String> {
    let name = match request.name() {
        "" => object.map(|object| meta::text(object, "name")).unwrap_or_default(),
        name => name,
    };
    match (request.resource.group, request.resource.plural, request.subresource()) {
        ("", "nodes", None | Some("status")) => {
            if name != node {
                return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
            }
            object.map_or(Ok(()), |object| check_node(node, object, old))
        }
        ("", "pods", None) => match (object, old) {
            (Some(pod), None) => check_new_pod(node, pod, find),
            (None, Some(pod)) if is_bound(pod, node) => Ok(()),
            (None, _) => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
            (Some(_), Some(_)) => Err(format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            )),
        },
        ("", "pods", Some("status")) => match (object, old) {
            (Some(new), Some(old)) => check_pod_status(node, new, old),
            _ => Ok(()),
        },
        ("", "pods", Some("eviction")) => match find("pods", request.namespace(), name) {
            Some(pod) if is_bound(&pod, node) => Ok(()),
            _ => Err(format!("node {node} can only evict pods with spec.nodeName set to itself")),
        },
        ("", "persistentvolumeclaims", Some("status")) => match (object, old) {
            (Some(new), Some(old)) => check_claim_status(node, new, old),
            _ => Ok(()),
        },
        ("", "persistentvolumeclaims", _) => Err("may only update PVC status".into()),
        ("", "serviceaccounts", Some("token")) => {
            check_token(node, request.namespace(), object.unwrap_or(&Value::Null), find)
        }
        ("coordination.k8s.io", "leases", _) => {
            if request.namespace() != LEASES {
                return Err(format!("can only access leases in the {LEASES:?} system namespace"));
            }
            if name != node {
                return Err("can only access node lease with the same name as the requesting node".into());
            }
            Ok(())
        }
        ("storage.k8s.io", "csinodes", _) if name != node => {
            Err("can only access CSINode with the same name as the requesting node".into())
        }
        _ => Ok(()),
    }
}

fn is_bound(pod: &Value, node: &str) -> bool {
    get(pod, &["spec", "nodeName"]).and_then(Value::as_str) == Some(node)
}

fn check_node(node: &str, new: &Value, old: Option<&Value>) -> Result<(), String> {
    let taints = |object: &Value| get(object, &["spec", "taints"]).cloned();
    if let Some(old) = old
        && !same(taints(new).as_ref(), taints(old).as_ref())
    {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let labels = |object: &Value| coracle_api::meta::labels(object).cloned().unwrap_or_default();
    let (after, before) = (labels(new), old.map(labels).unwrap_or_default());
    let mut refused: Vec<&str> = after
        .keys()
        .chain(before.keys())
        .filter(|key| after.get(*key) != before.get(*key) && !may_label(key))
        .map(String::as_str)
        .collect();
    refused.sort_unstable();
    refused.dedup();
    match (refused.join(", "), old) {
        (refused, _) if refused.is_empty() => Ok(()),
        (refused, None) => {
            Err(format!("node {node:?} is not allowed to set the following labels: {refused}"))
        }
        (refused, Some(_)) => Err(format!("is not allowed to modify labels: {refused}")),
    }
}

/// Whether a kubelet may set this label, so that it cannot draw pods that are not meant for it.
fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |root: &str| domain.strip_suffix(root).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_system = within("kubernetes.io") || within("k8s.io");
    let is_own = OWN_LABELS.contains(&key) || OWN_LABEL_DOMAINS.iter().any(|domain| within(domain));
    !within(RESTRICTED_LABEL_DOMAIN) && (!is_system || is_own)
}

/// A node makes mirror pods of what it runs anyway; they must not give it access to anything.
fn check_new_pod(node: &str, pod: &Value, find: Find<'_>) -> Result<(), String> {
    if get(pod, &["metadata", "annotations", MIRROR_ANNOTATION]).is_none() {
        return Err(format!(
            "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if !is_bound(pod, node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    check_owner(node, coracle_api::meta::owner_references(pod), find)?;
    let references = node_graph::references(pod);
    let refers = |wanted: Kind| references.iter().any(|(kind, _)| *kind == wanted);
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let volumes = items(spec, "volumes");
    let trusts = |volume: &Value| {
        let sources = volume.get("projected").map_or(&[][..], |projected| items(projected, "sources"));
        sources.iter().any(|source| source.get("clusterTrustBundle").is_some_and(Value::is_object))
    };
    let claims = |volume: &Value| volume.get("persistentVolumeClaim").is_some_and(Value::is_object);
    for (found, what) in [
        (refers(Kind::ServiceAccount), "a service account"),
        (refers(Kind::Secret), "secrets"),
        (refers(Kind::ConfigMap), "configmaps"),
        (volumes.iter().any(trusts), "clustertrustbundles"),
        (volumes.iter().any(claims), "persistentvolumeclaims"),
        (!items(spec, "resourceClaims").is_empty(), "resourceclaims"),
    ] {
        if found {
            return Err(format!("node {node:?} can not create pods that reference {what}"));
        }
    }
    Ok(())
}

fn check_owner(node: &str, owners: &[Value], find: Find<'_>) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("node {node:?} can only create pods with {what} set to itself"));
    let owner = match owners {
        [] => return refuse("an owner reference"),
        [owner] => owner,
        _ => return refuse("a single owner reference"),
    };
    if text(owner, "apiVersion") != "v1" || text(owner, "kind") != "Node" || text(owner, "name") != node {
        return refuse("an owner reference");
    }
    if !boolean(owner, "controller") {
        return refuse("a controller owner reference");
    }
    if boolean(owner, "blockOwnerDeletion") {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(known) = find("nodes", "", node) else {
        return Err(format!("error looking up node {node} to verify uid: node {node:?} not found"));
    };
    let (stated, known) = (text(owner, "uid"), meta::text(&known, "uid"));
    if stated != known {
        return Err(format!("node {node} UID mismatch: expected {stated} got {known}"));
    }
    Ok(())
}

fn check_pod_status(node: &str, new: &Value, old: &Value) -> Result<(), String> {
    if !is_bound(old, node) {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let labels = |pod: &Value| get(pod, &["metadata", "labels"]).cloned();
    if !same(labels(new).as_ref(), labels(old).as_ref()) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Value| get(pod, &["status", "resourceClaimStatuses"]).cloned();
    if !same(claims(new).as_ref(), claims(old).as_ref()) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn check_claim_status(node: &str, new: &Value, old: &Value) -> Result<(), String> {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            meta::remove(&mut claim, field);
        }
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.remove(field);
            }
        }
        claim
    };
    if same(Some(&rest(new)), Some(&rest(old))) {
        return Ok(());
    }
    Err(format!(
        "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
    ))
}

/// A node has tokens only for the pods that it runs.
fn check_token(node: &str, namespace: &str, request: &Value, find: Find<'_>) -> Result<(), String> {
    let bound =
        |field| get(request, &["spec", "boundObjectRef", field]).and_then(Value::as_str).unwrap_or_default();
    if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
        return Err("node requested token not bound to a pod".into());
    }
    if bound("uid").is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let Some(pod) = find("pods", namespace, bound("name")) else {
        return Err(format!("pod {:?} not found", bound("name")));
    };
    if bound("uid") != meta::text(&pod, "uid") {
        return Err(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound("uid")
        ));
    }
    if !is_bound(&pod, node) {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::request_info::Verb;

    fn request(plural: &str, part: Option<&str>, namespace: Option<&str>, name: &str) -> RequestInfo {
        let group = if plural == "leases" { "coordination.k8s.io" } else { "" };
        let row = resource::lookup(group, "v1", plural).expect("is served");
        let mut request = RequestInfo::internal(Verb::Update, row, namespace, Some(name));
        request.subresource = part.and_then(|part| row.subresource(part));
        request
    }

    fn decide(request: &RequestInfo, object: Option<&Value>, old: Option<&Value>) -> Result<(), String> {
        let find = |plural: &str, _: &str, name: &str| match (plural, name) {
            ("nodes", "a") => Some(json!({"metadata": {"uid": "1"}})),
            ("pods", "mine") => Some(json!({"metadata": {"uid": "2"}, "spec": {"nodeName": "a"}})),
            ("pods", "theirs") => Some(json!({"metadata": {"uid": "3"}, "spec": {"nodeName": "b"}})),
            _ => None,
        };
        check("a", request, object, old, &find)
    }

    #[test]
    fn a_kubelet_changes_its_own_node_but_not_where_pods_go() {
        let node = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "a"}}, "spec": {}});
        let own = request("nodes", None, None, "a");
        assert_eq!(decide(&own, Some(&node), None), Ok(()));
        assert!(decide(&request("nodes", None, None, "b"), Some(&node), Some(&node)).is_err());
        let mut changed = node.clone();
        changed["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
        assert!(decide(&own, Some(&changed), Some(&node)).is_err());
        let mut labelled = node.clone();
        labelled["metadata"]["labels"] = json!({"node-role.kubernetes.io/control-plane": "", "a.node-restriction.kubernetes.io/x": "",
            "kubelet.kubernetes.io/x": "", "example.com/x": "", "kubernetes.io/hostname": "a"});
        let refused = "a.node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane";
        assert_eq!(
            decide(&own, Some(&labelled), None),
            Err(format!("node \"a\" is not allowed to set the following labels: {refused}"))
        );
        assert_eq!(
            decide(&own, Some(&node), Some(&labelled)),
            Err(format!("is not allowed to modify labels: {refused}")),
            "nor take them away"
        );
    }

    #[test]
    fn pods_of_a_node_are_mirrors_that_refer_to_nothing() {
        let pods = request("pods", None, Some("x"), "p");
        let mirror = json!({
            "metadata": {"annotations": {MIRROR_ANNOTATION: "h"}, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "1", "controller": true}]},
            "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
        });
        assert_eq!(decide(&pods, Some(&mirror), None), Ok(()));
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut pod = mirror.clone();
            change(&mut pod);
            decide(&pods, Some(&pod), None).expect_err("is refused")
        };
        assert!(
            refused(&|pod| pod["metadata"]["annotations"] = json!({}))
                .contains("can only create mirror pods")
        );
        assert!(refused(&|pod| pod["spec"]["nodeName"] = "b".into()).contains("spec.nodeName set to itself"));
        assert!(
            refused(&|pod| pod["metadata"]["ownerReferences"] = json!([])).contains("an owner reference")
        );
        assert_eq!(
            refused(&|pod| pod["metadata"]["ownerReferences"][0]["uid"] = "9".into()),
            "node a UID mismatch: expected 9 got 1"
        );
        assert_eq!(
            refused(&|pod| pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}])),
            "node \"a\" can not create pods that reference secrets"
        );
        let (mine, theirs) = (json!({"spec": {"nodeName": "a"}}), json!({"spec": {"nodeName": "b"}}));
        assert!(decide(&pods, None, Some(&mine)).is_ok() && decide(&pods, None, Some(&theirs)).is_err());
        let status = request("pods", Some("status"), Some("x"), "p");
        assert!(decide(&status, Some(&mine), Some(&mine)).is_ok());
        assert!(decide(&status, Some(&theirs), Some(&theirs)).is_err());
        let labelled = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "a"}});
        assert_eq!(
            decide(&status, Some(&labelled), Some(&mine)),
            Err("node \"a\" cannot update labels through pod status".into())
        );
    }

    #[test]
    fn tokens_are_for_pods_of_the_node() {
        let token = request("serviceaccounts", Some("token"), Some("x"), "default");
        let bound = |name: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
        assert_eq!(decide(&token, Some(&bound("mine", "2")), None), Ok(()));
        for (asked, reason) in [
            (json!({"spec": {}}), "node requested token not bound to a pod"),
            (bound("mine", ""), "node requested token with a pod binding without a uid"),
            (bound("theirs", "3"), "node requested token bound to a pod scheduled on a different node"),
        ] {
            assert_eq!(decide(&token, Some(&asked), None), Err(reason.into()));
        }
        assert!(
            decide(&token, Some(&bound("mine", "4")), None).is_err_and(|reason| reason.contains("recreated"))
        );
    }

    #[test]
    fn leases_of_nodes_carry_the_nodes_name() {
        let lease = |namespace, name| request("leases", None, Some(namespace), name);
        let object = json!({});
        assert!(decide(&lease(LEASES, "a"), Some(&object), None).is_ok());
        assert!(decide(&lease(LEASES, "b"), Some(&object), None).is_err());
        assert!(decide(&lease("x", "a"), Some(&object), None).is_err());
    }
}
