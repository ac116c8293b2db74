//! The resources of `autoscaling`: one kind in two versions over one store.

use super::{READ_AND_WRITE, Resource, Subresource, core, sub};

const fn autoscaler(version: &'static str, subresources: &'static [Subresource]) -> Resource {
    Resource {
        group: "autoscaling",
        version,
        categories: &["all"],
        subresources,
        storage_api_version: "autoscaling/v2",
        ..core(
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            &["hpa"],
            "horizontalpodautoscalers",
        )
    }
}

/// The preferred version first.
pub(super) const ROWS: &[Resource] = &[
    autoscaler("v2", &[sub("status", "autoscaling", "v2", "HorizontalPodAutoscaler", READ_AND_WRITE)]),
    autoscaler("v1", &[sub("status", "autoscaling", "v1", "HorizontalPodAutoscaler", READ_AND_WRITE)]),
];
