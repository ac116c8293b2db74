//! EndpointSlices: per Service and address family, per set of ports, at most a hundred endpoints each. [`plan`] keeps existing
//! slices as they are where it can, so that a change of one pod changes one slice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{HEADLESS_LABEL, ServicePod, is_headless};
use crate::action::{Action, ENDPOINT_SLICES, SERVICES, Target};
use crate::merge_diff::merge_diff_of;
use crate::object_meta::{controller_reference, name, namespace, preconditions};

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who looks after a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Its value for ours.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Endpoints a slice holds at most.
pub const ENDPOINTS_MAX: usize = 100;

/// Whether this manager looks after a slice.
pub fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == manager)
}

/// Ports as a key: endpoints with equal ports share slices.
pub(super) type PortKey = String;

/// Decides what becomes of the Service's slices. `service` is `None` if it is gone or not managed: all go.
pub fn plan(
    service: Option<&Service>,
    pods: &[Arc<Pod>],
    nodes: impl Fn(&str) -> Option<Arc<Node>>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let ours: Vec<_> = existing.iter().filter(|slice| is_managed_by(slice, MANAGER)).collect();
    let spec =
        service.filter(|service| service.metadata.deletion_timestamp.is_none()).and_then(|s| s.spec.as_ref());
    let (Some(service), Some(spec)) = (service, spec) else {
        return ours.into_iter().map(|slice| delete(slice)).collect();
    };
    let families = families(spec);
    let mut actions = Vec::new();
    for family in ["IPv4", "IPv6"] {
        let slices: Vec<_> = ours.iter().filter(|slice| slice.address_type == family).copied().collect();
        if families.contains(&family) {
            plan_family(service, spec, family, pods, &nodes, &slices, &mut actions);
        } else {
            actions.extend(slices.into_iter().map(|slice| delete(slice)));
        }
    }
    actions
}

fn families(spec: &ServiceSpec) -> Vec<&str> {
    let families: Vec<_> = spec.ip_families.iter().flatten().map(String::as_str).collect();
    if !families.is_empty() {
        return families;
    }
    let ipv6 = spec.cluster_ip.as_deref().is_some_and(|ip| ip.contains(':'));
    vec![if ipv6 { "IPv6" } else { "IPv4" }]
}

fn plan_family(
    service: &Service,
    spec: &ServiceSpec,
    family: &str,
    pods: &[Arc<Pod>],
    nodes: &impl Fn(&str) -> Option<Arc<Node>>,
    existing: &[&Arc<EndpointSlice>],
    actions: &mut Vec<Action>,
) {
    let mut wanted: BTreeMap<PortKey, (Vec<EndpointPort>, BTreeMap<String, Endpoint>)> = BTreeMap::new();
    for pod in pods {
        let Some(found) =
            ServicePod::read(pod, family == "IPv6", spec.publish_not_ready_addresses.unwrap_or(false))
        else {
            continue;
        };
        let ports = ports(spec, &found);
        let group = wanted.entry(port_key(&ports)).or_insert_with(|| (ports, BTreeMap::new()));
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        group.1.insert(uid, endpoint(service, &found, nodes));
    }
    let mut unused = existing.to_vec();
    let mut free: Vec<&Arc<EndpointSlice>> = Vec::new();
    let mut placements: Vec<Placement<'_>> = Vec::new();
    for (key, (ports, endpoints)) in wanted {
        let (same, rest): (Vec<_>, Vec<_>) =
            unused.into_iter().partition(|slice| port_key(slice.ports.as_deref().unwrap_or_default()) == key);
        unused = rest;
        placements.extend(distribute(&ports, endpoints, same, &mut free, pod_uid, ENDPOINTS_MAX));
    }
    free.extend(unused);
    if placements.is_empty() {
        // A Service without endpoints keeps one empty slice, so that watchers see that there are none.
        free.sort_by_key(|slice| std::cmp::Reverse(slice.metadata.name.clone()));
        placements.push(Placement { slice: free.pop(), ports: Vec::new(), endpoints: Vec::new() });
    }
    actions.extend(placements.into_iter().filter_map(|placement| place(service, spec, family, placement)));
    actions.extend(free.into_iter().map(|slice| delete(slice)));
}

/// What one slice is to hold.
pub(super) struct Placement<'a> {
    /// The slice; `None` for a new one.
    pub(super) slice: Option<&'a Arc<EndpointSlice>>,
    /// Its ports.
    pub(super) ports: Vec<EndpointPort>,
    /// Its endpoints.
    pub(super) endpoints: Vec<Endpoint>,
}

fn pod_uid(endpoint: &Endpoint) -> Option<String> {
    endpoint.target_ref.as_ref()?.uid.clone()
}

