//! The resources of `policy`.

use super::{READ_AND_WRITE, Resource, core, sub};

pub(super) const ROWS: &[Resource] = &[Resource {
    group: "policy",
    subresources: &[sub("status", "policy", "v1", "PodDisruptionBudget", READ_AND_WRITE)],
    storage_api_version: "policy/v1",
    ..core(
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "poddisruptionbudget",
        &["pdb"],
        "poddisruptionbudgets",
    )
}];
