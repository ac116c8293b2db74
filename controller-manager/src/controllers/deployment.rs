//! Runs the Deployment controller: claims ReplicaSets, carries out one step of the plan, handles a name that is taken.

use std::sync::Arc;

use controller_manager_core::action::{Action, DEPLOYMENTS, REPLICA_SETS, Target};
use controller_manager_core::deployment::{numbers, plan, status, template};
use controller_manager_core::expectations::{Expectations, recheck_after};
use controller_manager_core::label_selector;
use controller_manager_core::object_meta::{
    Claim, claim, controller, is_controlled_by, name, namespace, object_reference, preconditions, uid,
};
use controller_manager_core::own_writes::OwnWrites;
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::EventKind;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::{Context, outcome};
use crate::executor::{Executor, done, is_namespace_terminating};
use crate::informers::{Informers, ORPHANS};

const WORKERS: usize = 5;

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
    /// Of ReplicaSets: the room that one leaves is another's.
    writes: Arc<Mutex<OwnWrites>>,
    /// By Deployment, the ReplicaSets that it has asked for: they take room before they are seen.
    expected: Arc<Mutex<Expectations>>,
    started: Instant,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        executor: context.executor("deployment-controller"),
        writes: Arc::default(),
        expected: Arc::default(),
        started: Instant::now(),
    };
    let (for_deployments, for_sets, for_pods) = (shared.clone(), shared.clone(), shared.clone());
    context
        .controller("deployment", WORKERS)
        .watch(&context.informers.deployments, move |change| for_deployments.deployment_changed(change))
        .watch(&context.informers.replica_sets, move |change| for_sets.set_changed(change))
        .watch(&context.informers.pods, move |change| for_pods.pod_changed(change))
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

impl Shared {
    fn deployment_changed(&self, change: &Change<Deployment>) -> Vec<ObjectKey> {
        if change.is_deleted() {
            self.expected.lock().forget(&change.key().to_string());
        }
        vec![change.key()]
    }

    fn set_changed(&self, change: &Change<ReplicaSet>) -> Vec<ObjectKey> {
        let meta = &change.object().metadata;
        if change.is_deleted() {
            self.writes.lock().forget(&change.key().to_string());
        }
        let owner = controller_of_kind(meta, "Deployment");
        if let Some(owner) = owner.as_ref().filter(|_| change.old().is_none()) {
            self.expected.lock().created(&owner.to_string(), 1);
        }
        let before = change.old().and_then(|old| controller_of_kind(&old.metadata, "Deployment"));
        let mut keys: Vec<_> = owner.into_iter().chain(before).collect();
        keys.dedup();
        if keys.is_empty() && controller(meta).is_none() && !change.is_deleted() {
            let all = self.informers.deployments.store().indexed("namespace", namespace(meta));
            let fits = |deployment: &Arc<Deployment>| {
                let spec = deployment.spec.as_ref();
                spec.is_some_and(|spec| label_selector::matches(&spec.selector, meta.labels.as_ref()))
            };
            keys.extend(all.into_iter().filter(fits).map(|deployment| ObjectKey::of(&*deployment)));
        }
        keys
    }

