//! What is served of the API: lists and single objects of metrics, from what is known now. Owns paths, forms and selectors; never who may ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::duration::GoDuration;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::{ApiError, GroupResource};
use coracle_client::informer::Informer;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ObjectMeta, PartialObjectMeta};
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::usage::{Span, Usage, Usages};

/// The group served.
pub const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// A request for metrics, as authorization sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `nodes` or `pods`.
    pub resource: String,
    /// Empty for all.
    pub namespace: String,
    /// Empty for a list.
    pub name: String,
}

impl Target {
    /// Of a path below the group's version; `None` for other paths.
    pub fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/apis/metrics.k8s.io/v1beta1/")?;
        let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
        let (resource, namespace, name) = match parts.as_slice() {
            ["nodes" | "pods"] => (parts[0], "", ""),
            ["nodes", name] => ("nodes", "", *name),
            ["namespaces", namespace, "pods"] => ("pods", *namespace, ""),
            ["namespaces", namespace, "pods", name] => ("pods", *namespace, *name),
            _ => return None,
        };
        Some(Self { resource: resource.into(), namespace: namespace.into(), name: name.into() })
    }

    /// The verb of a GET.
    pub fn verb(&self, watches: bool) -> &'static str {
        match (self.name.is_empty(), watches) {
            (false, _) => "get",
            (true, true) => "watch",
            (true, false) => "list",
        }
    }

    /// The resource as errors name it.
    pub fn group_resource(&self) -> GroupResource<'_> {
        GroupResource { group: GROUP, resource: &self.resource }
    }
}

/// Which objects of a list are wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Of the texts of a query.
    ///
    /// # Errors
    /// 400 for what is no selector.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(labels).map_err(|error| bad(&error))?;
        let fields = FieldSelector::parse(fields).map_err(|error| bad(&error))?;
        Ok(Self { labels, fields })
    }

    fn takes(&self, meta: &ObjectMeta) -> bool {
        let empty = BTreeMap::new();
        let labels = meta.labels.as_ref().unwrap_or(&empty);
        let field = |name: &str| match name {
            "metadata.name" => meta.name.as_deref(),
            "metadata.namespace" => meta.namespace.as_deref(),
            _ => None,
        };
        self.labels.matches_with(|key| labels.get(key).map(String::as_str)) && self.fields.matches(field)
    }
}

/// What answers are made from.
#[derive(Clone)]
pub struct Answers {
    /// Nodes, whose labels their metrics carry.
    pub nodes: Informer<Node>,
    /// Pods likewise.
    pub pods: Informer<PartialObjectMeta<Pod>>,
    /// What they use.
    pub usages: Arc<RwLock<Usages>>,
}

impl Answers {
    /// A single object.
    ///
    /// # Errors
    /// 404 for what is not there, or has not been measured twice.
    pub fn get(&self, target: &Target, now: Timestamp) -> Result<Value, ApiError> {
        let missing = || ApiError::not_found(target.group_resource(), &target.name);
        let usages = self.usages.read();
        let mut object = if target.resource == "nodes" {
            let node = self.nodes.store().get_named("", &target.name).ok_or_else(missing)?;
            node_metrics(&node.metadata, &usages, now).ok_or_else(missing)?
        } else {
            let pod = self.pods.store().get_named(&target.namespace, &target.name);
            let missing = || {
                let name = format!("{}/{}", target.namespace, target.name);
                ApiError::not_found(target.group_resource(), &name)
            };
            pod_metrics(&pod.ok_or_else(missing)?.metadata, &usages, now).ok_or_else(missing)?
        };
        object["kind"] = if target.resource == "nodes" { "NodeMetrics" } else { "PodMetrics" }.into();
        object["apiVersion"] = API_VERSION.into();
        Ok(object)
    }

