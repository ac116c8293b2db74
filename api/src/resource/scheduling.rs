//! The resources of `scheduling.k8s.io`.

use super::{NOTHING, Resource, core, of_group};

const GROUP: &str = "scheduling.k8s.io";

pub(super) const ROWS: &[Resource] = &[
    Resource {
        group: GROUP,
        namespaced: false,
        storage_api_version: "scheduling.k8s.io/v1",
        ..core("PriorityClass", "priorityclasses", "priorityclass", &["pc"], "priorityclasses")
    },
    Resource {
        version: "v1alpha1",
        ..of_group(GROUP, "scheduling.k8s.io/v1alpha1", "Workload", "workloads", "workload", NOTHING)
    },
];
