//! What a PodDisruptionBudget allows right now: how many pods it counts on, how many are healthy, how many may go. Owns the numbers and the
//! conditions; the scale of the controllers behind the pods is an argument.

mod stale;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::action::{Action, POD_DISRUPTION_BUDGETS, PODS};
use crate::deployment::numbers::scaled;
use crate::label_selector;
use crate::object_meta::{controller, name, namespace, object_reference, seconds};
use crate::pod_state::{is_ready, is_terminating};
use crate::status_report::report;
pub use stale::{reset_stale, stale_in};

/// How long after its eviction was allowed a pod may stay without being deleted.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";

/// Whether the budget is about the pod. Without a selector it is about none, with an empty one about all.
pub fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| label_selector::matches(selector, pod.metadata.labels.as_ref()))
}

/// Whether the budget's numbers come out of the scale of the pods' controllers.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// The controllers of the pods, each once, by uid.
pub fn controllers(pods: &[Arc<Pod>]) -> BTreeMap<&str, (&OwnerReference, &Pod)> {
    pods.iter()
        .filter_map(|pod| controller(&pod.metadata).map(|owner| (&*owner.uid, (owner, &**pod))))
        .collect()
}

/// What the budget is told about its pods' controllers: the sum of their scales, or why it is not known. 0 where it is not needed.
pub type Scale = Result<i32, String>;

/// What is to be done, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Events and the write of the status, if it changes.
    pub actions: Vec<Action>,
    /// When an eviction that was allowed should have happened.
    pub recheck_at: Option<Timestamp>,
}

/// Decides about one budget.
pub fn plan(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: &Scale, now: Timestamp) -> Plan {
    let mut actions = Vec::new();
    let mut tell = |warning, reason, message| {
        let regarding = Box::new(object_reference(&POD_DISRUPTION_BUDGETS, &budget.metadata));
        actions.push(Action::Event { regarding, warning, reason, message });
    };
    if pods.is_empty() {
        tell(false, "NoPods", "No matching pods found".to_owned());
    }
    let scale = match scale {
        Ok(scale) => *scale,
        Err(error) => {
            tell(
                true,
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {error}"),
            );
            actions.extend(report_on(budget, &failed(budget, error, now)));
            return Plan { actions, recheck_at: None };
        }
    };
    if needs_scale(budget) && pods.iter().any(|pod| controller(&pod.metadata).is_none()) {
        tell(true, "UnmanagedPods", unmanaged(budget));
    }
    let (expected, desired) = expected(budget, pods, scale);
    let (disrupted, recheck_at, forgotten) = disrupted(budget, pods, now);
    for pod in forgotten {
        actions.push(Action::Event {
            regarding: Box::new(object_reference(&PODS, &pod.metadata)),
            warning: true,
            reason: "NotDeleted",
            message: format!(
                "Pod was expected by PDB {0}/{0} to be deleted but it wasn't",
                namespace(&budget.metadata)
            ),
        });
    }
    let charged =
        |pod: &Pod| disrupted.contains_key(name(&pod.metadata)) && !crate::mutant!(BudgetForgetsCharges);
    let ready = |pod: &Pod| is_ready(pod) || crate::mutant!(BudgetCountsUnready);
    let healthy = pods.iter().filter(|pod| !is_terminating(pod) && !charged(pod) && ready(pod));
    let current = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    // A budget without pods allows nothing: its first pods may have come already.
    let allowed = if expected <= 0 { 0 } else { current.saturating_sub(desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: current,
        desired_healthy: desired,
        expected_pods: expected,
        disruptions_allowed: allowed,
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: budget.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    set_condition(&mut status, allowed > 0, reason, "", now);
    actions.extend(report_on(budget, &status));
    Plan { actions, recheck_at }
}

/// How many pods the budget expects, and how many of them it wants healthy.
fn expected(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: i32) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            (scale, scale.saturating_sub(scaled(Some(unavailable), scale, true)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (i32::try_from(pods.len()).unwrap_or(i32::MAX), *least),
        (None, Some(share)) => (scale, scaled(Some(share), scale, true)),
        (None, None) => (0, 0),
    }
}

type Disrupted<'a> = (BTreeMap<String, Time>, Option<Timestamp>, Vec<&'a Pod>);

/// The pods whose eviction was allowed and that are about to go, when the first of them is overdue, and those that are.
fn disrupted<'a>(budget: &PodDisruptionBudget, pods: &'a [Arc<Pod>], now: Timestamp) -> Disrupted<'a> {
    let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let (mut kept, mut first, mut forgotten) = (BTreeMap::new(), None::<Timestamp>, Vec::new());
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        let Some(since) = known.and_then(|known| known.get(name(&pod.metadata))) else { continue };
        let due = since.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if due <= now {
            forgotten.push(&**pod);
        } else {
            first = Some(first.map_or(due, |first| first.min(due)));
            kept.insert(name(&pod.metadata).to_owned(), since.clone());
        }
    }
    (kept, first, forgotten)
}

/// When nothing can be worked out nothing is allowed; the rest of the status stays.
fn failed(budget: &PodDisruptionBudget, error: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = 0;
    set_condition(&mut status, false, "SyncFailed", error, now);
    status
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    allowed: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let value = if allowed { "True" } else { "False" };
    let mut condition = Condition {
        type_: CONDITION.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: seconds(now),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == CONDITION) {
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

fn report_on(budget: &PodDisruptionBudget, status: &PodDisruptionBudgetStatus) -> Option<Action> {
    report(&POD_DISRUPTION_BUDGETS, &budget.metadata, budget.status.as_ref(), status)
}

fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
        label_selector::printed(selector)
    )
}
