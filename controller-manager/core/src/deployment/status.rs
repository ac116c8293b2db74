//! What a Deployment reports, in the words `kubectl rollout status` reads: counts, Available, Progressing and
//! ReplicaFailure, and when the progress deadline passes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus};
use serde_json::{Value, json};

use super::numbers;
use super::working_set::{Sets, Working};
use crate::merge_diff::merge_diff_of;
use crate::object_meta::{name, seconds};

const PROGRESSING: &str = "Progressing";
const AVAILABLE_REASON: &str = "NewReplicaSetAvailable";
const TIMED_OUT_REASON: &str = "ProgressDeadlineExceeded";
const PAUSED_REASON: &str = "DeploymentPaused";

/// The status as it stands while a step is decided.
pub struct Progress {
    status: DeploymentStatus,
    /// The revision of the new ReplicaSet, once known.
    pub revision: Option<String>,
}

fn has_deadline(spec: &DeploymentSpec) -> bool {
    spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    status.conditions.iter_mut().for_each(|list| list.retain(|condition| condition.type_ != kind));
}

/// Sets a condition unless status and reason are there already; the transition time moves only with the status.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(current) = find(status, &condition.type_) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove(status, &condition.type_.clone());
    status.conditions.get_or_insert_default().push(condition);
}

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(seconds(now)),
        last_transition_time: Some(seconds(now)),
    }
}

impl Progress {
    /// Starts from what is reported.
    pub fn new(deployment: &Deployment) -> Self {
        Self { status: deployment.status.clone().unwrap_or_default(), revision: None }
    }

    /// Keeps the progress deadline from running while the rollout is paused.
    pub fn check_paused(&mut self, spec: &DeploymentSpec, now: Timestamp) {
        let reason = find(&self.status, PROGRESSING).and_then(|condition| condition.reason.clone());
        if !has_deadline(spec) || reason.as_deref() == Some(TIMED_OUT_REASON) {
            return;
        }
        let shown = reason.as_deref() == Some(PAUSED_REASON);
        let next = match (spec.paused.unwrap_or(false), shown) {
            (true, false) => {
                condition(PROGRESSING, "Unknown", PAUSED_REASON, "Deployment is paused".into(), now)
            }
            (false, true) => {
                condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now)
            }
            _ => return,
        };
        set(&mut self.status, next);
    }

    /// The template's ReplicaSet exists; says so if nothing about progress was said yet.
    pub fn found_new_set(&mut self, spec: &DeploymentSpec, set_name: &str, now: Timestamp) {
        if has_deadline(spec) && find(&self.status, PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{set_name}\"");
            set(&mut self.status, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, now));
        }
    }

    /// The template's ReplicaSet is being created.
    pub fn created_new_set(&mut self, spec: &DeploymentSpec, set_name: &str, now: Timestamp) {
        if has_deadline(spec) {
            let message = format!("Created new replica set \"{set_name}\"");
            set(&mut self.status, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now));
        }
    }

    /// Whether the reported state is that of a finished rollout.
    pub fn is_complete(&self, deployment: &Deployment) -> bool {
        is_complete(deployment, deployment.status.as_ref().unwrap_or(&self.status))
    }

    /// The status for these ReplicaSets. `rollout` says whether the step was one of a rollout, whose progress is judged.
    pub fn calculate(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        sets: &Sets,
        rollout: bool,
        now: Timestamp,
    ) -> DeploymentStatus {
        let mut status = counts(deployment, &self.status, sets);
        let enough = spec.replicas.unwrap_or(1) - numbers::max_unavailable(spec);
        let available = if status.available_replicas.unwrap_or(0) >= enough {
            let message = "Deployment has minimum availability.".to_owned();
            condition("Available", "True", "MinimumReplicasAvailable", message, now)
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            condition("Available", "False", "MinimumReplicasUnavailable", message, now)
        };
        set(&mut status, available);
        if rollout {
            self.judge(deployment, spec, sets, &mut status, now);
            match replica_failure(sets) {
                Some(failure) => set(&mut status, failure),
                None => remove(&mut status, "ReplicaFailure"),
            }
        }
        if status.conditions.as_ref().is_some_and(Vec::is_empty) {
            status.conditions = None;
        }
        status
    }

    fn judge(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        sets: &Sets,
        status: &mut DeploymentStatus,
        now: Timestamp,
    ) {
        if !has_deadline(spec) {
            remove(status, PROGRESSING);
            return;
        }
        let current = find(&self.status, PROGRESSING).cloned();
        let done = current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(AVAILABLE_REASON));
        if done && status.replicas == status.updated_replicas {
            return;
        }
        let subject = match sets.new_set() {
            Some(set) => format!("ReplicaSet \"{}\"", name(&set.object.metadata)),
            None => format!("Deployment \"{}\"", name(&deployment.metadata)),
        };
        if is_complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set(status, condition(PROGRESSING, "True", AVAILABLE_REASON, message, now));
        } else if has_progressed(deployment.status.as_ref().unwrap_or(&DeploymentStatus::default()), status) {
            let mut next = condition(
                PROGRESSING,
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
                now,
            );
            if let Some(current) = current.filter(|current| current.status == "True") {
                next.last_transition_time = current.last_transition_time;
            }
            // Replaced even if nothing but its update time changes: the deadline counts from there.
            remove(status, PROGRESSING);
            set(status, next);
        } else if has_timed_out(spec, status, now) {
            let message = format!("{subject} has timed out progressing.");
            set(status, condition(PROGRESSING, "False", TIMED_OUT_REASON, message, now));
        }
    }
}

