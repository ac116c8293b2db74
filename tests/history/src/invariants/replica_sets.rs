//! A ReplicaSet or ReplicationController never creates more pods than it is to have. Its size is any that its controller may not have seen a successor
//! of yet: those from `status.observedGeneration` on.

use std::collections::HashMap;

use super::sizes::Sizes;
use super::{Invariant, Step};
use crate::object::{controller, generation, is_active, number, uid};

/// Sizes by the set's uid.
#[derive(Default)]
pub struct ReplicaSets(HashMap<String, Sizes<i64>>);

impl Invariant for ReplicaSets {
    fn name(&self) -> &'static str {
        "ReplicaSetsStayWithinTheirNumber"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        if step.is("replicasets") || step.is("controllers") {
            if let Some(set) = step.new {
                let observed = number(set, &["status", "observedGeneration"]);
                let size = number(set, &["spec", "replicas"]).unwrap_or(1);
                self.0.entry(uid(set).to_owned()).or_default().note(generation(set), observed, size);
            } else if let Some(set) = step.old {
                self.0.remove(uid(set));
            }
            return Vec::new();
        }
        let Some(pod) = step.created().filter(|_| step.is("pods")) else { return Vec::new() };
        let Some((kind, owner)) = controller(pod) else { return Vec::new() };
        let Some(most) = self.0.get(owner).and_then(|sizes| sizes.all().max()) else { return Vec::new() };
        let active = step.state.controlled("pods", owner).filter(|pod| is_active(pod)).count();
        if i64::try_from(active).unwrap_or(i64::MAX) <= *most {
            return Vec::new();
        }
        vec![format!(
            "the pod is the {active}th active one of the {kind} with uid {owner}, which is to have at most {most}"
        )]
    }
}
