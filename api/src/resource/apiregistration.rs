//! The resources of `apiregistration.k8s.io`.

use super::{NOTHING, READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "apiregistration.k8s.io";
const VERSION: &str = "apiregistration.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[Resource {
    namespaced: false,
    categories: &["api-extensions"],
    subresources: &[sub("status", GROUP, "v1", "APIService", READ_AND_WRITE)],
    storage_prefix: "apiregistration.k8s.io/apiservices",
    ..of_group(GROUP, VERSION, "APIService", "apiservices", "apiservice", NOTHING)
}];
