//! A pod is bound to a node once and never moved.

use super::{Invariant, Step};
use crate::object::{node, uid};

/// Needs no memory.
pub struct Bindings;

impl Invariant for Bindings {
    fn name(&self) -> &'static str {
        "PodsAreBoundOnce"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        let (Some(old), Some(new)) = (step.old, step.new) else { return Vec::new() };
        if !step.is("pods") || node(old).is_empty() || uid(old) != uid(new) || node(old) == node(new) {
            return Vec::new();
        }
        vec![format!("the pod with uid {} moved from node {:?} to {:?}", uid(new), node(old), node(new))]
    }
}
