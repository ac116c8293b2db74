//! ResourceQuota: what is made in a namespace is charged to its quotas before it is stored, by compare-and-swap of `status.used`, so that
//! requests at the same time, also on several servers, never exceed one together. What counts is `status.hard`, which the quota controller
//! fills in and corrects together with `status.used`.

use std::hash::{DefaultHasher, Hash, Hasher};

use coracle_api::kinds::pod_resources::{self, Amounts};
use coracle_api::kinds::quota_usage;
use coracle_api::resource::{self, Resource};
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Plugin;
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

/// Requests of one namespace are charged one after the other, so that they do not run into each other's swaps.
const LANES: usize = 64;

pub(super) struct ResourceQuota {
    lanes: Vec<Mutex<()>>,
}

impl ResourceQuota {
    pub(super) fn new() -> Self {
        Self { lanes: std::iter::repeat_with(|| Mutex::new(())).take(LANES).collect() }
    }

    fn lane(&self, namespace: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.lanes[(hasher.finish() % LANES as u64) as usize]
    }
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let row = request.resource;
            let Some(object) = object else { return Ok(()) };
            let is_resize = super::resizes_pod(request);
            if (request.subresource.is_some() && !is_resize) || !row.namespaced || !row.is_stored() {
                return Ok(());
            }
            // Of changes, only those of Services, claims and the resources of pods can ask for more.
            if old.is_some()
                && !is_resize
                && !(row.group.is_empty() && matches!(row.plural, "services" | "persistentvolumeclaims"))
            {
                return Ok(());
            }
            let delta = quota_usage::difference(row.group_resource(), object, old);
            if delta.is_empty() {
                return Ok(());
            }
            let _turn = self.lane(request.namespace()).lock().await;
            charge(registry, request, object, &delta).await
        })
    }
}

fn quotas() -> Result<&'static Resource, ApiError> {
    resource::lookup("", "v1", "resourcequotas").ok_or_else(|| ApiError::internal("no quotas"))
}

async fn charge(
    registry: &Registry,
    request: &RequestInfo,
    object: &Value,
    delta: &Amounts,
) -> Result<(), ApiError> {
    let mut charged: Vec<String> = Vec::new();
    for quota in registry.all_known(quotas()?, request.namespace()).await? {
        if !quota_usage::in_scope(&quota, request.resource.group_resource(), object) {
            continue;
        }
        let name = meta::text(&quota, "name").to_owned();
        let result = charge_one(registry, request, object, &quota, delta).await;
        match result {
            Ok(true) => charged.push(name),
            Ok(false) => {}
            Err(error) => {
                // What earlier quotas were charged is given back as well as can be; their controller corrects the rest.
                for name in charged {
                    let undone =
                        write(registry, request, &name, &|quota| Ok(changed(quota, delta, false))).await;
                    if let Err(error) = undone {
                        tracing::warn!(%error, quota = name, "giving back what a refused request was charged");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Charges one quota; false when it does not count any of this.
async fn charge_one(
    registry: &Registry,
    request: &RequestInfo,
    object: &Value,
    quota: &Value,
    delta: &Amounts,
) -> Result<bool, ApiError> {
    let name = meta::text(quota, "name");
    let forbidden = |text: String| {
        ApiError::forbidden(request.resource.group_resource(), meta::text(object, "name"), text)
    };
    let hard = pod_resources::amounts(quota["status"].get("hard"));
    if request.resource.group.is_empty()
        && request.resource.plural == "pods"
        && let Some(text) = quota_usage::missing(&hard, object)
    {
        return Err(forbidden(format!("failed quota: {name}: {text}")));
    }
    if !delta.keys().any(|resource| hard.contains_key(resource)) {
        return Ok(false);
    }
    let decide = |quota: &Value| match exceeded(quota, delta) {
        None => Ok(changed(quota, delta, true)),
        Some(text) => Err(forbidden(text)),
    };
    if request.dry_run {
        return decide(quota).map(|_| false);
    }
    write(registry, request, name, &decide).await.map(|()| true)
}

async fn write(
    registry: &Registry,
    request: &RequestInfo,
    name: &str,
    change: &(dyn Fn(&Value) -> Result<Value, ApiError> + Send + Sync),
) -> Result<(), ApiError> {
    registry.guaranteed_update(quotas()?, request.namespace(), name, change).await.map(|_| ())
}

/// The refusal, when a quota does not have room for this.
fn exceeded(quota: &Value, delta: &Amounts) -> Option<String> {
    let hard = pod_resources::amounts(quota["status"].get("hard"));
    let used = pod_resources::amounts(quota["status"].get("used"));
    let name = meta::text(quota, "name");
    let counted: Vec<&String> = delta.keys().filter(|resource| hard.contains_key(*resource)).collect();
    let unknown: Vec<&str> =
        counted.iter().filter(|resource| !used.contains_key(**resource)).map(|name| name.as_str()).collect();
    if !unknown.is_empty() {
        return Some(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let over: Vec<&String> = counted
        .into_iter()
        .filter(|resource| used[*resource].saturating_add(delta[*resource]) > hard[*resource])
        .collect();
    let shown = |amounts: &Amounts| {
        over.iter().map(|name| format!("{name}={}", amounts[*name])).collect::<Vec<_>>().join(",")
    };
    (!over.is_empty()).then(|| {
        format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(delta),
            shown(&used),
            shown(&hard)
        )
    })
}

/// The quota with what it counts of this added, or taken away.
fn changed(quota: &Value, delta: &Amounts, add: bool) -> Value {
    let mut quota = quota.clone();
    let mut used = pod_resources::amounts(quota["status"].get("used"));
    for (name, amount) in used.iter_mut() {
        if let Some(more) = delta.get(name) {
            *amount = if add { amount.saturating_add(*more) } else { amount.saturating_sub(*more) };
        }
    }
    for (name, amount) in used {
        quota["status"]["used"][name] = json!(amount.to_string());
    }
    quota
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_takes_what_fits_and_tells_what_does_not() {
        let quota = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"pods": "2", "cpu": "1"}, "used": {"pods": "1", "cpu": "900m", "memory": "1Gi"}}});
        let delta = |pods: &str, cpu: &str| {
            pod_resources::amounts(Some(&json!({"pods": pods, "cpu": cpu, "secrets": "1"})))
        };
        assert_eq!(exceeded(&quota, &delta("1", "100m")), None);
        assert_eq!(
            exceeded(&quota, &delta("2", "200m")).as_deref(),
            Some(
                "exceeded quota: q, requested: cpu=200m,pods=2, used: cpu=900m,pods=1, limited: cpu=1,pods=2"
            )
        );
        let after = changed(&quota, &delta("1", "100m"), true);
        assert_eq!(after["status"]["used"], json!({"pods": "2", "cpu": "1", "memory": "1Gi"}));
        assert_eq!(changed(&after, &delta("1", "100m"), false)["status"]["used"]["pods"], "1");
        let unknown = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "2"}}});
        assert_eq!(
            exceeded(&unknown, &delta("1", "0")).as_deref(),
            Some("status unknown for quota: q, resources: pods")
        );
    }
}
