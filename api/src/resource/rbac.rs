//! The resources of `rbac.authorization.k8s.io`.

use super::{NOTHING, Resource, core};

const GROUP: &str = "rbac.authorization.k8s.io";

const fn row(kind: &'static str, plural: &'static str, singular: &'static str, namespaced: bool) -> Resource {
    Resource {
        group: GROUP,
        namespaced,
        storage_api_version: "rbac.authorization.k8s.io/v1",
        ..core(kind, plural, singular, NOTHING, plural)
    }
}

pub(super) const ROWS: &[Resource] = &[
    row("ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", false),
    row("ClusterRole", "clusterroles", "clusterrole", false),
    row("RoleBinding", "rolebindings", "rolebinding", true),
    row("Role", "roles", "role", true),
];
