//! A node and what is placed on it, with the sums kept up to date. Owns the account of one node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::label_selector::Labels;
use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

/// A node's account.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Its place in the snapshot, stable while the node or a pod on it exists.
    pub slot: usize,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The object; `None` while pods name a node that does not exist (any more).
    pub node: Option<Arc<Node>>,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// What the pods on it request.
    pub requested: Resources,
    /// The same with defaults for containers that request nothing.
    pub non_zero_requested: Resources,
    /// The pods on it.
    pub pods: Vec<Arc<PodInfo>>,
    /// Ports its pods take.
    pub used_ports: Vec<HostPort>,
    /// Whether it is cordoned or has taints: few are, and the others need no closer look.
    pub(crate) is_special: bool,
}

impl NodeInfo {
    /// Takes over a new version of the node object.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = Resources::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.node = Some(node);
        self.is_special = true;
        self.is_special = self.is_unschedulable() || !self.taints().is_empty();
    }

    /// Puts a pod on it.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.non_zero_requested.add(&pod.non_zero);
        self.used_ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes a pod off it.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some(at) = self.pods.iter().position(|pod| &*pod.uid == uid) else { return };
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.non_zero_requested.subtract(&pod.non_zero);
        for port in &pod.host_ports {
            if let Some(at) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(at);
            }
        }
    }

    /// The node's labels.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.node.as_ref().and_then(|node| node.metadata.labels.as_ref()).unwrap_or(&NONE)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        if !self.is_special {
            return &[];
        }
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Whether the node is cordoned.
    pub fn is_unschedulable(&self) -> bool {
        let spec = self.node.as_ref().filter(|_| self.is_special).and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    /// Region and zone, the unit nodes are taken from in turn.
    pub fn zone(&self) -> (&str, &str) {
        let label = |name: &str| self.labels().get(name).map_or("", String::as_str);
        (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
    }
}
