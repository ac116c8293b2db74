//! What a StatefulSet reports: counts of its pods, and how far an update has come.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::Pod;

use super::{Look, replicas, revision_of};
use crate::object_meta::name;
use crate::pod_state::{available_at, is_terminating};

impl Look<'_> {
    pub(super) fn status(&self) -> StatefulSetStatus {
        let observed = self.observed;
        let before = observed.set.status.clone().unwrap_or_default();
        let count = |which: &dyn Fn(&Pod) -> bool| {
            i32::try_from(observed.pods.iter().filter(|pod| which(pod)).count()).unwrap_or(i32::MAX)
        };
        let (current, update) = (name(&observed.current.metadata), name(&observed.update.metadata));
        let of = |revision: &str| count(&|pod| !is_terminating(pod) && revision_of(pod) == revision);
        let (total, updated) = (count(&|_| true), of(update));
        let ready = count(&|pod| self.is_running_and_ready(pod));
        let available = count(&|pod| self.is_running_and_ready(pod) && self.is_available(pod));
        let mut current_replicas = (of(current) - self.updating).max(0);
        let mut current_revision = current;
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        let wanted = replicas(observed.set);
        if strategy != Some("OnDelete") && [updated, ready, total].iter().all(|count| *count == wanted) {
            // The update is complete.
            (current_replicas, current_revision) = (updated, update);
        }
        let positive = |count: i32| (count > 0).then_some(count);
        StatefulSetStatus {
            replicas: total,
            ready_replicas: positive(ready),
            available_replicas: Some(available),
            current_replicas: positive(current_replicas),
            updated_replicas: positive(updated),
            current_revision: Some(current_revision.to_owned()),
            update_revision: Some(update.to_owned()),
            observed_generation: observed.set.metadata.generation,
            collision_count: Some(before.collision_count.unwrap_or(0)),
            conditions: before.conditions,
        }
    }

    /// How long until the next ready pod becomes available.
    pub(super) fn next_available(&self) -> Option<Duration> {
        let min_ready = self.spec.min_ready_seconds.filter(|seconds| *seconds > 0)?;
        let times = self.observed.pods.iter().filter_map(|pod| available_at(pod, min_ready));
        let next = times.filter(|at| *at > self.observed.now).min()?;
        Duration::try_from(next.duration_since(self.observed.now)).ok()
    }
}
