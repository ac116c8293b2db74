//! Runs the ReplicaSet controller, and by it that of ReplicationControllers: claims pods, creates and deletes them in bounded batches, reports.

use std::sync::Arc;

use controller_manager_core::action::{PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, ResourceId};
use controller_manager_core::expectations::recheck_after;
use controller_manager_core::object_meta::{controller, object_reference, uid};
use controller_manager_core::replicaset::replication_controller::{as_replica_set, reportable};
use controller_manager_core::replicaset::status::{self, ReplicaFailure};
use controller_manager_core::replicaset::{Scale, plan, pod_from_template};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer, Watchable};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::claims::{Claimer, any_name, as_is, claim_all, wanted_by};
use crate::context::{Context, outcome};
use crate::executor::{Executor, body};
use crate::informers::Informers;
use crate::pod_control::{Owner, PodControl};

const WORKERS: usize = 5;

/// The sets of one kind.
trait Sets: Clone + Send + Sync + 'static {
    /// What they are to the API.
    const RESOURCE: ResourceId;

    fn get(&self, key: &ObjectKey) -> Option<Arc<ReplicaSet>>;

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<ReplicaSet>>;

    /// Those that one object controls.
    fn of_owner(&self, uid: &str) -> Vec<Arc<ReplicaSet>>;

    /// What of a report the kind has fields for.
    fn reportable(status: ReplicaSetStatus) -> ReplicaSetStatus;
}

#[derive(Clone)]
struct ReplicaSets(Informers);

impl Sets for ReplicaSets {
    const RESOURCE: ResourceId = REPLICA_SETS;

    fn get(&self, key: &ObjectKey) -> Option<Arc<ReplicaSet>> {
        self.0.replica_sets.store().get(key)
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<ReplicaSet>> {
        self.0.replica_sets.store().indexed("namespace", namespace)
    }

    fn of_owner(&self, uid: &str) -> Vec<Arc<ReplicaSet>> {
        self.0.replica_sets.store().indexed("ownerUid", uid)
    }

    fn reportable(status: ReplicaSetStatus) -> ReplicaSetStatus {
        status
    }
}

#[derive(Clone)]
struct ReplicationControllers(Informers);

impl Sets for ReplicationControllers {
    const RESOURCE: ResourceId = REPLICATION_CONTROLLERS;

