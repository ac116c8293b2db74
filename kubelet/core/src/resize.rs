//! In-place resize: what a running pod was given, whether it may have what its spec asks for now, and what that means for
//! each of its containers.
//!
//! Never here: changing cgroups; remembering.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use serde_json::json;

use crate::admission::{self, Allocatable};
use crate::observed::{RunState, RuntimePod};
use crate::{pod_view, resources};

/// Requests and limits by container name: regular containers and sidecars.
pub type Allocation = BTreeMap<String, ResourceRequirements>;

/// Requests and limits by the runtime's container id: what a running container has got.
pub type Actuated = BTreeMap<String, ResourceRequirements>;

/// Why a resize waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`: other pods are in the way. `Infeasible`: the node is too small.
    pub reason: &'static str,
    /// Details.
    pub message: String,
}

/// How far resizes are, as the pod's conditions show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The spec asks for more than there is; with the pod's generation.
    pub pending: Option<(Pending, Option<i64>)>,
    /// Containers do not have yet what the pod was given: the last error, if any, and the pod's generation.
    pub in_progress: Option<(Option<String>, Option<i64>)>,
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod_view::init_containers(pod).iter().filter(|container| pod_view::is_sidecar(container));
    sidecars.chain(&pod_view::spec(pod).containers)
}

/// What the spec asks for.
pub fn desired(pod: &Pod) -> Allocation {
    resizable(pod)
        .map(|container| (container.name.clone(), container.resources.clone().unwrap_or_default()))
        .collect()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    })
}

/// What the pod had been given as far as its status tells: for a kubelet that comes back.
pub fn reported(pod: &Pod) -> Allocation {
    let mut allocation = desired(pod);
    for status in statuses(pod) {
        if let (Some(have), Some(entry)) = (&status.resources, allocation.get_mut(&status.name)) {
            entry.clone_from(have);
        }
    }
    allocation
}

/// What the containers had got as far as the pod's status tells.
pub fn reported_actuated(pod: &Pod) -> Actuated {
    statuses(pod)
        .filter_map(|status| {
            let (_, id) = status.container_id.as_deref()?.split_once("://")?;
            Some((id.to_owned(), status.resources.clone()?))
        })
        .collect()
}

/// Whether two sets of requests and limits mean the same.
fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    !differs(one, other, "cpu") && !differs(one, other, "memory")
}

fn differs(one: &ResourceRequirements, other: &ResourceRequirements, resource: &str) -> bool {
    let of = |requirements: &ResourceRequirements| {
        let container = Container { resources: Some(requirements.clone()), ..Container::default() };
        (resources::request(&container, resource), resources::limit(&container, resource))
    };
    of(one) != of(other)
}

/// Whether the two give every container the same.
pub fn agree(one: &Allocation, other: &Allocation) -> bool {
    let empty = ResourceRequirements::default();
    one.iter().all(|(name, requirements)| same(requirements, other.get(name).unwrap_or(&empty)))
}

/// The pod with what it was given in place of what it asks for.
pub fn with_allocation(pod: &Pod, allocation: &Allocation) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        let sidecars = spec.init_containers.iter_mut().flatten().filter(|c| pod_view::is_sidecar(c));
        for container in sidecars.chain(&mut spec.containers) {
            if let Some(given) = allocation.get(&container.name) {
                container.resources = Some(given.clone());
            }
        }
    }
    pod
}

/// Whether the node can give the pod what it asks for now, beside what it has given to the others.
///
/// # Errors
/// Why it has to wait, in upstream's words.
pub fn judge(pod: &Pod, others: &[&Pod], allocatable: Allocatable) -> Result<(), Pending> {
    let requested = |resource: &str| resources::pod_request(pod, resource);
    for (name, requested, capacity) in [
        ("memory", requested("memory"), allocatable.memory),
        ("cpu", requested("cpu"), allocatable.milli_cpu),
    ] {
        if requested > capacity {
            let message = format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            );
            return Err(Pending { reason: "Infeasible", message });
        }
    }
    admission::fits(pod, others, allocatable).map_err(|(_, message)| Pending { reason: "Deferred", message })
}

/// What a running container needs to get what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Its cgroup is changed.
    InPlace,
    /// It wants to be restarted for this.
    Restart,
}

