//! The StatefulSet controller: pods with an identity each. [`plan`] decides what to make, delete and change now; with
//! `OrderedReady` one step at a time and only when all before is available, with `Parallel` all at once. Who a pod is says
//! [`identity`], whose claims are whose [`claims`]; the history of templates is [`crate::controller_revision`]'s. A pod is
//! created by its name, so that the server never has two of one identity, and replaced only when it is gone there.

pub mod claims;
pub mod identity;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

use crate::action::{Action, PERSISTENT_VOLUME_CLAIMS, PODS, Target};
use crate::controller_revision::{POD_REVISION, delete, template_of};
use crate::deployment::numbers::scaled;
use crate::object_meta::{name, namespace, preconditions};
use crate::pod_state::{is_available, is_finished, is_ready, is_terminating, phase};
pub use identity::ordinal as ordinal_of;

/// What one look starts from.
pub struct Observed<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// The revision that pods have until an update reaches them.
    pub current: &'a ControllerRevision,
    /// The revision of the template of today.
    pub update: &'a ControllerRevision,
    /// The pods that are the set's.
    pub pods: Vec<Arc<Pod>>,
    /// Finds a claim by its name.
    pub claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    /// The time.
    pub now: Timestamp,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Steps, those of one pod in one group. Groups are independent if `parallel`; otherwise the first failure ends the plan.
    pub groups: Vec<Vec<Action>>,
    /// Whether groups may be carried out at the same time.
    pub parallel: bool,
    /// What to report once all is done.
    pub status: StatefulSetStatus,
    /// Look again after this time even if nothing changes.
    pub requeue_after: Option<Duration>,
}

/// How often to look whether a claim that is going away is gone.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

fn first_ordinal(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0)
}

/// Whether the set is to have a pod with this ordinal.
pub fn in_range(set: &StatefulSet, ordinal: i32) -> bool {
    let first = first_ordinal(set);
    (first..first.saturating_add(replicas(set))).contains(&ordinal)
}

fn is_parallel(spec: &StatefulSetSpec) -> bool {
    spec.pod_management_policy.as_deref() == Some("Parallel")
}

/// The revision a pod was made from.
fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(POD_REVISION)).map(String::as_str).unwrap_or_default()
}

/// The name of the pod with an ordinal in the range, and the pod if it is there.
struct Replica {
    ordinal: i32,
    pod: Option<Arc<Pod>>,
}

struct Look<'a> {
    observed: &'a Observed<'a>,
    spec: &'a StatefulSetSpec,
    replicas: Vec<Replica>,
    /// Pods outside the range, the highest ordinal first.
    condemned: Vec<(i32, Arc<Pod>)>,
    groups: Vec<Vec<Action>>,
    /// Old pods deleted for the update.
    updating: i32,
    requeue_after: Option<Duration>,
}

