//! A change of size outside a rollout step: the one active ReplicaSet takes it; in mid-rollout all active ones take their share.

use super::{MAX_REPLICAS, Sync, numbers};
use crate::object_meta::{annotation, created, name};

impl Sync<'_> {
    pub(super) fn scale(&mut self) {
        let wanted = self.wanted();
        let active = self.sets.active_indexes();
        let only = match active.as_slice() {
            [] => self.sets.new_index().or_else(|| self.sets.latest_index()),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(index) = only {
            self.resize(index, wanted);
            return;
        }
        if active.is_empty() {
            return;
        }
        if self.is_saturated() {
            for index in self.sets.old_active_indexes() {
                self.resize(index, 0);
            }
        } else if !numbers::is_recreate(self.spec) {
            self.scale_in_proportion(active);
        }
    }

    /// Whether the new ReplicaSet has all the pods it was to have and they are available.
    fn is_saturated(&self) -> bool {
        self.sets.new_set().is_some_and(|set| {
            let desired =
                annotation(&set.object.metadata, super::DESIRED_REPLICAS).and_then(|n| n.parse().ok());
            set.replicas() == self.wanted()
                && desired == Some(self.wanted())
                && set.available() == self.wanted()
        })
    }

    fn scale_in_proportion(&mut self, mut indexes: Vec<usize>) {
        let wanted = self.wanted();
        let most = if wanted > 0 { wanted.saturating_add(numbers::max_surge(self.spec)) } else { 0 };
        let to_add = most - self.sets.replicas();
        // Largest first; of equal ones the newer grows first and the older shrinks first.
        indexes.sort_by(|a, b| {
            let (a, b) = (self.sets.at(*a), self.sets.at(*b));
            let by_age = created(&a.object.metadata)
                .cmp(&created(&b.object.metadata))
                .then_with(|| name(&a.object.metadata).cmp(name(&b.object.metadata)));
            let by_age = if to_add > 0 { by_age.reverse() } else { by_age };
            b.replicas().cmp(&a.replicas()).then(by_age)
        });
        let mut sizes = Vec::with_capacity(indexes.len());
        let mut added = 0;
        for index in indexes {
            let share = if to_add == 0 { 0 } else { self.share(index, to_add, added) };
            added += share;
            sizes.push((index, self.sets.at(index).replicas() + share));
        }
        if let Some((_, largest)) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (index, size) in sizes {
            self.resize(index, size);
        }
    }

    /// How much of the change one ReplicaSet takes.
    fn share(&self, index: usize, to_add: i32, added: i32) -> i32 {
        let set = self.sets.at(index);
        let allowed = to_add - added;
        if set.replicas() == 0 || allowed == 0 {
            return 0;
        }
        let fraction = if self.wanted() == 0 {
            -set.replicas()
        } else {
            let after = self.wanted().saturating_add(numbers::max_surge(self.spec));
            let noted = annotation(&set.object.metadata, MAX_REPLICAS).and_then(|n| n.parse::<i32>().ok());
            let reported = self.deployment.status.as_ref().and_then(|status| status.replicas);
            let before = noted.or(reported).filter(|before| *before > 0).unwrap_or(after);
            let size = f64::from(set.replicas()) * f64::from(after) / f64::from(before);
            // The cast saturates, and sizes are small positive numbers.
            size.round() as i32 - set.replicas()
        };
        if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
    }
}
