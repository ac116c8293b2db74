//! The roles and bindings that every cluster has: upstream's policy at level v1.35, as data. Writing them is
//! `bootstrap`'s matter.

mod components;
mod controllers;
mod namespaced;
mod users;

use component_base::feature_gates::FeatureGates;
use serde_json::{Map, Value, json};

use super::rule::PolicyRule;

pub use components::node_rules;

/// The annotation that, set to `false`, keeps an object from being brought back to what it was by default.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
const API_GROUP: &str = "rbac.authorization.k8s.io";
const SYSTEM_NAMESPACE: &str = "kube-system";

const CORE: &[&str] = &[""];
const APPS: &[&str] = &["apps"];
const AUTHENTICATION: &[&str] = &["authentication.k8s.io"];
const AUTHORIZATION: &[&str] = &["authorization.k8s.io"];
const AUTOSCALING: &[&str] = &["autoscaling"];
const BATCH: &[&str] = &["batch"];
const CERTIFICATES: &[&str] = &["certificates.k8s.io"];
const COORDINATION: &[&str] = &["coordination.k8s.io"];
const DISCOVERY: &[&str] = &["discovery.k8s.io"];
const EVERY: &[&str] = &["*"];
const EXTENSIONS: &[&str] = &["extensions"];
const APPS_AND_EXTENSIONS: &[&str] = &["apps", "extensions"];
const NETWORKING: &[&str] = &["networking.k8s.io"];
const POLICY: &[&str] = &["policy"];
const RBAC: &[&str] = &[API_GROUP];
const RESOURCE: &[&str] = &["resource.k8s.io"];
const SCHEDULING: &[&str] = &["scheduling.k8s.io"];
const STORAGE: &[&str] = &["storage.k8s.io"];

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";

