//! The table of resources: what the API serves, under which names, with which verbs and subresources.
//!
//! One row a resource and version. The rows of custom resources come and go: [`Served`] is what there is at one moment. Never says how a kind
//! behaves: that is [`crate::kinds`] and the server's strategies.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod dynamic_resources;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod scheduling;
mod served;
mod storage;

use crate::custom::Definition;
use crate::status::{GroupKind, GroupResource};
pub use served::{Hidden, Served};

/// One resource in one version.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version, for example `v1`.
    pub version: &'static str,
    /// The kind of its objects.
    pub kind: &'static str,
    /// The name in URLs, for example `pods`.
    pub plural: &'static str,
    /// The name in the singular, for example `pod`.
    pub singular: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What `kubectl get` takes in place of the plural.
    pub short_names: &'static [&'static str],
    /// Groups of resources that it is part of (`all`).
    pub categories: &'static [&'static str],
    /// The verbs that discovery lists; most virtual resources have only `create`.
    pub verbs: &'static [&'static str],
    /// Its subresources.
    pub subresources: &'static [Subresource],
    /// The part of the store's key between `/registry/` and the namespace or name, as upstream lays it out; empty for a
    /// virtual resource, which stores nothing.
    pub storage_prefix: &'static str,
    /// The group whose version the stored object is written in, when another row shares the store (`events`).
    pub storage_api_version: &'static str,
    /// What a CustomResourceDefinition says of it; `None` for the kinds that are built in.
    pub custom: Option<&'static Definition>,
}

/// A subresource such as `status` or `scale`.
#[derive(Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The last segment of its URL.
    pub name: &'static str,
    /// The group of what it takes and gives.
    pub group: &'static str,
    /// The version of what it takes and gives.
    pub version: &'static str,
    /// The kind of what it takes and gives.
    pub kind: &'static str,
    /// The verbs that discovery lists.
    pub verbs: &'static [&'static str],
}

impl Resource {
    /// `deployments.apps`.
    pub fn group_resource(&self) -> GroupResource<'static> {
        GroupResource { group: self.group, resource: self.plural }
    }

    /// `Deployment.apps`.
    pub fn group_kind(&self) -> GroupKind<'static> {
        GroupKind { group: self.group, kind: self.kind }
    }

    /// The `apiVersion` of its objects: `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        crate::meta::join_api_version(self.group, self.version)
    }

    /// The kind of its lists.
    pub fn list_kind(&self) -> String {
        self.custom.map_or_else(|| format!("{}List", self.kind), |custom| custom.list_kind.clone())
    }

    /// Whether it has objects in the store.
    pub fn is_stored(&self) -> bool {
        !self.storage_prefix.is_empty()
    }

    /// The subresource `name`.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether discovery lists `verb`.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const READ: &[&str] = &["get", "list"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const READ_AND_WRITE: &[&str] = &["get", "patch", "update"];
const NOTHING: &[&str] = &[];

const fn sub(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, group, version, kind, verbs }
}

const fn core(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    storage_prefix: &'static str,
) -> Resource {
    Resource {
        group: "",
        version: "v1",
        kind,
        plural,
        singular,
        namespaced: true,
        short_names,
        categories: NOTHING,
        verbs: ALL_VERBS,
        subresources: &[],
        storage_prefix,
        storage_api_version: "v1",
        custom: None,
    }
}

/// A stored kind of a group that is kept under its plural, as most are.
const fn of_group(
    group: &'static str,
    storage_api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
) -> Resource {
    Resource { group, storage_api_version, ..core(kind, plural, singular, short_names, plural) }
}

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Resource {
    Resource {
        group,
        namespaced: false,
        verbs: CREATE,
        storage_api_version: "",
        ..core(kind, plural, singular, NOTHING, "")
    }
}

/// One list a group, in discovery's order.
const GROUPS: &[&[Resource]] = &[
    core::ROWS,
    admissionregistration::ROWS,
    apiextensions::ROWS,
    apiregistration::ROWS,
    apps::ROWS,
    authentication::ROWS,
    authorization::ROWS,
    autoscaling::ROWS,
    batch::ROWS,
    certificates::ROWS,
    coordination::ROWS,
    discovery::ROWS,
    events::ROWS,
    policy::ROWS,
    rbac::ROWS,
    flowcontrol::ROWS,
    networking::ROWS,
    node::ROWS,
    dynamic_resources::ROWS,
    scheduling::ROWS,
    storage::ROWS,
];

/// Every resource, grouped by API group and version, in discovery's order.
pub fn table() -> impl Iterator<Item = &'static Resource> {
    GROUPS.iter().copied().flatten()
}

/// The resource at a URL's group, version and plural.
pub fn lookup(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    table().find(|row| row.plural == plural && row.group == group && row.version == version)
}

/// The resource whose objects have this group, version and kind.
pub fn lookup_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    table().find(|row| row.kind == kind && row.group == group && row.version == version)
}

/// Every group with a resource and its versions, the core group (empty name) first, a group's preferred version first.
pub fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups: Vec<(&'static str, &'static str)> = Vec::new();
    for row in table() {
        if !groups.contains(&(row.group, row.version)) {
            groups.push((row.group, row.version));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_url_and_by_kind() {
        let deployments = lookup("apps", "v1", "deployments").expect("deployments are served");
        assert_eq!(deployments.api_version(), "apps/v1");
        assert_eq!(deployments.group_resource().to_string(), "deployments.apps");
        assert_eq!(deployments.subresource("scale").map(|scale| scale.group), Some("autoscaling"));
        assert_eq!(lookup_kind("", "v1", "Pod").map(|row| row.plural), Some("pods"));
        assert!(lookup("apps", "v1beta1", "deployments").is_none());
    }

    #[test]
    fn no_two_rows_share_a_url_and_only_versions_of_a_kind_share_a_store() {
        for (index, row) in table().enumerate() {
            for other in table().skip(index + 1) {
                assert!((row.group, row.version, row.plural) != (other.group, other.version, other.plural));
                if row.is_stored() && row.storage_prefix == other.storage_prefix {
                    assert_eq!((row.plural, row.kind), (other.plural, other.kind));
                }
            }
        }
        assert_eq!(groups()[0], ("", "v1"));
    }
}
