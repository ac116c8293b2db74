//! The resources of `resource.k8s.io`.

use super::{NOTHING, READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "resource.k8s.io";
const VERSION: &str = "resource.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[
    Resource {
        namespaced: false,
        ..of_group(GROUP, VERSION, "DeviceClass", "deviceclasses", "deviceclass", NOTHING)
    },
    Resource {
        subresources: &[sub("status", GROUP, "v1", "ResourceClaim", READ_AND_WRITE)],
        ..of_group(GROUP, VERSION, "ResourceClaim", "resourceclaims", "resourceclaim", NOTHING)
    },
    of_group(
        GROUP,
        VERSION,
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        "resourceclaimtemplate",
        NOTHING,
    ),
    Resource {
        namespaced: false,
        ..of_group(GROUP, VERSION, "ResourceSlice", "resourceslices", "resourceslice", NOTHING)
    },
];
