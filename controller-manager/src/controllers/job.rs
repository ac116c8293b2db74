//! Runs the Job controller: claims pods, goes with each Job through the stages of a look, frees pods that nobody counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use controller_manager_core::action::{Action, JOBS, PODS, Target};
use controller_manager_core::expectations::recheck_after;
use controller_manager_core::job::backoff::Backoff;
use controller_manager_core::job::conditions::finished;
use controller_manager_core::job::pods::is_tracked;
use controller_manager_core::job::{
    Done, Observed, PodStep, Sync, TRACKING_FINALIZER, begin, is_orphaned, is_ours,
};
use controller_manager_core::object_meta::{controller, name, namespace, object_reference, uid};
use controller_manager_core::own_writes::OwnWrites;
use controller_manager_core::pod_state::is_ready;
use coracle_client::ObjectKey;
use coracle_client::config::is_not_found;
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::EventKind;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use coracle_client::work_queue::WorkQueue;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;

use crate::claims::{Claimer, any_name, claim_all, wanted_by};
use crate::context::{Context, outcome};
use crate::executor::{Executor, body, done};
use crate::informers::Informers;
use crate::pod_control::{Owner, PodControl};

const WORKERS: usize = 5;
const ORPHAN_WORKERS: usize = 2;
/// Finalizers being removed at the same time for one Job.
const REMOVALS_IN_FLIGHT: usize = 50;

/// What is remembered of each Job between looks. All of it may be lost.
#[derive(Default)]
struct Memory {
    writes: OwnWrites,
    backoffs: HashMap<ObjectKey, Backoff>,
    /// Uids of pods whose finalizer was removed, which the watch does not show yet.
    removing: HashMap<ObjectKey, HashSet<String>>,
}

impl Memory {
    fn forget(&mut self, key: &ObjectKey) {
        self.writes.forget(&key.to_string());
        self.backoffs.remove(key);
        self.removing.remove(key);
    }

    fn removed(&mut self, key: &ObjectKey, uid: &str) {
        if let Some(uids) = self.removing.get_mut(key) {
            uids.remove(uid);
            if uids.is_empty() {
                self.removing.remove(key);
            }
        }
    }
}

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
    pods: PodControl,
    memory: Arc<Mutex<Memory>>,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let executor = context.executor("job-controller");
    let shared = Shared {
        informers: context.informers.clone(),
        pods: PodControl::new(executor.clone()),
        executor,
        memory: Arc::default(),
    };
    let orphans = context.controller("job_orphan_pod", ORPHAN_WORKERS);
    let orphan_queue = orphans.queue();
    let (for_jobs, for_pods, for_orphans) = (shared.clone(), shared.clone(), shared.clone());
    let jobs = context
        .controller("job", WORKERS)
        .watch(&context.informers.jobs, {
            let queue = orphan_queue.clone();
            move |change| for_jobs.job_changed(change, &queue)
        })
        .watch(&context.informers.pods, move |change| for_pods.pod_changed(change, &orphan_queue))
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        });
    let orphans = orphans.wait_for(&context.informers.jobs).wait_for(&context.informers.pods).run(
        &context.shutdown,
        move |key| {
            let shared = for_orphans.clone();
            async move { shared.free(&key).await }
        },
    );
    tokio::join!(jobs, orphans);
}

impl Shared {
    fn job_changed(&self, change: &Change<Job>, orphans: &WorkQueue<ObjectKey>) -> Vec<ObjectKey> {
        let job = change.object();
        if change.is_deleted() {
            self.pods.forget(&change.key());
            self.memory.lock().forget(&change.key());
        }
        if change.is_deleted() || finished(job).is_some() {
            for pod in self.informers.pods.store().indexed("ownerUid", uid(&job.metadata)) {
                if is_tracked(&pod) {
                    orphans.add(ObjectKey::of(&*pod));
                }
            }
        }
        vec![change.key()]
    }

    fn job_of(&self, pod: &Pod) -> Option<Arc<Job>> {
        let owner = controller(&pod.metadata).filter(|owner| owner.kind == JOBS.kind)?;
        let job = self.informers.jobs.store().get_named(namespace(&pod.metadata), &owner.name)?;
        (uid(&job.metadata) == owner.uid).then_some(job)
    }

    /// Whether no look at a Job will ever free the pod.
    fn is_orphaned(&self, pod: &Pod) -> bool {
        let owner = controller(&pod.metadata);
        let foreign =
            owner.is_some_and(|owner| owner.kind != JOBS.kind || owner.api_version != JOBS.api_version());
        !foreign && is_orphaned(pod, self.job_of(pod).as_deref())
    }

