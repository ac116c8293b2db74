//! The CronJob controller: a Job for each time of a schedule. [`plan`] takes in what became of earlier Jobs, removes those
//! beyond the history limits, and decides whether one is due ([`timing`]). A Job's name holds its minute, so that the server
//! never has two for one time.

pub mod timing;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::cron_schedule::{Schedule, zone};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::action::{Action, CRON_JOBS, JOBS, Propagation, Target};
use crate::job::conditions::{COMPLETE, finished};
use crate::object_meta::{controller_reference, name, namespace, object_reference, uid};

/// The annotation of a Job with the time it is for.
pub const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What one look starts from.
pub struct Observed<'a> {
    /// The CronJob.
    pub cron_job: &'a CronJob,
    /// The Jobs it controls.
    pub jobs: &'a [Arc<Job>],
    /// Uids of active Jobs that are not among these, and that the server does not have either.
    pub missing: HashSet<String>,
    /// The zone of schedules that name none.
    pub local: &'a TimeZone,
    /// The time.
    pub now: Timestamp,
}

/// The Job to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The time it is for.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// The Job as JSON.
    pub object: Value,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Jobs to delete. The report holds only once that has worked.
    pub delete: Vec<Action>,
    /// What to tell people.
    pub events: Vec<Action>,
    /// The Job to create after that.
    pub create: Option<Due>,
    /// What to report, but for the created Job.
    pub status: CronJobStatus,
    /// Look again after this time.
    pub requeue_after: Option<Duration>,
}

struct Look<'a> {
    observed: &'a Observed<'a>,
    spec: &'a CronJobSpec,
    plan: Plan,
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Option<Plan> {
    let spec = observed.cron_job.spec.as_ref()?;
    let plan = Plan {
        delete: Vec::new(),
        events: Vec::new(),
        create: None,
        status: observed.cron_job.status.clone().unwrap_or_default(),
        requeue_after: None,
    };
    let mut look = Look { observed, spec, plan };
    look.remove_old();
    look.take_in_jobs();
    if observed.cron_job.metadata.deletion_timestamp.is_none() && !spec.suspend.unwrap_or(false) {
        look.schedule();
    }
    if look.plan.status.active.as_ref().is_some_and(Vec::is_empty) {
        look.plan.status.active = None;
    }
    Some(look.plan)
}

/// The schedule as it is read: in the zone that the CronJob names.
///
/// # Errors
/// The sentence for what is wrong with it.
pub fn schedule_of(spec: &CronJobSpec) -> Result<Schedule, String> {
    match &spec.time_zone {
        Some(zone) if !spec.schedule.contains("TZ") => {
            Schedule::parse(&format!("TZ={zone} {}", spec.schedule))
        }
        _ => Schedule::parse(&spec.schedule),
    }
}

/// The reference by which the active list knows a Job.
pub fn reference(job: &Job) -> ObjectReference {
    object_reference(&JOBS, &job.metadata)
}

