//! Keeps the condition `Available` of APIServices: of other servers by looking at their Services and endpoints and asking them, of this one's own by
//! saying so. Along with it goes what those servers say they have.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::access::{integer, items, present, set, text};
use coracle_api::meta;
use coracle_api::resource::lookup;
use coracle_api::status::ApiError;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Aggregator, Service, condition, registration};
use crate::cache::changes;
use crate::cache::resource::WakeKey;
use crate::registry;

/// How often other servers are asked, whatever changes here.
const INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks at all of them at least.
const PAUSE: Duration = Duration::from_millis(500);
/// How soon what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a server may take to say what it has.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Works until `stop` fires.
pub async fn run(aggregator: Arc<Aggregator>, stop: CancellationToken) {
    let cache = |group: &str, plural: &str| {
        lookup(group, "v1", plural).and_then(|row| aggregator.registry.cache.of(row))
    };
    let (Some(services), Some(backends), Some(slices)) = (
        cache(super::GROUP, "apiservices"),
        cache("", "services"),
        cache("discovery.k8s.io", "endpointslices"),
    ) else {
        return;
    };
    let (of_services, of_backends, of_slices) =
        (services.subscribe(WakeKey::All), backends.subscribe(WakeKey::All), slices.subscribe(WakeKey::All));
    loop {
        let any_remote = aggregator.services().iter().any(|service| service.remote.is_some());
        let wait = match aggregator.pass().await {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::debug!(%error, "looking whether API servers are available; trying again");
                RETRY
            }
        };
        let all = [&of_services, &of_backends, &of_slices];
        let heard = if any_remote { &all[..] } else { &all[..1] };
        let at_most = (any_remote || wait < INTERVAL).then_some(wait);
        if !changes::next(heard, at_most, PAUSE, &stop).await {
            return;
        }
    }
}

/// The reason of a server that was asked in vain.
const FAILED: &str = "FailedDiscoveryCheck";

/// What the condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }

    fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { status: "True", reason: "Local", message }
    }
}

/// What the Service and its endpoints say before anybody is asked. Pure.
fn judge(object: &Value, backend: Option<&Value>, slices: &[Value]) -> Option<Verdict> {
    let service = &object["spec"]["service"];
    let (namespace, name) = (text(service, "namespace"), text(service, "name"));
    let port = integer(service, "port").unwrap_or(443);
    let Some(backend) = backend else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Verdict::no("ServiceNotFound", message));
    };
    if text(&backend["spec"], "type") != "ClusterIP" {
        return None;
    }
    let ports = items(&backend["spec"], "ports");
    let Some(found) = ports.iter().find(|one| integer(one, "port") == Some(port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Verdict::no("ServicePortError", message));
    };
    let port_name = text(found, "name");
    let mine: Vec<&Value> = slices
        .iter()
        .filter(|slice| {
            meta::namespace(slice) == namespace
                && meta::labels(slice).and_then(|labels| labels.get("kubernetes.io/service-name")?.as_str())
                    == Some(name)
        })
        .collect();
    if mine.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::no("EndpointsNotFound", message));
    }
    let ready = |endpoint: &Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
    let reachable = mine.iter().any(|slice| {
        items(slice, "endpoints").iter().any(ready)
            && items(slice, "ports").iter().any(|one| text(one, "name") == port_name)
    });
    (!reachable).then(|| {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        Verdict::no("MissingEndpoints", message)
    })
}

/// The object with its condition; `None`: it says so already. Pure.
fn judged(object: &Value, verdict: &Verdict, now: Timestamp) -> Option<Value> {
    let known = condition(object);
    let same = |field: &str, wanted: &str| known.is_some_and(|known| text(known, field) == wanted);
    // Several servers look, and say in different words why they do not get through.
    let words = verdict.reason == FAILED || same("message", &verdict.message);
    if same("status", verdict.status) && same("reason", verdict.reason) && words {
        return None;
    }
    let since = match known {
        Some(known) if text(known, "status") == verdict.status => {
            text(known, "lastTransitionTime").to_owned()
        }
        _ => meta::format_time(now),
    };
    let new = json!({"type": "Available", "status": verdict.status, "lastTransitionTime": since,
        "reason": verdict.reason, "message": verdict.message});
    let mut changed = object.clone();
    let mut status = changed.get("status").filter(|status| status.is_object()).cloned().unwrap_or(json!({}));
    let mut conditions = items(&status, "conditions").to_vec();
    match conditions.iter_mut().find(|one| text(one, "type") == "Available") {
        Some(slot) => *slot = new,
        None => conditions.push(new),
    }
    status["conditions"] = conditions.into();
    set(&mut changed, "status", status);
    Some(changed)
}

