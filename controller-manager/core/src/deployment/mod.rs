//! The Deployment controller. [`plan`] decides one step of a rollout from the Deployment and the ReplicaSets and pods it owns:
//! which ReplicaSet is new ([`template`]), how large each is to be ([`rolling`], [`scaling`]), what the status says
//! ([`status`]), which old ones to forget ([`history`]). Changes are made on working copies first; each changed ReplicaSet
//! gives one patch at the end, guarded by the version it was read at.

pub mod history;
pub mod numbers;
pub mod rolling;
pub mod scaling;
pub mod status;
pub mod template;
pub mod working_set;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::action::{Action, DEPLOYMENTS, Target};
use crate::label_selector;
use crate::object_meta::{
    annotation, is_controlled_by, name, namespace, object_reference, preconditions, uid,
};
use crate::pod_state::is_finished;
use crate::status_report;
use working_set::{Sets, Working};

/// Which revision a ReplicaSet is; on the Deployment, which one is current.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when a ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells the ReplicaSets of one Deployment apart.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// What to do now and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps in order.
    pub actions: Vec<Action>,
    /// Look again after this time (the progress deadline).
    pub requeue_after: Option<Duration>,
}

/// Everything one decision needs and what it has come to so far.
struct Sync<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    now: Timestamp,
    sets: Sets,
    status: status::Progress,
    actions: Vec<Action>,
}

/// Decides. `sets` are the ReplicaSets the Deployment controls, `pods` the pods those control (only Recreate looks at them).
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &deployment.spec else { return Plan::default() };
    let mut sync = Sync {
        deployment,
        spec,
        now,
        sets: Sets::new(sets, &spec.template),
        status: status::Progress::new(deployment),
        actions: Vec::new(),
    };
    if label_selector::is_empty(&spec.selector) {
        sync.event(
            true,
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.".into(),
        );
        return sync.finish_observed_only();
    }
    if deployment.metadata.deletion_timestamp.is_some() {
        return sync.finish(false);
    }
    sync.status.check_paused(spec, now);
    if spec.paused.unwrap_or(false) {
        sync.sync_revision(false);
        sync.scale();
        sync.cleanup();
        return sync.finish(false);
    }
    if sync.is_scaling_event() {
        sync.sync_revision(false);
        sync.scale();
        return sync.finish(false);
    }
    if numbers::is_recreate(spec) {
        sync.rollout_recreate(pods)
    } else {
        sync.rollout_rolling()
    }
    sync.finish(true)
}

