//! Runs the StatefulSet controller: claims pods and revisions, carries out the plan pod by pod, reports.

use std::sync::Arc;

use controller_manager_core::action::{Action, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use controller_manager_core::controller_revision::Parent;
use controller_manager_core::object_meta::{name, namespace, object_reference};
use controller_manager_core::statefulset::identity::ordinal_in;
use controller_manager_core::statefulset::{Observed, Plan, forget_revisions, plan};
use controller_manager_core::status_report::report;
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::EventKind;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::claims::{Claimer, as_is, claim_all, owners, wanted_by};
use crate::context::{Context, outcome};
use crate::executor::{Executor, done, is_namespace_terminating};
use crate::informers::Informers;
use crate::revisions::{History, Settled, settle};

const WORKERS: usize = 5;
/// Pods of one set that are worked on at the same time.
const PODS_IN_FLIGHT: usize = 50;
/// The hash of a revision, as upstream labels those of StatefulSets.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared =
        Shared { informers: context.informers.clone(), executor: context.executor("statefulset-controller") };
    let for_pods = shared.clone();
    context
        .controller("statefulset", WORKERS)
        .watch(&context.informers.stateful_sets, |change| vec![change.key()])
        .watch(&context.informers.revisions, revision_changed)
        .watch(&context.informers.pods, move |change| for_pods.pod_changed(change))
        .wait_for(&context.informers.claims)
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

fn revision_changed(change: &Change<ControllerRevision>) -> Vec<ObjectKey> {
    controller_of_kind(&change.object().metadata, &STATEFUL_SETS.kind).into_iter().collect()
}

fn is_member(set_name: &str, pod_name: &str) -> bool {
    ordinal_in(set_name, pod_name).is_some()
}

impl Shared {
    fn pod_changed(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        let keys = owners(change, &STATEFUL_SETS.kind);
        if !keys.is_empty() {
            return keys;
        }
        let pod = name(&change.object().metadata);
        let sets = |namespace: &str| {
            let all = self.informers.stateful_sets.store().indexed("namespace", namespace);
            all.into_iter().filter(|set| is_member(name(&set.metadata), pod)).collect()
        };
        wanted_by(change, sets, |set: &StatefulSet| set.spec.as_ref().map(|spec| &spec.selector))
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(set) = self.informers.stateful_sets.store().get(key) else { return Ok(Outcome::Done) };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let parent = Parent {
            resource: STATEFUL_SETS,
            meta: &set.metadata,
            template: &spec.template,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
            hash_label: HASH_LABEL,
        };
        let history = match settle(&self.informers, &self.executor, &parent, &spec.selector).await {
            Ok(Settled::Found(history)) => history,
            Ok(Settled::Collision) => return self.count_collision(&set).await,
            Err(error) => return Err(error.into()),
        };
        let claimer =
            Claimer { resource: &STATEFUL_SETS, meta: &set.metadata, selector: &spec.selector, is_member };
        let pods = claim_all(&self.executor, claimer, &PODS, &self.informers.pods, as_is).await?;
        self.act(&set, &history, pods).await
    }

    async fn act(
        &self,
        set: &StatefulSet,
        history: &History,
        pods: Vec<Arc<Pod>>,
    ) -> anyhow::Result<Outcome> {
        let current_name = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current =
            history.sorted.iter().find(|revision| revision.metadata.name.as_deref() == current_name);
        let claims = self.informers.claims.store();
        let claim = |claim: &str| claims.get_named(namespace(&set.metadata), claim);
        let (planned, forgotten) = {
            let observed = Observed {
                set,
                current: current.unwrap_or(&history.current),
                update: &history.current,
                pods,
                claim: &claim,
                now: crate::clock::now(),
            };
            (plan(&observed), forget_revisions(&observed, &history.sorted))
        };
        let Some(plan) = planned else { return Ok(Outcome::Done) };
        let failure = self.carry_out(set, &plan).await;
        self.report(set, &plan.status).await?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        self.executor.execute_all(&forgotten).await?;
        Ok(outcome(plan.requeue_after))
    }

    /// One of the failures, if there were any.
    async fn carry_out(&self, set: &StatefulSet, plan: &Plan) -> Option<kube::Error> {
        if plan.parallel {
            let results: Vec<_> = stream::iter(plan.groups.clone())
                .map(|group| async move { self.carry_out_group(set, &group).await })
                .buffer_unordered(PODS_IN_FLIGHT)
                .collect()
                .await;
            return results.into_iter().find_map(Result::err);
        }
        for group in &plan.groups {
            if let Err(error) = self.carry_out_group(set, group).await {
                return Some(error);
            }
        }
        None
    }

    async fn carry_out_group(&self, set: &StatefulSet, group: &[Action]) -> Result<(), kube::Error> {
        for action in group {
            let result = self.executor.execute(action).await;
            let taken = result.as_ref().is_err_and(is_conflict);
            let created = matches!(action, Action::Create { .. });
            let claim =
                matches!(action, Action::Create { resource, .. } if *resource == PERSISTENT_VOLUME_CLAIMS);
            let silent = created && (taken || result.as_ref().is_err_and(is_namespace_terminating));
            if !silent {
                self.tell(set, action, result.as_ref().err());
            }
            // A claim that is there already serves as well.
            if claim && taken {
                continue;
            }
            result?;
        }
        Ok(())
    }

    fn tell(&self, set: &StatefulSet, action: &Action, error: Option<&kube::Error>) {
        let set_name = name(&set.metadata);
        let (verb, what) = match action {
            Action::Create { resource, object, .. } => {
                let object_name = object["metadata"]["name"].as_str().unwrap_or_default();
                if *resource == PERSISTENT_VOLUME_CLAIMS {
                    let ordinal = object_name.rsplit('-').next().unwrap_or_default();
                    ("create", format!("Claim {object_name} Pod {set_name}-{ordinal}"))
                } else {
                    ("create", format!("Pod {object_name}"))
                }
            }
            Action::Delete { target, .. } => ("delete", format!("Pod {}", target.name)),
            Action::Patch { target, .. } if target.resource == PODS => {
                ("update", format!("Pod {}", target.name))
            }
            _ => return,
        };
        let done = if what.starts_with("Claim") { "success" } else { "successful" };
        let title = match verb {
            "create" => "Create",
            "delete" => "Delete",
            _ => "Update",
        };
        let (kind, reason, message) = match error {
            None => {
                let message = format!("{verb} {what} in StatefulSet {set_name} {done}");
                (EventKind::Normal, format!("Successful{title}"), message)
            }
            Some(error) => {
                let error = super::message(error);
                let message = format!("{verb} {what} in StatefulSet {set_name} failed error: {error}");
                (EventKind::Warning, format!("Failed{title}"), message)
            }
        };
        let regarding = object_reference(&STATEFUL_SETS, &set.metadata);
        self.executor.events().record(regarding, kind, reason, title, message);
    }

    async fn report(&self, set: &StatefulSet, status: &StatefulSetStatus) -> Result<(), kube::Error> {
        match report(&STATEFUL_SETS, &set.metadata, set.status.as_ref(), status) {
            Some(action) => self.executor.execute(&action).await,
            None => Ok(()),
        }
    }

    async fn count_collision(&self, set: &StatefulSet) -> anyhow::Result<Outcome> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        done(self.report(set, &status).await)
    }
}
