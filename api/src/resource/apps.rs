//! The resources of `apps`.

use super::{READ_AND_WRITE, Resource, core, sub};

pub(super) const ROWS: &[Resource] = &[
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
];