impl Sync<'_> {
    fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn event(&mut self, warning: bool, reason: &'static str, message: String) {
        let regarding = Box::new(object_reference(&DEPLOYMENTS, &self.deployment.metadata));
        self.actions.push(Action::Event { regarding, warning, reason, message });
    }

    /// A size change by the user in mid-rollout is carried out before the rollout goes on.
    fn is_scaling_event(&self) -> bool {
        self.sets.active().any(|set| {
            let desired =
                annotation(&set.object.metadata, DESIRED_REPLICAS).and_then(|n| n.parse::<i32>().ok());
            desired.is_some_and(|desired| desired != self.wanted())
        })
    }

    /// Finds the new ReplicaSet and brings its revision up to date; makes it if `create` and there is none.
    fn sync_revision(&mut self, create: bool) {
        let revision =
            self.sets.old().map(|set| history::revision(&set.object.metadata)).max().unwrap_or(0) + 1;
        if let Some(set) = self.sets.new_mut() {
            template::annotate_new(self.deployment, self.spec, &mut set.object, revision, true);
            if let Some(set_spec) = &mut set.object.spec {
                set_spec.min_ready_seconds = self.spec.min_ready_seconds;
            }
            let set_name = name(&set.object.metadata).to_owned();
            self.status.revision = annotation(&set.object.metadata, REVISION).map(str::to_owned);
            self.status.found_new_set(self.spec, &set_name, self.now);
        } else if create {
            let mut set = template::new_replica_set(self.deployment, self.spec);
            let replicas = rolling::new_set_replicas(self.spec, self.sets.replicas(), 0);
            if let Some(set_spec) = &mut set.spec {
                set_spec.replicas = Some(replicas);
            }
            template::annotate_new(self.deployment, self.spec, &mut set, revision, false);
            let set_name = name(&set.metadata).to_owned();
            self.status.revision = annotation(&set.metadata, REVISION).map(str::to_owned);
            self.status.created_new_set(self.spec, &set_name, self.now);
            self.sets.push_new(Working::created(set));
            if replicas > 0 {
                self.event(
                    false,
                    "ScalingReplicaSet",
                    format!("Scaled up replica set {set_name} to {replicas} from 0"),
                );
            }
        }
    }

    /// Sets one ReplicaSet's size; says so if that changes it.
    fn resize(&mut self, index: usize, replicas: i32) -> bool {
        let surge = numbers::max_surge(self.spec);
        let wanted = self.wanted();
        let set = self.sets.at_mut(index);
        let before = set.replicas();
        template::annotate_size(&mut set.object.metadata, wanted, wanted.saturating_add(surge));
        if before == replicas {
            return false;
        }
        if let Some(set_spec) = &mut set.object.spec {
            set_spec.replicas = Some(replicas);
        }
        let direction = if before < replicas { "up" } else { "down" };
        let message = format!(
            "Scaled {direction} replica set {} to {replicas} from {before}",
            name(&set.object.metadata)
        );
        self.event(false, "ScalingReplicaSet", message);
        true
    }

    fn rollout_recreate(&mut self, pods: &[Arc<Pod>]) {
        self.sync_revision(false);
        let active: Vec<_> = self.sets.old_active_indexes();
        let mut scaled = false;
        for index in active {
            scaled |= self.resize(index, 0);
        }
        let waits = !crate::mutant!(RecreateDoesNotWait);
        if waits && (scaled || self.old_pods_running(pods)) {
            return;
        }
        self.sync_revision(true);
        if let Some(index) = self.sets.new_index() {
            self.resize(index, self.wanted());
        }
        if self.status.is_complete(self.deployment) {
            self.cleanup();
        }
    }

    fn old_pods_running(&self, pods: &[Arc<Pod>]) -> bool {
        if self.sets.old().any(|set| set.status().is_some_and(|status| status.replicas > 0)) {
            return true;
        }
        let new = self.sets.new_set().map(|set| uid(&set.object.metadata).to_owned()).unwrap_or_default();
        pods.iter().any(|pod| !is_controlled_by(&pod.metadata, &new) && !is_finished(pod))
    }

    fn cleanup(&mut self) {
        let gone = history::to_delete(self.spec.revision_history_limit, self.sets.old());
        self.actions.extend(gone);
    }

    /// Patches for all ReplicaSets that changed, then the Deployment's annotations and status.
    fn finish(mut self, rollout: bool) -> Plan {
        let (created, patched) = self.sets.changes(namespace(&self.deployment.metadata));
        let mut actions = created;
        actions.extend(patched);
        actions.append(&mut self.actions);
        self.actions = actions;
        let status = self.status.calculate(self.deployment, self.spec, &self.sets, rollout, self.now);
        let requeue_after =
            rollout.then(|| status::recheck_after(self.spec, &status, self.deployment, self.now)).flatten();
        let meta = &self.deployment.metadata;
        let mut guarded = true;
        if let Some(revision) = &self.status.revision
            && annotation(meta, REVISION) != Some(revision)
        {
            let mut patch = json!({ "metadata": preconditions(meta, true) });
            patch["metadata"]["annotations"] = json!({ REVISION: revision });
            let target = Target::new(&DEPLOYMENTS, namespace(meta), name(meta));
            self.actions.push(Action::Patch { target, subresource: "", patch });
            guarded = false;
        }
        if let Some(change) = status::change(self.deployment, &status) {
            let patch = if guarded { status_report::patch } else { status_report::patch_any_version };
            self.actions.push(patch(&DEPLOYMENTS, meta, change));
        }
        Plan { actions: self.actions, requeue_after }
    }

    fn finish_observed_only(mut self) -> Plan {
        let meta = &self.deployment.metadata;
        let observed = self.deployment.status.as_ref().and_then(|status| status.observed_generation);
        if observed != meta.generation {
            let change = json!({ "observedGeneration": meta.generation });
            self.actions.push(status_report::patch(&DEPLOYMENTS, meta, change));
        }
        Plan { actions: self.actions, requeue_after: None }
    }
}

#[cfg(test)]
mod tests;
