//! Runs the ReplicaSet controller: claims pods, creates and deletes them in bounded batches, reports.

use std::sync::Arc;

use controller_manager_core::action::{Action, PODS, REPLICA_SETS, Target};
use controller_manager_core::expectations::{EXPIRY, Expectations};
use controller_manager_core::label_selector;
use controller_manager_core::object_meta::{
    Claim, claim, controller, name, namespace, object_reference, uid,
};
use controller_manager_core::replicaset::status::{self, ReplicaFailure};
use controller_manager_core::replicaset::{Scale, plan, pod_from_template, slow_start_batches};
use coracle_client::ObjectKey;
use coracle_client::config::is_not_found;
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::EventKind;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::{Context, outcome};
use crate::executor::{Executor, body, is_namespace_terminating, retry_soon};
use crate::informers::{Informers, ORPHANS};

const WORKERS: usize = 5;
/// Pods being created or deleted at the same time for one set.
const PODS_IN_FLIGHT: usize = 50;

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
    expectations: Arc<Mutex<Expectations>>,
    started: Instant,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        executor: context.executor("replicaset-controller"),
        expectations: Arc::default(),
        started: Instant::now(),
    };
    let (for_pods, for_sets) = (shared.clone(), shared.expectations.clone());
    context
        .controller("replicaset", WORKERS)
        .watch(&context.informers.replica_sets, move |change| {
            if change.is_deleted() {
                for_sets.lock().forget(&change.key().to_string());
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

impl Shared {
    /// Tells the expectations what was seen, and which sets it concerns.
    fn pod_changed(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        let meta = &change.object().metadata;
        let owner = controller_of_kind(meta, "ReplicaSet");
        if let Some(owner) = &owner {
            let mut expectations = self.expectations.lock();
            let key = owner.to_string();
            if change.is_deleted() || meta.deletion_timestamp.is_some() {
                expectations.deleted(&key, uid(meta));
            } else if change.old().is_none() {
                expectations.created(&key, 1);
            }
        }
        let before = change.old().and_then(|old| controller_of_kind(&old.metadata, "ReplicaSet"));
        let mut keys: Vec<_> = owner.into_iter().chain(before).collect();
        keys.dedup();
        if keys.is_empty() && controller(meta).is_none() && !change.is_deleted() {
            let sets = self.informers.replica_sets.store().indexed("namespace", namespace(meta));
            let fits = |set: &Arc<ReplicaSet>| {
                set.spec
                    .as_ref()
                    .is_some_and(|spec| label_selector::matches(&spec.selector, meta.labels.as_ref()))
            };
            keys.extend(sets.into_iter().filter(fits).map(|set| ObjectKey::of(&*set)));
        }
        keys
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(set) = self.informers.replica_sets.store().get(key) else {
            self.expectations.lock().forget(&key.to_string());
            return Ok(Outcome::Done);
        };
        let satisfied = self.expectations.lock().satisfied(&key.to_string(), self.started.elapsed());
        let owned = self.claim(&set).await?;
        let now = jiff::Timestamp::now();
        let (failure, error) = if satisfied {
            match plan(&set, &owned, &self.related(&set), now) {
                Scale::Nothing => (shown_failure(&set, false), None),
                Scale::Create(count) => failed("FailedCreate", self.create(key, &set, count).await),
                Scale::Delete(pods) => failed("FailedDelete", self.delete(key, &set, &pods).await),
            }
        } else {
            (shown_failure(&set, true), None)
        };
        let report = status::calculate(&set, &owned, failure.as_ref(), now);
        let mut after = match status::patch(&set, &report) {
            Some(patch) => retry_soon(self.executor.execute(&patch).await)?,
            None => status::recheck_after(&set, &owned, now),
        };
        if !satisfied {
            after = Some(after.map_or(EXPIRY, |after| after.min(EXPIRY)));
        }
        match error {
            Some(error) => Err(error.into()),
            None => Ok(outcome(after)),
        }
    }

    /// The pods that are the set's, after adopting and releasing.
    async fn claim(&self, set: &ReplicaSet) -> anyhow::Result<Vec<Arc<Pod>>> {
        let Some(spec) = &set.spec else { return Ok(Vec::new()) };
        let store = self.informers.pods.store();
        let candidates = store.indexed("ownerUid", uid(&set.metadata));
        let orphans = store.indexed(ORPHANS, namespace(&set.metadata));
        let mut owned = Vec::new();
        let mut checked = false;
        for pod in candidates.into_iter().chain(orphans) {
            match claim(&REPLICA_SETS, &set.metadata, &spec.selector, &PODS, &pod.metadata) {
                Claim::Keep => owned.push(pod),
                Claim::Release(action) => self.executor.execute(&action).await?,
                Claim::Adopt(action) => {
                    if !checked && !super::still_there(&self.executor, &REPLICA_SETS, &set.metadata).await? {
                        return Ok(owned);
                    }
                    checked = true;
                    self.executor.execute(&action).await?;
                    owned.push(pod);
                }
                Claim::Ignore => {}
            }
        }
        Ok(owned)
    }

    /// The pods of all sets with the same owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods = self.informers.pods.store();
        let Some(owner) = controller(&set.metadata) else {
            return pods.indexed("ownerUid", uid(&set.metadata));
        };
        let sets = self.informers.replica_sets.store().indexed("ownerUid", &owner.uid);
        sets.iter().flat_map(|set| pods.indexed("ownerUid", uid(&set.metadata))).collect()
    }

    async fn create(&self, key: &ObjectKey, set: &ReplicaSet, count: usize) -> Result<(), kube::Error> {
        let key_text = key.to_string();
        self.expectations.lock().expect_creations(&key_text, count, self.started.elapsed());
        let pods = PODS;
        let pod = body(&pods, &pod_from_template(set));
        let regarding = object_reference(&REPLICA_SETS, &set.metadata);
        let mut tried = 0;
        for size in slow_start_batches(count) {
            let results: Vec<_> = stream::iter(0..size)
                .map(|_| {
                    let pod = pod.clone();
                    self.executor.create_raw(&pods, &key.namespace, pod)
                })
                .buffer_unordered(PODS_IN_FLIGHT)
                .collect()
                .await;
            tried += size;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(pod) => self.executor.events().record(
                        regarding.clone(),
                        EventKind::Normal,
                        "SuccessfulCreate",
                        "Create",
                        format!("Created pod: {}", name(&pod)),
                    ),
                    Err(error) => {
                        self.expectations.lock().created(&key_text, 1);
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                self.expectations.lock().created(&key_text, count - tried);
                if is_namespace_terminating(&error) {
                    return Ok(());
                }
                let message = format!("Error creating: {}", super::message(&error));
                self.executor.events().record(
                    regarding,
                    EventKind::Warning,
                    "FailedCreate",
                    "Create",
                    message,
                );
                return Err(error);
            }
        }
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let key_text = key.to_string();
        let uids = pods.iter().map(|pod| uid(&pod.metadata).to_owned());
        self.expectations.lock().expect_deletions(&key_text, uids, self.started.elapsed());
        let results: Vec<_> = stream::iter(pods.to_vec())
            .map(|pod| self.delete_one(key_text.clone(), pod))
            .buffer_unordered(PODS_IN_FLIGHT)
            .collect()
            .await;
        let regarding = object_reference(&REPLICA_SETS, &set.metadata);
        let mut failure = None;
        for result in results {
            let (kind, reason, message) = match result {
                Ok(pod) => (EventKind::Normal, "SuccessfulDelete", format!("Deleted pod: {pod}")),
                Err(error) => {
                    let message = format!("Error deleting: {}", super::message(&error));
                    failure = Some(error);
                    (EventKind::Warning, "FailedDelete", message)
                }
            };
            self.executor.events().record(regarding.clone(), kind, reason, "Delete", message);
        }
        failure.map_or(Ok(()), Err)
    }

    async fn delete_one(&self, key: String, pod: Arc<Pod>) -> Result<String, kube::Error> {
        let meta = &pod.metadata;
        let action = Action::Delete {
            target: Target::new(&PODS, namespace(meta), name(meta)),
            uid: meta.uid.clone(),
            resource_version: None,
            propagation: None,
            grace_seconds: None,
        };
        let result = self.executor.execute(&action).await;
        if let Err(error) = &result
            && !is_not_found(error)
        {
            self.expectations.lock().deleted(&key, uid(meta));
        }
        result.map(|()| name(meta).to_owned())
    }
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
