//! The resources of `node.k8s.io`.

use super::{NOTHING, Resource, of_group};

const GROUP: &str = "node.k8s.io";
const VERSION: &str = "node.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[Resource {
    namespaced: false,
    ..of_group(GROUP, VERSION, "RuntimeClass", "runtimeclasses", "runtimeclass", NOTHING)
}];