    fn pod_changed(&self, change: &Change<Pod>, orphans: &WorkQueue<ObjectKey>) -> Vec<ObjectKey> {
        let pod = change.object();
        let keys = self.pods.observe(change, &JOBS.kind);
        if let Some(key) = controller_of_kind(&pod.metadata, &JOBS.kind)
            && (change.is_deleted() || !is_tracked(pod))
        {
            self.memory.lock().removed(&key, uid(&pod.metadata));
        }
        if !change.is_deleted() && is_tracked(pod) && self.is_orphaned(pod) {
            orphans.add(change.key());
        }
        if !keys.is_empty() {
            return keys;
        }
        let jobs = |namespace: &str| self.informers.jobs.store().indexed("namespace", namespace);
        wanted_by(change, jobs, |job: &Job| job.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
    }

    /// Frees a pod that nobody will count.
    async fn free(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(pod) = self.informers.pods.store().get(key) else { return Ok(Outcome::Done) };
        if self.is_orphaned(&pod) {
            let target = Target::new(&PODS, &key.namespace, &key.name);
            let result = self.executor.remove_finalizer(&target, &pod.metadata, TRACKING_FINALIZER).await;
            return done(result);
        }
        Ok(Outcome::Done)
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(job) = self.informers.jobs.store().get(key) else {
            self.pods.forget(key);
            self.memory.lock().forget(key);
            return Ok(Outcome::Done);
        };
        // The change that shows our last write brings the Job here again.
        if !is_ours(&job) || self.memory.lock().writes.is_stale(&key.to_string(), &job.metadata) {
            return Ok(Outcome::Done);
        }
        if finished(&job).is_some() {
            self.memory.lock().backoffs.remove(key);
            return Ok(Outcome::Done);
        }
        let mode = job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref());
        if !mode.is_none_or(|mode| mode == "Indexed" || mode == "NonIndexed") {
            let message = "Skipped Job sync because completion mode is unknown";
            self.tell(&job, true, "UnknownCompletionMode", message);
            return Ok(Outcome::Done);
        }
        let satisfied = self.pods.satisfied(key);
        let pods = self.claim(&job).await?;
        let (backoff, removing) = {
            let memory = self.memory.lock();
            let removing = memory.removing.get(key).cloned().unwrap_or_default();
            (memory.backoffs.get(key).copied().unwrap_or_default(), removing)
        };
        let now = crate::clock::now();
        match begin(Observed { job: &job, pods, satisfied, removing, backoff, now }) {
            Some(sync) => self.go_through(key, &job, sync, satisfied).await,
            None => Ok(Outcome::Done),
        }
    }

    async fn go_through(
        &self,
        key: &ObjectKey,
        job: &Job,
        mut sync: Sync<'_>,
        satisfied: bool,
    ) -> anyhow::Result<Outcome> {
        let (done, pods_error) = self.act(key, job, sync.step()).await;
        let counting = sync.count(done);
        self.tell_all(job, &mut sync);
        let mut version = job.metadata.resource_version.clone();
        let frees_first = controller_manager_core::mutant!(FreesBeforeNoting);
        if let Some(status) = counting.flush.filter(|_| !frees_first) {
            match self.write(key, job, version.take(), status).await {
                Ok(new) => version = new,
                Err(error) => return Err(error.into()),
            }
            self.memory.lock().backoffs.insert(key.clone(), sync.backoff());
        }
        let (removed, removal_error) = self.remove_finalizers(key, &counting.remove).await;
        if let Some(status) = sync.finish(&removed, removal_error.is_some()) {
            if let Err(error) = self.write(key, job, version, status).await {
                return Err(error.into());
            }
            self.tell_all(job, &mut sync);
        }
        if let Some(error) = removal_error.or(pods_error) {
            return Err(error.into());
        }
        Ok(outcome(recheck_after(satisfied, sync.requeue_after())))
    }

