//! Runs the CronJob controller: looks at each CronJob when its time comes and when its Jobs change.

use std::collections::HashSet;
use std::sync::Arc;

use controller_manager_core::action::{Action, CRON_JOBS, JOBS, Target};
use controller_manager_core::cronjob::timing::{Timing, earliest};
use controller_manager_core::cronjob::{Due, Observed, Plan, plan, reference, schedule_of, started};
use controller_manager_core::object_meta::{is_controlled_by, name, namespace, object_reference, uid};
use controller_manager_core::own_writes::OwnWrites;
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::EventKind;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use coracle_client::work_queue::WorkQueue;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, outcome};
use crate::executor::{Executor, is_namespace_terminating};
use crate::informers::Informers;

const WORKERS: usize = 5;

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
    writes: Arc<Mutex<OwnWrites>>,
    local: TimeZone,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        executor: context.executor("cronjob-controller"),
        writes: Arc::default(),
        local: TimeZone::system(),
    };
    let controller = context.controller("cronjob", WORKERS);
    let (queue, for_changes) = (controller.queue(), shared.clone());
    controller
        .watch(&context.informers.cron_jobs, move |change| for_changes.cron_job_changed(change, &queue))
        .watch(&context.informers.jobs, |change| {
            controller_of_kind(&change.object().metadata, &CRON_JOBS.kind).into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

impl Shared {
    /// A new schedule begins with its next time, not with one that would have been.
    fn cron_job_changed(&self, change: &Change<CronJob>, queue: &WorkQueue<ObjectKey>) -> Vec<ObjectKey> {
        let new = change.object();
        let (Some(old), Some(spec)) = (change.old(), &new.spec) else { return vec![change.key()] };
        let before = old.spec.as_ref().map(|spec| (&spec.schedule, &spec.time_zone));
        if change.is_deleted() || before == Some((&spec.schedule, &spec.time_zone)) {
            return vec![change.key()];
        }
        // What is wrong with a schedule is told by a look.
        let Ok(schedule) = schedule_of(spec) else { return vec![change.key()] };
        let timing = Timing {
            schedule: &schedule,
            local: &self.local,
            earliest: earliest(new),
            now: crate::clock::now(),
        };
        queue.add_after(change.key(), timing.until_next());
        Vec::new()
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let key_text = key.to_string();
        let Some(cron_job) = self.informers.cron_jobs.store().get(key) else {
            self.writes.lock().forget(&key_text);
            return Ok(Outcome::Done);
        };
        // The change that shows our last write brings it here again.
        if self.writes.lock().is_stale(&key_text, &cron_job.metadata) {
            return Ok(Outcome::Done);
        }
        let jobs = self.informers.jobs.store().indexed("ownerUid", uid(&cron_job.metadata));
        let missing = self.missing(&cron_job, &jobs).await?;
        let now = crate::clock::now();
        let observed = Observed { cron_job: &cron_job, jobs: &jobs, missing, local: &self.local, now };
        match plan(&observed) {
            Some(plan) => self.carry_out(key, &cron_job, plan).await,
            None => Ok(Outcome::Done),
        }
    }

    /// Uids of active Jobs that our copy lacks and the server too.
    async fn missing(&self, cron_job: &CronJob, jobs: &[Arc<Job>]) -> Result<HashSet<String>, kube::Error> {
        let mut missing = HashSet::new();
        let active = cron_job.status.as_ref().and_then(|status| status.active.as_ref());
        for active in active.into_iter().flatten() {
            let (Some(job_name), Some(job_uid)) = (&active.name, &active.uid) else { continue };
            if jobs.iter().any(|job| uid(&job.metadata) == job_uid) {
                continue;
            }
            let target = Target::new(&JOBS, namespace(&cron_job.metadata), job_name);
            let live = self.executor.metadata(&target).await?;
            if live.is_none_or(|live| uid(&live) != job_uid) {
                missing.insert(job_uid.clone());
            }
        }
        Ok(missing)
    }

    async fn carry_out(&self, key: &ObjectKey, cron_job: &CronJob, plan: Plan) -> anyhow::Result<Outcome> {
        self.executor.execute_all(&plan.events).await?;
        for action in &plan.delete {
            let result = self.executor.execute(action).await;
            let Action::Delete { target, .. } = action else { continue };
            match result {
                Ok(()) => {
                    let message = format!("Deleted job {}", target.name);
                    self.tell(cron_job, EventKind::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    let message = format!("Deleted job: {}", super::message(&error));
                    self.tell(cron_job, EventKind::Warning, "FailedDelete", message);
                    return Err(error.into());
                }
            }
        }
        let mut status = plan.status;
        if let Some(due) = plan.create {
            match self.create(key, cron_job, &due).await? {
                Some(job) => status = started(status, job, due.at),
                None => return Ok(Outcome::Done),
            }
        }
        match self.report(key, cron_job, status).await {
            Ok(()) => Ok(outcome(plan.requeue_after)),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates the Job, or finds that an earlier look has. `None` if it is somebody else's or cannot be.
    async fn create(
        &self,
        key: &ObjectKey,
        cron_job: &CronJob,
        due: &Due,
    ) -> anyhow::Result<Option<k8s_openapi::api::core::v1::ObjectReference>> {
        match self.executor.create(&JOBS, &key.namespace, &due.object).await {
            Ok(meta) => {
                let message = format!("Created job {}", name(&meta));
                self.tell(cron_job, EventKind::Normal, "SuccessfulCreate", message);
                Ok(Some(object_reference(&JOBS, &meta)))
            }
            Err(error) if is_namespace_terminating(&error) => Ok(None),
            Err(error) if is_conflict(&error) => {
                let target = Target::new(&JOBS, &key.namespace, &due.name);
                let found: Job = serde_json::from_value(self.executor.get(&target).await?)?;
                let ours = is_controlled_by(&found.metadata, uid(&cron_job.metadata));
                Ok(ours.then(|| reference(&found)))
            }
            Err(error) => {
                let message = format!("Error creating job: {}", super::message(&error));
                self.tell(cron_job, EventKind::Warning, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn report(
        &self,
        key: &ObjectKey,
        cron_job: &CronJob,
        status: CronJobStatus,
    ) -> Result<(), kube::Error> {
        if cron_job.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let mut changed = cron_job.clone();
        changed.status = Some(status);
        let target = Target::new(&CRON_JOBS, &key.namespace, &key.name);
        let meta = self.executor.replace(&target, "status", &json!(changed)).await?;
        self.writes.lock().wrote(&key.to_string(), &meta);
        Ok(())
    }

    fn tell(&self, cron_job: &CronJob, kind: EventKind, reason: &'static str, message: String) {
        let regarding = object_reference(&CRON_JOBS, &cron_job.metadata);
        self.executor.events().record(regarding, kind, reason, reason, message);
    }
}
