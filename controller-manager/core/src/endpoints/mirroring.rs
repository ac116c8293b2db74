//! Mirrors Endpoints that nobody makes from pods into EndpointSlices, so that those who read only slices see them. Owns what a mirror contains; slices
//! of Services with selectors are [`super::slices`]'.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as SubsetPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::slices::{
    MANAGED_BY, Placement, PortKey, SERVICE_NAME, delete, distribute, is_managed_by, port_key, write,
};
use crate::action::{Action, ENDPOINTS};
use crate::object_meta::{annotation, controller_reference, name, object_reference};

/// Who looks after mirrors, as their label says.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The annotation of Endpoints that are only a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not copied: they speak of the Endpoints' own writes.
const OWN_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

fn is_wanted(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let skipped = labels.and_then(|labels| labels.get(SKIP)).is_some_and(|value| value == "true");
    !skipped
        && annotation(&endpoints.metadata, LEADER).is_none()
        && endpoints.metadata.deletion_timestamp.is_none()
}

/// Whether nobody else makes slices for the Service.
fn has_no_selector(service: &Service) -> bool {
    service.spec.as_ref().is_none_or(|spec| spec.selector.is_none())
}

type Group = (Vec<EndpointPort>, BTreeMap<String, Endpoint>);

/// What did not come into a mirror.
#[derive(Default)]
struct Skipped {
    invalid: usize,
    too_many: usize,
}

/// Decides about the mirrors of Endpoints with at most `most` addresses a subset (`--mirroring-max-endpoints-per-subset`).
pub fn plan(
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    existing: &[Arc<EndpointSlice>],
    most: usize,
) -> Vec<Action> {
    let ours: Vec<_> = existing.iter().filter(|slice| is_managed_by(slice, MANAGER)).collect();
    let wanted = endpoints.filter(|endpoints| is_wanted(endpoints));
    let (Some(endpoints), Some(_)) = (wanted, service.filter(|service| has_no_selector(service))) else {
        return ours.into_iter().map(|slice| delete(slice)).collect();
    };
    let (groups, skipped) = groups(endpoints, most);
    let mut actions = told(endpoints, &skipped, most);
    let (mut unused, mut free) = (ours, Vec::new());
    let mut placements: Vec<(String, Placement<'_>)> = Vec::new();
    for ((family, key), (ports, all)) in groups {
        let is_same = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == family && port_key(slice.ports.as_deref().unwrap_or_default()) == key
        };
        let (same, rest): (Vec<_>, Vec<_>) = unused.into_iter().partition(is_same);
        unused = rest;
        // A slice's family cannot change: what is left over serves no other group.
        let mut own = Vec::new();
        let placed = distribute(&ports, all, same, &mut own, address_of, most);
        placements.extend(placed.into_iter().map(|placement| (family.to_owned(), placement)));
        free.append(&mut own);
    }
    free.extend(unused);
    actions.extend(placements.into_iter().filter_map(|(family, placement)| {
        write(mirror(endpoints, &family, placement.ports, placement.endpoints), placement.slice)
    }));
    actions.extend(free.into_iter().map(|slice| delete(slice)));
    actions
}

fn address_of(endpoint: &Endpoint) -> Option<String> {
    endpoint.addresses.first().cloned()
}

fn groups(endpoints: &Endpoints, most: usize) -> (BTreeMap<(&'static str, PortKey), Group>, Skipped) {
    let mut groups: BTreeMap<(&'static str, PortKey), Group> = BTreeMap::new();
    let mut skipped = Skipped::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let key = port_key(&ports);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut added = 0;
        for (address, ready) in ready.chain(unready) {
            if added >= most {
                skipped.too_many += 1;
                continue;
            }
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                skipped.invalid += 1;
                continue;
            };
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group =
                groups.entry((family, key.clone())).or_insert_with(|| (ports.clone(), BTreeMap::new()));
            if group.1.insert(address.ip.clone(), endpoint(address, ready)).is_none() {
                added += 1;
            }
        }
    }
    (groups, skipped)
}

fn port(port: &SubsetPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn mirror(of: &Endpoints, family: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let meta = &of.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name(meta).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(meta))),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(&ENDPOINTS, meta)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports),
        endpoints,
    }
}