    /// The pods that are the Job's, after adopting and releasing. What is adopted is counted from then on, what is released
    /// never.
    async fn claim(&self, job: &Job) -> anyhow::Result<Vec<Arc<Pod>>> {
        let Some(selector) = job.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
            return Ok(Vec::new());
        };
        let claimer = Claimer { resource: &JOBS, meta: &job.metadata, selector, is_member: any_name };
        let mut owned =
            claim_all(&self.executor, claimer, &PODS, &self.informers.pods, with_finalizer).await?;
        for pod in &mut owned {
            let adopted = controller(&pod.metadata).is_none();
            if adopted && !is_tracked(pod) {
                let finalizers = Arc::make_mut(pod).metadata.finalizers.get_or_insert_default();
                finalizers.push(TRACKING_FINALIZER.to_owned());
            }
        }
        Ok(owned)
    }

    async fn act(&self, key: &ObjectKey, job: &Job, step: &PodStep) -> (Done, Option<kube::Error>) {
        let owner = Owner { key, regarding: object_reference(&JOBS, &job.metadata) };
        match step {
            PodStep::Nothing => (Done::default(), None),
            PodStep::Create(new) => {
                self.pods.expect(key, new.len(), &[]);
                let pods = new.iter().map(|new| body(&PODS, &new.object)).collect();
                let outcome = self.pods.create(&owner, pods).await;
                (Done { created: outcome.count, ..Done::default() }, outcome.error)
            }
            PodStep::Delete { pods, .. } if pods.is_empty() => (Done::default(), None),
            PodStep::Delete { pods, counted } => {
                self.pods.expect(key, 0, pods);
                let finalizer = (!counted).then_some(TRACKING_FINALIZER);
                let outcome = self.pods.delete(&owner, pods, finalizer).await;
                let deleted_ready = pods.iter().filter(|pod| is_ready(pod)).count().min(outcome.count);
                (Done { deleted: outcome.count, deleted_ready, created: 0 }, outcome.error)
            }
        }
    }

    /// Writes the status over the version it was decided from; the new version.
    async fn write(
        &self,
        key: &ObjectKey,
        job: &Job,
        version: Option<String>,
        status: JobStatus,
    ) -> Result<Option<String>, kube::Error> {
        let mut changed = job.clone();
        changed.metadata.resource_version = version;
        changed.status = Some(status);
        let target = Target::new(&JOBS, &key.namespace, &key.name);
        let meta = self.executor.replace(&target, "status", &json!(changed)).await?;
        self.memory.lock().writes.wrote(&key.to_string(), &meta);
        Ok(meta.resource_version)
    }

    /// The uids of the pods that have lost their finalizer, and one of the failures.
    async fn remove_finalizers(
        &self,
        key: &ObjectKey,
        pods: &[Arc<Pod>],
    ) -> (HashSet<String>, Option<kube::Error>) {
        if pods.is_empty() {
            return (HashSet::new(), None);
        }
        let uids = pods.iter().map(|pod| uid(&pod.metadata).to_owned());
        self.memory.lock().removing.entry(key.clone()).or_default().extend(uids);
        let results: Vec<_> = stream::iter(pods.to_vec())
            .map(|pod| self.remove_finalizer(key.clone(), pod))
            .buffer_unordered(REMOVALS_IN_FLIGHT)
            .collect()
            .await;
        let (mut removed, mut failure) = (HashSet::new(), None);
        for result in results {
            match result {
                Ok(uid) => {
                    removed.insert(uid);
                }
                Err(error) => failure = Some(error),
            }
        }
        (removed, failure)
    }

    async fn remove_finalizer(&self, key: ObjectKey, pod: Arc<Pod>) -> Result<String, kube::Error> {
        let meta = &pod.metadata;
        let target = Target::new(&PODS, namespace(meta), name(meta));
        let result = self.executor.remove_finalizer(&target, meta, TRACKING_FINALIZER).await;
        // A pod that is gone is shown as such by the watch too, unless that has happened already.
        if result.is_err() || self.informers.pods.store().get_named(namespace(meta), name(meta)).is_none() {
            self.memory.lock().removed(&key, uid(meta));
        }
        match result {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(uid(meta).to_owned()),
        }
    }

    fn tell_all(&self, job: &Job, sync: &mut Sync<'_>) {
        for notice in sync.take_notices() {
            self.tell(job, notice.warning, &notice.reason, &notice.message);
        }
    }

    fn tell(&self, job: &Job, warning: bool, reason: &str, message: &str) {
        let kind = if warning { EventKind::Warning } else { EventKind::Normal };
        let regarding = object_reference(&JOBS, &job.metadata);
        self.executor.events().record(regarding, kind, reason, reason, message);
    }
}

/// The patch of a claim with the finalizer that goes along with it.
fn with_finalizer(action: Action, pod: &Pod, wanted: bool) -> Action {
    let Action::Patch { target, subresource, mut patch } = action else { return action };
    let kept = pod.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != TRACKING_FINALIZER);
    let mut finalizers: Vec<&str> = kept.map(String::as_str).collect();
    finalizers.extend(wanted.then_some(TRACKING_FINALIZER));
    patch["metadata"]["finalizers"] = json!(finalizers);
    Action::Patch { target, subresource, patch }
}
