//! The resources of `apps`.

use super::{NOTHING, READ_AND_WRITE, Resource, core, sub};

pub(super) const ROWS: &[Resource] = &[
    Resource {
        group: "apps",
        storage_api_version: "apps/v1",
        ..core(
            "ControllerRevision",
            "controllerrevisions",
            "controllerrevision",
            NOTHING,
            "controllerrevisions",
        )
    },
    Resource {
        group: "apps",
        categories: &["all"],
        subresources: &[sub("status", "apps", "v1", "DaemonSet", READ_AND_WRITE)],
        storage_api_version: "apps/v1",
        ..core("DaemonSet", "daemonsets", "daemonset", &["ds"], "daemonsets")
    },
    Resource {
        group: "apps",
        categories: &["all"],
        subresources: &[
            sub("scale", "autoscaling", "v1", "Scale", READ_AND_WRITE),
            sub("status", "apps", "v1", "Deployment", READ_AND_WRITE),
        ],
        storage_api_version: "apps/v1",
        ..core("Deployment", "deployments", "deployment", &["deploy"], "deployments")
    },
    Resource {
        group: "apps",
        categories: &["all"],
        subresources: &[
            sub("scale", "autoscaling", "v1", "Scale", READ_AND_WRITE),
            sub("status", "apps", "v1", "ReplicaSet", READ_AND_WRITE),
        ],
        storage_api_version: "apps/v1",
        ..core("ReplicaSet", "replicasets", "replicaset", &["rs"], "replicasets")
    },
    Resource {
        group: "apps",
        categories: &["all"],
        subresources: &[
            sub("scale", "autoscaling", "v1", "Scale", READ_AND_WRITE),
            sub("status", "apps", "v1", "StatefulSet", READ_AND_WRITE),
        ],
        storage_api_version: "apps/v1",
        ..core("StatefulSet", "statefulsets", "statefulset", &["sts"], "statefulsets")
    },
];
