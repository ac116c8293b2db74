//! Runs the DaemonSet controller: claims pods and revisions, carries out the plan for all nodes, reports.

use std::sync::Arc;

use controller_manager_core::action::{Action, DAEMON_SETS, PODS};
use controller_manager_core::controller_revision::{POD_REVISION, Parent};
use controller_manager_core::daemonset::failed_pods::FailedPods;
use controller_manager_core::daemonset::placement::{Placement, pod_for};
use controller_manager_core::daemonset::{Look, Plan, forget_revisions};
use controller_manager_core::expectations::recheck_after;
use controller_manager_core::label_selector;
use controller_manager_core::object_meta::{name, object_reference};
use controller_manager_core::status_report::report;
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;

use crate::claims::{Claimer, any_name, as_is, claim_all, wanted_by};
use crate::context::{Context, outcome};
use crate::executor::{Executor, body, done};
use crate::informers::Informers;
use crate::pod_control::{Owner, PodControl};
use crate::revisions::{History, Settled, settle};

const WORKERS: usize = 2;

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
    pods: PodControl,
    failed: Arc<Mutex<FailedPods>>,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let executor = context.executor("daemonset-controller");
    let shared = Shared {
        informers: context.informers.clone(),
        pods: PodControl::new(executor.clone()),
        executor,
        failed: Arc::default(),
    };
    let (for_pods, for_nodes, for_sets) = (shared.clone(), shared.clone(), shared.pods.clone());
    context
        .controller("daemonset", WORKERS)
        .watch(&context.informers.daemon_sets, move |change| {
            if change.is_deleted() {
                for_sets.forget(&change.key());
            }
            vec![change.key()]
        })
        .watch(&context.informers.revisions, revision_changed)
        .watch(&context.informers.nodes, move |change| for_nodes.node_changed(change))
        .watch(&context.informers.pods, move |change| for_pods.pod_changed(change))
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

fn revision_changed(change: &Change<ControllerRevision>) -> Vec<ObjectKey> {
    controller_of_kind(&change.object().metadata, &DAEMON_SETS.kind).into_iter().collect()
}

impl Shared {
    /// The sets for which the node is now another than before.
    fn node_changed(&self, change: &Change<Node>) -> Vec<ObjectKey> {
        let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let before = change.old().filter(|_| !change.is_deleted());
        if before.is_some_and(|old| {
            let new = change.object();
            old.metadata.labels == new.metadata.labels && taints(old) == taints(new)
        }) {
            return Vec::new();
        }
        let concerned = |set: &Arc<DaemonSet>| {
            let placement = Placement::new(set);
            let now = placement.on(change.object());
            before.map_or(now.may_stay, |old| placement.on(old) != now)
        };
        let all = self.informers.daemon_sets.store().list();
        all.into_iter().filter(concerned).map(|set| ObjectKey::of(&*set)).collect()
    }

    fn pod_changed(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        let keys = self.pods.observe(change, &DAEMON_SETS.kind);
        if !keys.is_empty() {
            return keys;
        }
        let sets = |namespace: &str| self.informers.daemon_sets.store().indexed("namespace", namespace);
        wanted_by(change, sets, |set| set.spec.as_ref().map(|spec| &spec.selector))
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(set) = self.informers.daemon_sets.store().get(key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        if label_selector::is_empty(&spec.selector) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.executor
                .execute(&Action::Event {
                    regarding: Box::new(object_reference(&DAEMON_SETS, &set.metadata)),
                    warning: true,
                    reason: "SelectingAll",
                    message: message.to_owned(),
                })
                .await?;
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let satisfied = self.pods.satisfied(key);
        let parent = Parent {
            resource: DAEMON_SETS,
            meta: &set.metadata,
            template: &spec.template,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
            hash_label: POD_REVISION,
        };
        let history = match settle(&self.informers, &self.executor, &parent, &spec.selector).await {
            Ok(Settled::Found(history)) => history,
            Ok(Settled::Collision) => return self.count_collision(&set).await,
            Err(error) => return Err(error.into()),
        };
        let claimer = Claimer {
            resource: &DAEMON_SETS,
            meta: &set.metadata,
            selector: &spec.selector,
            is_member: any_name,
        };
        let pods = claim_all(&self.executor, claimer, &PODS, &self.informers.pods, as_is).await?;
        self.act(key, &set, &history, &pods, satisfied).await
    }

    async fn act(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        history: &History,
        pods: &[Arc<Pod>],
        satisfied: bool,
    ) -> anyhow::Result<Outcome> {
        let labels = history.current.metadata.labels.as_ref();
        let hash = labels.and_then(|labels| labels.get(POD_REVISION)).cloned().unwrap_or_default();
        let nodes = self.informers.nodes.store().list();
        let now = crate::clock::now();
        let look = Look::new(set, &hash, &nodes, pods, now);
        let (mut after, mut failure) = (look.recheck_after(), None);
        if satisfied {
            let plan = {
                let mut failed = self.failed.lock();
                failed.forget_old(now);
                look.plan(&mut failed)
            };
            after = after.into_iter().chain(plan.requeue_after).min();
            failure = self.carry_out(key, set, &hash, plan).await;
            if failure.is_none() {
                let current = name(&history.current.metadata);
                let old = forget_revisions(set, current, &history.sorted, pods);
                failure = self.executor.execute_all(&old).await.err();
            }
        }
        after = recheck_after(satisfied, after);
        self.report(set, &look.status(satisfied)).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(outcome(after)),
        }
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        hash: &str,
        plan: Plan,
    ) -> Option<kube::Error> {
        if let Err(error) = self.executor.execute_all(&plan.events).await {
            return Some(error);
        }
        let template = &set.spec.as_ref()?.template;
        let owner = Owner { key, regarding: object_reference(&DAEMON_SETS, &set.metadata) };
        if plan.create.is_empty() && plan.delete.is_empty() {
            return None;
        }
        self.pods.expect(key, plan.create.len(), &plan.delete);
        let new = plan.create.iter().map(|node| body(&PODS, &pod_for(set, template, hash, node))).collect();
        let created = self.pods.create(&owner, new).await;
        let deleted = self.pods.delete(&owner, &plan.delete, None).await;
        created.error.or(deleted.error)
    }

    async fn report(&self, set: &DaemonSet, status: &DaemonSetStatus) -> Result<(), kube::Error> {
        match report(&DAEMON_SETS, &set.metadata, set.status.as_ref(), status) {
            Some(action) => self.executor.execute(&action).await,
            None => Ok(()),
        }
    }

    async fn count_collision(&self, set: &DaemonSet) -> anyhow::Result<Outcome> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        done(self.report(set, &status).await)
    }
}
