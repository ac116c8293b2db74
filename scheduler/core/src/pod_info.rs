//! What the scheduler needs to know of a pod, worked out once: [`PodInfo`] for every pod that takes up room,
//! [`PodToSchedule`] in addition for one that looks for a node. Owns the rule for what a pod requests in total.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use crate::gangs::GroupKey;
use crate::label_selector::{Labels, Selector};
use crate::node_selector::{RequiredNodeAffinity, Term};
use crate::pod_affinity::PodAffinity;
use crate::resources::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU, Resources};
use crate::volumes::ClaimUse;

/// A port a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `0.0.0.0` takes the port on all addresses.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port on the node.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let any = |address: &str| address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || any(&self.address) || any(&other.address))
    }
}

/// A pod's account: what it takes up where it runs.
#[derive(Debug)]
pub struct PodInfo {
    /// The object itself.
    pub pod: Arc<Pod>,
    /// `metadata.uid`, the pod's identity.
    pub uid: Arc<str>,
    /// `spec.priority`, 0 if unset.
    pub priority: i32,
    /// What it requests.
    pub requests: Resources,
    /// What it counts as when nodes are compared: containers without requests count as the defaults.
    pub non_zero: Resources,
    /// Ports it takes on its node.
    pub host_ports: Vec<HostPort>,
    /// The claims it uses.
    pub claims: Vec<ClaimUse>,
    /// Which pods it wants to be near to or apart from, if any.
    pub affinity: Option<Box<PodAffinity>>,
    /// The group it is scheduled with, if any.
    pub group: Option<Arc<GroupKey>>,
    /// When it was started, in microseconds of Unix time; the end of time if it was not.
    pub started: i64,
}

impl PodInfo {
    /// Works out a pod's account.
    pub fn new(pod: Arc<Pod>) -> Self {
        let uid = Arc::from(pod.metadata.uid.as_deref().unwrap_or_default());
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let started = started.map_or(i64::MAX, |time| time.0.as_microsecond());
        let (priority, requests, non_zero, host_ports) = match &pod.spec {
            Some(spec) => {
                let requests = total_requests(spec, requests_of);
                let non_zero = total_requests(spec, non_zero_requests_of);
                (spec.priority.unwrap_or(0), requests, non_zero, host_ports(spec))
            }
            None => (0, Resources::default(), Resources::default(), Vec::new()),
        };
        let claims = claims(&pod);
        let affinity = PodAffinity::new(
            pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()),
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.labels.as_ref().unwrap_or(&Labels::new()),
        );
        let group = GroupKey::of(&pod).map(Arc::new);
        Self { uid, priority, requests, non_zero, host_ports, claims, affinity, group, started, pod }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// The labels.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether it is being deleted because the scheduler preempted it.
    pub fn is_terminating_by_preemption(&self) -> bool {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let target = conditions.into_iter().flatten().find(|condition| condition.type_ == "DisruptionTarget");
        self.is_terminating()
            && target.is_some_and(|condition| {
                condition.status == "True" && condition.reason.as_deref() == Some("PreemptionByScheduler")
            })
    }

    /// The node that the API says the pod is nominated to.
    pub fn nominated_node(&self) -> Option<&str> {
        let name = self.pod.status.as_ref()?.nominated_node_name.as_deref();
        name.filter(|name| !name.is_empty())
    }
}

fn claims(pod: &Pod) -> Vec<ClaimUse> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mut claims: Vec<ClaimUse> = Vec::new();
    for volume in volumes.into_iter().flatten() {
        let used = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => ClaimUse { name: claim.claim_name.clone(), ephemeral: false },
            (None, Some(_)) => ClaimUse { name: format!("{name}-{}", volume.name), ephemeral: true },
            (None, None) => continue,
        };
        if !claims.contains(&used) {
            claims.push(used);
        }
    }
    claims
}

fn requests_of(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::of(resources.and_then(|resources| resources.requests.as_ref()))
}

fn non_zero_requests_of(resources: Option<&ResourceRequirements>) -> Resources {
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let mut amounts = Resources::of(requests);
    if requests.is_none_or(|requests| !requests.contains_key("cpu")) {
        amounts.milli_cpu = DEFAULT_MILLI_CPU;
    }
    if requests.is_none_or(|requests| !requests.contains_key("memory")) {
        amounts.memory = DEFAULT_MEMORY;
    }
    amounts
}

/// What a pod needs at its hungriest moment: all containers and sidecars together, or an init container with the sidecars
/// started before it; requests of the pod as a whole take the place of the sum; overhead comes on top.
fn total_requests(spec: &PodSpec, of: fn(Option<&ResourceRequirements>) -> Resources) -> Resources {
    let container = |container: &Container| of(container.resources.as_ref());
    let mut total = Resources::default();
    for running in &spec.containers {
        total.add(&container(running));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let requests = container(init);
        let mut moment = sidecars.clone();
        moment.add(&requests);
        if init.restart_policy.as_deref() == Some("Always") {
            total.add(&requests);
            sidecars.add(&requests);
        }
        starting.raise_to(&moment);
    }
    total.raise_to(&starting);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    for (name, quantity) in whole.into_iter().flatten() {
        total.set(name, quantity);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            Some(HostPort {
                address: address.unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: host_port,
            })
        })
        .collect()
}

