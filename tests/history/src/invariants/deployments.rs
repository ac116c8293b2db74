//! A Deployment's rollouts: what its ReplicaSets are to have together never grows beyond `replicas` + `maxSurge`, and a shrunk ReplicaSet leaves at least
//! `replicas` - `maxUnavailable` available pods if the ReplicaSets had reported as many, unless pods were lost otherwise lately or the Deployment was scaled. `Recreate` begins with the new
//! template when the pods of the old one are gone. Deployments with `minReadySeconds` are judged by their surge only.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::sizes::Sizes;
use super::{Invariant, Step};
use crate::STALENESS;
use crate::object::{
    controller_of_kind, generation, is_finished, is_healthy, list, name, node, number, scaled, text, uid,
};

#[derive(Clone, Copy)]
struct Bounds {
    most: i64,
    least: i64,
}

#[derive(Default)]
struct Seen {
    bounds: Sizes<Bounds>,
    lost: Option<Duration>,
}

/// By the Deployment's uid.
#[derive(Default)]
pub struct Deployments(HashMap<String, Seen>);

fn size(object: &Value) -> i64 {
    number(object, &["spec", "replicas"]).unwrap_or(1)
}

fn is_recreate(deployment: &Value) -> bool {
    text(deployment, &["spec", "strategy", "type"]) == "Recreate"
}

fn bounds(deployment: &Value) -> Bounds {
    let wanted = size(deployment);
    if is_recreate(deployment) {
        return Bounds { most: wanted, least: 0 };
    }
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let part = |field: &str, up| match &rolling[field] {
        Value::Null => scaled(&Value::from("25%"), wanted, up),
        value => scaled(value, wanted, up),
    };
    let (surge, mut unavailable) = (part("maxSurge", true), part("maxUnavailable", false));
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Bounds { most: wanted + surge, least: (wanted - unavailable).max(0) }
}

impl Invariant for Deployments {
    fn name(&self) -> &'static str {
        "DeploymentsKeepTheirBounds"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        match step.change.key.resource.as_str() {
            "deployments" => {
                if let Some(deployment) = step.new {
                    let observed = number(deployment, &["status", "observedGeneration"]);
                    let seen = self.0.entry(uid(deployment).to_owned()).or_default();
                    seen.bounds.note(generation(deployment), observed, bounds(deployment));
                } else if let Some(old) = step.old {
                    self.0.remove(uid(old));
                }
                Vec::new()
            }
            "pods" => {
                self.pod(step);
                Vec::new()
            }
            "replicasets" => self.resized(step),
            _ => Vec::new(),
        }
    }
}

impl Deployments {
    /// Notes pods that are lost though their ReplicaSet is to have them.
    fn pod(&mut self, step: &Step<'_>) {
        let Some(old) = step.old.filter(|old| is_healthy(old)) else { return };
        if step.new.is_some_and(is_healthy) {
            return;
        }
        let Some(owner) = controller_of_kind(old, "ReplicaSet") else { return };
        let Some(set) =
            step.state.list("replicasets", &step.change.key.namespace).find(|set| uid(set) == owner)
        else {
            return;
        };
        let left = step.state.controlled("pods", owner).filter(|pod| is_healthy(pod)).count();
        if i64::try_from(left).unwrap_or(i64::MAX) < size(set)
            && let Some(seen) = controller_of_kind(set, "Deployment").and_then(|uid| self.0.get_mut(uid))
        {
            seen.lost = Some(step.change.at);
        }
    }

    fn resized(&self, step: &Step<'_>) -> Vec<String> {
        let Some(set) = step.new else { return Vec::new() };
        let Some(owner) = controller_of_kind(set, "Deployment") else { return Vec::new() };
        let mut deployments = step.state.list("deployments", &step.change.key.namespace);
        let Some(deployment) = deployments.find(|deployment| uid(deployment) == owner) else {
            return Vec::new();
        };
        let Some(seen) = self.0.get(owner) else { return Vec::new() };
        let before = step.old.map_or(0, size);
        match size(set).cmp(&before) {
            std::cmp::Ordering::Equal => Vec::new(),
            std::cmp::Ordering::Greater => {
                let mut found: Vec<_> = grown(step, seen, owner, deployment).into_iter().collect();
                found.extend(overlap(step, owner, set, before).filter(|_| is_recreate(deployment)));
                found
            }
            std::cmp::Ordering::Less => shrunk(step, seen, owner, deployment, before).into_iter().collect(),
        }
    }
}

fn grown(step: &Step<'_>, seen: &Seen, owner: &str, deployment: &Value) -> Option<String> {
    let sets: Vec<_> = step.state.controlled("replicasets", owner).collect();
    let sum: i64 = sets.iter().map(|set| size(set)).sum();
    let most = seen.bounds.all().map(|bounds| bounds.most).max()?;
    let each: Vec<_> = sets.iter().map(|set| format!("{} {}", name(set), size(set))).collect();
    (sum > most).then(|| {
        format!(
            "the ReplicaSets of Deployment {} grew to {sum} pods together, {most} are allowed: {}",
            name(deployment),
            each.join(", ")
        )
    })
}

fn shrunk(step: &Step<'_>, seen: &Seen, owner: &str, deployment: &Value, before: i64) -> Option<String> {
    const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
    let desired = |set: Option<&Value>| {
        set.and_then(|set| set["metadata"]["annotations"][DESIRED].as_str().map(str::to_owned))
    };
    let rescaled = desired(step.old) != desired(step.new);
    let waits = number(deployment, &["spec", "minReadySeconds"]).unwrap_or(0) > 0;
    let excused = seen.lost.is_some_and(|lost| step.change.at.saturating_sub(lost) < STALENESS);
    if rescaled || waits || excused {
        return None;
    }
    let available = |own: Option<i64>| -> i64 {
        let sets = step.state.controlled("replicasets", owner);
        sets.map(|set| {
            let healthy = step.state.controlled("pods", uid(set)).filter(|pod| is_healthy(pod)).count();
            let is_own = step.new.is_some_and(|new| uid(new) == uid(set));
            let room = own.filter(|_| is_own).unwrap_or_else(|| size(set));
            // Before: as far as it was reported, since nobody can spare what nobody knows of.
            let known = number(set, &["status", "availableReplicas"]).unwrap_or(0);
            let known = own.map_or(i64::MAX, |_| known);
            room.min(known).min(i64::try_from(healthy).unwrap_or(i64::MAX))
        })
        .sum()
    };
    let least = seen.bounds.all().map(|bounds| bounds.least).min()?;
    let (had, left) = (available(Some(before)), available(None));
    (had >= least && left < least).then(|| {
        format!(
            "Deployment {} was left with {left} available pods of {had}, {least} are promised",
            name(deployment)
        )
    })
}

/// Pods of another template that were at work for so long that nobody can have overlooked them.
fn overlap(step: &Step<'_>, owner: &str, set: &Value, before: i64) -> Option<String> {
    if before > 0 {
        return None;
    }
    let others = step.state.controlled("replicasets", owner).filter(|other| uid(other) != uid(set));
    let mut pods = others.flat_map(|other| step.state.controlled("pods", uid(other)));
    let old = pods.find(|pod| {
        let life = step.state.life(uid(pod));
        let long = life.is_some_and(|life| step.change.at.saturating_sub(life.born) > STALENESS);
        long && !is_finished(pod) && !node(pod).is_empty() && !list(pod, &["spec", "containers"]).is_empty()
    })?;
    Some(format!("the pod {} of another template is still there", name(old)))
}
