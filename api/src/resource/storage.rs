//! The resources of `storage.k8s.io`.

use super::{NOTHING, READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "storage.k8s.io";
const VERSION: &str = "storage.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[
    Resource {
        namespaced: false,
        ..of_group(GROUP, VERSION, "CSIDriver", "csidrivers", "csidriver", NOTHING)
    },
    Resource { namespaced: false, ..of_group(GROUP, VERSION, "CSINode", "csinodes", "csinode", NOTHING) },
    of_group(GROUP, VERSION, "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity", NOTHING),
    Resource {
        namespaced: false,
        ..of_group(GROUP, VERSION, "StorageClass", "storageclasses", "storageclass", &["sc"])
    },
    Resource {
        namespaced: false,
        subresources: &[sub("status", GROUP, "v1", "VolumeAttachment", READ_AND_WRITE)],
        ..of_group(GROUP, VERSION, "VolumeAttachment", "volumeattachments", "volumeattachment", NOTHING)
    },
    Resource {
        namespaced: false,
        ..of_group(
            GROUP,
            VERSION,
            "VolumeAttributesClass",
            "volumeattributesclasses",
            "volumeattributesclass",
            &["vac"],
        )
    },
];
