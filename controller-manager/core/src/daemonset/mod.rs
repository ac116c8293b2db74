//! The DaemonSet controller: one pod on every node where one belongs. [`plan`] decides which pods to make and delete now
//! ([`placement`] where, [`rolling`] at which pace an update goes), [`Look::status`] what to report. The history of templates
//! is [`crate::controller_revision`]'s.

pub mod failed_pods;
pub mod placement;
mod rolling;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::action::{Action, DAEMON_SETS};
use crate::controller_revision::{POD_REVISION, delete};
use crate::object_meta::{annotation, created, name, namespace, object_reference, uid};
use crate::pod_state::{available_at, is_available, is_finished, is_ready, is_terminating, node_name, phase};
use failed_pods::FailedPods;
use placement::{Belongs, Placement, target_node};
use rolling::Limits;

/// The label of pods with the generation of the template, from before there were revisions.
pub const TEMPLATE_GENERATION: &str = "pod-template-generation";
/// The annotation of the set with that generation.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
/// At most this many pods are created, and as many deleted, in one go.
const BURST: usize = 250;

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// What to tell people.
    pub events: Vec<Action>,
    /// Look again after this time: failed pods wait for their replacement.
    pub requeue_after: Option<Duration>,
}

/// What one look at a set sees.
pub struct Look<'a> {
    set: &'a DaemonSet,
    hash: &'a str,
    nodes: BTreeMap<&'a str, Belongs>,
    /// The pods by the node they are on or meant for; nodes where one belongs and none is are there too.
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    desired: usize,
    now: Timestamp,
}

/// The generation of the set's template, as old pods know it.
pub fn generation(set: &DaemonSet) -> Option<&str> {
    annotation(&set.metadata, GENERATION_ANNOTATION).filter(|text| text.parse::<i64>().is_ok())
}

/// Bound ones first, then the oldest.
fn by_age(a: &Arc<Pod>, b: &Arc<Pod>) -> std::cmp::Ordering {
    node_name(a)
        .is_empty()
        .cmp(&node_name(b).is_empty())
        .then_with(|| created(&a.metadata).cmp(&created(&b.metadata)))
        .then_with(|| name(&a.metadata).cmp(name(&b.metadata)))
}