    fn get(&self, key: &ObjectKey) -> Option<Arc<ReplicaSet>> {
        self.0.replication_controllers.store().get(key).map(|it| Arc::new(as_replica_set(&it)))
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<ReplicaSet>> {
        let all = self.0.replication_controllers.store().indexed("namespace", namespace);
        all.iter().map(|it| Arc::new(as_replica_set(it))).collect()
    }

    /// Nothing makes several for one owner.
    fn of_owner(&self, _uid: &str) -> Vec<Arc<ReplicaSet>> {
        Vec::new()
    }

    fn reportable(status: ReplicaSetStatus) -> ReplicaSetStatus {
        reportable(status)
    }
}

#[derive(Clone)]
struct Shared<S> {
    sets: S,
    informers: Informers,
    executor: Executor,
    pods: PodControl,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let informer = context.informers.replica_sets.clone();
    let sets = ReplicaSets(context.informers.clone());
    run_for(context, "replicaset", "replicaset-controller", sets, &informer).await;
}

/// Runs the same for ReplicationControllers until shutdown.
pub async fn run_replication(context: Context) {
    let informer = context.informers.replication_controllers.clone();
    let sets = ReplicationControllers(context.informers.clone());
    run_for(context, "replicationcontroller", "replication-controller", sets, &informer).await;
}

async fn run_for<K: Watchable, S: Sets>(
    context: Context,
    name: &'static str,
    reporter: &'static str,
    sets: S,
    informer: &Informer<K>,
) {
    let executor = context.executor(reporter);
    let pods = PodControl::new(executor.clone());
    let shared = Shared { sets, informers: context.informers.clone(), pods, executor };
    let (for_pods, for_sets) = (shared.clone(), shared.pods.clone());
    context
        .controller(name, WORKERS)
        .watch(informer, move |change| {
            if change.is_deleted() {
                for_sets.forget(&change.key());
            }
            vec![change.key()]
        })
        .watch(&context.informers.pods, move |change| for_pods.pod_changed(change))
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

impl<S: Sets> Shared<S> {
    /// Tells the expectations what was seen, and which sets it concerns.
    fn pod_changed(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        let keys = self.pods.observe(change, &S::RESOURCE.kind);
        if !keys.is_empty() {
            return keys;
        }
        let sets = |namespace: &str| self.sets.in_namespace(namespace);
        wanted_by(change, sets, |set| set.spec.as_ref().map(|spec| &spec.selector))
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(set) = self.sets.get(key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        let satisfied = self.pods.satisfied(key);
        let owned = self.claim(&set).await?;
        let now = crate::clock::now();
        let (failure, error) = if satisfied {
            match plan(&set, &owned, &self.related(&set), now) {
                Scale::Nothing => (shown_failure(&set, false), None),
                Scale::Create(count) => failed("FailedCreate", self.create(key, &set, count).await),
                Scale::Delete(pods) => failed("FailedDelete", self.delete(key, &set, &pods).await),
            }
        } else {
            (shown_failure(&set, true), None)
        };
        let report = S::reportable(status::calculate(&set, &owned, failure.as_ref(), now));
        let after = match status::patch(&S::RESOURCE, &set, &report) {
            Some(patch) => {
                self.executor.execute(&patch).await?;
                None
            }
            None => status::recheck_after(&set, &owned, now),
        };
        match error {
            Some(error) => Err(error.into()),
            None => Ok(outcome(recheck_after(satisfied, after))),
        }
    }

    /// The pods that are the set's, after adopting and releasing.
    async fn claim(&self, set: &ReplicaSet) -> anyhow::Result<Vec<Arc<Pod>>> {
        let Some(spec) = &set.spec else { return Ok(Vec::new()) };
        let claimer = Claimer {
            resource: &S::RESOURCE,
            meta: &set.metadata,
            selector: &spec.selector,
            is_member: any_name,
        };
        Ok(claim_all(&self.executor, claimer, &PODS, &self.informers.pods, as_is).await?)
    }

    /// The pods of all sets with the same owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods = self.informers.pods.store();
        let Some(owner) = controller(&set.metadata) else {
            return pods.indexed("ownerUid", uid(&set.metadata));
        };
        let sets = self.sets.of_owner(&owner.uid);
        sets.iter().flat_map(|set| pods.indexed("ownerUid", uid(&set.metadata))).collect()
    }

    async fn create(&self, key: &ObjectKey, set: &ReplicaSet, count: usize) -> Result<(), kube::Error> {
        self.pods.expect(key, count, &[]);
        let pod = body(&PODS, &pod_from_template(&S::RESOURCE, set));
        let outcome = self.pods.create(&owner(&S::RESOURCE, key, set), vec![pod; count]).await;
        outcome.error.map_or(Ok(()), Err)
    }

    async fn delete(&self, key: &ObjectKey, set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        self.pods.expect(key, 0, pods);
        self.pods.delete(&owner(&S::RESOURCE, key, set), pods, None).await.error.map_or(Ok(()), Err)
    }
}

fn owner<'a>(resource: &ResourceId, key: &'a ObjectKey, set: &ReplicaSet) -> Owner<'a> {
    Owner { key, regarding: object_reference(resource, &set.metadata) }
}

fn failed(
    reason: &'static str,
    result: Result<(), kube::Error>,
) -> (Option<ReplicaFailure>, Option<kube::Error>) {
    match result {
        Ok(()) => (None, None),
        Err(error) => (Some(ReplicaFailure { reason, message: super::message(&error) }), Some(error)),
    }
}

/// While nothing is decided the failure shown stays; once the numbers fit it goes.
fn shown_failure(set: &ReplicaSet, keep: bool) -> Option<ReplicaFailure> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let shown = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure").filter(|_| keep)?;
    let reason =
        if shown.reason.as_deref() == Some("FailedDelete") { "FailedDelete" } else { "FailedCreate" };
    Some(ReplicaFailure { reason, message: shown.message.clone().unwrap_or_default() })
}
