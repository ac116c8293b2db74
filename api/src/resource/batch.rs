//! The resources of `batch`.

use super::{READ_AND_WRITE, Resource, core, sub};

pub(super) const ROWS: &[Resource] = &[
    Resource {
        group: "batch",
        categories: &["all"],
        subresources: &[sub("status", "batch", "v1", "CronJob", READ_AND_WRITE)],
        storage_api_version: "batch/v1",
        ..core("CronJob", "cronjobs", "cronjob", &["cj"], "cronjobs")
    },
    Resource {
        group: "batch",
        categories: &["all"],
        subresources: &[sub("status", "batch", "v1", "Job", READ_AND_WRITE)],
        storage_api_version: "batch/v1",
        ..core("Job", "jobs", "job", &[], "jobs")
    },
];
