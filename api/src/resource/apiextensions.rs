//! Group `apiextensions.k8s.io`.

use super::{READ_AND_WRITE, Resource, core, sub};

pub(super) const ROWS: &[Resource] = &[Resource {
    group: "apiextensions.k8s.io",
    namespaced: false,
    subresources: &[sub("status", "apiextensions.k8s.io", "v1", "CustomResourceDefinition", READ_AND_WRITE)],
    categories: &["api-extensions"],
    storage_api_version: "apiextensions.k8s.io/v1",
    ..core(
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
        &["crd", "crds"],
        "apiextensions.k8s.io/customresourcedefinitions",
    )
}];
