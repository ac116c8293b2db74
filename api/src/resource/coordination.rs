//! The resources of `coordination.k8s.io`.

use super::{NOTHING, Resource, core};

pub(super) const ROWS: &[Resource] = &[Resource {
    group: "coordination.k8s.io",
    storage_api_version: "coordination.k8s.io/v1",
    ..core("Lease", "leases", "lease", NOTHING, "leases")
}];
