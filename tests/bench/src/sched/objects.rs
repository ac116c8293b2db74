//! Nodes as kubelets register them, and pods with what makes scheduling cost more.

use bytes::Bytes;
use serde_json::json;

use crate::api::objects::pod_object;

/// Where nodes are.
pub const NODES: &str = "/api/v1/nodes";
/// Zones that nodes go round.
const ZONES: usize = 3;

/// What pods ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processor time and memory.
    Plain,
    /// To be spread over zones, and over nodes where that is possible.
    Spread,
    /// Not to be on a node with another of their group; a group is half as large as there are nodes.
    AntiAffinity,
    /// Every other node refuses all but those that tolerate it, which every other pod does.
    Taints,
}

impl Kind {
    /// What `--only` takes.
    pub const NAMES: &[&str] = &["plain", "spread", "anti-affinity", "taints"];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "plain" => Some(Self::Plain),
            "spread" => Some(Self::Spread),
            "anti-affinity" => Some(Self::AntiAffinity),
            "taints" => Some(Self::Taints),
            _ => None,
        }
    }

    /// What is measured with it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Plain => "pods bound",
            Self::Spread => "pods bound, spread over zones and nodes",
            Self::AntiAffinity => "pods bound, with anti-affinity",
            Self::Taints => "pods bound, on tainted nodes",
        }
    }
}

/// The name of a node.
pub fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// A node with room for 256 small pods.
pub fn node(number: usize) -> Bytes {
    let (name, zone) = (node_name(number), format!("zone-{}", number % ZONES));
    let room = json!({ "cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": "256" });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "region",
        } },
        "spec": { "podCIDR": format!("10.{}.{}.0/24", 64 + number / 256, number % 256) },
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    })
    .to_string()
    .into()
}

/// The change that makes a new node take pods, as the controllers make it when its kubelet is ready.
pub fn node_ready(number: usize, kind: Kind) -> Bytes {
    let taints = match kind {
        Kind::Taints if number.is_multiple_of(2) => {
            json!([{ "key": "dedicated", "value": "batch", "effect": "NoSchedule" }])
        }
        _ => json!([]),
    };
    json!({ "spec": { "taints": taints } }).to_string().into()
}

/// A pod of that kind.
pub fn pod(number: usize, kind: Kind, nodes: usize) -> Bytes {
    let mut pod = pod_object(&format!("pod-{number}"));
    let spread = |key: &str, otherwise: &str| {
        json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": otherwise,
            "labelSelector": { "matchLabels": { "app": "web" } } })
    };
    match kind {
        Kind::Plain => {}
        Kind::Spread => {
            pod["spec"]["topologySpreadConstraints"] = json!([
                spread("topology.kubernetes.io/zone", "DoNotSchedule"),
                spread("kubernetes.io/hostname", "ScheduleAnyway"),
            ]);
        }
        Kind::AntiAffinity => {
            let group = format!("group-{}", number / (nodes / 2).max(1));
            pod["spec"]["affinity"] = json!({ "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": { "matchLabels": { "group": group } },
                }],
            } });
            pod["metadata"]["labels"]["group"] = group.into();
        }
        Kind::Taints if number.is_multiple_of(2) => {
            pod["spec"]["tolerations"] = json!([{ "key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule" }]);
        }
        Kind::Taints => {}
    }
    pod.to_string().into()
}
