//! The resources of `discovery.k8s.io`.

use super::{NOTHING, Resource, core};

pub(super) const ROWS: &[Resource] = &[Resource {
    group: "discovery.k8s.io",
    storage_api_version: "discovery.k8s.io/v1",
    ..core("EndpointSlice", "endpointslices", "endpointslice", NOTHING, "endpointslices")
}];