impl<'a> Look<'a> {
    /// At a set whose revision of today has the hash, all nodes, and the pods that are the set's.
    pub fn new(
        set: &'a DaemonSet,
        hash: &'a str,
        nodes: &'a [Arc<Node>],
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let placement = Placement::new(set);
        let nodes: BTreeMap<&str, Belongs> =
            nodes.iter().map(|node| (name(&node.metadata), placement.on(node))).collect();
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !(is_finished(pod) && is_terminating(pod))) {
            if let Some(node) = target_node(pod) {
                by_node.entry(node.to_owned()).or_default().push(Arc::clone(pod));
            }
        }
        by_node.values_mut().for_each(|pods| pods.sort_by(by_age));
        let wanted = nodes.iter().filter(|(_, belongs)| belongs.should_run);
        let desired = wanted.clone().count();
        for (node, _) in wanted {
            by_node.entry((*node).to_owned()).or_default();
        }
        Self { set, hash, nodes, by_node, desired, now }
    }

    fn belongs(&self, node: &str) -> Option<Belongs> {
        self.nodes.get(node).copied()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    fn limits(&self) -> Limits {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        rolling::limits(strategy.and_then(|strategy| strategy.rolling_update.as_ref()), self.desired)
    }

    fn has_hash(&self, pod: &Pod) -> bool {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(POD_REVISION))
            .is_some_and(|h| h == self.hash)
    }

    /// Whether the pod has the template of today.
    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        let pod_generation = labels.and_then(|labels| labels.get(TEMPLATE_GENERATION)).map(String::as_str);
        self.has_hash(pod) || (generation(self.set).is_some() && pod_generation == generation(self.set))
    }

    /// What to do. An update goes on only when every node has what it should have.
    pub fn plan(&self, failed: &mut FailedPods) -> Plan {
        let mut plan = Plan::default();
        for (node, pods) in &self.by_node {
            match self.belongs(node) {
                Some(belongs) => self.put_right(node, belongs, pods, failed, &mut plan),
                // Nobody else deletes a pod that waits for a node which is gone.
                None => plan.delete.extend(pods.iter().filter(|pod| node_name(pod).is_empty()).cloned()),
            }
        }
        if plan.create.is_empty() && plan.delete.is_empty() && self.is_rolling() {
            self.roll(&mut plan);
        }
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
        plan
    }

    fn put_right(
        &self,
        node: &str,
        belongs: Belongs,
        pods: &[Arc<Pod>],
        failed: &mut FailedPods,
        plan: &mut Plan,
    ) {
        let here = || pods.iter().filter(|pod| !is_terminating(pod));
        if !belongs.may_stay {
            plan.delete.extend(here().cloned());
            return;
        }
        if pods.is_empty() {
            if belongs.should_run {
                plan.create.push(node.to_owned());
            }
            return;
        }
        let mut running = Vec::new();
        for pod in here() {
            match phase(pod) {
                "Failed" => self.replace_failed(node, pod, failed, plan),
                "Succeeded" => {
                    plan.events.push(self.found("succeeded", "delete", node, pod));
                    plan.delete.push(Arc::clone(pod));
                }
                _ => running.push(pod),
            }
        }
        if self.limits().surge == 0 || !self.is_rolling() {
            plan.delete.extend(running.into_iter().skip(1).cloned());
        } else if running.is_empty() && belongs.should_run {
            plan.create.push(node.to_owned());
        } else if running.len() > 1 {
            self.keep_new_and_old(&running, plan);
        }
    }

    fn replace_failed(&self, node: &str, pod: &Arc<Pod>, failed: &mut FailedPods, plan: &mut Plan) {
        let observed = self.set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        let key = format!("{}/{observed}/{node}", uid(&self.set.metadata));
        match failed.delete(&key, self.now) {
            Ok(()) => {
                plan.events.push(self.found("failed", "kill", node, pod));
                plan.delete.push(Arc::clone(pod));
            }
            Err(wait) => {
                plan.requeue_after = Some(plan.requeue_after.map_or(wait, |before| before.min(wait)));
            }
        }
    }

    fn found(&self, what: &str, verb: &str, node: &str, pod: &Pod) -> Action {
        let failed = what == "failed";
        Action::Event {
            regarding: Box::new(object_reference(&DAEMON_SETS, &self.set.metadata)),
            warning: failed,
            reason: if failed { "FailedDaemonPod" } else { "SucceededDaemonPod" },
            message: format!(
                "Found {what} daemon pod {}/{} on node {node}, will try to {verb} it",
                namespace(&pod.metadata),
                name(&pod.metadata)
            ),
        }
    }

    /// With surge a node may have two pods: an old one that is ready and a new one that is not yet available.
    fn keep_new_and_old(&self, running: &[&Arc<Pod>], plan: &mut Plan) {
        let (mut new, mut old) = (None, None);
        for pod in running {
            let place = if self.has_hash(pod) { &mut new } else { &mut old };
            if place.is_none() {
                *place = Some(*pod);
            } else {
                plan.delete.push(Arc::clone(pod));
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!is_ready(old) || is_available(new, self.min_ready_seconds(), self.now))
        {
            plan.delete.push(Arc::clone(old));
        }
    }

    /// What to report. The generation counts as seen only if the look has acted on it.
    pub fn status(&self, acted: bool) -> DaemonSetStatus {
        let before = self.set.status.clone().unwrap_or_default();
        let (mut current, mut misplaced, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0);
        for (node, belongs) in &self.nodes {
            let pods = self.by_node.get(*node).map(Vec::as_slice).unwrap_or_default();
            let Some(pod) = pods.first() else { continue };
            if !belongs.should_run {
                misplaced += 1;
                continue;
            }
            current += 1;
            ready += i32::from(is_ready(pod));
            available += i32::from(is_available(pod, self.min_ready_seconds(), self.now));
            updated += i32::from(self.is_updated(pod));
        }
        let desired = i32::try_from(self.desired).unwrap_or(i32::MAX);
        let positive = |count: i32| (count > 0).then_some(count);
        DaemonSetStatus {
            current_number_scheduled: current,
            desired_number_scheduled: desired,
            number_available: positive(available),
            number_misscheduled: misplaced,
            number_ready: ready,
            number_unavailable: positive(desired - available),
            observed_generation: if acted {
                self.set.metadata.generation
            } else {
                before.observed_generation
            },
            updated_number_scheduled: positive(updated),
            collision_count: before.collision_count,
            conditions: before.conditions,
        }
    }

    /// When the next ready pod becomes available.
    pub fn recheck_after(&self) -> Option<Duration> {
        let min_ready = Some(self.min_ready_seconds()).filter(|seconds| *seconds > 0)?;
        let times = self.by_node.values().flatten().filter_map(|pod| available_at(pod, min_ready));
        let next = times.filter(|at| *at > self.now).min()?;
        Duration::try_from(next.duration_since(self.now)).ok()
    }
}

/// Deletions of the oldest revisions beyond the limit. Those that a pod still has stay.
pub fn forget_revisions(
    set: &DaemonSet,
    current: &str,
    sorted: &[Arc<ControllerRevision>],
    pods: &[Arc<Pod>],
) -> Vec<Action> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let old: Vec<_> = sorted.iter().filter(|revision| name(&revision.metadata) != current).collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let label = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.labels.as_ref().and_then(|labels| labels.get(POD_REVISION)).cloned()
    };
    let live: Vec<_> = pods.iter().filter_map(|pod| label(&pod.metadata)).collect();
    let dead =
        old.into_iter().filter(|revision| label(&revision.metadata).is_none_or(|hash| !live.contains(&hash)));
    dead.take(surplus).map(|revision| delete(revision)).collect()
}

#[cfg(test)]
mod tests;
