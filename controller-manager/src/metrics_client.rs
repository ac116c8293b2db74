//! Reads the three APIs of metrics, `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`, from whichever server stands behind
//! them. Owns their paths and forms; never what a value means.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use component_base::duration::GoDuration;
use controller_manager_core::action::ResourceId;
use controller_manager_core::horizontal_autoscaler::calculator::{PodMetric, PodMetrics};
use controller_manager_core::horizontal_autoscaler::sources::{Query, Sample};
use coracle_api::quantity::Quantity;
use coracle_api::selector::LabelSelector;
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as SelectorObject, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::controllers::message;
use crate::discovery::Discovery;
use crate::executor::Executor;

/// The window of a custom metric that does not say.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// Versions of the custom metrics API, best first.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct ContainerUse {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct PodUse {
    metadata: Name,
    timestamp: Time,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerUse>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Name,
    timestamp: Time,
    /// The name of the field in `v1beta1`.
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Deserialize)]
struct ExternalValue {
    value: String,
}

fn millis(text: &str) -> Result<i64, String> {
    text.parse::<Quantity>().map(|amount| amount.milli_value()).map_err(|error| error.to_string())
}

/// What all containers use, or one; a pod of which a part is not known is left out.
fn uses(pods: Vec<PodUse>, resource: &str, container: Option<&str>) -> Result<PodMetrics, String> {
    let mut found = PodMetrics::new();
    for pod in pods {
        let of = |one: &&ContainerUse| container.is_none_or(|wanted| wanted == one.name);
        let containers: Vec<&ContainerUse> = pod.containers.iter().filter(of).collect();
        if let (Some(wanted), true) = (container, containers.is_empty()) {
            let whose = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
            let cause = format!("container {wanted} not present in metrics for pod {whose}");
            return Err(format!("failed to get container metrics: {cause}"));
        }
        let known: Option<Vec<&String>> = containers.iter().map(|one| one.usage.get(resource)).collect();
        let Some(known) = known.filter(|known| !known.is_empty()) else { continue };
        let mut value = 0_i64;
        for amount in known {
            value = value.saturating_add(millis(amount)?);
        }
        let window = GoDuration::from_str(&pod.window).map_or(Duration::ZERO, GoDuration::get);
        let window = SignedDuration::try_from(window).unwrap_or_default();
        found.insert(pod.metadata.name, PodMetric { value, timestamp: pod.timestamp.0, window });
    }
    Ok(found)
}

/// Whether a server only says that it has nothing at a path, by its own words or by those of the least of servers.
fn is_unspecific(message: &str) -> bool {
    message == "the server could not find the requested resource" || message.starts_with("404 page not found")
}

/// The words of clients for a server that does not have a resource, or does not answer.
fn words(error: &kube::Error, verb: &str, resource: &str) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 && is_unspecific(&status.message) => {
            format!("the server could not find the requested resource ({verb} {resource})")
        }
        kube::Error::Api(status) if status.code == 503 => {
            format!("the server is currently unable to handle the request ({verb} {resource})")
        }
        other => message(other),
    }
}

fn selector_text(selector: Option<&SelectorObject>) -> Result<String, String> {
    match selector {
        None => Ok(String::new()),
        Some(selector) => {
            let selector = LabelSelector::from_object(&json!(selector)).map_err(|error| error.to_string())?;
            Ok(selector.to_string())
        }
    }
}

