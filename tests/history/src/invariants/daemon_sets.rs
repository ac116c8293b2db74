//! A DaemonSet never creates a second pod for a node where one is at work; with a surge, never a third.

use super::{Invariant, Step};
use crate::object::{controller_of_kind, is_active, list, node, text, uid};
use serde_json::Value;

/// Needs no memory.
pub struct DaemonSets;

/// The node a pod is on, or the only one it may go to.
fn node_of(pod: &Value) -> &str {
    if !node(pod).is_empty() {
        return node(pod);
    }
    let path = [
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ];
    let terms = list(pod, &path);
    let fields = terms.iter().flat_map(|term| list(term, &["matchFields"]));
    let named = fields
        .filter(|field| text(field, &["key"]) == "metadata.name")
        .find_map(|field| field["values"][0].as_str());
    named.unwrap_or_default()
}

impl Invariant for DaemonSets {
    fn name(&self) -> &'static str {
        "DaemonSetsHaveOnePodANode"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        let Some(pod) = step.created().filter(|_| step.is("pods")) else { return Vec::new() };
        let Some(owner) = controller_of_kind(pod, "DaemonSet") else { return Vec::new() };
        let place = node_of(pod);
        if place.is_empty() {
            return Vec::new();
        }
        let surges = |set: &Value| {
            let surge = &set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"];
            !(surge.is_null() || surge == 0 || surge == "0%")
        };
        let mut sets = step.state.list("daemonsets", &step.change.key.namespace);
        let most = if sets.find(|set| uid(set) == owner).is_some_and(surges) { 2 } else { 1 };
        let there =
            step.state.controlled("pods", owner).filter(|pod| is_active(pod) && node_of(pod) == place);
        let count = there.count();
        if count <= most {
            return Vec::new();
        }
        vec![format!(
            "the pod is the {count}th active one of the DaemonSet with uid {owner} for node {place}"
        )]
    }
}
