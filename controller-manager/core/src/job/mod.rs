//! The Job controller. One look at a Job goes through stages, between which the caller acts, because what becomes of each
//! decides the next: [`begin`] finds out where the Job stands and which pods to make or delete ([`scaling`], [`creation`]);
//! [`Sync::count`] notes ended pods in `status.uncountedTerminatedPods` and says which may lose their finalizer;
//! [`Sync::finish`] counts those and ends the Job ([`tracking`]). A pod is counted once whatever happens in between: it is
//! noted by uid before its finalizer goes, and its uid leaves the note in the same write that counts it.

pub mod backoff;
pub mod conditions;
mod creation;
pub mod failure_policy;
pub mod indexes;
pub mod pods;
mod scaling;
pub mod success_policy;
mod tracking;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::object_meta::{seconds, uid};
use crate::pod_state::{is_active, is_finished, is_ready, is_terminating};
use backoff::Backoff;
use failure_policy::{Verdict, verdict};
use indexes::Intervals;
use pods::{
    completion_index, finished_at, index_failures, index_failures_all, is_failed, is_succeeded, is_tracked,
};
pub use scaling::{NewPod, PodStep};
pub use tracking::{Counting, is_orphaned};

/// The finalizer by which a pod stays until it is counted.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with a pod's index.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation with the failures of a pod's index that count.
pub const INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation with the failures of a pod's index that do not count.
pub const INDEX_IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// `spec.managedBy` of Jobs that this controller looks after.
pub const CONTROLLER_NAME: &str = "kubernetes.io/job-controller";

/// What one look at a Job starts from.
pub struct Observed<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Its pods, ended and terminating ones among them.
    pub pods: Vec<Arc<Pod>>,
    /// Whether all creations and deletions asked for have been seen.
    pub satisfied: bool,
    /// Uids of pods whose finalizer has been removed, which the watch does not show yet.
    pub removing: HashSet<String>,
    /// Failures in a row before this look.
    pub backoff: Backoff,
    /// The time.
    pub now: Timestamp,
}

/// Something to tell people about the Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it may need attention.
    pub warning: bool,
    /// The reason in CamelCase.
    pub reason: String,
    /// The text.
    pub message: String,
}

/// What was done about a [`PodStep`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Pods created.
    pub created: usize,
    /// Pods deleted, or found to be gone.
    pub deleted: usize,
    /// Those of the deleted that were ready.
    pub deleted_ready: usize,
}

/// One look at a Job, in progress.
pub struct Sync<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    now: Timestamp,
    status: JobStatus,
    pods: Vec<Arc<Pod>>,
    active_pods: Vec<Arc<Pod>>,
    satisfied: bool,
    removing: HashSet<String>,
    uncounted_succeeded: HashSet<String>,
    uncounted_failed: HashSet<String>,
    active: usize,
    ready: usize,
    terminating: usize,
    succeeded: i32,
    previously_succeeded: Intervals,
    succeeded_indexes: Intervals,
    failed_indexes: Option<Intervals>,
    /// The last failed pod of each index that waits for its replacement, which takes over its failure count.
    waiting_for_replacement: BTreeMap<i32, Arc<Pod>>,
    finished: Option<JobCondition>,
    backoff: Backoff,
    step: PodStep,
    managed: bool,
    with_finalizer: HashSet<String>,
    at_capacity: bool,
    notices: Vec<Notice>,
    requeue_after: Option<Duration>,
}

/// Whether the Job asks for completion indexes.
pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether the Job is looked after by this controller.
pub fn is_ours(job: &Job) -> bool {
    let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    managed_by.is_none_or(|name| name == CONTROLLER_NAME)
}

/// Whether a pod is replaced only when it has failed, not as soon as it is being deleted.
pub fn only_replaces_failed(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
    })
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend.unwrap_or(false)
}