fn with_query(path: String, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(given);
    let query = out.finish();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Reads metrics for one namespace's autoscalers. Cheap to clone.
#[derive(Clone)]
pub struct MetricsClient {
    executor: Executor,
    discovery: Discovery,
}

impl MetricsClient {
    /// With the rights of this executor.
    pub fn new(executor: Executor, discovery: Discovery) -> Self {
        Self { executor, discovery }
    }

    /// The answer to a query; `pods` is the text by which the scale finds its pods.
    ///
    /// # Errors
    /// The text for people, when there is none.
    pub async fn sample(&self, query: Query<'_>, namespace: &str, pods: &str) -> Result<Sample, String> {
        match query {
            Query::Resource { name, container } => {
                self.resource(namespace, pods, name, container).await.map(Sample::Pods)
            }
            Query::Pods(metric) => self.pods(namespace, pods, metric).await.map(Sample::Pods),
            Query::Object(object, metric) => {
                self.object(namespace, object, metric).await.map(|value| Sample::Values(vec![value]))
            }
            Query::External(metric) => self.external(namespace, metric).await.map(Sample::Values),
            Query::Unknown => Err(String::new()),
        }
    }

    async fn resource(
        &self,
        namespace: &str,
        pods: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<PodMetrics, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let answer: List<PodUse> =
            self.executor.read(&with_query(path, &[("labelSelector", pods)])).await.map_err(|error| {
                let words = words(&error, "get", "pods.metrics.k8s.io");
                format!("unable to fetch metrics from resource metrics API: {words}")
            })?;
        if answer.items.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        uses(answer.items, resource, container)
    }

    /// Reads `path` in the best version that the server has.
    async fn custom<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        resource: &str,
    ) -> Result<T, String> {
        let mut failure = String::new();
        for version in CUSTOM_VERSIONS {
            let path = format!("/apis/custom.metrics.k8s.io/{version}/{path}");
            match self.executor.read(&with_query(path, parameters)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let is_unknown = matches!(&error, kube::Error::Api(status) if status.code == 404);
                    let words = words(&error, "get", &format!("{resource}.custom.metrics.k8s.io"));
                    failure = format!("unable to fetch metrics from custom metrics API: {words}");
                    if !is_unknown {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn pods(
        &self,
        namespace: &str,
        pods: &str,
        metric: &MetricIdentifier,
    ) -> Result<PodMetrics, String> {
        let selector = selector_text(metric.selector.as_ref())?;
        let path = format!("namespaces/{namespace}/pods/*/{}", metric.name);
        let parameters = [("labelSelector", pods), ("metricLabelSelector", &*selector)];
        let answer: List<MetricValue> = self.custom(&path, &parameters, "pods").await?;
        if answer.items.is_empty() {
            return Err("no metrics returned from custom metrics API".to_owned());
        }
        let mut found = PodMetrics::new();
        for one in answer.items {
            let window = one.window_seconds.map_or(WINDOW, SignedDuration::from_secs);
            let metric = PodMetric { value: millis(&one.value)?, timestamp: one.timestamp.0, window };
            found.insert(one.described_object.name, metric);
        }
        Ok(found)
    }

    async fn object(
        &self,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric: &MetricIdentifier,
    ) -> Result<i64, String> {
        let selector = selector_text(metric.selector.as_ref())?;
        let group = ResourceId::group_of(object.api_version.as_deref().unwrap_or_default());
        let (path, resource) = if object.kind == "Namespace" && group.is_empty() {
            // An autoscaler sees no namespace but its own.
            (format!("namespaces/{namespace}/metrics/{}", metric.name), "namespaces".to_owned())
        } else {
            let found = self.discovery.resource_of_kind(group, &object.kind).await;
            let found = found.map_err(|error| message(&error)).and_then(|found| {
                found.ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", object.kind))
            });
            let found = found.map_err(|error| {
                format!(
                    "unable to fetch metrics from custom metrics API: unable to map kind {}: {error}",
                    object.kind
                )
            })?;
            let dot = if group.is_empty() { "" } else { "." };
            let resource = format!("{}{dot}{group}", found.plural);
            let part = if found.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
            (format!("{part}{resource}/{}/{}", object.name, metric.name), resource)
        };
        let parameters = [("metricLabelSelector", &*selector)];
        let answer: List<MetricValue> = self.custom(&path, &parameters, &resource).await?;
        match answer.items.as_slice() {
            [one] => millis(&one.value),
            all => Err(format!(
                "unable to fetch metrics from custom metrics API: the custom metrics API server returned {} results when we asked for exactly one",
                all.len()
            )),
        }
    }

    async fn external(&self, namespace: &str, metric: &MetricIdentifier) -> Result<Vec<i64>, String> {
        let selector = selector_text(metric.selector.as_ref())?;
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}", metric.name);
        let answer: List<ExternalValue> =
            self.executor.read(&with_query(path, &[("labelSelector", &*selector)])).await.map_err(
                |error| {
                    let words = words(&error, "get", &format!("{}.external.metrics.k8s.io", metric.name));
                    format!("unable to fetch metrics from external metrics API: {words}")
                },
            )?;
        if answer.items.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        answer.items.iter().map(|one| millis(&one.value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(value: serde_json::Value) -> Vec<PodUse> {
        serde_json::from_value(value).expect("uses of pods")
    }

    #[test]
    fn containers_add_up_and_half_known_pods_are_left_out() {
        let answer = || {
            pods(json!([
                {"metadata": {"name": "a", "namespace": "n"}, "timestamp": "2026-01-01T00:00:00Z", "window": "1m0s",
                 "containers": [{"name": "c", "usage": {"cpu": "100m"}}, {"name": "d", "usage": {"cpu": "1"}}]},
                {"metadata": {"name": "b", "namespace": "n"}, "timestamp": "2026-01-01T00:00:00Z", "window": "1m0s",
                 "containers": [{"name": "c", "usage": {"cpu": "5m"}}, {"name": "d", "usage": {}}]},
            ]))
        };
        let found = uses(answer(), "cpu", None).expect("known");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!((found["a"].value, found["a"].window), (1_100, SignedDuration::from_secs(60)));
        assert_eq!(uses(answer(), "cpu", Some("c")).expect("known")["b"].value, 5);
        let error = uses(answer(), "cpu", Some("x")).expect_err("not there");
        assert_eq!(error, "failed to get container metrics: container x not present in metrics for pod n/a");
    }

    #[test]
    fn parameters_are_escaped_and_empty_ones_left_out() {
        let path = || "/apis/x".to_owned();
        assert_eq!(with_query(path(), &[("a", "")]), "/apis/x");
        assert_eq!(with_query(path(), &[("a", "k in (x,y)"), ("b", "")]), "/apis/x?a=k+in+%28x%2Cy%29");
    }
}
