//! How many pods a Job needs now: which to make and which to delete. Owns the numbers, never a call.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::pods::{completion_index, finished_at, index_failures_all};
use super::{Sync, as_i32, backoff, creation, is_suspended, only_replaces_failed};
use crate::pod_state::{is_finished, is_terminating};
use crate::replicaset::ranking::active_order;

/// At most this many pods are created or deleted in one look.
const BURST: usize = 500;

/// A pod to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPod {
    /// Its index, of an Indexed Job.
    pub index: Option<i32>,
    /// The pod as JSON.
    pub object: Value,
}

/// What to do about pods before counting.
#[derive(Clone, Debug, PartialEq)]
pub enum PodStep {
    /// Nothing.
    Nothing,
    /// Create these.
    Create(Vec<NewPod>),
    /// Delete these.
    Delete {
        /// The pods.
        pods: Vec<Arc<Pod>>,
        /// Whether they are counted as they go; those that are not lose their finalizer first.
        counted: bool,
    },
}

impl Sync<'_> {
    /// Deletions go first: in one look there are never both.
    pub(super) fn manage(&mut self) -> PodStep {
        let active = self.active_pods.len();
        if is_suspended(self.spec) {
            let pods = self.to_remove(active);
            return if pods.is_empty() { PodStep::Nothing } else { PodStep::Delete { pods, counted: false } };
        }
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.spec.completions {
            // Without a number of completions the first success lets the others run to their end.
            None if self.succeeded > 0 => as_i32(active),
            None => parallelism,
            Some(completions) => completions.saturating_sub(self.succeeded).min(parallelism).max(0),
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut surplus = self.to_remove(active.saturating_sub(wanted));
        surplus.truncate(BURST);
        if !surplus.is_empty() {
            return PodStep::Delete { pods: surplus, counted: false };
        }
        let leaving = if only_replaces_failed(self.job) { self.terminating } else { 0 };
        let missing = wanted.saturating_sub(leaving + active);
        if missing == 0 {
            return PodStep::Nothing;
        }
        self.create(missing.min(BURST))
    }

    fn create(&mut self, count: usize) -> PodStep {
        let per_index = self.per_index().is_some();
        let wait = if per_index { Duration::ZERO } else { self.backoff.remaining(self.now) };
        if !wait.is_zero() {
            self.look_again_after(wait);
            return PodStep::Nothing;
        }
        let new = if self.is_indexed() {
            let mut indexes = self.pending_indexes(count);
            if per_index {
                let wait = self.hold_back(&mut indexes);
                if let Some(wait) = wait {
                    self.look_again_after(wait);
                }
            }
            indexes.into_iter().map(|index| self.new_indexed(index)).collect()
        } else {
            let object = creation::pod(self.job, self.spec);
            vec![NewPod { index: None, object }; count]
        };
        if new.is_empty() { PodStep::Nothing } else { PodStep::Create(new) }
    }

    fn new_indexed(&self, index: i32) -> NewPod {
        let replaced = self.waiting_for_replacement.get(&index).map(|pod| &**pod);
        let object = creation::indexed_pod(self.job, self.spec, index, replaced);
        NewPod { index: Some(index), object }
    }

    /// The first indexes that are neither done nor being worked on.
    fn pending_indexes(&self, count: usize) -> Vec<i32> {
        let mut taken: Vec<i32> = self.active_pods.iter().filter_map(|pod| completion_index(pod)).collect();
        if crate::mutant!(IndexesGivenTwice) {
            taken.clear();
        }
        if only_replaces_failed(self.job) {
            let leaving = self.pods.iter().filter(|pod| is_terminating(pod) && !is_finished(pod));
            taken.extend(leaving.filter_map(|pod| completion_index(pod)));
        }
        let mut taken = self.succeeded_indexes.union(&super::Intervals::of(taken));
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        taken.first_missing(count, self.completions())
    }

    /// Takes out the indexes that still wait after a failure; the shortest wait.
    fn hold_back(&self, indexes: &mut Vec<i32>) -> Option<Duration> {
        let mut shortest: Option<Duration> = None;
        indexes.retain(|index| {
            let Some(failed) = self.waiting_for_replacement.get(index) else { return true };
            let failures = u32::try_from(index_failures_all(failed)).unwrap_or(0).saturating_add(1);
            let wait = backoff::remaining(failures, finished_at(failed), self.now);
            if !wait.is_zero() {
                shortest = Some(shortest.map_or(wait, |before| before.min(wait)));
            }
            wait.is_zero()
        });
        shortest
    }

    /// Active pods that are too many: at least `count`, and all with an index that is unknown, too high or taken twice.
    fn to_remove(&self, count: usize) -> Vec<Arc<Pod>> {
        let mut pods = self.active_pods.clone();
        pods.sort_by(|a, b| active_order(a, b));
        let mut removed = Vec::new();
        if self.is_indexed() {
            let mut seen = HashSet::new();
            // From the most advanced to the least, so that the one that stays is the most advanced.
            let mut left: Vec<_> = pods
                .into_iter()
                .rev()
                .filter_map(|pod| match self.valid_index(&pod) {
                    Some(index) if seen.insert(index) => Some(pod),
                    _ => {
                        removed.push(pod);
                        None
                    }
                })
                .collect();
            left.reverse();
            pods = left;
        }
        let more = count.saturating_sub(removed.len());
        removed.extend(pods.into_iter().take(more));
        removed
    }
}
