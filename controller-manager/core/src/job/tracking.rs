//! Counting ended pods once each, and ending the Job when all are counted. Owns the status that is written before and after
//! the finalizers go.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::conditions::{self, COMPLETE, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED};
use super::indexes::Intervals;
use super::pods::{is_succeeded, is_tracked};
use super::{Done, Notice, Sync, as_i32, is_suspended};
use crate::object_meta::{seconds, uid};

/// At most this many uids are noted at a time, so that the status stays small and a large Job does not hold up others.
const NOTED_MAX: usize = 500;

/// What to do for the counting: first write, then remove.
#[derive(Clone, Debug, PartialEq)]
pub struct Counting {
    /// The status to write before any finalizer goes.
    pub flush: Option<JobStatus>,
    /// The pods whose finalizer is to be removed then.
    pub remove: Vec<Arc<Pod>>,
}

impl Sync<'_> {
    /// Takes in what was done about the pods and notes those that have ended.
    pub fn count(&mut self, done: Done) -> Counting {
        let mut flush = self.conclude(done);
        let active = Some(as_i32(self.active)).filter(|count| *count > 0);
        let (ready, terminating) = (Some(as_i32(self.ready)), Some(as_i32(self.terminating)));
        flush |= active != self.status.active.filter(|count| *count > 0)
            || ready != self.status.ready
            || terminating != self.status.terminating;
        self.status.active = active;
        self.status.ready = ready;
        self.status.terminating = terminating;

        let with_finalizer = self.pods.iter().filter(|pod| self.is_uncounted(pod));
        self.with_finalizer = with_finalizer.map(|pod| uid(&pod.metadata).to_owned()).collect();
        flush |= self.count_noted();
        let (remove, noted) = self.note();
        flush |= noted;
        flush |= self.announce_end();
        Counting { flush: flush.then(|| self.status.clone()), remove }
    }

    /// The numbers after the pod step, whether the Job is done, whether it is suspended. Whether a condition changed.
    fn conclude(&mut self, done: Done) -> bool {
        let over = self.finished.is_some();
        if over && (done.deleted != self.active || !self.satisfied) {
            // There may be pods that are not seen yet: the end is declared when there are none.
            self.finished = None;
        }
        self.active = (self.active + done.created).saturating_sub(done.deleted);
        self.terminating += done.deleted;
        self.ready = self.ready.saturating_sub(done.deleted_ready);
        if over {
            return false;
        }
        let complete = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if complete && self.active == 0 {
            self.finished = Some(conditions::new(
                SUCCESS_CRITERIA_MET,
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                self.now,
            ));
            return false;
        }
        self.managed && self.note_suspension()
    }

    fn note_suspension(&mut self) -> bool {
        let suspended = is_suspended(self.spec);
        let (status, reason, message) = if suspended {
            ("True", "Suspended", "Job suspended")
        } else {
            ("False", "Resumed", "Job resumed")
        };
        let mut wanted = conditions::new(SUSPENDED, &format!("Job{reason}"), message, self.now);
        wanted.status = status.to_owned();
        if !conditions::ensure(&mut self.status.conditions, wanted) {
            return false;
        }
        if !suspended {
            // The deadline counts the time the Job is active, and that begins anew.
            self.status.start_time = Some(seconds(self.now));
        }
        self.notices.push(Notice { warning: false, reason: reason.into(), message: message.into() });
        true
    }

    /// Counts noted pods whose finalizer is gone. Whether there were any.
    fn count_noted(&mut self) -> bool {
        let Some(noted) = &mut self.status.uncounted_terminated_pods else { return false };
        let mut changed = false;
        for (list, counter) in
            [(&mut noted.succeeded, &mut self.status.succeeded), (&mut noted.failed, &mut self.status.failed)]
        {
            let before = list.take().unwrap_or_default();
            let still: Vec<_> =
                before.iter().filter(|uid| self.with_finalizer.contains(*uid)).cloned().collect();
            let counted = as_i32(before.len() - still.len());
            if counted > 0 {
                *counter = Some(counter.unwrap_or(0).saturating_add(counted));
                changed = true;
            }
            *list = (!still.is_empty()).then_some(still);
        }
        changed
    }

    /// Notes the pods that have ended, up to a limit: the pods that may lose their finalizer, and whether the status changed.
    fn note(&mut self) -> (Vec<Arc<Pod>>, bool) {
        let mut noted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let (mut remove, mut indexes, mut changed) = (Vec::new(), Vec::new(), false);
        let failing = self.finished.as_ref().is_some_and(|end| end.type_ != SUCCESS_CRITERIA_MET);
        for pod in self.pods.iter().filter(|pod| self.is_uncounted(pod)) {
            let failed = self.is_failed(pod);
            if !self.may_lose_finalizer(pod, failed) {
                continue;
            }
            remove.push(Arc::clone(pod));
            let pod_uid = uid(&pod.metadata);
            if is_succeeded(pod) && !self.uncounted_failed.contains(pod_uid) {
                if self.is_indexed() {
                    // The index itself keeps it from being counted again.
                    let new = self.valid_index(pod).filter(|index| !self.previously_succeeded.has(*index));
                    changed |= new.is_some();
                    indexes.extend(new);
                } else if !self.uncounted_succeeded.contains(pod_uid) {
                    noted.succeeded.get_or_insert_default().push(pod_uid.to_owned());
                    changed = true;
                }
            } else if (failed || failing)
                && !self.uncounted_failed.contains(pod_uid)
                && self.matches_index(pod)
                && self.verdict(pod).counts()
            {
                noted.failed.get_or_insert_default().push(pod_uid.to_owned());
                changed = true;
            }
            let all = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
            if indexes.len() + all(&noted.succeeded) + all(&noted.failed) >= NOTED_MAX {
                // The write of the status brings the Job here again.
                self.at_capacity = true;
                break;
            }
        }
        self.status.uncounted_terminated_pods = Some(noted);
        if self.is_indexed() {
            self.succeeded_indexes = self.succeeded_indexes.union(&Intervals::of(indexes));
            let text = self.succeeded_indexes.to_string();
            let completed = (!text.is_empty()).then_some(text);
            let failed = self.failed_indexes.as_ref().map(ToString::to_string);
            changed |= completed != self.status.completed_indexes || failed != self.status.failed_indexes;
            self.status.succeeded = Some(self.succeeded_indexes.total()).filter(|count| *count > 0);
            self.status.completed_indexes = completed;
            self.status.failed_indexes = failed;
        }
        (remove, changed)
    }

    fn may_lose_finalizer(&self, pod: &Pod, failed: bool) -> bool {
        if self.job.metadata.deletion_timestamp.is_some() || self.finished.is_some() || is_succeeded(pod) {
            return true;
        }
        let awaited = self
            .valid_index(pod)
            .and_then(|index| self.waiting_for_replacement.get(&index))
            .is_some_and(|waiting| waiting.metadata.uid == pod.metadata.uid);
        failed && !awaited
    }

    /// Says how the Job will end before the pods that show why can go. Whether that is news.
    fn announce_end(&mut self) -> bool {
        let Some(end) = self.finished.take() else { return false };
        let conditions = &mut self.status.conditions;
        let interim = end.type_ == FAILURE_TARGET || end.type_ == SUCCESS_CRITERIA_MET;
        let news = interim && conditions::find_true(conditions.as_ref(), &end.type_).is_none();
        if news {
            conditions::ensure(conditions, end.clone());
        }
        self.finished = Some(match end.type_.as_str() {
            FAILURE_TARGET => self.failed_for(&end),
            SUCCESS_CRITERIA_MET => {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                conditions::new(COMPLETE, &text(&end.reason), &text(&end.message), self.now)
            }
            _ => end,
        });
        news
    }

    /// Counts the pods whose finalizer was removed, and ends the Job if nothing is left. The status to write, if it changed.
    /// With `failed` some finalizers are still there: then only progress is noted.
    pub fn finish(&mut self, removed: &HashSet<String>, failed: bool) -> Option<JobStatus> {
        self.with_finalizer.retain(|uid| !removed.contains(uid));
        let mut flush = self.count_noted();
        if !failed && !self.at_capacity {
            flush |= self.end();
        }
        flush.then(|| self.status.clone())
    }

    fn end(&mut self) -> bool {
        let Some(end) = self.finished.take() else { return false };
        let noted = self.status.uncounted_terminated_pods.as_ref();
        let waiting = noted.is_some_and(|noted| noted.succeeded.is_some() || noted.failed.is_some());
        if waiting || self.terminating > 0 {
            return false;
        }
        self.tell_end(&end);
        if end.type_ == COMPLETE {
            self.status.completion_time = end.last_transition_time.clone();
        }
        conditions::ensure(&mut self.status.conditions, end);
        true
    }

    fn tell_end(&mut self, end: &JobCondition) {
        let mut tell = |warning: bool, reason: &str, message: &str| {
            self.notices.push(Notice { warning, reason: reason.to_owned(), message: message.to_owned() });
        };
        if end.type_ == COMPLETE {
            if self.spec.completions.is_some_and(|wanted| self.status.succeeded.unwrap_or(0) > wanted) {
                tell(
                    true,
                    "TooManySucceededPods",
                    "Too many succeeded pods running after completion count reached",
                );
            }
            tell(false, "Completed", "Job completed");
        } else {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            tell(true, &text(&end.reason), &text(&end.message));
        }
    }
}

/// Whether a pod must lose its finalizer though no look at a Job will remove it: nobody is left to count it.
pub fn is_orphaned(pod: &Pod, job: Option<&Job>) -> bool {
    is_tracked(pod) && job.is_none_or(|job| super::is_ours(job) && conditions::finished(job).is_some())
}
