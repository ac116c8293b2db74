//! Evicts a pod: a deletion that disruption budgets may refuse.

use std::sync::Arc;

use coracle_api::meta::get;
use coracle_api::resource::{Resource, lookup};
use coracle_api::selector::LabelSelector;
use coracle_api::status::{ApiError, GroupResource};
use serde_json::{Value, json};

use super::{conditions, core, done};
use crate::registry::delete::DeleteOptions;
use crate::registry::list::ListOptions;
use crate::registry::selection::Selection;
use crate::registry::{Registry, meta};
use crate::server::request_info::{RequestInfo, Verb};

/// How often a pod that others change meanwhile is looked at again.
const ATTEMPTS_MAX: u32 = 20;
/// More evictions than this that the budget's controller has not noticed stop the next one.
const DISRUPTED_PODS_MAX: usize = 2000;
const BUDGETS: GroupResource<'_> = GroupResource { group: "policy", resource: "poddisruptionbudget" };
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Seconds after which an eviction that came too early may be tried again.
const RETRY_SECONDS: u32 = 10;

/// Deletes the pod with the eviction's options, if its budget allows.
///
/// # Errors
/// As a deletion: 404, 409 for preconditions; 429 when the budget does not allow it now, 500 when there are several.
pub async fn evict(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    eviction: &Value,
) -> Result<Value, ApiError> {
    if meta::text(eviction, "name") != info.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let namespace = meta::text(eviction, "namespace");
    if !namespace.is_empty() && namespace != info.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let wanted = eviction.get("deleteOptions").filter(|options| options.is_object());
    let mut options = DeleteOptions::decode(wanted, &info.query)?;
    options.dry_run |= info.dry_run;
    for _ in 0..ATTEMPTS_MAX {
        let pod = registry.read(core("pods")?, info.namespace(), info.name()).await?;
        if !needs_no_budget(&pod) {
            return evict_running(registry, info, &pod, &options).await;
        }
        let pinned = options.resource_version.is_none() && !is_over(&pod);
        let version = pinned.then_some(&pod);
        match delete(registry, info, &options, version).await {
            // It may be running by now.
            Err(error) if error.code() == 409 && options.resource_version.is_none() => {}
            result => return result.map(|()| done()),
        }
    }
    Err(meta::modified(info.resource, info.name()))
}

