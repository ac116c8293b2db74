//! GangScheduling: pods of a Workload's group with a minimum are placed together or not at all. Owns who belongs to a group and how far each
//! has come. The queue asks whether a pod may enter it, the loop whether a pod that has a node may be bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1alpha1::Workload;

use crate::pod_info::PodInfo;
use crate::profile::scheduler_name;

/// The plugin's name.
pub const NAME: &str = "GangScheduling";

/// How long pods that have a node wait for the others of their group.
pub const PERMIT_MAX: Duration = Duration::from_secs(300);

/// A group of pods: those that say the same in `spec.workloadRef`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    namespace: String,
    workload: String,
    group: String,
    /// Empty where the group has no replicas.
    replica: String,
}

impl GroupKey {
    /// The group that a pod belongs to, if any.
    pub fn of(pod: &Pod) -> Option<Self> {
        let reference = pod.spec.as_ref()?.workload_ref.as_ref()?;
        Some(Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            workload: reference.name.clone(),
            group: reference.pod_group.clone(),
            replica: reference.pod_group_replica_key.clone().unwrap_or_default(),
        })
    }
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It looks for a node.
    Unscheduled,
    /// A node's room is taken for it.
    Reserved,
    /// It has its node.
    Assigned,
}

#[derive(Default)]
struct Group {
    members: BTreeMap<Arc<str>, Progress>,
    /// Until when those that have room wait.
    deadline: Option<Duration>,
}

/// What is to become of a pod that has found a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It is bound, and with it these that waited for it.
    Allow(Vec<Arc<str>>),
    /// It keeps its room until then.
    Wait(Duration),
    /// It cannot be bound.
    Refuse(String),
}

/// The minimum of each group of a workload; a group without is scheduled pod by pod.
type Policies = BTreeMap<String, Option<usize>>;

/// All groups.
#[derive(Default)]
pub struct Gangs {
    /// The scheduler names under which groups are obeyed.
    schedulers: BTreeSet<String>,
    /// By namespace and name.
    workloads: HashMap<(String, String), Policies>,
    groups: HashMap<Arc<GroupKey>, Group>,
}

impl Gangs {
    /// No groups yet; pods of other schedulers than these are scheduled one by one.
    pub fn new(schedulers: impl IntoIterator<Item = String>) -> Self {
        Self { schedulers: schedulers.into_iter().collect(), ..Self::default() }
    }

    /// Takes over a workload.
    pub fn set_workload(&mut self, workload: &Workload) {
        let policies = workload.spec.pod_groups.iter().map(|group| {
            let minimum = group.policy.gang.as_ref().map(|gang| usize::try_from(gang.min_count).unwrap_or(0));
            (group.name.clone(), minimum)
        });
        self.workloads.insert(key_of(workload), policies.collect());
    }

    /// Forgets a workload; its pods that have no node wait for another of that name.
    pub fn remove_workload(&mut self, workload: &Workload) {
        self.workloads.remove(&key_of(workload));
    }

    /// The pods of a workload's groups.
    pub fn pods_of(&self, workload: &Workload) -> Vec<Arc<str>> {
        let (namespace, name) = key_of(workload);
        let ours = self.groups.iter().filter(|(key, _)| key.namespace == namespace && key.workload == name);
        ours.flat_map(|(_, group)| group.members.keys().cloned()).collect()
    }

    /// Takes a pod into its group, if it has one. True if the group grew.
    pub fn join(&mut self, pod: &PodInfo, has_node: bool) -> bool {
        let Some(key) = self.obeyed(pod) else { return false };
        let group = self.groups.entry(Arc::clone(key)).or_default();
        let known = group.members.get(&pod.uid).copied();
        let progress = match known {
            _ if has_node => Progress::Assigned,
            Some(progress) => progress,
            None => Progress::Unscheduled,
        };
        group.members.insert(Arc::clone(&pod.uid), progress);
        known.is_none()
    }