fn counts(deployment: &Deployment, before: &DeploymentStatus, sets: &Sets) -> DeploymentStatus {
    let actual = |set: &Working| set.status().map_or(0, |status| status.replicas);
    let positive = |count: i32| (count > 0).then_some(count);
    let ready: i32 = sets.iter().map(|set| set.status().and_then(|s| s.ready_replicas).unwrap_or(0)).sum();
    let terminating: Option<i32> =
        sets.iter().map(|set| set.status().map_or(Some(0), |status| status.terminating_replicas)).sum();
    let available = sets.available();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(sets.iter().map(actual).sum()),
        updated_replicas: positive(sets.new_set().map_or(0, actual)),
        ready_replicas: positive(ready),
        available_replicas: positive(available),
        unavailable_replicas: positive(sets.replicas() - available),
        terminating_replicas: terminating,
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    }
}

fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    after.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || old(after) < old(before)
        || after.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || after.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

fn deadline(spec: &DeploymentSpec, progressing: &DeploymentCondition) -> Option<Timestamp> {
    let limit = SignedDuration::from_secs(i64::from(spec.progress_deadline_seconds?));
    progressing.last_update_time.as_ref()?.0.checked_add(limit).ok()
}

fn has_timed_out(spec: &DeploymentSpec, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(progressing) = find(status, PROGRESSING) else { return false };
    match progressing.reason.as_deref() {
        Some(AVAILABLE_REASON) => false,
        Some(TIMED_OUT_REASON) => true,
        _ => deadline(spec, progressing).is_some_and(|deadline| deadline < now),
    }
}

fn replica_failure(sets: &Sets) -> Option<DeploymentCondition> {
    let of = |set: &Working| {
        let conditions = set.status()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True").cloned()
    };
    let failure = sets.new_set().and_then(of).or_else(|| sets.iter().find_map(of))?;
    Some(DeploymentCondition {
        type_: "ReplicaFailure".into(),
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    })
}

/// When the progress deadline has to be checked: it passes without anything changing.
pub fn recheck_after(
    spec: &DeploymentSpec,
    status: &DeploymentStatus,
    deployment: &Deployment,
    now: Timestamp,
) -> Option<Duration> {
    let progressing = find(status, PROGRESSING).filter(|_| has_deadline(spec))?;
    if is_complete(deployment, status) || progressing.reason.as_deref() == Some(TIMED_OUT_REASON) {
        return None;
    }
    let left = deadline(spec, progressing)?.duration_since(now) + SignedDuration::from_secs(1);
    Some(Duration::try_from(left).unwrap_or(Duration::from_secs(1)).max(Duration::from_secs(1)))
}

/// The merge patch of the status, if it differs from what is reported.
pub fn change(deployment: &Deployment, status: &DeploymentStatus) -> Option<Value> {
    merge_diff_of(&deployment.status.clone().unwrap_or_default(), status)
}

/// The status patch after the name of the new ReplicaSet turned out to be taken by another template.
pub fn count_collision(deployment: &Deployment) -> Value {
    let count = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    json!({ "collisionCount": count.saturating_add(1) })
}