fn as_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Finds out where the Job stands. `None` if it has ended or is somebody else's.
pub fn begin(observed: Observed<'_>) -> Option<Sync<'_>> {
    let Observed { job, mut pods, satisfied, removing, backoff, now } = observed;
    let spec = job.spec.as_ref()?;
    if conditions::finished(job).is_some() || !is_ours(job) {
        return None;
    }
    // Indexes are introduced in order.
    pods.sort_by(|a, b| {
        let order = |pod: &Pod| (completion_index(pod), finished_at(pod), uid(&pod.metadata).to_owned());
        order(a).cmp(&order(b))
    });
    let mut status = job.status.clone().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default().clone();
    let active_pods: Vec<_> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let mut sync = Sync {
        job,
        spec,
        now,
        active: active_pods.len(),
        ready: active_pods.iter().filter(|pod| is_ready(pod)).count(),
        terminating: pods.iter().filter(|pod| is_terminating(pod) && !is_finished(pod)).count(),
        active_pods,
        pods,
        satisfied,
        removing,
        uncounted_succeeded: uncounted.succeeded.into_iter().flatten().collect(),
        uncounted_failed: uncounted.failed.into_iter().flatten().collect(),
        succeeded: 0,
        previously_succeeded: Intervals::default(),
        succeeded_indexes: Intervals::default(),
        failed_indexes: None,
        waiting_for_replacement: BTreeMap::new(),
        finished: None,
        backoff,
        step: PodStep::Nothing,
        managed: false,
        with_finalizer: HashSet::new(),
        at_capacity: false,
        notices: Vec::new(),
        requeue_after: None,
        status,
    };
    sync.look();
    Some(sync)
}

impl Sync<'_> {
    fn is_indexed(&self) -> bool {
        is_indexed(self.spec)
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    fn per_index(&self) -> Option<i32> {
        self.spec.backoff_limit_per_index.filter(|_| self.is_indexed())
    }

    /// The pod's index if it is one of this Job's.
    fn valid_index(&self, pod: &Pod) -> Option<i32> {
        completion_index(pod).filter(|index| *index < self.completions())
    }

    fn is_failed(&self, pod: &Pod) -> bool {
        is_failed(self.job, pod)
    }

    fn verdict(&self, pod: &Pod) -> Verdict {
        verdict(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Whether the pod still has its finalizer as far as we know, so that it is not counted yet.
    fn is_uncounted(&self, pod: &Pod) -> bool {
        is_tracked(pod) && (crate::mutant!(CountsTwice) || !self.removing.contains(uid(&pod.metadata)))
    }

    fn matches_index(&self, pod: &Pod) -> bool {
        !self.is_indexed() || self.valid_index(pod).is_some()
    }

    fn newly(&self, noted: &HashSet<String>, ended: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let new = |pod: &&Arc<Pod>| {
            self.is_uncounted(pod)
                && !noted.contains(uid(&pod.metadata))
                && self.matches_index(pod)
                && ended(pod)
        };
        self.pods.iter().filter(new).cloned().collect()
    }

    fn look_again_after(&mut self, wait: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(wait, |before| before.min(wait)));
    }

    fn look(&mut self) {
        let succeeded = self.newly(&self.uncounted_succeeded, is_succeeded);
        let failed = self.newly(&self.uncounted_failed, |pod| self.is_failed(pod));
        let counting = failed.iter().filter(|pod| self.verdict(pod).counts()).count();
        self.succeeded =
            self.status.succeeded.unwrap_or(0) + as_i32(succeeded.len() + self.uncounted_succeeded.len());
        let failures = self.status.failed.unwrap_or(0) + as_i32(counting + self.uncounted_failed.len());
        self.backoff = self.backoff.after(&succeeded, &failed);
        if self.status.start_time.is_none() && !is_suspended(self.spec) {
            self.status.start_time = Some(seconds(self.now));
        }
        self.finished = self.decided().or_else(|| self.past_limits(failures));
        if self.is_indexed() {
            self.look_at_indexes();
        }
        if self.finished.is_some() {
            self.step = PodStep::Delete { pods: self.active_pods.clone(), counted: true };
        } else if self.satisfied && self.job.metadata.deletion_timestamp.is_none() {
            self.managed = true;
            self.step = self.manage();
        }
    }

    /// What an earlier look or the pod failure policy has decided.
    fn decided(&self) -> Option<JobCondition> {
        let before = self.status.conditions.as_ref();
        if let Some(met) = conditions::find_true(before, conditions::SUCCESS_CRITERIA_MET) {
            return Some(met.clone());
        }
        if let Some(target) = conditions::find_true(before, conditions::FAILURE_TARGET) {
            return Some(self.failed_for(target));
        }
        self.spec.pod_failure_policy.as_ref()?;
        self.pods.iter().filter(|pod| self.is_failed(pod)).find_map(|pod| match self.verdict(pod) {
            Verdict::FailJob(message) => {
                Some(conditions::new(conditions::FAILURE_TARGET, "PodFailurePolicy", &message, self.now))
            }
            _ => None,
        })
    }

    fn failed_for(&self, target: &JobCondition) -> JobCondition {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        conditions::new(conditions::FAILED, &text(&target.reason), &text(&target.message), self.now)
    }

    fn failure(&self, reason: &str, message: &str) -> Option<JobCondition> {
        Some(conditions::new(conditions::FAILURE_TARGET, reason, message, self.now))
    }

    /// Whether retries or time are used up; when the time will be.
    fn past_limits(&mut self, failures: i32) -> Option<JobCondition> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if failures > limit || self.restarted_too_often(limit) {
            return self.failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let allowed = SignedDuration::from_secs(self.spec.active_deadline_seconds?);
        let start = self.status.start_time.as_ref()?.0;
        if is_suspended(self.spec) {
            return None;
        }
        let left = allowed.saturating_sub(self.now.duration_since(start));
        if left <= SignedDuration::ZERO {
            return self.failure("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        self.look_again_after(Duration::try_from(left).unwrap_or_default());
        None
    }

    /// With `restartPolicy: OnFailure` the restarts of containers are the retries.
    fn restarted_too_often(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let restarts: i32 =
            self.pods.iter().filter(|pod| !is_finished(pod)).map(|pod| pods::restarts(pod)).sum();
        policy == Some("OnFailure") && if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn look_at_indexes(&mut self) {
        let completions = self.completions();
        let of = |text: &Option<String>| Intervals::parse(text.as_deref().unwrap_or_default(), completions);
        self.previously_succeeded = of(&self.status.completed_indexes);
        let new = self.tracked_indexes(is_succeeded);
        self.succeeded_indexes = self.previously_succeeded.union(&new);
        self.succeeded = self.succeeded_indexes.total();
        if let Some(limit) = self.per_index() {
            let new = self.tracked_indexes(|pod| self.fails_index(pod, limit));
            let failed = of(&self.status.failed_indexes).union(&new);
            let total = failed.total();
            self.failed_indexes = Some(failed);
            if self.finished.is_none() {
                if self.spec.max_failed_indexes.is_some_and(|most| total > most) {
                    self.finished = self.failure(
                        "MaxFailedIndexesExceeded",
                        "Job has exceeded the specified maximal number of failed indexes",
                    );
                } else if total > 0 && total + self.succeeded >= completions {
                    self.finished = self.failure("FailedIndexes", "Job has failed indexes");
                }
            }
            self.waiting_for_replacement = self.failed_without_replacement();
        }
        if self.finished.is_none() {
            let policy = self.spec.success_policy.as_ref();
            let met = success_policy::matched(policy, completions, &self.succeeded_indexes);
            self.finished = met.map(|message| {
                conditions::new(conditions::SUCCESS_CRITERIA_MET, "SuccessPolicy", &message, self.now)
            });
        }
    }

    /// The indexes of these pods as far as they still have their finalizer.
    fn tracked_indexes(&self, which: impl Fn(&Pod) -> bool) -> Intervals {
        let pods = self.pods.iter().filter(|pod| is_tracked(pod) && which(pod));
        Intervals::of(pods.filter_map(|pod| self.valid_index(pod)))
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        if !self.is_failed(pod) {
            return false;
        }
        let verdict = self.verdict(pod);
        verdict == Verdict::FailIndex || (verdict.counts() && index_failures(pod) >= limit)
    }

    fn failed_without_replacement(&self) -> BTreeMap<i32, Arc<Pod>> {
        let active: HashSet<i32> = self.active_pods.iter().filter_map(|pod| completion_index(pod)).collect();
        let settled = |index: i32| {
            self.succeeded_indexes.has(index)
                || self.failed_indexes.as_ref().is_some_and(|failed| failed.has(index))
                || active.contains(&index)
        };
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| self.is_uncounted(pod) && self.is_failed(pod)) {
            let Some(index) = self.valid_index(pod).filter(|index| !settled(*index)) else { continue };
            let rank = |pod: &Pod| (index_failures_all(pod), finished_at(pod));
            let later = last.get(&index).is_none_or(|known| {
                let (known, new) = (rank(known), rank(pod));
                known.0 <= new.0 && known.1 <= new.1
            });
            if later {
                last.insert(index, Arc::clone(pod));
            }
        }
        last
    }

    /// Which pods to make or delete before counting.
    pub fn step(&self) -> &PodStep {
        &self.step
    }

    /// Failures in a row as of this look. They hold once the status is written.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// What there is to tell people, once.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// When to look again even if nothing changes.
    pub fn requeue_after(&self) -> Option<Duration> {
        self.requeue_after
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