    /// Forgets a pod that is gone.
    pub fn leave(&mut self, pod: &Pod) {
        let Some(key) = GroupKey::of(pod) else { return };
        if let Some(group) = self.groups.get_mut(&key) {
            group.members.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            if group.members.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    /// Why a pod has to stay out of the queue, if it has to.
    pub fn blocked(&self, pod: &PodInfo) -> Option<String> {
        let key = self.obeyed(pod)?;
        let minimum = match self.minimum(key) {
            Ok(minimum) => minimum?,
            Err(Missing::Workload) => {
                return Some(format!(
                    "waiting for pods's workload {:?} to appear in scheduling queue",
                    key.workload
                ));
            }
            Err(Missing::Group(text)) => return Some(text),
        };
        let there = self.groups.get(key).map_or(0, |group| group.members.len());
        (there < minimum)
            .then(|| "waiting for minCount pods from a gang to appear in scheduling queue".to_owned())
    }

    /// The other pods of a pod's group.
    pub fn others(&self, pod: &PodInfo) -> Vec<Arc<str>> {
        let group = self.obeyed(pod).and_then(|key| self.groups.get(key));
        let members = group.into_iter().flat_map(|group| group.members.keys());
        members.filter(|uid| **uid != pod.uid).cloned().collect()
    }

    /// What is to become of a pod for which a node's room has just been taken.
    pub fn permit(&mut self, pod: &PodInfo, now: Duration) -> Permit {
        let Some(key) = self.obeyed(pod) else { return Permit::Allow(Vec::new()) };
        let minimum = match self.minimum(key) {
            Ok(Some(minimum)) => minimum,
            Ok(None) => return Permit::Allow(Vec::new()),
            Err(Missing::Workload) => {
                return Permit::Refuse(format!(
                    "failed to get workload {}/{}: workload.scheduling.k8s.io {:?} not found",
                    key.namespace, key.workload, key.workload
                ));
            }
            Err(Missing::Group(text)) => return Permit::Refuse(text),
        };
        let group = self.groups.entry(Arc::clone(key)).or_default();
        group.members.insert(Arc::clone(&pod.uid), Progress::Reserved);
        let placed = group.members.values().filter(|progress| **progress != Progress::Unscheduled).count();
        if placed < minimum {
            let deadline = group.deadline.filter(|deadline| *deadline > now).unwrap_or(now + PERMIT_MAX);
            group.deadline = Some(deadline);
            return Permit::Wait(deadline);
        }
        group.deadline = None;
        let waiting = group
            .members
            .iter()
            .filter(|(uid, progress)| **progress == Progress::Reserved && **uid != pod.uid);
        Permit::Allow(waiting.map(|(uid, _)| Arc::clone(uid)).collect())
    }

    /// The pod's room is free again.
    pub fn release(&mut self, pod: &PodInfo) {
        let group = pod.group.as_ref().and_then(|key| self.groups.get_mut(key));
        if let Some(progress) = group.and_then(|group| group.members.get_mut(&pod.uid)) {
            *progress = Progress::Unscheduled;
        }
    }

    /// The group of a pod whose scheduler obeys groups.
    fn obeyed<'p>(&self, pod: &'p PodInfo) -> Option<&'p Arc<GroupKey>> {
        pod.group.as_ref().filter(|_| self.schedulers.contains(scheduler_name(&pod.pod)))
    }

    fn minimum(&self, key: &GroupKey) -> Result<Option<usize>, Missing> {
        let workload = self.workloads.get(&(key.namespace.clone(), key.workload.clone()));
        let policies = workload.ok_or(Missing::Workload)?;
        policies.get(&key.group).copied().ok_or_else(|| {
            let text = format!("pod group {:?} doesn't exist for a workload {:?}", key.group, key.workload);
            Missing::Group(text)
        })
    }
}

/// What a pod refers to that is not there.
enum Missing {
    Workload,
    /// With a text that says so.
    Group(String),
}

