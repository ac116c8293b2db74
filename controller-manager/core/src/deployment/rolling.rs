//! One step of a rolling update: grow the new ReplicaSet within the surge, shrink old ones as far as availability allows.

use k8s_openapi::api::apps::v1::DeploymentSpec;

use super::{Sync, numbers};

/// How large the new ReplicaSet may be now, given all pods asked for at present and those of the new set among them.
pub fn new_set_replicas(spec: &DeploymentSpec, all: i32, new: i32) -> i32 {
    let wanted = spec.replicas.unwrap_or(1);
    if numbers::is_recreate(spec) {
        return wanted;
    }
    let most = wanted.saturating_add(numbers::max_surge(spec));
    if all >= most { new } else { new + (most - all).min(wanted - new) }
}

impl Sync<'_> {
    pub(super) fn rollout_rolling(&mut self) {
        self.sync_revision(true);
        if self.reconcile_new() || self.reconcile_old() {
            return;
        }
        if self.status.is_complete(self.deployment) {
            self.cleanup();
        }
    }

    fn reconcile_new(&mut self) -> bool {
        let Some(index) = self.sets.new_index() else { return false };
        let (current, wanted) = (self.sets.at(index).replicas(), self.wanted());
        let size = match current.cmp(&wanted) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => wanted,
            std::cmp::Ordering::Less => new_set_replicas(self.spec, self.sets.replicas(), current),
        };
        size != current && self.resize(index, size)
    }

    fn reconcile_old(&mut self) -> bool {
        let least = self.wanted() - numbers::max_unavailable(self.spec);
        let new_unavailable = self.sets.new_set().map_or(0, |set| set.replicas() - set.lasting());
        let removable = self.sets.replicas() - least - new_unavailable;
        if self.sets.old_active_indexes().is_empty() || removable <= 0 {
            return false;
        }
        let unhealthy = self.shrink_unhealthy(removable);
        let healthy = self.shrink_healthy(least);
        unhealthy + healthy > 0
    }

    /// Pods that are not available go first: they add nothing to availability.
    fn shrink_unhealthy(&mut self, most: i32) -> i32 {
        let mut removed = 0;
        for index in self.sets.old_active_indexes() {
            if removed >= most {
                break;
            }
            let (replicas, available) = (self.sets.at(index).replicas(), self.sets.at(index).lasting());
            let count = (most - removed).min(replicas - available);
            if count > 0 && self.resize(index, replicas - count) {
                removed += count;
            }
        }
        removed
    }

    fn shrink_healthy(&mut self, least_available: i32) -> i32 {
        let spare = self.sets.lasting() - least_available;
        let mut removed = 0;
        for index in self.sets.old_active_indexes() {
            if removed >= spare {
                break;
            }
            let replicas = self.sets.at(index).replicas();
            let count = replicas.min(spare - removed);
            if count > 0 && self.resize(index, replicas - count) {
                removed += count;
            }
        }
        removed
    }
}
