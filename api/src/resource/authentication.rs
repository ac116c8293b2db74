//! The resources of `authentication.k8s.io`.

use super::{Resource, review};

pub(super) const ROWS: &[Resource] = &[
    review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview"),
    review("authentication.k8s.io", "TokenReview", "tokenreviews", "tokenreview"),
];