fn key_of(workload: &Workload) -> (String, String) {
    let metadata = &workload.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_from;
    use serde_json::json;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn member(name: &str, group: &str) -> PodInfo {
        PodInfo::new(pod_from(json!({
            "metadata": {"name": name},
            "spec": {"workloadRef": {"name": "training", "podGroup": group}},
        })))
    }

    fn training(minimum: i32) -> Workload {
        serde_json::from_value(json!({
            "metadata": {"name": "training", "namespace": "default"},
            "spec": {"podGroups": [
                {"name": "workers", "policy": {"gang": {"minCount": minimum}}},
                {"name": "driver", "policy": {"basic": {}}},
            ]},
        }))
        .expect("workload")
    }

    fn gangs() -> Gangs {
        Gangs::new(["default-scheduler".to_owned()])
    }

    #[test]
    fn a_pod_stays_out_until_its_workload_and_the_least_number_of_others_are_there() {
        let mut gangs = gangs();
        let (a, b, driver, stray) =
            (member("a", "workers"), member("b", "workers"), member("d", "driver"), member("s", "none"));
        assert!(gangs.join(&a, false) && !gangs.join(&a, false));
        let says = |gangs: &Gangs, pod: &PodInfo| gangs.blocked(pod).unwrap_or_default();
        assert_eq!(
            says(&gangs, &a),
            "waiting for pods's workload \"training\" to appear in scheduling queue"
        );
        gangs.set_workload(&training(2));
        assert_eq!(says(&gangs, &a), "waiting for minCount pods from a gang to appear in scheduling queue");
        assert_eq!(says(&gangs, &stray), "pod group \"none\" doesn't exist for a workload \"training\"");
        assert_eq!(gangs.blocked(&driver), None, "it is scheduled by itself");
        assert!(gangs.join(&b, true));
        assert_eq!(gangs.blocked(&a), None, "one that has its node counts");
        assert_eq!(gangs.others(&a), [Arc::clone(&b.uid)]);
        gangs.leave(&b.pod);
        assert!(gangs.blocked(&a).is_some());
    }

    #[test]
    fn pods_with_room_wait_for_the_rest_and_are_bound_with_the_last() {
        let mut gangs = gangs();
        gangs.set_workload(&training(3));
        let pods: Vec<PodInfo> = ["a", "b", "c", "d"].map(|name| member(name, "workers")).into();
        for pod in &pods {
            gangs.join(pod, false);
        }
        assert_eq!(gangs.permit(&pods[0], s(10)), Permit::Wait(s(310)));
        assert_eq!(gangs.permit(&pods[1], s(20)), Permit::Wait(s(310)), "one deadline for the group");
        gangs.release(&pods[0]);
        assert_eq!(gangs.permit(&pods[2], s(310)), Permit::Wait(s(610)), "a new one when that has passed");
        let both = vec![Arc::clone(&pods[1].uid), Arc::clone(&pods[2].uid)];
        assert_eq!(gangs.permit(&pods[0], s(400)), Permit::Allow(both));
        gangs.join(&pods[0], true);
        let rest = vec![Arc::clone(&pods[1].uid), Arc::clone(&pods[2].uid)];
        assert_eq!(gangs.permit(&pods[3], s(401)), Permit::Allow(rest), "one more than the least");
    }

    #[test]
    fn replicas_are_groups_of_their_own_and_what_is_gone_is_named() {
        let mut gangs = gangs();
        gangs.set_workload(&training(2));
        let replica = |name: &str, key: &str| {
            PodInfo::new(pod_from(json!({"metadata": {"name": name}, "spec": {"workloadRef":
                {"name": "training", "podGroup": "workers", "podGroupReplicaKey": key}}})))
        };
        let (zero, one) = (replica("a", "0"), replica("b", "1"));
        gangs.join(&zero, false);
        gangs.join(&one, false);
        assert!(gangs.blocked(&zero).is_some() && gangs.blocked(&one).is_some());
        assert_eq!(gangs.pods_of(&training(2)).len(), 2);
        gangs.remove_workload(&training(2));
        assert_eq!(
            gangs.permit(&zero, s(0)),
            Permit::Refuse(
                "failed to get workload default/training: workload.scheduling.k8s.io \"training\" not found"
                    .into()
            )
        );
        let off = Gangs::default();
        assert_eq!(off.blocked(&zero), None, "nobody obeys groups here");
    }
}