/// Whether to go on to what comes after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Option<Plan> {
    let set = observed.set;
    let spec = set.spec.as_ref()?;
    let first = first_ordinal(set);
    let mut all: Vec<Replica> =
        (first..first.saturating_add(replicas(set))).map(|ordinal| Replica { ordinal, pod: None }).collect();
    let mut condemned = Vec::new();
    for pod in &observed.pods {
        let Some(ordinal) = ordinal_of(set, pod) else { continue };
        let at = usize::try_from(i64::from(ordinal) - i64::from(first)).ok();
        match at.and_then(|at| all.get_mut(at)) {
            Some(replica) => replica.pod = Some(Arc::clone(pod)),
            None => condemned.push((ordinal, Arc::clone(pod))),
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    let mut look = Look {
        observed,
        spec,
        replicas: all,
        condemned,
        groups: Vec::new(),
        updating: 0,
        requeue_after: None,
    };
    if set.metadata.deletion_timestamp.is_none() {
        look.act();
    }
    let requeue_after = look.requeue_after.into_iter().chain(look.next_available()).min();
    let status = look.status();
    Some(Plan { groups: look.groups, parallel: is_parallel(spec), status, requeue_after })
}

impl Look<'_> {
    fn set(&self) -> &StatefulSet {
        self.observed.set
    }

    fn is_ordered(&self) -> bool {
        !is_parallel(self.spec) && !crate::mutant!(OrderIgnored)
    }

    fn is_running_and_ready(&self, pod: &Pod) -> bool {
        phase(pod) == "Running" && is_ready(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.observed.now)
    }

    fn is_unavailable(&self, pod: Option<&Arc<Pod>>) -> bool {
        pod.is_none_or(|pod| !self.is_available(pod) || is_terminating(pod))
    }

    fn act(&mut self) {
        let blocking = self.first_unavailable_condemned();
        for at in 0..self.replicas.len() {
            if self.settle(at) == Go::Stop && self.is_ordered() {
                return;
            }
        }
        self.own_condemned_claims();
        for at in 0..self.condemned.len() {
            if self.remove(at, blocking) == Go::Stop && self.is_ordered() {
                return;
            }
        }
        let on_delete = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        if on_delete != Some("OnDelete") {
            self.update();
        }
    }

    /// Among condemned pods, the one that may go though it is not available: the lowest, if all before are available.
    fn first_unavailable_condemned(&self) -> Option<i32> {
        if self.replicas.iter().any(|replica| self.is_unavailable(replica.pod.as_ref())) {
            return None;
        }
        let broken = self.condemned.iter().rev().find(|(_, pod)| self.is_unavailable(Some(pod)));
        broken.map(|(ordinal, _)| *ordinal)
    }

    /// Brings one ordinal of the range nearer to what it should be.
    fn settle(&mut self, at: usize) -> Go {
        let ordinal = self.replicas[at].ordinal;
        let Some(pod) = self.replicas[at].pod.clone() else { return self.create(ordinal) };
        if is_finished(&pod) {
            if !is_terminating(&pod) {
                self.groups.push(vec![delete_pod(&pod)]);
            }
            // The new one is made when this one is gone.
            return Go::Stop;
        }
        if phase(&pod) == "Pending" {
            let missing = self.missing_claims(ordinal);
            self.push(missing);
        }
        if self.is_ordered()
            && (is_terminating(&pod) || !self.is_running_and_ready(&pod) || !self.is_available(&pod))
        {
            return Go::Stop;
        }
        let mut changes = Vec::new();
        changes.extend(self.identity_patch(&pod, ordinal));
        changes.extend(self.claim_patches(&pod, ordinal));
        self.push(changes);
        Go::On
    }

    fn push(&mut self, group: Vec<Action>) {
        if !group.is_empty() {
            self.groups.push(group);
        }
    }

    fn create(&mut self, ordinal: i32) -> Go {
        let pod_name = identity::pod_name(self.set(), ordinal);
        let known: Vec<_> = claims::of(self.set(), ordinal)
            .filter_map(|(_, claim)| (self.observed.claim)(name(&claim.metadata)))
            .collect();
        let going = |claim: &Arc<PersistentVolumeClaim>| {
            claim.metadata.deletion_timestamp.is_some() || claims::is_stale(self.set(), claim, &pod_name)
        };
        if known.iter().any(going) {
            self.requeue_after = Some(CLAIM_WAIT);
            return Go::Stop;
        }
        let mut group = self.missing_claims(ordinal);
        let revision = self.revision_for(ordinal);
        let template = template_of(revision).unwrap_or_else(|| self.spec.template.clone());
        let object = identity::new_pod(self.set(), &template, name(&revision.metadata), ordinal);
        let in_namespace = namespace(&self.set().metadata).to_owned();
        group.push(Action::Create { resource: PODS, namespace: in_namespace, object });
        self.groups.push(group);
        Go::Stop
    }

    fn missing_claims(&self, ordinal: i32) -> Vec<Action> {
        let missing = claims::of(self.set(), ordinal)
            .filter(|(_, claim)| (self.observed.claim)(name(&claim.metadata)).is_none());
        missing
            .map(|(_, claim)| Action::Create {
                resource: PERSISTENT_VOLUME_CLAIMS,
                namespace: namespace(&self.set().metadata).to_owned(),
                object: json!(claim),
            })
            .collect()
    }

    /// Below the partition, and before an update has begun, pods come back as they were.
    fn revision_for(&self, ordinal: i32) -> &ControllerRevision {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let kept = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") => 0,
            None => self.set().status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0),
        };
        if ordinal < first_ordinal(self.set()).saturating_add(kept) {
            self.observed.current
        } else {
            self.observed.update
        }
    }

    fn identity_patch(&self, pod: &Pod, ordinal: i32) -> Option<Action> {
        let wanted = identity::labels(self.set(), ordinal);
        let labels = pod.metadata.labels.as_ref();
        let has = |key: &str, value: &String| labels.and_then(|labels| labels.get(key)) == Some(value);
        if wanted.iter().all(|(key, value)| has(key, value)) {
            return None;
        }
        let mut patch = json!({ "metadata": preconditions(&pod.metadata, true) });
        for (key, value) in wanted {
            patch["metadata"]["labels"][key] = json!(value);
        }
        let target = Target::new(&PODS, namespace(&pod.metadata), name(&pod.metadata));
        Some(Action::Patch { target, subresource: "", patch })
    }

    fn claim_patches(&self, pod: &Pod, ordinal: i32) -> Vec<Action> {
        let known = claims::of(self.set(), ordinal)
            .filter_map(|(_, claim)| (self.observed.claim)(name(&claim.metadata)));
        known.filter_map(|claim| claims::owners_patch(self.set(), pod, &claim)).collect()
    }

    /// Claims that go with a pod that is scaled away must be its before it is deleted.
    fn own_condemned_claims(&mut self) {
        for at in 0..self.condemned.len() {
            let (ordinal, pod) = self.condemned[at].clone();
            let patches = self.claim_patches(&pod, ordinal);
            self.push(patches);
        }
    }

    fn remove(&mut self, at: usize, blocking: Option<i32>) -> Go {
        let (ordinal, pod) = self.condemned[at].clone();
        if is_terminating(&pod) {
            return Go::Stop;
        }
        let whole = self.is_running_and_ready(&pod) && self.is_available(&pod);
        if !whole && self.is_ordered() && blocking != Some(ordinal) {
            return Go::Stop;
        }
        self.groups.push(vec![delete_pod(&pod)]);
        Go::Stop
    }

    fn max_unavailable(&self) -> usize {
        let rolling =
            self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let given = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let number = given.map_or(1, |value| scaled(Some(value), replicas(self.set()), false));
        usize::try_from(number).unwrap_or(0).max(1)
    }

    /// Deletes pods with an old template, the highest ordinal first, down to the partition.
    fn update(&mut self) {
        let rolling =
            self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let unavailable =
            self.replicas.iter().filter(|replica| self.is_unavailable(replica.pod.as_ref())).count();
        let room = self.max_unavailable().saturating_sub(unavailable);
        let from = usize::try_from(partition).unwrap_or(0).min(self.replicas.len());
        let old: Vec<_> = self.replicas[from..]
            .iter()
            .rev()
            .filter_map(|replica| replica.pod.clone())
            .filter(|pod| revision_of(pod) != name(&self.observed.update.metadata) && !is_terminating(pod))
            .collect();
        // In parallel those that are unavailable already cost nothing and go first.
        let (free, costly): (Vec<_>, Vec<_>) =
            old.into_iter().partition(|pod| !self.is_ordered() && !self.is_available(pod));
        for pod in free.into_iter().chain(costly.into_iter().take(room)) {
            // It may be on its way already because it has ended.
            if !is_finished(&pod) {
                self.groups.push(vec![delete_pod(&pod)]);
                self.updating += 1;
            }
        }
    }
}

fn delete_pod(pod: &Pod) -> Action {
    Action::Delete {
        target: Target::new(&PODS, namespace(&pod.metadata), name(&pod.metadata)),
        uid: pod.metadata.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: crate::mutant!(RemovesAtOnce).then_some(0),
    }
}

/// Deletions of the oldest revisions beyond the limit, not counting those that are in use.
pub fn forget_revisions(observed: &Observed<'_>, sorted: &[Arc<ControllerRevision>]) -> Vec<Action> {
    let limit = observed.set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let in_use = |revision: &str| {
        [observed.current, observed.update].iter().any(|used| name(&used.metadata) == revision)
            || observed.pods.iter().any(|pod| revision_of(pod) == revision)
    };
    let dead: Vec<_> = sorted.iter().filter(|revision| !in_use(name(&revision.metadata))).collect();
    let surplus = dead.len().saturating_sub(limit);
    dead.into_iter().take(surplus).map(|revision| delete(revision)).collect()
}

#[cfg(test)]
mod tests;