    /// All that are known and selected, by name.
    pub fn list(&self, target: &Target, selection: &Selection, now: Timestamp) -> Value {
        let usages = self.usages.read();
        let mut items: Vec<Value> = if target.resource == "nodes" {
            let nodes = self.nodes.store().list();
            let taken = nodes.iter().filter(|node| selection.takes(&node.metadata));
            taken.filter_map(|node| node_metrics(&node.metadata, &usages, now)).collect()
        } else {
            let pods = self.pods.store().list();
            let here = |meta: &ObjectMeta| {
                target.namespace.is_empty() || meta.namespace.as_deref() == Some(&target.namespace)
            };
            let taken = pods.iter().filter(|pod| here(&pod.metadata) && selection.takes(&pod.metadata));
            taken.filter_map(|pod| pod_metrics(&pod.metadata, &usages, now)).collect()
        };
        let key = |item: &Value| {
            let part = |name: &str| item["metadata"][name].as_str().unwrap_or_default().to_owned();
            (part("namespace"), part("name"))
        };
        items.sort_by_cached_key(key);
        let kind = if target.resource == "nodes" { "NodeMetricsList" } else { "PodMetricsList" };
        json!({"kind": kind, "apiVersion": API_VERSION, "metadata": {}, "items": items})
    }
}

fn node_metrics(meta: &ObjectMeta, usages: &Usages, now: Timestamp) -> Option<Value> {
    let (usage, span) = usages.node(meta.name.as_deref()?)?;
    let mut object = frame(meta, span, now);
    object["usage"] = amounts(usage);
    Some(object)
}

fn pod_metrics(meta: &ObjectMeta, usages: &Usages, now: Timestamp) -> Option<Value> {
    let (containers, span) = usages.pod(meta.namespace.as_deref()?, meta.name.as_deref()?)?;
    let mut object = frame(meta, span, now);
    let containers: Vec<Value> =
        containers.iter().map(|(name, usage)| json!({"name": name, "usage": amounts(*usage)})).collect();
    object["containers"] = containers.into();
    Some(object)
}

fn frame(meta: &ObjectMeta, span: Span, now: Timestamp) -> Value {
    let mut metadata = json!({"name": meta.name, "creationTimestamp": format!("{now:.0}")});
    if let Some(namespace) = &meta.namespace {
        metadata["namespace"] = namespace.as_str().into();
    }
    if let Some(labels) = meta.labels.as_ref().filter(|labels| !labels.is_empty()) {
        metadata["labels"] = json!(labels);
    }
    let window = GoDuration::from(Duration::try_from(span.window).unwrap_or_default()).whole_milliseconds();
    json!({"metadata": metadata, "timestamp": format!("{:.0}", span.end), "window": window.to_string()})
}

/// Nanocores and bytes, as upstream writes them.
fn amounts(usage: Usage) -> Value {
    let memory = match usage.memory_bytes {
        bytes if bytes != 0 && bytes % 1024 == 0 => format!("{}Ki", bytes / 1024),
        bytes => bytes.to_string(),
    };
    let cpu = match usage.nanocores {
        0 => "0".to_owned(),
        nanocores => format!("{nanocores}n"),
    };
    json!({"cpu": cpu, "memory": memory})
}

#[cfg(test)]
mod tests {
    use coracle_client::store::Store;

    use super::*;
    use crate::exposition;

    #[test]
    fn paths_name_what_is_asked_for() {
        let of = |path: &str| {
            Target::of(path).map(|target| [target.resource, target.namespace, target.name].join("|"))
        };
        let root = "/apis/metrics.k8s.io/v1beta1";
        assert_eq!(of(&format!("{root}/nodes")).as_deref(), Some("nodes||"));
        assert_eq!(of(&format!("{root}/nodes/a")).as_deref(), Some("nodes||a"));
        assert_eq!(of(&format!("{root}/pods")).as_deref(), Some("pods||"));
        assert_eq!(of(&format!("{root}/namespaces/n/pods")).as_deref(), Some("pods|n|"));
        assert_eq!(of(&format!("{root}/namespaces/n/pods/p")).as_deref(), Some("pods|n|p"));
        assert_eq!(of(&format!("{root}/namespaces/n/nodes")), None);
        assert_eq!(of("/apis"), None);
    }

