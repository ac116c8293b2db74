//! The resources of `events.k8s.io`.

use super::{Resource, core};

pub(super) const ROWS: &[Resource] =
    &[Resource { group: "events.k8s.io", ..core("Event", "events", "event", &["ev"], "events") }];