fn told(endpoints: &Endpoints, skipped: &Skipped, most: usize) -> Vec<Action> {
    let event = |reason, message| Action::Event {
        regarding: Box::new(object_reference(&ENDPOINTS, &endpoints.metadata)),
        warning: true,
        reason,
        message,
    };
    let mut events = Vec::new();
    if skipped.invalid > 0 {
        let message =
            format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", skipped.invalid);
        events.push(event("InvalidIPAddress", message));
    }
    if skipped.too_many > 0 {
        let message = format!(
            "A max of {most} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
            skipped.too_many
        );
        events.push(event("TooManyAddressesToMirror", message));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(addresses: &[&str], extra: Value) -> Endpoints {
        let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let mut all = json!({"metadata": {"name": "db", "namespace": "n", "uid": "e", "labels": {"tier": "data"}},
            "subsets": [{"addresses": ips, "notReadyAddresses": [{"ip": "10.9.9.9"}],
                "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}]});
        for (key, value) in extra.as_object().into_iter().flatten() {
            all["metadata"][key] = value.clone();
        }
        serde_json::from_value(all).expect("Endpoints")
    }

    fn service(selector: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {"selector": selector}}),
        )
        .expect("a Service")
    }

    fn made(actions: &[Action]) -> Vec<Arc<EndpointSlice>> {
        let objects = actions.iter().enumerate().filter_map(|(index, action)| match action {
            Action::Create { object, .. } => {
                let mut object = object.clone();
                object["metadata"]["name"] = json!(format!("db-{index}"));
                Some(Arc::new(serde_json::from_value(object).expect("a slice")))
            }
            _ => None,
        });
        objects.collect()
    }

    #[test]
    fn addresses_of_both_families_come_into_slices_of_their_own() {
        let of = endpoints(&["10.1.1.1", "10.1.1.2", "fd00::1"], json!({}));
        let slices = made(&plan(Some(&of), Some(&service(Value::Null)), &[], 1000));
        let shown: Vec<_> =
            slices.iter().map(|slice| (slice.address_type.as_str(), slice.endpoints.len())).collect();
        assert_eq!(shown, [("IPv4", 3), ("IPv6", 1)]);
        let labels = slices[0].metadata.labels.as_ref().expect("labels");
        assert_eq!((labels[SERVICE_NAME].as_str(), labels[MANAGED_BY].as_str()), ("db", MANAGER));
        assert_eq!(labels["tier"], "data");
        let owner = &slices[0].metadata.owner_references.as_ref().expect("an owner")[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Endpoints", "e"));
        let ready = |index: usize| slices[0].endpoints[index].conditions.as_ref().and_then(|it| it.ready);
        assert_eq!((ready(0), ready(2)), (Some(true), Some(false)));
        let again = plan(Some(&of), Some(&service(Value::Null)), &slices, 1000);
        assert!(again.is_empty(), "what is there stays: {again:?}");
        let fewer = endpoints(&["10.1.1.2", "fd00::1"], json!({}));
        let actions = plan(Some(&fewer), Some(&service(Value::Null)), &slices, 1000);
        assert!(matches!(actions.as_slice(), [Action::Patch { .. }]), "{actions:?}");
    }

    #[test]
    fn what_others_make_or_nobody_wants_is_not_mirrored() {
        let of = endpoints(&["10.1.1.1"], json!({}));
        let slices = made(&plan(Some(&of), Some(&service(Value::Null)), &[], 1000));
        let goes = |endpoints: Option<&Endpoints>, service: Option<&Service>| {
            let actions = plan(endpoints, service, &slices, 1000);
            matches!(actions.as_slice(), [Action::Delete { .. }])
        };
        let without = service(Value::Null);
        assert!(goes(Some(&of), Some(&service(json!({"app": "db"})))));
        assert!(goes(Some(&of), None));
        assert!(goes(None, Some(&without)));
        assert!(goes(Some(&endpoints(&["10.1.1.1"], json!({"labels": {SKIP: "true"}}))), Some(&without)));
        assert!(goes(
            Some(&endpoints(&["10.1.1.1"], json!({"annotations": {LEADER: "{}"}}))),
            Some(&without)
        ));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let of = endpoints(&["10.1.1.1", "nonsense", "10.1.1.2", "10.1.1.3"], json!({}));
        let actions = plan(Some(&of), Some(&service(Value::Null)), &[], 2);
        let told: Vec<_> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Event { reason, message, .. } => Some((*reason, message.as_str())),
                _ => None,
            })
            .collect();
        assert_eq!(
            told,
            [
                ("InvalidIPAddress", "Skipped 1 invalid IP addresses when mirroring to EndpointSlices"),
                (
                    "TooManyAddressesToMirror",
                    "A max of 2 addresses can be mirrored to EndpointSlices per Endpoints subset. 2 addresses were skipped"
                ),
            ]
        );
        assert_eq!(made(&actions)[0].endpoints.len(), 2);
    }
}
