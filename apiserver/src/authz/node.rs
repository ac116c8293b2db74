//! The Node authorizer: a kubelet reads its own Node, its own pods and what these refer to, and writes what a kubelet writes. Whether the object written
//! is its own is admission's matter (NodeRestriction).

use std::ops::Bound;
use std::sync::Arc;

use coracle_api::meta::get;
use coracle_api::resource::lookup;
use coracle_api::selector::FieldSelector;
use serde_json::Value;

use super::defaults;
use super::node_graph::{Kind, NodeGraph};
use super::rule::PolicyRule;
use super::{Attributes, Opinion, ResourceAttributes};
use crate::cache::Cache;
use crate::server::request_info::UserInfo;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
const LEASES: &str = "kube-node-lease";

fn refuse(reason: impl Into<String>) -> Opinion {
    Opinion::None(reason.into())
}

/// Whether the user is a node, of whatever name.
pub(super) fn is_node(user: &UserInfo) -> bool {
    user.name.starts_with(PREFIX) && user.in_group(GROUP)
}

/// The Node authorizer.
pub struct NodeAuthorizer {
    cache: Arc<Cache>,
    graph: NodeGraph,
    rules: Vec<PolicyRule>,
}

impl NodeAuthorizer {
    /// Over the watch caches.
    pub fn new(cache: Arc<Cache>) -> Self {
        Self { graph: NodeGraph::new(&cache), cache, rules: defaults::node_rules() }
    }

    /// What it says about a request.
    pub(super) fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Opinion {
        if !is_node(user) {
            return refuse("");
        }
        let node = &user.name[PREFIX.len()..];
        if node.is_empty() {
            return refuse(format!("unknown node for user {:?}", user.name));
        }
        if let Attributes::Resource(asked) = attributes
            && let Some(opinion) = self.decide_own(node, asked)
        {
            return opinion;
        }
        if self.rules.iter().any(|rule| rule.allows(attributes)) {
            Opinion::Allow(String::new())
        } else {
            refuse("")
        }
    }

    /// About resources of which a node has its own; `None` for all others.
    fn decide_own(&self, node: &str, asked: &ResourceAttributes<'_>) -> Option<Opinion> {
        Some(match (asked.group, asked.resource) {
            ("", "secrets") => self.read_namespaced(node, asked, Kind::Secret),
            ("", "configmaps") => self.read_namespaced(node, asked, Kind::ConfigMap),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => match asked.verb {
                "update" | "patch" => self.related(node, asked, Some(Kind::Claim)),
                _ => refuse("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get(node, asked, Some(Kind::Claim)),
            ("", "persistentvolumes") | ("storage.k8s.io", "volumeattachments") => {
                self.get(node, asked, None)
            }
            ("resource.k8s.io", "resourceclaims") => self.get(node, asked, Some(Kind::ResourceClaim)),
            ("resource.k8s.io", "resourceslices") => self.slices(node, asked),
            ("", "serviceaccounts") => self.account(node, asked),
            ("coordination.k8s.io", "leases") => lease(node, asked),
            ("storage.k8s.io", "csinodes") => csi_node(node, asked),
            ("", "nodes") => own_node(node, asked),
            ("", "pods") => self.pods(node, asked),
            _ => return None,
        })
    }

    /// Whether the object is related to the node; `kind` is what pods refer to directly.
    fn related(&self, node: &str, asked: &ResourceAttributes<'_>, kind: Option<Kind>) -> Opinion {
        let ResourceAttributes { namespace, name, .. } = *asked;
        if name.is_empty() {
            return refuse("No Object name found");
        }
        let found = match kind {
            Some(Kind::Secret) => {
                self.graph.reaches(node, Kind::Secret, namespace, name)
                    || self.volumes_name_secret(node, namespace, name)
            }
            Some(kind) => self.graph.reaches(node, kind, namespace, name),
            None if asked.resource == "persistentvolumes" => {
                self.object("", asked.resource, name).is_some_and(|volume| self.claims(node, &volume))
            }
            None => self
                .object(asked.group, asked.resource, name)
                .is_some_and(|object| text(&object, &["spec", "nodeName"]) == node),
        };
        if found {
            return Opinion::Allow(String::new());
        }
        refuse(format!("no relationship found between node '{node}' and this object"))
    }

    /// A cluster-wide object, if its kind is served.
    fn object(&self, group: &str, plural: &str, name: &str) -> Option<Value> {
        self.cache.get(lookup(group, "v1", plural)?, "", name)?.value().ok()
    }

    /// Whether a pod of the node uses the volume's claim.
    fn claims(&self, node: &str, volume: &Value) -> bool {
        let claim = |field| text(volume, &["spec", "claimRef", field]);
        !claim("name").is_empty() && self.graph.reaches(node, Kind::Claim, claim("namespace"), claim("name"))
    }

    /// Whether a volume that a pod of the node uses names the Secret.
    fn volumes_name_secret(&self, node: &str, namespace: &str, name: &str) -> bool {
        let Some(volumes) = lookup("", "v1", "persistentvolumes").and_then(|row| self.cache.of(row)) else {
            return false;
        };
        volumes
            .list("", Bound::Unbounded)
            .objects
            .iter()
            .filter_map(|object| object.value().ok())
            .any(|volume| volume_secrets(&volume).contains(&(namespace, name)) && self.claims(node, &volume))
    }

    fn get(&self, node: &str, asked: &ResourceAttributes<'_>, kind: Option<Kind>) -> Opinion {
        if asked.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !asked.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, asked, kind)
    }

    fn read_namespaced(&self, node: &str, asked: &ResourceAttributes<'_>, kind: Kind) -> Opinion {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !asked.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if asked.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, asked, Some(kind))
    }

    fn account(&self, node: &str, asked: &ResourceAttributes<'_>) -> Opinion {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.related(node, asked, Some(Kind::ServiceAccount));
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if asked.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, asked, Some(Kind::ServiceAccount))
    }

