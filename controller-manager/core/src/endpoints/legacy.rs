//! The Endpoints object of a Service: ready and not ready addresses by set of ports. At most a thousand addresses, as upstream.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{HEADLESS_LABEL, ServicePod, is_headless};
use crate::action::{Action, ENDPOINTS, Target};
use crate::merge_diff::merge_diff_of;
use crate::object_meta::{name, namespace, preconditions};

/// The label that says who looks after an Endpoints object.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Its value for ours.
pub const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const ADDRESSES_MAX: usize = 1000;

/// Decides about the Endpoints of a managed Service; `service` is `None` if it is gone.
pub fn plan(service: Option<&Service>, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Option<Action> {
    let Some((service, spec)) = service.and_then(|service| Some((service, service.spec.as_ref()?))) else {
        let meta = &existing?.metadata;
        return Some(Action::Delete {
            target: Target::new(&ENDPOINTS, namespace(meta), name(meta)),
            uid: meta.uid.clone(),
            resource_version: None,
            propagation: None,
            grace_seconds: None,
        });
    };
    let (subsets, over) = subsets(service, spec, pods);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(spec) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    let Some(old) = existing else {
        let endpoints = Endpoints {
            metadata: ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: over.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
                ..Default::default()
            },
            subsets: (!subsets.is_empty()).then_some(subsets),
        };
        return Some(Action::Create {
            resource: ENDPOINTS,
            namespace: namespace(&service.metadata).to_owned(),
            object: serde_json::to_value(&endpoints).unwrap_or(Value::Null),
        });
    };
    let mut annotations = old.metadata.annotations.clone().unwrap_or_default();
    if over {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    let before = json!({
        "subsets": old.subsets.as_deref().unwrap_or_default(),
        "metadata": { "labels": old.metadata.labels, "annotations": old.metadata.annotations.clone().unwrap_or_default() },
    });
    let after = json!({ "subsets": subsets, "metadata": { "labels": labels, "annotations": annotations } });
    let mut patch = merge_diff_of(&before, &after)?;
    let guard = preconditions(&old.metadata, true);
    for field in ["uid", "resourceVersion"] {
        patch["metadata"][field] = guard[field].clone();
    }
    let target = Target::new(&ENDPOINTS, namespace(&old.metadata), name(&old.metadata));
    Some(Action::Patch { target, subresource: "", patch })
}

/// Subsets, and whether addresses had to be left out.
fn subsets(service: &Service, spec: &ServiceSpec, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let ipv6 = spec.ip_families.iter().flatten().next().map(String::as_str) == Some("IPv6")
        || spec.cluster_ip.as_deref().is_some_and(|ip| ip.contains(':'));
    let mut groups: BTreeMap<String, (Vec<EndpointPort>, EndpointSubset)> = BTreeMap::new();
    let mut found: Vec<_> = pods.iter().filter_map(|pod| ServicePod::read(pod, ipv6, publish)).collect();
    // Terminating pods are of no use to those who read Endpoints, unless all are wanted.
    found.retain(|pod| publish || !pod.terminating);
    found.sort_by(|a, b| b.ready.cmp(&a.ready).then_with(|| a.address.cmp(&b.address)));
    let over = found.len() > ADDRESSES_MAX;
    for pod in found.iter().take(ADDRESSES_MAX) {
        let ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: pod.port(port)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            continue;
        }
        let key =
            ports.iter().map(|p| format!("{:?}/{}/{:?}", p.name, p.port, p.protocol)).collect::<String>();
        let (_, subset) = groups.entry(key).or_insert_with(|| (ports, EndpointSubset::default()));
        let address = EndpointAddress {
            ip: pod.address.clone(),
            hostname: pod.hostname(service),
            node_name: pod.node(),
            target_ref: Some(pod.target_ref()),
        };
        let list = if pod.ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let subsets = groups
        .into_values()
        .map(|(ports, subset)| EndpointSubset { ports: (!ports.is_empty()).then_some(ports), ..subset });
    (subsets.collect(), over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;
    use k8s_openapi::api::core::v1::ServicePort;

    #[test]
    fn ready_and_not_ready_addresses_are_kept_apart_and_nothing_is_written_twice() {
        let service = Service {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("default".into()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                ports: Some(vec![ServicePort { port: 80, ..Default::default() }]),
                ..Default::default()
            }),
            status: None,
        };
        let pods =
            vec![Arc::new(pod("a", "Running", true, "n1")), Arc::new(pod("b", "Running", false, "n1"))];
        let Some(Action::Create { object, .. }) = plan(Some(&service), &pods, None) else {
            panic!("must create")
        };
        let endpoints: Endpoints = serde_json::from_value(object).expect("Endpoints");
        let subset = &endpoints.subsets.as_ref().expect("subsets")[0];
        assert_eq!(subset.addresses.as_ref().map(Vec::len), Some(1));
        assert_eq!(subset.not_ready_addresses.as_ref().map(Vec::len), Some(1));
        assert_eq!(plan(Some(&service), &pods, Some(&endpoints)), None);
        assert!(matches!(plan(None, &[], Some(&endpoints)), Some(Action::Delete { .. })));
    }
}
