//! An identity of a StatefulSet has one pod at a time: a pod that may be running is asked to end and not simply removed, since a successor comes at once.
//! `OrderedReady` sets make a pod only when all before it have been ready once.

use std::collections::{HashMap, HashSet};

use super::{Invariant, Step};
use crate::object::{
    controller_of_kind, is_finished, is_healthy, is_terminating, name, node, number, text, uid,
};

/// By the set's uid, the ordinals whose pod was ready once.
#[derive(Default)]
pub struct StatefulSets(HashMap<String, HashSet<i64>>);

fn ordinal(pod: &str) -> Option<i64> {
    pod.rsplit_once('-')?.1.parse().ok()
}

impl Invariant for StatefulSets {
    fn name(&self) -> &'static str {
        "StatefulSetsKeepIdentities"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        if !step.is("pods") {
            return Vec::new();
        }
        let object = step.new.or(step.old);
        let Some((pod, owner)) = object.and_then(|pod| Some((pod, controller_of_kind(pod, "StatefulSet")?)))
        else {
            return Vec::new();
        };
        let Some(ordinal) = ordinal(name(pod)) else { return Vec::new() };
        if step.new.is_some_and(is_healthy) {
            self.0.entry(owner.to_owned()).or_default().insert(ordinal);
        }
        let mut found = Vec::new();
        // Who gives its pods no time to end gives this promise up.
        let takes_time = number(pod, &["spec", "terminationGracePeriodSeconds"]) != Some(0);
        if step.new.is_none()
            && takes_time
            && !node(pod).is_empty()
            && !is_finished(pod)
            && !is_terminating(pod)
        {
            let there = step.state.get("minions", "", node(pod)).is_some();
            if there {
                found.push(format!(
                    "the pod with uid {} was removed while it may be running on node {}: its successor would be a second one",
                    uid(pod),
                    node(pod)
                ));
            }
        }
        if step.created().is_some() {
            found.extend(self.out_of_order(step, owner, ordinal));
        }
        found
    }
}

impl StatefulSets {
    fn out_of_order(&self, step: &Step<'_>, owner: &str, ordinal: i64) -> Option<String> {
        let set =
            step.state.list("statefulsets", &step.change.key.namespace).find(|set| uid(set) == owner)?;
        if text(set, &["spec", "podManagementPolicy"]) == "Parallel" {
            return None;
        }
        let first = number(set, &["spec", "ordinals", "start"]).unwrap_or(0);
        let been = self.0.get(owner);
        let skipped = (first..ordinal).find(|before| been.is_none_or(|been| !been.contains(before)))?;
        Some(format!("the pod was made before the one with ordinal {skipped} had ever been ready"))
    }
}