    fn slices(&self, node: &str, asked: &ResourceAttributes<'_>) -> Opinion {
        if !asked.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match asked.verb {
            // Admission sees whether the new slice is the node's.
            "create" => Opinion::Allow(String::new()),
            "get" | "update" | "patch" | "delete" => self.related(node, asked, None),
            "watch" | "list" | "deletecollection" if selects(asked, "spec.nodeName", node) => {
                Opinion::Allow(String::new())
            }
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pods(&self, node: &str, asked: &ResourceAttributes<'_>) -> Opinion {
        match (asked.subresource, asked.verb) {
            ("", "get") => self.related(node, asked, Some(Kind::Pod)),
            ("", "list" | "watch") if selects(asked, "spec.nodeName", node) => Opinion::Allow(String::new()),
            ("", "list" | "watch") if !asked.name.is_empty() => self.related(node, asked, Some(Kind::Pod)),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // Admission sees whether the pod is the node's.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Opinion::Allow(String::new())
            }
            _ => refuse(""),
        }
    }
}

fn lease(node: &str, asked: &ResourceAttributes<'_>) -> Opinion {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != LEASES {
        return refuse(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of a new one is admission's matter.
    if asked.verb != "create" && asked.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Opinion::Allow(String::new())
}

fn csi_node(node: &str, asked: &ResourceAttributes<'_>) -> Opinion {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !asked.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if asked.verb != "create" && asked.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Opinion::Allow(String::new())
}

fn own_node(node: &str, asked: &ResourceAttributes<'_>) -> Opinion {
    match (asked.subresource, asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Opinion::Allow(String::new()),
        ("", "get" | "list" | "watch") => match asked.name {
            own if own == node => Opinion::Allow(String::new()),
            "" => refuse(format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => refuse(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => refuse(""),
    }
}

/// Whether a request for a collection asks for objects with this value of a field alone.
fn selects(asked: &ResourceAttributes<'_>, field: &str, value: &str) -> bool {
    FieldSelector::parse(asked.field_selector)
        .is_ok_and(|selector| selector.required_value(field) == Some(value))
}

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    get(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// Namespace and name of the Secrets that a node needs for a volume.
fn volume_secrets(volume: &Value) -> Vec<(&str, &str)> {
    const REFERENCES: &[&[&str]] = &[
        &["cephfs", "secretRef"],
        &["cinder", "secretRef"],
        &["csi", "nodeExpandSecretRef"],
        &["csi", "nodePublishSecretRef"],
        &["csi", "nodeStageSecretRef"],
        &["flexVolume", "secretRef"],
        &["iscsi", "secretRef"],
        &["rbd", "secretRef"],
        &["scaleIO", "secretRef"],
        &["storageos", "secretRef"],
    ];
    let spec = volume.get("spec").unwrap_or(&Value::Null);
    // Without a namespace of its own a reference is into the claim's.
    let claim = text(spec, &["claimRef", "namespace"]);
    let referred = |namespace, name| (if str::is_empty(namespace) { claim } else { namespace }, name);
    let mut found: Vec<(&str, &str)> = REFERENCES
        .iter()
        .filter_map(|path| get(spec, path))
        .map(|secret| referred(text(secret, &["namespace"]), text(secret, &["name"])))
        .collect();
    if let Some(share) = spec.get("azureFile") {
        found.push(referred(text(share, &["secretNamespace"]), text(share, &["secretName"])));
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked<'a>(
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> ResourceAttributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        ResourceAttributes { verb, group, resource, subresource, namespace, name, ..Default::default() }
    }

    fn node(name: &str) -> UserInfo {
        UserInfo { name: format!("system:node:{name}"), groups: vec![GROUP.into()], ..UserInfo::default() }
    }

    #[test]
    fn a_node_does_what_a_kubelet_does_with_its_own_objects() {
        let cache = Arc::new(Cache::new("/registry", 4));
        let pods = cache.of(lookup("", "v1", "pods").expect("pods")).expect("are stored");
        let pod = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"nodeName": "a", "serviceAccountName": "robot",
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}});
        pods.put("x/p", pod.to_string().as_bytes(), 2).expect("JSON");
        let authorizer = NodeAuthorizer::new(Arc::clone(&cache));
        let decide = |name: &str, asked| authorizer.decide(&node(name), &Attributes::Resource(asked));
        let of_node =
            |selector| ResourceAttributes { field_selector: selector, ..asked("watch", "", "pods", "", "") };
        let allowed = [
            asked("get", "", "secrets", "x", "s"),
            asked("watch", "", "secrets", "x", "s"),
            asked("create", "", "serviceaccounts/token", "x", "robot"),
            asked("get", "", "pods", "x", "p"),
            asked("get", "", "nodes", "", "a"),
            of_node("spec.nodeName=a"),
            asked("update", "coordination.k8s.io", "leases", LEASES, "a"),
        ];
        for asked in allowed {
            assert_eq!(decide("a", asked), Opinion::Allow(String::new()), "{asked:?}");
            assert!(matches!(decide("b", asked), Opinion::None(_)), "{asked:?}");
        }
        for asked in [
            asked("list", "", "services", "", ""),
            asked("patch", "", "nodes/status", "", "a"),
            asked("create", "", "events", "x", ""),
        ] {
            assert_eq!(decide("b", asked), Opinion::Allow(String::new()), "{asked:?}");
        }
        for (asked, reason) in [
            (asked("list", "", "secrets", "", ""), "can only read namespaced object of this type"),
            (asked("list", "", "secrets", "x", ""), "No Object name found"),
            (asked("delete", "", "secrets", "x", "s"), "can only read resources of this type"),
            (asked("get", "", "secrets", "x", "t"), "no relationship found between node 'a' and this object"),
            (asked("list", "", "nodes", "", ""), "node 'a' cannot read all nodes, only its own Node object"),
            (of_node("spec.nodeName!=a"), "can only list/watch pods with spec.nodeName field selector"),
            (asked("get", "", "nodes/proxy", "", "a"), ""),
            (asked("list", "apps", "deployments", "x", ""), ""),
        ] {
            assert_eq!(decide("a", asked), refuse(reason), "{asked:?}");
        }
        let nameless = UserInfo { groups: Vec::new(), ..node("a") };
        let list_services = Attributes::Resource(asked("list", "", "services", "", ""));
        assert_eq!(authorizer.decide(&nameless, &list_services), refuse(""), "the name alone");
        assert_eq!(
            authorizer.decide(&node(""), &list_services),
            refuse("unknown node for user \"system:node:\"")
        );
    }

    #[test]
    fn secrets_of_a_volume_lie_where_it_says_or_with_its_claim() {
        let volume = json!({"spec": {"claimRef": {"namespace": "x", "name": "c"}, "azureFile": {"secretName": "a"},
            "csi": {"nodePublishSecretRef": {"namespace": "y", "name": "b"}}}});
        assert_eq!(volume_secrets(&volume), [("y", "b"), ("x", "a")]);
    }
}