/// Who has a role.
#[derive(Clone, Copy, Debug)]
enum Subject {
    User(&'static str),
    Group(&'static str),
    /// In `kube-system`.
    ServiceAccount(&'static str),
}

/// One of the default objects.
#[derive(Debug)]
pub struct DefaultObject {
    /// Its resource.
    pub plural: &'static str,
    /// Its namespace, if it has one.
    pub namespace: Option<&'static str>,
    /// The object, `apiVersion` and `kind` included.
    pub object: Value,
}

/// A role under construction.
struct Role {
    name: String,
    /// The aggregated role that this one goes into.
    aggregate_to: Option<&'static str>,
    content: Content,
}

enum Content {
    Rules(Vec<PolicyRule>),
    /// The rules of all roles labelled for this one.
    Aggregated,
}

fn role(name: &str, rules: Vec<PolicyRule>) -> Role {
    Role { name: name.to_owned(), aggregate_to: None, content: Content::Rules(rules) }
}

/// A binding under construction.
struct Binding {
    name: String,
    role: String,
    subjects: Vec<Subject>,
}

/// A binding of the role that it is named after.
fn binding(name: &str, subjects: &[Subject]) -> Binding {
    Binding { name: name.to_owned(), role: name.to_owned(), subjects: subjects.to_vec() }
}

/// The words of a text, sorted, as upstream has them.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    words.sort();
    words
}

/// A rule about resources.
fn on(verbs: &str, groups: &[&str], resources: &str) -> PolicyRule {
    let mut api_groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    api_groups.sort();
    PolicyRule { verbs: words(verbs), api_groups, resources: words(resources), ..PolicyRule::default() }
}

/// A rule about objects by name.
fn named(verbs: &str, groups: &[&str], resources: &str, names: &str) -> PolicyRule {
    PolicyRule { resource_names: words(names), ..on(verbs, groups, resources) }
}

/// A rule about reading paths that are no resources.
fn urls(urls: &str) -> PolicyRule {
    PolicyRule { verbs: words("get"), non_resource_urls: words(urls), ..PolicyRule::default() }
}

/// Reporting events.
fn events() -> PolicyRule {
    on("create update patch", &["", "events.k8s.io"], "events")
}

/// All default objects: cluster-wide roles and bindings first.
pub fn all(gates: &FeatureGates) -> Vec<DefaultObject> {
    let (controllers, controller_bindings) = controllers::all();
    let cluster_roles = users::roles().into_iter().chain(components::roles(gates)).chain(controllers);
    let cluster_bindings =
        users::bindings().into_iter().chain(components::bindings()).chain(controller_bindings);
    let mut objects: Vec<DefaultObject> =
        cluster_roles.map(|role| role_object("clusterroles", "ClusterRole", None, role)).collect();
    objects.extend(
        cluster_bindings
            .map(|binding| binding_object("clusterrolebindings", "ClusterRoleBinding", None, binding)),
    );
    for (namespace, roles, bindings) in namespaced::all() {
        let namespace = Some(namespace);
        objects.extend(roles.into_iter().map(|role| role_object("roles", "Role", namespace, role)));
        objects.extend(
            bindings
                .into_iter()
                .map(|binding| binding_object("rolebindings", "RoleBinding", namespace, binding)),
        );
    }
    objects
}

fn metadata(name: &str, namespace: Option<&str>, aggregate_to: Option<&str>) -> Value {
    let mut labels = Map::from_iter([(LABEL.0.to_owned(), Value::from(LABEL.1))]);
    if let Some(role) = aggregate_to {
        labels.insert(aggregation_label(role), "true".into());
    }
    let mut metadata = json!({"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn aggregation_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

fn role_object(
    plural: &'static str,
    kind: &str,
    namespace: Option<&'static str>,
    role: Role,
) -> DefaultObject {
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(&role.name, namespace, role.aggregate_to),
    });
    match role.content {
        Content::Rules(rules) => object["rules"] = json!(rules),
        Content::Aggregated => {
            let label = aggregation_label(&role.name);
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
    }
    DefaultObject { plural, namespace, object }
}

fn binding_object(
    plural: &'static str,
    kind: &str,
    namespace: Option<&'static str>,
    binding: Binding,
) -> DefaultObject {
    let subjects: Vec<Value> = binding
        .subjects
        .iter()
        .map(|subject| match subject {
            Subject::User(name) => json!({"apiGroup": API_GROUP, "kind": "User", "name": name}),
            Subject::Group(name) => json!({"apiGroup": API_GROUP, "kind": "Group", "name": name}),
            Subject::ServiceAccount(name) => {
                json!({"kind": "ServiceAccount", "name": name, "namespace": SYSTEM_NAMESPACE})
            }
        })
        .collect();
    let role_kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(&binding.name, namespace, None),
        "roleRef": {"apiGroup": API_GROUP, "kind": role_kind, "name": binding.role},
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    DefaultObject { plural, namespace, object }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use coracle_api::kinds::rbac;
    use coracle_api::resource;

    use super::*;

    #[test]
    fn every_default_object_is_valid_and_every_binding_finds_its_role() {
        let objects = all(&FeatureGates::default());
        let name = |object: &DefaultObject| object.object["metadata"]["name"].as_str().map(str::to_owned);
        let keys: HashSet<_> =
            objects.iter().map(|object| (object.plural, object.namespace, name(object))).collect();
        assert_eq!(keys.len(), objects.len(), "no two have one name");
        assert!(objects.len() > 100);
        for default in &objects {
            let row = resource::lookup(API_GROUP, "v1", default.plural).expect("is served");
            assert_eq!(
                (default.object["kind"].as_str(), row.namespaced),
                (Some(row.kind), default.namespace.is_some())
            );
            let errors = match default.plural {
                "roles" => rbac::validate_role(&default.object),
                "clusterroles" => rbac::validate_cluster_role(&default.object),
                "rolebindings" => rbac::validate_role_binding(&default.object),
                _ => rbac::validate_cluster_role_binding(&default.object),
            };
            assert_eq!(errors, [], "{:?}", name(default));
            if let Some(role) = default.object["roleRef"]["name"].as_str() {
                let plural = if default.namespace.is_some() { "roles" } else { "clusterroles" };
                assert!(keys.contains(&(plural, default.namespace, Some(role.to_owned()))), "{role}");
            }
        }
    }

    #[test]
    fn rules_are_sorted_as_upstream_writes_them() {
        let edit = all(&FeatureGates::default())
            .into_iter()
            .find(|default| default.object["metadata"]["name"] == "system:aggregate-to-edit");
        let edit = edit.expect("there is one").object;
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        assert_eq!(
            edit["rules"][0],
            json!({"apiGroups": [""], "verbs": ["get", "list", "watch"],
                "resources": ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]})
        );
    }
}
