//! The downward API: a pod's own fields and resources as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};

use crate::{pod_view, resources};

/// What the node adds to the pod's own fields.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub node_name: String,
    /// The node's labels.
    pub node_labels: BTreeMap<String, String>,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// Thousandths of a CPU that pods may use; stands in for a missing limit.
    pub allocatable_milli_cpu: i64,
    /// Bytes that pods may use; stands in for a missing limit.
    pub allocatable_memory: i64,
}

/// The value of a field path.
///
/// # Errors
/// Names the path if it is not one of the downward API's.
pub fn field(pod: &Pod, path: &str, node: &NodeFacts) -> Result<String, String> {
    let meta = &pod.metadata;
    let keyed =
        |prefix: &str| -> Option<&str> { path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']") };
    let value = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some(key) = keyed("metadata.labels") {
        return Ok(value(&meta.labels, key));
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Ok(value(&meta.annotations, key));
    }
    Ok(match path {
        "metadata.name" => pod_view::name(pod).to_owned(),
        "metadata.namespace" => pod_view::namespace(pod).to_owned(),
        "metadata.uid" => pod_view::uid(pod).to_owned(),
        "metadata.labels" => map_text(meta.labels.as_ref()),
        "metadata.annotations" => map_text(meta.annotations.as_ref()),
        "spec.nodeName" => node.node_name.clone(),
        "spec.serviceAccountName" => {
            pod_view::spec(pod).service_account_name.clone().unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" => node.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => node.host_ips.join(","),
        "status.podIP" => node.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => node.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// One `key="value"` a line, sorted, as the downward API writes maps.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(text, "{key}={}", serde_json::Value::from(value.as_str()));
    }
    text
}

/// The value of a resource field, in units of its divisor, rounded up.
///
/// # Errors
/// Names the container or resource that is not there.
pub fn resource_field(
    pod: &Pod,
    default_container: &str,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, String> {
    let name =
        selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(default_container);
    let container = pod_view::container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .filter(|(kind, _)| matches!(*kind, "limits" | "requests"))
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let set = match kind {
        "limits" => resources::limit(&container, resource),
        _ => resources::request(&container, resource),
    };
    // CPU amounts are in thousandths already; all others are made so.
    let milli = match (resource, set, kind) {
        ("cpu", Some(milli), _) => milli,
        ("cpu", None, "limits") => node.allocatable_milli_cpu,
        ("memory", None, "limits") => node.allocatable_memory.saturating_mul(1000),
        (_, amount, _) => amount.unwrap_or(0).saturating_mul(1000),
    };
    let divisor = match &selector.divisor {
        Some(divisor) => match resources::milli_value(divisor) {
            Some(0) => 1000,
            Some(divisor) if divisor > 0 => divisor,
            _ => return Err(format!("invalid divisor {}", divisor.0)),
        },
        None => 1000,
    };
    Ok((milli.div_euclid(divisor) + i64::from(milli.rem_euclid(divisor) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b/c": "x \"y\""}},
            "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields_and_maps() {
        let node = NodeFacts { pod_ips: vec!["10.0.0.1".into(), "fd::1".into()], ..NodeFacts::default() };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels['b/c']", "x \"y\""),
            ("metadata.labels", "a=\"1\"\nb/c=\"x \\\"y\\\"\""),
            ("metadata.annotations['no']", ""),
            ("spec.serviceAccountName", "default"),
            ("status.podIPs", "10.0.0.1,fd::1"),
        ] {
            assert_eq!(field(&pod(), path, &node).unwrap(), expected, "{path}");
        }
        assert!(field(&pod(), "spec.containers", &node).is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let node = NodeFacts { allocatable_memory: 1 << 30, ..NodeFacts::default() };
        let ask = |resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource.to_owned(),
                divisor: divisor.map(|text| Quantity(text.to_owned())),
                container_name: None,
            };
            resource_field(&pod(), "main", &selector, &node)
        };
        assert_eq!(ask("limits.cpu", None).unwrap(), "2");
        assert_eq!(ask("limits.cpu", Some("1m")).unwrap(), "1500");
        assert_eq!(ask("requests.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(ask("limits.memory", Some("1Mi")).unwrap(), "1024");
        assert!(ask("cpu", None).is_err());
    }
}