/// A pod that runs counts for its budget.
async fn evict_running(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    pod: &Value,
    options: &DeleteOptions,
) -> Result<Value, ApiError> {
    let budgets = budgets_of(registry, pod).await?;
    let budget = match budgets.as_slice() {
        [] => return delete(registry, info, options, None).await.map(|()| done()),
        [budget] => budget,
        _ => {
            return Err(ApiError::new(
                500,
                "InternalError",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let name = meta::text(budget, "name");
    if !disrupts(pod, budget) {
        // Only as long as the pod has not become healthy meanwhile.
        return match delete(registry, info, options, Some(pod)).await {
            Err(error) if error.code() == 409 && options.resource_version.is_none() => Err(too_early(name)),
            result => result.map(|()| done()),
        };
    }
    let now = meta::time_after(meta::now(), 0);
    let take = |budget: &Value| taken_from(budget, info.name(), &now);
    if options.dry_run {
        take(budget)?;
    } else {
        registry.guaranteed_update(policy_budgets()?, info.namespace(), name, &take).await?;
    }
    delete(registry, info, options, None).await.map(|()| done())
}

fn policy_budgets() -> Result<&'static Resource, ApiError> {
    lookup("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(|| ApiError::internal("poddisruptionbudgets are not served"))
}

/// The budgets that select the pod.
async fn budgets_of(registry: &Registry, pod: &Value) -> Result<Vec<Value>, ApiError> {
    let in_namespace = Selection::namespace(meta::text(pod, "namespace"));
    let page = registry.list(policy_budgets()?, &in_namespace, &ListOptions::default()).await?;
    let mut budgets = Vec::new();
    for object in page.objects {
        let budget = object.value().map_err(ApiError::internal)?;
        if selects(&budget, pod) {
            budgets.push(budget);
        }
    }
    Ok(budgets)
}

/// A budget without a selector selects nothing; one with an empty selector everything.
fn selects(budget: &Value, pod: &Value) -> bool {
    get(budget, &["spec", "selector"])
        .filter(|selector| selector.is_object())
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .is_some_and(|selector| selector.matches(coracle_api::meta::labels(pod)))
}

fn phase(pod: &Value) -> &str {
    get(pod, &["status", "phase"]).and_then(Value::as_str).unwrap_or_default()
}

/// The pod has ended or is going.
fn is_over(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed") || meta::is_deleting(pod)
}

fn needs_no_budget(pod: &Value) -> bool {
    is_over(pod) || phase(pod) == "Pending"
}

fn is_ready(pod: &Value) -> bool {
    get(pod, &["status", "conditions"])
        .and_then(Value::as_array)
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// A number of a budget's status.
fn number(budget: &Value, field: &str) -> i64 {
    get(budget, &["status", field]).and_then(Value::as_i64).unwrap_or_default()
}

/// Whether the eviction takes away one of the healthy pods that the budget counts.
fn disrupts(pod: &Value, budget: &Value) -> bool {
    let policy = get(budget, &["spec", "unhealthyPodEvictionPolicy"]).and_then(Value::as_str);
    let (current, desired) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
    is_ready(pod) || !(policy == Some("AlwaysAllow") || (current >= desired && desired > 0))
}

/// The budget has not been looked at since it changed.
fn too_early(budget: &str) -> ApiError {
    ApiError::too_many_requests(REFUSED, RETRY_SECONDS)
        .with_cause(cause(format!("The disruption budget {budget} is still being processed by the server.")))
}

fn cause(message: String) -> Value {
    json!({"reason": "DisruptionBudget", "message": message})
}

/// The budget with one disruption less. Pure.
fn taken_from(budget: &Value, pod: &str, now: &str) -> Result<Value, ApiError> {
    let name = meta::text(budget, "name");
    if number(budget, "observedGeneration") < coracle_api::meta::generation(budget) {
        return Err(too_early(name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    if allowed < 0 {
        return Err(ApiError::forbidden(BUDGETS, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = get(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        return Err(ApiError::forbidden(
            BUDGETS,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(ApiError::too_many_requests(REFUSED, 0).with_cause(cause(why_none(budget))));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if allowed == 1 {
        let generation = number(&budget, "observedGeneration");
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": generation});
        conditions::put(&mut budget, condition, now);
    }
    budget["status"]["disruptedPods"][pod] = now.into();
    Ok(budget)
}

/// Why a budget allows no disruption.
fn why_none(budget: &Value) -> String {
    let name = meta::text(budget, "name");
    let (current, desired) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
    let conditions = get(budget, &["status", "conditions"]).and_then(Value::as_array);
    let told = conditions.into_iter().flatten().find_map(|condition| {
        let refuses = condition["type"] == "DisruptionAllowed" && condition["status"] == "False";
        let message = condition["message"].as_str().filter(|message| refuses && !message.is_empty())?;
        Some((condition["reason"].as_str().unwrap_or_default(), message))
    });
    let refused = format!("The disruption budget {name} does not allow evicting pods currently");
    match told {
        // What it counted then says nothing.
        Some(("SyncFailed", message)) => format!("{refused} because it failed sync: {message}"),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some((reason, message)) => format!("{refused} ({reason}): {message}"),
        None => refused,
    }
}

/// Tells the pod why it goes, and deletes it; only in the version `pinned`, if given.
async fn delete(
    registry: &Arc<Registry>,
    info: &RequestInfo,
    options: &DeleteOptions,
    pinned: Option<&Value>,
) -> Result<(), ApiError> {
    let mut options = options.clone();
    if let Some(pod) = pinned
        && options.resource_version.is_none()
    {
        options.resource_version = Some(meta::text(pod, "resourceVersion").to_owned());
    }
    if !options.dry_run {
        let now = meta::time_after(meta::now(), 0);
        let mark = |pod: &Value| marked(pod, &options, &now);
        let marked = registry.guaranteed_update(info.resource, info.namespace(), info.name(), &mark).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(meta::text(&marked.value()?, "resourceVersion").to_owned());
        }
    }
    let mut request = info.clone();
    request.verb = Verb::Delete;
    request.subresource = None;
    request.dry_run = options.dry_run;
    // The eviction was asked about.
    request.admitted = true;
    registry.delete(&request, &options).await.map(|_| ())
}

/// The pod with the condition that tells of its eviction, if it is the one that is meant. Pure.
fn marked(pod: &Value, options: &DeleteOptions, now: &str) -> Result<Value, ApiError> {
    for (what, field, wanted, guess) in [
        ("UID", "uid", &options.uid, "deleted and then recreated"),
        ("ResourceVersion", "resourceVersion", &options.resource_version, "modified"),
    ] {
        let found = meta::text(pod, field);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.is_empty() && *wanted != found) {
            return Err(ApiError::conflict(
                GroupResource { group: "", resource: "Pod" },
                meta::text(pod, "name"),
                format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {guess}"
                ),
            ));
        }
    }
    let mut pod = pod.clone();
    let mut condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null});
    if pod["metadata"]["generation"].is_i64() {
        condition["observedGeneration"] = pod["metadata"]["generation"].clone();
    }
    conditions::put(&mut pod, condition, now);
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 1}, "spec": {"selector": {"matchLabels": {"app": "web"}}}, "status": status})
    }

    #[test]
    fn each_eviction_takes_one_disruption() {
        let first = budget(
            json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2}),
        );
        let second = taken_from(&first, "web-1", "now").expect("allowed");
        assert_eq!(second["status"]["disruptionsAllowed"], 0);
        assert_eq!(second["status"]["disruptedPods"], json!({"web-1": "now"}));
        assert_eq!(second["status"]["conditions"][0]["reason"], "InsufficientPods");
        let refused = taken_from(
            &budget(json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2})),
            "a",
            "now",
        )
        .expect_err("none left");
        assert_eq!((refused.code(), refused.message()), (429, REFUSED));
        assert_eq!(
            refused.causes(),
            [cause("The disruption budget web needs 2 healthy pods and has 2 currently".to_owned())]
        );
        let early = taken_from(&budget(json!({"disruptionsAllowed": 1})), "a", "now").expect_err("not seen");
        assert_eq!(early.retry_after_seconds(), Some(RETRY_SECONDS));
    }

    #[test]
    fn the_reason_of_the_controller_is_told() {
        let refusing = |reason: &str| {
            budget(json!({"currentHealthy": 4, "desiredHealthy": 3, "conditions": [
                {"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "why"}]}))
        };
        assert_eq!(
            why_none(&refusing("SyncFailed")),
            "The disruption budget web does not allow evicting pods currently because it failed sync: why"
        );
        assert_eq!(
            why_none(&refusing("Other")),
            "The disruption budget web does not allow evicting pods currently (Other): why"
        );
    }

    #[test]
    fn unhealthy_pods_disrupt_only_what_is_short_of_pods() {
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "status": {"phase": "Running"}});
        assert!(!disrupts(&pod, &budget(json!({"currentHealthy": 2, "desiredHealthy": 2}))));
        assert!(disrupts(&pod, &budget(json!({"currentHealthy": 1, "desiredHealthy": 2}))));
        assert!(disrupts(&pod, &budget(json!({}))));
        let mut lenient = budget(json!({}));
        lenient["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert!(!disrupts(&pod, &lenient));
        let mut ready = pod.clone();
        ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        assert!(disrupts(&ready, &lenient));
        assert!(selects(&lenient, &pod) && !selects(&json!({"spec": {}}), &pod));
    }

    #[test]
    fn only_the_pod_that_is_meant_is_marked() {
        let pod = json!({"metadata": {"name": "a", "uid": "1", "generation": 2}});
        let told = marked(&pod, &DeleteOptions::default(), "now").expect("marked");
        assert_eq!(told["status"]["conditions"][0]["reason"], "EvictionByEvictionAPI");
        let other = DeleteOptions { uid: Some("2".to_owned()), ..DeleteOptions::default() };
        assert!(
            marked(&pod, &other, "now")
                .expect_err("another pod")
                .message()
                .contains("the UID in the precondition (2) does not match the UID in record (1)")
        );
    }
}
