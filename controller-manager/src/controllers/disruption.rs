//! Runs the disruption controller: looks up the scale of what is behind a budget's pods, writes its status, takes back stale conditions of pods.

use std::sync::Arc;

use controller_manager_core::action::{Action, PODS, ResourceId};
use controller_manager_core::disruption::{
    Scale, controllers, needs_scale, plan, reset_stale, selects, stale_in,
};
use controller_manager_core::object_meta::{controller, name, namespace, object_reference, uid};
use coracle_client::ObjectKey;
use coracle_client::config::is_not_found;
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer};
use coracle_client::store::index_by_namespace;
use futures::future::join;
use k8s_openapi::api::autoscaling::v1::Scale as ScaleObject;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, OwnerReference};

use crate::context::{Context, outcome};
use crate::discovery::Discovery;
use crate::executor::{Executor, done, path};
use crate::informers::Informers;

const WORKERS: usize = 2;

#[derive(Clone)]
struct Shared {
    informers: Informers,
    budgets: Informer<PodDisruptionBudget>,
    discovery: Discovery,
    executor: Executor,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        budgets: context.informer().index(index_by_namespace()).start(&context.shutdown),
        discovery: context.discovery.clone(),
        executor: context.executor("controllermanager"),
    };
    let (for_pods, for_stale) = (shared.clone(), shared.clone());
    let budgets = context
        .controller("disruption", WORKERS)
        .watch(&shared.budgets, |change| vec![change.key()])
        .watch(&context.informers.pods, move |change| for_pods.pod_changed(change))
        .wait_for(&context.informers.replica_sets)
        .wait_for(&context.informers.deployments)
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        });
    let pods = context
        .controller("stale_pod_disruption", 1)
        .watch(&context.informers.pods, |change| {
            let may = !change.is_deleted() && stale_in(change.object(), crate::clock::now()).is_some();
            may.then(|| change.key()).into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let shared = for_stale.clone();
            async move { shared.reconcile_pod(&key).await }
        });
    join(budgets, pods).await;
}

impl Shared {
    /// The budgets that are or were about the pod.
    fn pod_changed(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        let pod = change.object();
        let budgets = self.budgets.store().indexed("namespace", namespace(&pod.metadata));
        let is_about = |pod: &Arc<Pod>| {
            let found = budgets.iter().filter(|budget| selects(budget, pod));
            found.map(|budget| ObjectKey::of(&**budget)).collect::<Vec<_>>()
        };
        let mut keys = is_about(pod);
        let relabelled = change.old().filter(|old| old.metadata.labels != pod.metadata.labels);
        if keys.len() > 1 && !change.is_deleted() && (change.old().is_none() || relabelled.is_some()) {
            self.executor.events().record(
                object_reference(&PODS, &pod.metadata),
                coracle_client::event_recorder::EventKind::Warning,
                "MultiplePodDisruptionBudgets",
                "MultiplePodDisruptionBudgets",
                format!(
                    "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                    namespace(&pod.metadata),
                    name(&pod.metadata),
                    &*keys[0].name
                ),
            );
        }
        keys.extend(relabelled.map(is_about).unwrap_or_default());
        keys
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(budget) = self.budgets.store().get(key) else { return Ok(Outcome::Done) };
        let pods: Vec<Arc<Pod>> = self.informers.pods.store().indexed("namespace", &key.namespace);
        let pods: Vec<Arc<Pod>> = pods.into_iter().filter(|pod| selects(&budget, pod)).collect();
        let scale = if needs_scale(&budget) { self.scale(&pods).await } else { Ok(0) };
        let now = crate::clock::now();
        let plan = plan(&budget, &pods, &scale, now);
        // A budget that cannot be worked out is looked at again when something changes, as its status now says.
        self.executor.execute_all(&plan.actions).await?;
        Ok(outcome(plan.recheck_at.map(|at| at.duration_since(now).try_into().unwrap_or_default())))
    }

    async fn reconcile_pod(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(pod) = self.informers.pods.store().get(key) else { return Ok(Outcome::Done) };
        let now = crate::clock::now();
        match stale_in(&pod, now) {
            None => Ok(Outcome::Done),
            Some(left) if !left.is_zero() => Ok(Outcome::RequeueAfter(left)),
            Some(_) => {
                let reset: Action = reset_stale(&pod, now);
                done(self.executor.execute(&reset).await)
            }
        }
    }

    /// How many pods the controllers of these pods are to have together.
    async fn scale(&self, pods: &[Arc<Pod>]) -> Scale {
        let mut sum = 0_i32;
        let mut counted: Vec<String> = Vec::new();
        for (owner, pod) in controllers(pods).into_values() {
            let found = match self.known_scale(owner, namespace(&pod.metadata)) {
                Some(found) => Some(found),
                None => self.served_scale(owner, namespace(&pod.metadata)).await?,
            };
            let Some((uid, replicas)) = found else {
                return Err(format!("found no controllers for pod {:?}", name(&pod.metadata)));
            };
            // Several ReplicaSets of one Deployment count once.
            if !counted.contains(&uid) {
                sum = sum.saturating_add(replicas);
                counted.push(uid);
            }
        }
        Ok(sum)
    }

    /// The scale of a ReplicaSet, or of the Deployment behind it.
    fn known_scale(&self, owner: &OwnerReference, namespace: &str) -> Option<(String, i32)> {
        if owner.kind != "ReplicaSet" || ResourceId::group_of(&owner.api_version) != "apps" {
            return None;
        }
        let set = self.informers.replica_sets.store().get_named(namespace, &owner.name)?;
        if uid(&set.metadata) != owner.uid {
            return None;
        }
        match controller(&set.metadata).filter(|above| above.kind == "Deployment") {
            None => Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1))),
            Some(above) => {
                let deployment = self.informers.deployments.store().get_named(namespace, &above.name)?;
                let replicas = deployment.spec.as_ref()?.replicas.unwrap_or(1);
                (uid(&deployment.metadata) == above.uid).then(|| (above.uid.clone(), replicas))
            }
        }
    }

    /// The scale of anything that has one, by the server's word.
    async fn served_scale(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<(String, i32)>, String> {
        let text = |error: kube::Error| super::message(&error);
        let group = ResourceId::group_of(&owner.api_version);
        let Some(resource) = self.discovery.resource_of_kind(group, &owner.kind).await.map_err(text)? else {
            return Err(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version));
        };
        let address = path(&resource, namespace, &owner.name, "scale");
        match self.executor.read::<ScaleObject>(&address).await {
            Ok(scale) => {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok((uid(&scale.metadata) == owner.uid).then(|| (owner.uid.clone(), replicas)))
            }
            Err(error) if is_not_found(&error) => {
                if self.has_scale(&resource).await.map_err(text)? {
                    return Ok(None);
                }
                let dot = if resource.group.is_empty() { "" } else { "." };
                Err(format!(
                    "{}{dot}{} does not implement the scale subresource",
                    resource.plural, resource.group
                ))
            }
            Err(error) => Err(text(error)),
        }
    }

    async fn has_scale(&self, resource: &ResourceId) -> Result<bool, kube::Error> {
        let wanted = format!("{}/scale", resource.plural);
        let version = resource.api_version();
        let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
        let list: APIResourceList = self.executor.read(&format!("{prefix}/{version}")).await?;
        Ok(list.resources.iter().any(|one| one.name == wanted))
    }
}
