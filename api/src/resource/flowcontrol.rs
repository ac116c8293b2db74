//! The resources of `flowcontrol.apiserver.k8s.io`.

use super::{NOTHING, READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[
    Resource {
        namespaced: false,
        subresources: &[sub("status", GROUP, "v1", "FlowSchema", READ_AND_WRITE)],
        ..of_group(GROUP, VERSION, "FlowSchema", "flowschemas", "flowschema", NOTHING)
    },
    Resource {
        namespaced: false,
        subresources: &[sub("status", GROUP, "v1", "PriorityLevelConfiguration", READ_AND_WRITE)],
        ..of_group(
            GROUP,
            VERSION,
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
            "prioritylevelconfiguration",
            NOTHING,
        )
    },
];