/// How pods that a selector matches are to be spread over the values of a node label.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    /// The node label.
    pub topology_key: String,
    /// Highest tolerated difference between a domain and the emptiest one.
    pub max_skew: i64,
    /// With fewer domains than this the emptiest counts as empty.
    pub min_domains: i64,
    /// Which pods count.
    pub selector: Selector,
    /// Whether nodes that the pod's node affinity rules out do not count as domains.
    pub honor_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate do not count as domains.
    pub honor_taints: bool,
}

/// A pod that looks for a node: its account and its demands.
#[derive(Debug)]
pub struct PodToSchedule {
    /// The account.
    pub info: Arc<PodInfo>,
    /// Demands by `nodeSelector` and required node affinity.
    pub required_affinity: RequiredNodeAffinity,
    /// Wishes by preferred node affinity, with their weights.
    pub preferred_affinity: Vec<(i64, Term)>,
    /// Spread constraints that must hold.
    pub spread_hard: Vec<SpreadConstraint>,
    /// Spread constraints that should hold.
    pub spread_soft: Vec<SpreadConstraint>,
}

impl PodToSchedule {
    /// Works out a pod's demands.
    pub fn new(pod: Arc<Pod>) -> Self {
        let info = Arc::new(PodInfo::new(pod));
        let Some(spec) = &info.pod.spec else {
            return Self {
                required_affinity: RequiredNodeAffinity::default(),
                preferred_affinity: Vec::new(),
                spread_hard: Vec::new(),
                spread_soft: Vec::new(),
                info,
            };
        };
        let preferred = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self {
            required_affinity: RequiredNodeAffinity::new(spec),
            preferred_affinity: preferred
                .into_iter()
                .flatten()
                .map(|preferred| (i64::from(preferred.weight), Term::new(&preferred.preference)))
                .collect(),
            spread_hard: spread_constraints(spec, info.labels(), "DoNotSchedule"),
            spread_soft: spread_constraints(spec, info.labels(), "ScheduleAnyway"),
            info,
        }
    }

    /// The pod's spec; of a pod without one, which the API does not allow, an empty one.
    pub fn spec(&self) -> &PodSpec {
        static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.info.pod.spec.as_ref().unwrap_or(&NONE)
    }

    /// The names of its scheduling gates: it must not be scheduled while there are any.
    pub fn gates(&self) -> Vec<&str> {
        self.spec().scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect()
    }
}

fn spread_constraints(
    spec: &PodSpec,
    labels: &BTreeMap<String, String>,
    action: &str,
) -> Vec<SpreadConstraint> {
    spec.topology_spread_constraints
        .iter()
        .flatten()
        .filter(|constraint| constraint.when_unsatisfiable == action)
        .map(|constraint| {
            let mut selector = Selector::new(constraint.label_selector.as_ref());
            for key in constraint.match_label_keys.iter().flatten() {
                if let Some(value) = labels.get(key) {
                    selector.require(key, value);
                }
            }
            SpreadConstraint {
                topology_key: constraint.topology_key.clone(),
                max_skew: i64::from(constraint.max_skew),
                min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
                selector,
                honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
                honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_pod_needs_the_larger_of_its_start_and_its_run() {
        let pod = testing::pod_from(serde_json::json!({
            "spec": {
                "initContainers": [
                    {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                    {"name": "big", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}},
                ],
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}}},
                    {"name": "b"},
                ],
                "overhead": {"cpu": "10m"},
            }
        }));
        let info = PodInfo::new(pod);
        // Start: 2 + 0.1 of CPU; run: 0.5 + 0.1. Memory: 1Gi while starting, 2Gi while running.
        assert_eq!(info.requests.milli_cpu, 2110);
        assert_eq!(info.requests.memory, 2 << 30);
        assert_eq!(info.non_zero.memory, (2 << 30) + 2 * DEFAULT_MEMORY, "the sidecar and b have no request");
    }

    #[test]
    fn requests_of_the_pod_as_a_whole_replace_the_sum() {
        let pod = testing::pod_from(serde_json::json!({
            "spec": {
                "resources": {"requests": {"cpu": "1"}},
                "containers": [{"name": "a", "resources": {"requests": {"cpu": "3", "memory": "1Mi"}}}],
            }
        }));
        let info = PodInfo::new(pod);
        assert_eq!((info.requests.milli_cpu, info.requests.memory), (1000, 1 << 20));
    }

    #[test]
    fn host_ports_conflict_by_address_protocol_and_number() {
        let port = |address: &str, protocol: &str, port| HostPort {
            address: address.into(),
            protocol: protocol.into(),
            port,
        };
        let any = port("0.0.0.0", "TCP", 80);
        assert!(any.conflicts_with(&port("10.0.0.1", "TCP", 80)));
        assert!(!any.conflicts_with(&port("0.0.0.0", "UDP", 80)));
        assert!(!port("10.0.0.1", "TCP", 80).conflicts_with(&port("10.0.0.2", "TCP", 80)));
    }
}