    fn answers() -> Answers {
        let object = |name: &str, namespace: Option<&str>| json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}});
        let nodes = Store::new(Vec::new());
        nodes.insert(Arc::new(serde_json::from_value(object("node", None)).expect("a node")));
        let pods = Store::new(Vec::new());
        for (name, namespace) in [("web", "b"), ("db", "b"), ("web", "a")] {
            pods.insert(Arc::new(serde_json::from_value(object(name, Some(namespace))).expect("a pod")));
        }
        let mut usages = Usages::default();
        for (second, cpu) in [(100, 1.0), (115, 2.5)] {
            let mut text =
                format!("node_cpu_usage_seconds_total {cpu}\nnode_memory_working_set_bytes 2048\n");
            for (namespace, pod) in [("b", "web"), ("a", "web"), ("a", "unknown")] {
                let labels = format!("{{container=\"c\",namespace=\"{namespace}\",pod=\"{pod}\"}}");
                text += &format!("container_cpu_usage_seconds_total{labels} {cpu}\n");
                text += &format!("container_memory_working_set_bytes{labels} 1001\n");
            }
            let at = Timestamp::from_second(second).expect("a time");
            let round = vec![("node".to_owned(), exposition::read(&text, at))];
            usages.take(round, jiff::SignedDuration::from_secs(15));
        }
        let (nodes, pods) = (Informer::with_store(nodes), Informer::with_store(pods));
        Answers { nodes, pods, usages: Arc::new(RwLock::new(usages)) }
    }

    #[test]
    fn metrics_read_as_upstreams() {
        let answers = answers();
        let now = Timestamp::from_second(120).expect("a time");
        let of = |path: &str| Target::of(&format!("/apis/metrics.k8s.io/v1beta1/{path}")).expect("a target");
        let pod = answers.get(&of("namespaces/b/pods/web"), now).expect("metrics");
        let expected = json!({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "web", "namespace": "b", "labels": {"app": "web"}, "creationTimestamp": "1970-01-01T00:02:00Z"},
            "timestamp": "1970-01-01T00:01:55Z", "window": "15s",
            "containers": [{"name": "c", "usage": {"cpu": "100000000n", "memory": "1001"}}]});
        assert_eq!(pod, expected);
        let node = answers.get(&of("nodes/node"), now).expect("metrics");
        assert_eq!(node["usage"], json!({"cpu": "100000000n", "memory": "2Ki"}));
        let error = answers.get(&of("namespaces/b/pods/db"), now).expect_err("not measured");
        assert_eq!((error.code(), error.message()), (404, "pods.metrics.k8s.io \"b/db\" not found"));
    }

    #[test]
    fn lists_hold_what_is_measured_there_and_selected() {
        let answers = answers();
        let names = |path: &str, labels: &str, fields: &str| -> Vec<String> {
            let target = Target::of(&format!("/apis/metrics.k8s.io/v1beta1/{path}")).expect("a target");
            let selection = Selection::parse(labels, fields).expect("selectors");
            let list = answers.list(&target, &selection, Timestamp::UNIX_EPOCH);
            let of = |item: &Value| {
                let part = |name: &str| item["metadata"][name].as_str().unwrap_or_default();
                format!("{}/{}", part("namespace"), part("name"))
            };
            list["items"].as_array().expect("items").iter().map(of).collect()
        };
        assert_eq!(names("pods", "", ""), ["a/web", "b/web"]);
        assert_eq!(names("namespaces/b/pods", "app=web", ""), ["b/web"]);
        assert!(names("pods", "app=db", "").is_empty());
        assert_eq!(names("pods", "", "metadata.namespace=a"), ["a/web"]);
        assert_eq!(names("nodes", "app!=x", ""), ["/node"]);
        assert_eq!(Selection::parse("a=(", "").expect_err("no selector").code(), 400);
    }
}