    /// Only Recreate waits for pods.
    fn pod_changed(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        if !change.is_deleted() {
            return Vec::new();
        }
        let set = controller_of_kind(&change.object().metadata, "ReplicaSet");
        let set = set.and_then(|key| self.informers.replica_sets.store().get(&key));
        let key = set.and_then(|set| controller_of_kind(&set.metadata, "Deployment"));
        let waits = |key: &ObjectKey| {
            let deployment = self.informers.deployments.store().get(key);
            deployment.and_then(|d| d.spec.as_ref().map(numbers::is_recreate)).unwrap_or(false)
        };
        key.into_iter().filter(waits).collect()
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(deployment) = self.informers.deployments.store().get(key) else { return Ok(Outcome::Done) };
        if !self.expected.lock().satisfied(&key.to_string(), self.started.elapsed()) {
            return Ok(outcome(recheck_after(false, None)));
        }
        let sets = self.claim(&deployment).await?;
        let is_behind = |set: &Arc<ReplicaSet>| {
            self.writes.lock().is_stale(&ObjectKey::of(&**set).to_string(), &set.metadata)
        };
        if sets.iter().any(is_behind) {
            // The version that was written is on its way and brings the Deployment here again.
            return Ok(Outcome::Done);
        }
        let recreate = deployment.spec.as_ref().is_some_and(numbers::is_recreate);
        let store = self.informers.pods.store();
        let pods: Vec<_> = sets
            .iter()
            .filter(|_| recreate)
            .flat_map(|set| store.indexed("ownerUid", uid(&set.metadata)))
            .collect();
        let plan = plan(&deployment, &sets, &pods, crate::clock::now());
        for action in &plan.actions {
            let result = match action {
                Action::Patch { target, subresource, patch } if target.resource == REPLICA_SETS => {
                    self.patch_set(target, subresource, patch).await
                }
                Action::Create { .. } => self.create_set(key, action).await,
                action => self.executor.execute(action).await,
            };
            let result = match (action, result) {
                (Action::Create { object, .. }, Err(error)) if is_namespace_terminating(&error) => {
                    tracing::debug!(set = %object["metadata"]["name"], "not created: the namespace is terminating");
                    return Ok(Outcome::Done);
                }
                (Action::Create { object, .. }, Err(error)) if is_conflict(&error) => {
                    return self.name_is_taken(&deployment, object).await;
                }
                (Action::Create { object, .. }, Err(error)) => {
                    let set = object["metadata"]["name"].as_str().unwrap_or_default();
                    let text =
                        format!("Failed to create new replica set \"{set}\": {}", super::message(&error));
                    let regarding = object_reference(&DEPLOYMENTS, &deployment.metadata);
                    self.executor.events().record(
                        regarding,
                        EventKind::Warning,
                        "FailedCreate",
                        "Create",
                        text,
                    );
                    Err(error)
                }
                (_, result) => result,
            };
            result?;
        }
        Ok(outcome(plan.requeue_after))
    }

    async fn create_set(&self, key: &ObjectKey, create: &Action) -> Result<(), kube::Error> {
        let key = key.to_string();
        self.expected.lock().expect(&key, 1, [], self.started.elapsed());
        let result = self.executor.execute(create).await;
        if result.is_err() {
            self.expected.lock().created(&key, 1);
        }
        result
    }

    async fn patch_set(&self, target: &Target, subresource: &str, patch: &Value) -> Result<(), kube::Error> {
        if let Some(meta) = self.executor.patch(target, subresource, patch).await? {
            self.writes.lock().wrote(&format!("{}/{}", target.namespace, target.name), &meta);
        }
        Ok(())
    }

    async fn claim(&self, deployment: &Deployment) -> anyhow::Result<Vec<Arc<ReplicaSet>>> {
        let Some(spec) = &deployment.spec else { return Ok(Vec::new()) };
        let store = self.informers.replica_sets.store();
        let candidates = store.indexed("ownerUid", uid(&deployment.metadata));
        let orphans = store.indexed(ORPHANS, namespace(&deployment.metadata));
        let mut owned = Vec::new();
        for set in candidates.into_iter().chain(orphans) {
            match claim(&DEPLOYMENTS, &deployment.metadata, &spec.selector, &REPLICA_SETS, &set.metadata) {
                Claim::Keep => owned.push(set),
                Claim::Release(action) => self.executor.execute(&action).await?,
                Claim::Adopt(action) => {
                    if super::still_there(&self.executor, &DEPLOYMENTS, &deployment.metadata).await? {
                        // Its new version comes by the watch and brings the Deployment here again.
                        self.executor.execute(&action).await?;
                    }
                }
                Claim::Ignore => {}
            }
        }
        Ok(owned)
    }

    /// The name of the new ReplicaSet exists: it is ours and only new to our copy, or another template has the same hash.
    async fn name_is_taken(&self, deployment: &Deployment, wanted: &Value) -> anyhow::Result<Outcome> {
        let set_name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let target = Target::new(&REPLICA_SETS, namespace(&deployment.metadata), set_name);
        let found: ReplicaSet = serde_json::from_value(self.executor.get(&target).await?)?;
        let template = found.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let same = deployment
            .spec
            .as_ref()
            .zip(template)
            .is_some_and(|(spec, t)| template::same_template(&spec.template, t));
        if same && is_controlled_by(&found.metadata, uid(&deployment.metadata)) {
            return Ok(Outcome::Done);
        }
        let patch = json!({
            "metadata": preconditions(&deployment.metadata, true),
            "status": status::count_collision(deployment),
        });
        let target = Target::new(&DEPLOYMENTS, namespace(&deployment.metadata), name(&deployment.metadata));
        let patch = Action::Patch { target, subresource: "status", patch };
        done(self.executor.execute(&patch).await)
    }
}