impl Look<'_> {
    fn event(&mut self, warning: bool, reason: &'static str, message: String) {
        let regarding = Box::new(object_reference(&CRON_JOBS, &self.observed.cron_job.metadata));
        self.plan.events.push(Action::Event { regarding, warning, reason, message });
    }

    fn active(&self) -> &[ObjectReference] {
        self.plan.status.active.as_deref().unwrap_or_default()
    }

    fn is_active(&self, job_uid: &str) -> bool {
        self.active().iter().any(|active| active.uid.as_deref() == Some(job_uid))
    }

    fn deactivate(&mut self, job_uid: &str) {
        if let Some(active) = &mut self.plan.status.active {
            active.retain(|active| active.uid.as_deref() != Some(job_uid));
        }
    }

    fn delete(&mut self, in_namespace: &str, job_name: &str, job_uid: &str) {
        self.plan.delete.push(Action::Delete {
            target: Target::new(&JOBS, in_namespace, job_name),
            uid: Some(job_uid.to_owned()),
            resource_version: None,
            propagation: Some(Propagation::Background),
            grace_seconds: None,
        });
        self.deactivate(job_uid);
    }

    /// Deletes the oldest ended Jobs beyond the limits.
    fn remove_old(&mut self) {
        for (well, limit) in
            [(true, self.spec.successful_jobs_history_limit), (false, self.spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let ended = |job: &&Arc<Job>| finished(job).is_some_and(|end| (end.type_ == COMPLETE) == well);
            let mut jobs: Vec<_> = self.observed.jobs.iter().filter(ended).cloned().collect();
            jobs.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|at| at.0);
                (start.unwrap_or(Timestamp::MAX), name(&job.metadata).to_owned())
            });
            let surplus = jobs.len().saturating_sub(limit);
            for job in jobs.into_iter().take(surplus) {
                let meta = &job.metadata;
                self.delete(namespace(meta), name(meta), uid(meta));
            }
        }
    }

    /// Which Jobs are active, and which was the last to succeed.
    fn take_in_jobs(&mut self) {
        for job in self.observed.jobs {
            let (job_name, job_uid) = (name(&job.metadata), uid(&job.metadata));
            match (self.is_active(job_uid), finished(job)) {
                (false, None) => self.event(
                    true,
                    "UnexpectedJob",
                    format!("Saw a job that the controller did not create or forgot: {job_name}"),
                ),
                (true, Some(end)) => {
                    let message = format!("Saw completed job: {job_name}, condition: {}", end.type_);
                    self.deactivate(job_uid);
                    self.event(false, "SawCompletedJob", message);
                }
                _ => {}
            }
            let succeeded = finished(job).is_some_and(|end| end.type_ == COMPLETE);
            let completed = job.status.as_ref().and_then(|status| status.completion_time.as_ref());
            let last = self.plan.status.last_successful_time.as_ref();
            if let Some(completed) = completed.filter(|at| succeeded && last.is_none_or(|last| at.0 > last.0))
            {
                self.plan.status.last_successful_time = Some(completed.clone());
            }
        }
        for active in self.active().to_vec() {
            let active_uid = active.uid.unwrap_or_default();
            if self.observed.missing.contains(&active_uid) {
                let message = format!("Active job went missing: {}", active.name.unwrap_or_default());
                self.deactivate(&active_uid);
                self.event(false, "MissingJob", message);
            }
        }
    }

    fn schedule(&mut self) {
        let given = self.spec.schedule.clone();
        if let Some(zone_name) = &self.spec.time_zone
            && zone(zone_name).is_none()
        {
            let message = format!("invalid timeZone: {zone_name:?}: unknown time zone {zone_name}");
            return self.event(true, "UnknownTimeZone", message);
        }
        if given.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {given:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.event(true, "UnsupportedSchedule", message);
        }
        let schedule = match schedule_of(self.spec) {
            Ok(schedule) => schedule,
            Err(problem) => {
                let message = format!("unparseable schedule: {given:?} : {problem}");
                return self.event(true, "UnparseableSchedule", message);
            }
        };
        let timing = timing::Timing {
            schedule: &schedule,
            local: self.observed.local,
            earliest: timing::earliest(self.observed.cron_job),
            now: self.observed.now,
        };
        let due = match timing.due(self.spec.starting_deadline_seconds) {
            Ok(due) => due,
            Err(problem) => {
                return self.event(true, "InvalidSchedule", format!("invalid schedule: {given} : {problem}"));
            }
        };
        self.plan.requeue_after = Some(timing.until_next());
        if let Some(due) = due {
            if due.missed > timing::MISSED_MANY {
                self.event(
                    true,
                    "TooManyMissedTimes",
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew".into(),
                );
            }
            self.start(due.at);
        }
    }

    fn start(&mut self, at: Timestamp) {
        let deadline = self.spec.starting_deadline_seconds.map(jiff::SignedDuration::from_secs);
        let late = deadline
            .is_some_and(|deadline| at.checked_add(deadline).is_ok_and(|latest| latest < self.observed.now));
        if late {
            let at = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self.event(true, "MissSchedule", format!("Missed scheduled time to start a job: {at}"));
        }
        let job_name = format!("{}-{}", name(&self.observed.cron_job.metadata), at.as_second() / 60);
        let started = self.active().iter().any(|active| active.name.as_ref() == Some(&job_name));
        let last = self.plan.status.last_schedule_time.as_ref().map(|time| time.0.as_second());
        if started || last == Some(at.as_second()) {
            return;
        }
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active().is_empty() => {
                return self.event(
                    false,
                    "JobAlreadyActive",
                    "Not starting job because prior execution is running and concurrency policy is Forbid"
                        .into(),
                );
            }
            Some("Replace") => {
                for active in self.active().to_vec() {
                    let text = |text: Option<String>| text.unwrap_or_default();
                    self.delete(&text(active.namespace), &text(active.name), &text(active.uid));
                }
            }
            _ => {}
        }
        let object = self.job(&job_name, at);
        self.plan.create = Some(Due { at, name: job_name, object });
    }

    fn job(&self, job_name: &str, at: Timestamp) -> Value {
        let template = &self.spec.job_template;
        let meta = template.metadata.clone().unwrap_or_default();
        let zone = self.spec.time_zone.as_deref().and_then(zone).unwrap_or(TimeZone::UTC);
        let shown = at.to_zoned(zone);
        let format = if shown.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED_AT.to_owned(), shown.strftime(format).to_string());
        let owner = controller_reference(&CRON_JOBS, &self.observed.cron_job.metadata);
        let mut object = json!({
            "metadata": { "name": job_name, "annotations": annotations, "ownerReferences": [owner] },
            "spec": template.spec,
        });
        if let Some(labels) = meta.labels {
            object["metadata"]["labels"] = json!(labels);
        }
        object
    }
}

/// The report once a Job for `at` is there.
pub fn started(mut status: CronJobStatus, job: ObjectReference, at: Timestamp) -> CronJobStatus {
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|known| known.uid == job.uid) {
        active.push(job);
    }
    status.last_schedule_time = Some(Time(at));
    status
}

#[cfg(test)]
mod tests;
