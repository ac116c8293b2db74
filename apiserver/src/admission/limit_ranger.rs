//! LimitRanger: containers get the namespace's default requests and limits; pods, containers and claims stay within its bounds.

use std::sync::Arc;

use coracle_api::kinds::pod_resources::{self, Amounts};
use coracle_api::meta;
use coracle_api::quantity::Quantity;
use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::{Plugin, creates_pod, is_core, resizes_pod};
use crate::registry::{Registry, meta as object_meta};
use crate::server::request_info::RequestInfo;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if creates_pod(request, old) {
                for range in ranges(registry, request.namespace()).await? {
                    set_defaults(object, &range);
                }
            }
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(object) = object else { return Ok(()) };
            let is_claim = is_core(request, "persistentvolumeclaims");
            if !is_claim && !creates_pod(request, old) && !resizes_pod(request) {
                return Ok(());
            }
            for range in ranges(registry, request.namespace()).await? {
                let problems = if is_claim { check_claim(object, &range) } else { check_pod(object, &range) };
                let text = match &problems[..] {
                    [] => continue,
                    [one] => one.clone(),
                    several => format!("[{}]", several.join(", ")),
                };
                let name = object_meta::text(object, "name");
                return Err(ApiError::forbidden(request.resource.group_resource(), name, text));
            }
            Ok(())
        })
    }
}

async fn ranges(registry: &Registry, namespace: &str) -> Result<Vec<Arc<Value>>, ApiError> {
    let resource =
        resource::lookup("", "v1", "limitranges").ok_or_else(|| ApiError::internal("no limit ranges"))?;
    registry.all_known(resource, namespace).await
}

fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = range["spec"]["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(move |item| item["type"] == kind)
}

fn set_defaults(pod: &mut Value, range: &Value) {
    let mut defaults = [("requests", Map::new()), ("limits", Map::new())];
    for item in items(range, "Container") {
        for ((_, into), from) in defaults.iter_mut().zip(["defaultRequest", "default"]) {
            into.extend(item[from].as_object().cloned().unwrap_or_default());
        }
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (key, values) in &defaults {
                let added = add_missing(container, key, values);
                if !added.is_empty() {
                    let kind = key.trim_end_matches('s');
                    notes.push(format!("{} {kind} for {what} {name}", added.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        meta::child_mut(&mut pod["metadata"], "annotations").insert(ANNOTATION.into(), text.into());
    }
}

fn add_missing(container: &mut Value, key: &str, values: &Map<String, Value>) -> Vec<String> {
    let given = container["resources"][key].as_object().cloned().unwrap_or_default();
    let mut added: Vec<String> = values.keys().filter(|name| !given.contains_key(*name)).cloned().collect();
    added.sort_unstable();
    for name in &added {
        container["resources"][key][name] = values[name].clone();
    }
    added
}

/// What one thing asks for and may use at most.
struct Use {
    requests: Amounts,
    limits: Amounts,
}

fn check_pod(pod: &Value, range: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = &pod["spec"];
    for item in items(range, "Container") {
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                let amounts = |key| pod_resources::amounts(container["resources"].get(key));
                check(item, &Use { requests: amounts("requests"), limits: amounts("limits") }, &mut problems);
            }
        }
    }
    for item in items(range, "Pod") {
        let total = |key| pod_resources::total(spec, key);
        check(item, &Use { requests: total("requests"), limits: total("limits") }, &mut problems);
    }
    problems.dedup();
    problems
}

fn check(item: &Value, used: &Use, problems: &mut Vec<String>) {
    let kind = item["type"].as_str().unwrap_or_default();
    for (name, bound) in pod_resources::amounts(item.get("min")) {
        let (request, limit) = (used.requests.get(&name), used.limits.get(&name));
        let text = format!("minimum {name} usage per {kind} is {bound}");
        match (request, limit) {
            (None, _) => problems.push(format!("{text}.  No request is specified")),
            (Some(request), _) if *request < bound => {
                problems.push(format!("{text}, but request is {request}"))
            }
            (_, Some(limit)) if *limit < bound => problems.push(format!("{text}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, bound) in pod_resources::amounts(item.get("max")) {
        let (request, limit) = (used.requests.get(&name), used.limits.get(&name));
        let text = format!("maximum {name} usage per {kind} is {bound}");
        match (request, limit) {
            (_, None) => problems.push(format!("{text}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => problems.push(format!("{text}, but limit is {limit}")),
            (Some(request), _) if *request > bound => {
                problems.push(format!("{text}, but request is {request}"))
            }
            _ => {}
        }
    }
    for (name, bound) in pod_resources::amounts(item.get("maxLimitRequestRatio")) {
        let set = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        let text = format!("{name} max limit to request ratio per {kind} is {bound}");
        match (set(&used.requests), set(&used.limits)) {
            (None, _) => problems.push(format!("{text}, but no request is specified or request is 0")),
            (_, None) => problems.push(format!("{text}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.milli_value() as f64 / request.milli_value() as f64;
                if ratio * 1000.0 > bound.milli_value() as f64 {
                    problems.push(format!("{text}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn check_claim(claim: &Value, range: &Value) -> Vec<String> {
    let requests = pod_resources::amounts(claim["spec"]["resources"].get("requests"));
    let mut problems = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        for (key, word) in [("min", "minimum"), ("max", "maximum")] {
            for (name, bound) in pod_resources::amounts(item.get(key)) {
                let text = format!("{word} {name} usage per PersistentVolumeClaim is {bound}");
                let outside =
                    |request: &Quantity| if key == "min" { *request < bound } else { *request > bound };
                match requests.get(&name) {
                    None => problems.push(format!("{text}.  No request is specified")),
                    Some(request) if outside(request) => {
                        problems.push(format!("{text}, but request is {request}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    #[test]
    fn containers_get_what_they_do_not_say_and_the_pod_tells() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}),
        );
        let mut pod = json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}}]}});
        set_defaults(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a"
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_told() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let bounds = range(
            json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}),
        );
        assert_eq!(
            check_pod(&pod(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}})), &bounds),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 40.000000",
            ]
        );
        assert_eq!(
            check_pod(&pod(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})), &bounds),
            Vec::<String>::new()
        );
        let whole = range(json!({"type": "Pod", "max": {"memory": "1Gi"}}));
        assert_eq!(
            check_pod(&pod(json!({})), &whole),
            ["maximum memory usage per Pod is 1Gi.  No limit is specified"]
        );
        let claim = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}});
        let storage = range(json!({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}));
        assert_eq!(
            check_claim(&claim, &storage),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 5Gi"]
        );
    }
}
