//! Pods with what makes scheduling cost more.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::objects::pod_object;

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

/// The taints of a node for that kind.
pub fn taints(number: usize, kind: Kind) -> Value {
    match kind {
        Kind::Taints if number.is_multiple_of(2) => {
            json!([{ "key": "dedicated", "value": "batch", "effect": "NoSchedule" }])
        }
        _ => json!([]),
    }
}

/// The name of a pod.
pub fn name(number: usize) -> String {
    format!("pod-{number}")
}

/// A pod of that kind.
pub fn pod(number: usize, kind: Kind, nodes: usize) -> Bytes {
    let mut pod = pod_object(&name(number));
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