impl Aggregator {
    fn all(&self, group: &str, plural: &str) -> Vec<Value> {
        lookup(group, "v1", plural).map(|row| self.registry.cache.values(row)).unwrap_or_default()
    }

    /// Looks at every APIService once.
    async fn pass(&self) -> Result<(), ApiError> {
        if self.registry.cache.wait_for(0).await.is_err() {
            return Err(ApiError::service_unavailable("the watch cache is still being filled"));
        }
        let objects = self.all(super::GROUP, "apiservices");
        let is_remote = |object: &&Value| present(&object["spec"], "service").is_some();
        let (remote, local): (Vec<&Value>, Vec<&Value>) = objects.iter().partition(is_remote);
        self.forget_all_but(&remote);
        for object in local {
            self.write(object, &Verdict::local()).await?;
        }
        if remote.is_empty() {
            return Ok(());
        }
        let slices = self.all("discovery.k8s.io", "endpointslices");
        let looked = remote.into_iter().map(|object| self.look(object, &slices));
        join_all(looked).await.into_iter().collect()
    }

    async fn look(&self, object: &Value, slices: &[Value]) -> Result<(), ApiError> {
        let reference = &object["spec"]["service"];
        let backend = lookup("", "v1", "services").and_then(|row| {
            let known = self.registry.cached(row, text(reference, "namespace"), text(reference, "name"))?;
            known.value().ok()
        });
        let service = Service::of(object);
        let verdict = match judge(object, backend.as_ref(), slices) {
            Some(verdict) => verdict,
            None => match self.ask(&service).await {
                Ok(()) => Verdict::passed(),
                Err(error) => Verdict::no(FAILED, error),
            },
        };
        if verdict.status == "True" {
            self.learn(&service).await;
        }
        self.write(object, &verdict).await
    }

    async fn write(&self, object: &Value, verdict: &Verdict) -> Result<(), ApiError> {
        if judged(object, verdict, registry::meta::now()).is_none() {
            return Ok(());
        }
        let change = |current: &Value| {
            // It is another one's meanwhile: the next look tells.
            let same = present(&current["spec"], "service") == present(&object["spec"], "service");
            let changed = if same { judged(current, verdict, registry::meta::now()) } else { None };
            Ok(changed.unwrap_or_else(|| current.clone()))
        };
        let row = registration::resource()?;
        match self.registry.guaranteed_update(row, "", meta::name(object), &change).await {
            Err(error) if !matches!(error.code(), 404 | 409) => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Value {
        json!({"metadata": {"name": "v1.g"}, "spec": {"service": {"namespace": "n", "name": "s", "port": 443}}})
    }

    #[test]
    fn what_is_missing_is_named() {
        let backend = json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}});
        let other = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        let slice = |ready: bool, port: &str| {
            json!({"metadata": {"namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
                "ports": [{"name": port, "port": 1}], "endpoints": [{"addresses": ["a"], "conditions": {"ready": ready}}]})
        };
        let reason = |backend: Option<&Value>, slices: &[Value]| {
            judge(&object(), backend, slices).map(|verdict| verdict.reason)
        };
        assert_eq!(reason(None, &[]), Some("ServiceNotFound"));
        assert_eq!(reason(Some(&other), &[]), Some("ServicePortError"));
        assert_eq!(reason(Some(&backend), &[]), Some("EndpointsNotFound"));
        assert_eq!(reason(Some(&backend), &[slice(false, "https")]), Some("MissingEndpoints"));
        assert_eq!(reason(Some(&backend), &[slice(true, "http")]), Some("MissingEndpoints"));
        assert_eq!(reason(Some(&backend), &[slice(true, "https")]), None);
        assert_eq!(reason(Some(&json!({"spec": {"type": "ExternalName"}})), &[]), None);
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_holds() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let first = judged(&object(), &Verdict::no("A", "a".into()), at(0)).expect("changes");
        assert_eq!(judged(&first, &Verdict::no("A", "a".into()), at(60)), None);
        let second = judged(&first, &Verdict::no("B", "b".into()), at(60)).expect("changes");
        assert_eq!(second["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        let third = judged(&second, &Verdict::passed(), at(60)).expect("changes");
        assert_eq!(third["status"]["conditions"].as_array().map(Vec::len), Some(1));
        assert_eq!(third["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:01:00Z");
    }
}