/// Compares what the container was given with what it has got.
pub fn change(container: &Container, actual: &ResourceRequirements) -> Change {
    let given = container.resources.clone().unwrap_or_default();
    let mut result = Change::None;
    for resource in ["cpu", "memory"] {
        if !differs(&given, actual, resource) {
            continue;
        }
        let policies = container.resize_policy.iter().flatten();
        let restart = policies
            .into_iter()
            .any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer");
        match (restart, result) {
            (true, _) => result = Change::Restart,
            (false, Change::None) => result = Change::InPlace,
            (false, _) => {}
        }
    }
    result
}

/// Whether a container that runs has not got yet what the pod was given.
pub fn is_in_progress(pod: &Pod, runtime: &RuntimePod, actuated: &Actuated) -> bool {
    resizable(pod).any(|container| {
        runtime.newest(&container.name).filter(|seen| seen.state == RunState::Running).is_some_and(|seen| {
            actuated.get(&seen.id).is_some_and(|actual| change(container, actual) != Change::None)
        })
    })
}

/// The text of a resize event, as upstream writes it: what the pod's containers are to have, as JSON.
pub fn event_text(prefix: &str, pod: &Pod, error: Option<&str>) -> String {
    let list = |containers: &[Container], all: bool| -> Vec<serde_json::Value> {
        containers
            .iter()
            .filter(|container| all || pod_view::is_sidecar(container))
            .map(|container| json!({"name": container.name, "resources": container.resources.clone().unwrap_or_default()}))
            .collect()
    };
    let mut summary = serde_json::Map::new();
    let sidecars = list(pod_view::init_containers(pod), false);
    if !sidecars.is_empty() {
        summary.insert("initContainers".to_owned(), sidecars.into());
    }
    summary.insert("containers".to_owned(), list(&pod_view::spec(pod).containers, true).into());
    summary.insert("generation".to_owned(), pod.metadata.generation.unwrap_or(0).into());
    if let Some(error) = error {
        summary.insert("error".to_owned(), error.into());
    }
    format!("{prefix}: {}", serde_json::Value::Object(summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, memory: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u", "generation": 3}, "spec": {"containers": [{
            "name": "a", "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
            "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}}]}}))
        .unwrap()
    }

    #[test]
    fn a_resize_is_deferred_by_others_and_infeasible_on_a_small_node() {
        let node = Allocatable { milli_cpu: 2000, memory: 1 << 30, pods: 10 };
        let other = pod("1500m", "64Mi");
        assert_eq!(judge(&pod("400m", "64Mi"), &[&other], node), Ok(()));
        let deferred = judge(&pod("1", "64Mi"), &[&other], node).unwrap_err();
        assert_eq!(deferred.reason, "Deferred");
        assert_eq!(
            deferred.message,
            "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        );
        let infeasible = judge(&pod("3", "64Mi"), &[], node).unwrap_err();
        assert_eq!(infeasible.reason, "Infeasible");
        assert_eq!(
            infeasible.message,
            "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
        );
    }

    #[test]
    fn the_resize_policy_decides_about_a_restart() {
        let has = |cpu: &str, memory: &str| desired(&pod(cpu, memory))["a"].clone();
        let given = pod("1", "64Mi");
        let container = &given.spec.as_ref().unwrap().containers[0];
        assert_eq!(change(container, &has("1000m", "65536Ki")), Change::None, "the same in other words");
        assert_eq!(change(container, &has("500m", "64Mi")), Change::InPlace);
        assert_eq!(change(container, &has("500m", "32Mi")), Change::Restart);
    }

    #[test]
    fn what_was_given_is_found_in_the_status() {
        let mut asked = pod("2", "64Mi");
        asked.status = serde_json::from_value(json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "containerID": "containerd://c1",
            "resources": {"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}}]}))
        .unwrap();
        assert!(!agree(&desired(&asked), &reported(&asked)));
        assert!(agree(&desired(&pod("1", "64Mi")), &reported(&asked)));
        assert_eq!(desired(&with_allocation(&asked, &reported(&asked))), desired(&pod("1", "64Mi")));
        assert_eq!(reported_actuated(&asked).keys().collect::<Vec<_>>(), ["c1"]);
    }

    #[test]
    fn events_show_the_resources() {
        let text = event_text("Pod resize started", &pod("1", "64Mi"), None);
        assert!(
            text.starts_with("Pod resize started: {\"containers\":[{\"name\":\"a\",\"resources\":{"),
            "{text}"
        );
        assert!(text.ends_with("\"generation\":3}"), "{text}");
    }
}
