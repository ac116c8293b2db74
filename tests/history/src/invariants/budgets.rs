//! PodDisruptionBudgets at each eviction: an eviction is charged to the budget before the pod goes, one for one, and leaves as many healthy pods as the
//! budget wants. Pods that were lost otherwise lately (deleted, not ready any more) excuse it: the budget could not know yet.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::{Invariant, Step};
use crate::STALENESS;
use crate::object::{condition, is_healthy, is_terminating, name, names, number, selects, text, uid};

/// By the budget's uid, when a pod of it was last lost without being charged.
#[derive(Default)]
pub struct Budgets(HashMap<String, Duration>);

const DISRUPTED: [&str; 2] = ["status", "disruptedPods"];

fn is_about(budget: &Value, pod: &Value) -> bool {
    selects(&budget["spec"]["selector"], pod)
}

fn is_charged(budget: &Value, pod: &Value) -> bool {
    names(budget, &DISRUPTED).contains(&name(pod))
}

impl Invariant for Budgets {
    fn name(&self) -> &'static str {
        "DisruptionBudgetsHold"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        match step.change.key.resource.as_str() {
            "pods" => self.pod(step),
            "poddisruptionbudgets" => self.budget(step),
            _ => Vec::new(),
        }
    }
}

impl Budgets {
    fn pod(&mut self, step: &Step<'_>) -> Vec<String> {
        let Some(old) = step.old else { return Vec::new() };
        let mut found = Vec::new();
        for budget in step.state.list("poddisruptionbudgets", &step.change.key.namespace) {
            let was = is_healthy(old) && is_about(budget, old);
            let stays = step.new.is_some_and(|new| is_healthy(new) && is_about(budget, new));
            if !was || stays || is_charged(budget, old) {
                continue;
            }
            let evicted =
                step.new.filter(|new| is_terminating(new)).and_then(|new| condition(new, "DisruptionTarget"));
            if evicted.is_some_and(|why| text(why, &["reason"]) == "EvictionByEvictionAPI") {
                found.push(format!(
                    "the pod with uid {} was evicted without being charged to the budget {}",
                    uid(old),
                    name(budget)
                ));
            }
            self.0.insert(uid(budget).to_owned(), step.change.at);
        }
        found
    }

    fn budget(&mut self, step: &Step<'_>) -> Vec<String> {
        let (Some(old), Some(new)) = (step.old, step.new) else { return Vec::new() };
        let before = names(old, &DISRUPTED);
        let gained: Vec<_> = names(new, &DISRUPTED).into_iter().filter(|pod| !before.contains(pod)).collect();
        if gained.is_empty() {
            return Vec::new();
        }
        let allowed = |budget: &Value| number(budget, &["status", "disruptionsAllowed"]).unwrap_or(0);
        let mut found = Vec::new();
        let charged = i64::try_from(gained.len()).unwrap_or(i64::MAX);
        if allowed(old) - allowed(new) != charged || allowed(new) < 0 {
            found.push(format!(
                "evictions of {} were charged while disruptionsAllowed went from {} to {}",
                gained.join(", "),
                allowed(old),
                allowed(new)
            ));
        }
        let excused =
            self.0.get(uid(new)).is_some_and(|lost| step.change.at.saturating_sub(*lost) < STALENESS);
        let wanted = number(new, &["status", "desiredHealthy"]).unwrap_or(0);
        let pods = step.state.list("pods", &step.change.key.namespace);
        let left = pods.filter(|pod| is_about(new, pod) && is_healthy(pod) && !is_charged(new, pod)).count();
        if !excused && i64::try_from(left).unwrap_or(i64::MAX) < wanted {
            found.push(format!(
                "with the eviction of {} only {left} healthy pods are left, and {wanted} are wanted",
                gained.join(", ")
            ));
        }
        found
    }
}
