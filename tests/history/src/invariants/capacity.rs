//! No pod is bound to a node that has no room left for what its pods request.

use coracle_api::kinds::pod_resources::{add, amounts, total};

use super::{Invariant, Step};
use crate::object::{is_finished, node};

/// Needs no memory.
pub struct Capacity;

impl Invariant for Capacity {
    fn name(&self) -> &'static str {
        "NodesAreNotOverfilled"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        // Only what a scheduler did: pods may be born with a node.
        let (Some(old), Some(new)) = (step.old, step.new) else { return Vec::new() };
        if !step.is("pods") || !node(old).is_empty() || node(new).is_empty() {
            return Vec::new();
        }
        let Some(there) = step.state.get("minions", "", node(new)) else { return Vec::new() };
        let room = amounts(there["status"].get("allocatable"));
        let mut used = coracle_api::kinds::pod_resources::Amounts::new();
        let (mut count, own) = (0_i64, total(&new["spec"], "requests"));
        for pod in step.state.list("pods", "").filter(|pod| node(pod) == node(new) && !is_finished(pod)) {
            add(&mut used, &total(&pod["spec"], "requests"));
            count += 1;
        }
        let mut found = Vec::new();
        for (resource, amount) in &used {
            let asked = own.get(resource).is_some_and(|amount| !amount.is_zero());
            if asked && room.get(resource).is_some_and(|room| amount > room) {
                found.push(format!(
                    "with the pod, node {} has to give {amount} of {resource} of {}",
                    node(new),
                    room[resource]
                ));
            }
        }
        if room.get("pods").is_some_and(|room| count > room.value()) {
            found.push(format!(
                "the pod is the {count}th on node {}, which takes {}",
                node(new),
                room["pods"]
            ));
        }
        found
    }
}
