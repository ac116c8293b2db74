//! The resources of `scheduling.k8s.io`.

use super::{Resource, core};

pub(super) const ROWS: &[Resource] = &[Resource {
    group: "scheduling.k8s.io",
    namespaced: false,
    storage_api_version: "scheduling.k8s.io/v1",
    ..core("PriorityClass", "priorityclasses", "priorityclass", &["pc"], "priorityclasses")
}];