/// Puts endpoints with equal ports into slices: each stays where it is; new ones fill the fullest slices first, then
/// empty ones, then new ones. Slices that are left over go to `free`. `key` tells endpoints apart; a slice holds `most`.
pub(super) fn distribute<'a>(
    ports: &[EndpointPort],
    mut endpoints: BTreeMap<String, Endpoint>,
    slices: Vec<&'a Arc<EndpointSlice>>,
    free: &mut Vec<&'a Arc<EndpointSlice>>,
    key: fn(&Endpoint) -> Option<String>,
    most: usize,
) -> Vec<Placement<'a>> {
    let mut placements: Vec<Placement<'a>> = Vec::new();
    for slice in slices {
        let known = slice.endpoints.iter().filter_map(key);
        let kept: Vec<_> = known.filter_map(|key| endpoints.remove(&key)).take(most).collect();
        if kept.is_empty() {
            free.push(slice);
        } else {
            placements.push(Placement { slice: Some(slice), ports: ports.to_vec(), endpoints: kept });
        }
    }
    let mut left: VecDeque<_> = endpoints.into_values().collect();
    placements.sort_by_key(|placement| std::cmp::Reverse(placement.endpoints.len()));
    for placement in &mut placements {
        let room = most.saturating_sub(placement.endpoints.len()).min(left.len());
        placement.endpoints.extend(left.drain(..room));
    }
    while !left.is_empty() {
        let list = left.drain(..most.min(left.len())).collect();
        placements.push(Placement { slice: free.pop(), ports: ports.to_vec(), endpoints: list });
    }
    placements
}

fn place(service: &Service, spec: &ServiceSpec, family: &str, placement: Placement<'_>) -> Option<Action> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(spec) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    let slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(&SERVICES, &service.metadata)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        ports: Some(placement.ports),
        endpoints: placement.endpoints,
    };
    write(slice, placement.slice)
}

/// Makes a slice, or makes one out of `old`; none if that is so already. Annotations that `slice` does not speak of are left alone.
pub(super) fn write(slice: EndpointSlice, old: Option<&Arc<EndpointSlice>>) -> Option<Action> {
    let Some(old) = old else {
        return Some(Action::Create {
            resource: ENDPOINT_SLICES,
            namespace: namespace(&slice.metadata).to_owned(),
            object: serde_json::to_value(&slice).unwrap_or(Value::Null),
        });
    };
    let annotated = slice.metadata.annotations.is_some();
    let content = |slice: &EndpointSlice| {
        let meta = &slice.metadata;
        let annotations = meta.annotations.as_ref().filter(|all| annotated && !all.is_empty());
        json!({
            "ports": slice.ports.as_deref().unwrap_or_default(),
            "endpoints": slice.endpoints,
            "metadata": { "labels": meta.labels, "annotations": annotations, "ownerReferences": meta.owner_references },
        })
    };
    let mut patch = merge_diff_of(&content(old), &content(&slice))?;
    let guard = preconditions(&old.metadata, true);
    for field in ["uid", "resourceVersion"] {
        patch["metadata"][field] = guard[field].clone();
    }
    let target = Target::new(&ENDPOINT_SLICES, namespace(&old.metadata), name(&old.metadata));
    Some(Action::Patch { target, subresource: "", patch })
}

pub(super) fn delete(slice: &EndpointSlice) -> Action {
    Action::Delete {
        target: Target::new(&ENDPOINT_SLICES, namespace(&slice.metadata), name(&slice.metadata)),
        uid: slice.metadata.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}

fn ports(spec: &ServiceSpec, pod: &ServicePod<'_>) -> Vec<EndpointPort> {
    let found = spec.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(pod.port(port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

pub(super) fn port_key(ports: &[EndpointPort]) -> PortKey {
    let mut parts: Vec<_> = ports
        .iter()
        .map(|p| {
            format!(
                "{:?}/{:?}/{:?}/{:?}",
                p.name.as_deref().unwrap_or_default(),
                p.port,
                p.protocol,
                p.app_protocol
            )
        })
        .collect();
    parts.sort();
    parts.join(",")
}

fn endpoint(service: &Service, pod: &ServicePod<'_>, nodes: &impl Fn(&str) -> Option<Arc<Node>>) -> Endpoint {
    let node = pod.node();
    let zone =
        node.as_deref().and_then(nodes).and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
    let wish = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    let hints = hints(wish, zone.as_ref(), node.as_ref()).filter(|_| pod.ready);
    Endpoint {
        addresses: vec![pod.address.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(pod.ready),
            serving: Some(pod.serving),
            terminating: Some(pod.terminating),
        }),
        hostname: pod.hostname(service),
        node_name: node,
        target_ref: Some(pod.target_ref()),
        zone,
        hints,
        ..Default::default()
    }
}

/// From where traffic is to come, as the Service's `trafficDistribution` wishes: from the endpoint's zone, or from its node before that.
fn hints(wish: Option<&str>, zone: Option<&String>, node: Option<&String>) -> Option<EndpointHints> {
    let by_node = wish == Some("PreferSameNode");
    let by_zone = by_node || matches!(wish, Some("PreferClose" | "PreferSameZone"));
    let zones = zone.filter(|_| by_zone).map(|zone| vec![ForZone { name: zone.clone() }]);
    let nodes = node.filter(|_| by_node).map(|node| vec![ForNode { name: node.clone() }]);
    (zones.is_some() || nodes.is_some()).then_some(EndpointHints { for_zones: zones, for_nodes: nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_follow_the_wish_for_near_traffic() {
        let (zone, node) = ("z".to_owned(), "n".to_owned());
        let shown = |wish| {
            let hints = hints(wish, Some(&zone), Some(&node));
            hints.map(|hints| (hints.for_zones.is_some(), hints.for_nodes.is_some()))
        };
        assert_eq!(shown(None), None);
        assert_eq!(shown(Some("PreferClose")), Some((true, false)));
        assert_eq!(shown(Some("PreferSameZone")), Some((true, false)));
        assert_eq!(shown(Some("PreferSameNode")), Some((true, true)));
        assert_eq!(hints(Some("PreferClose"), None, Some(&node)), None);
    }

    use crate::test_objects::pod;
    use k8s_openapi::api::core::v1::ServicePort;

    fn service() -> Service {
        Service {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("default".into()),
                uid: Some("s".into()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some("10.96.0.9".into()),
                ports: Some(vec![ServicePort { port: 80, ..Default::default() }]),
                selector: Some([("app".to_owned(), "web".to_owned())].into()),
                ..Default::default()
            }),
            status: None,
        }
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|n| Arc::new(pod(&format!("p{n:03}"), "Running", true, "n1"))).collect()
    }

    fn created(actions: &[Action]) -> Vec<Arc<EndpointSlice>> {
        let objects = actions.iter().filter_map(|action| match action {
            Action::Create { object, .. } => serde_json::from_value::<EndpointSlice>(object.clone()).ok(),
            _ => None,
        });
        let named = objects.enumerate().map(|(n, mut slice)| {
            slice.metadata.name = Some(format!("web-{n}"));
            Arc::new(slice)
        });
        named.collect()
    }

    #[test]
    fn a_hundred_endpoints_a_slice_and_one_change_touches_one_slice() {
        let none = |_: &str| None;
        let slices = created(&plan(Some(&service()), &pods(250), none, &[]));
        let mut sizes: Vec<_> = slices.iter().map(|slice| slice.endpoints.len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [50, 100, 100]);
        assert!(plan(Some(&service()), &pods(250), none, &slices).is_empty(), "nothing changed");
        let mut fewer = pods(250);
        Arc::make_mut(&mut fewer[3]).metadata.deletion_timestamp =
            Some(crate::object_meta::seconds(jiff::Timestamp::UNIX_EPOCH));
        let actions = plan(Some(&service()), &fewer, none, &slices);
        assert_eq!(actions.len(), 1);
        let Action::Patch { patch, .. } = &actions[0] else { panic!("must patch") };
        let ended = patch["endpoints"]
            .as_array()
            .and_then(|list| list.iter().find(|e| e["conditions"]["terminating"] == true));
        let conditions = &ended.expect("is there")["conditions"];
        assert_eq!((&conditions["ready"], &conditions["serving"]), (&json!(false), &json!(true)));
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice_and_a_gone_one_has_none() {
        let slices = created(&plan(Some(&service()), &[], |_| None, &[]));
        assert_eq!(slices.len(), 1);
        assert!(slices[0].endpoints.is_empty());
        assert_eq!(slices[0].metadata.labels.as_ref().expect("labels")[SERVICE_NAME], "web");
        assert!(matches!(plan(None, &[], |_| None, &slices)[..], [Action::Delete { .. }]));
    }

    #[test]
    fn pods_that_are_not_ready_are_published_only_on_request() {
        let unready = vec![Arc::new(pod("p", "Running", false, "n1"))];
        let ready = |service: &Service| {
            created(&plan(Some(service), &unready, |_| None, &[]))[0].endpoints[0]
                .conditions
                .clone()
                .and_then(|c| c.ready)
        };
        let mut service = service();
        assert_eq!(ready(&service), Some(false));
        service.spec.as_mut().expect("spec").publish_not_ready_addresses = Some(true);
        assert_eq!(ready(&service), Some(true));
    }
}
