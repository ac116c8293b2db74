//! Which endpoints take traffic for one port of a Service. Owns upstream's choice: ready ones, or, when there are none, those that still serve
//! while they end.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Where traffic can go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// IPv4 address.
    pub address: String,
    /// Port at the endpoint.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

/// The endpoints of one port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortEndpoints {
    /// Those that traffic may go to from anywhere.
    pub cluster: Vec<Endpoint>,
    /// Those on this node, for traffic that has to stay on it.
    pub local: Vec<Endpoint>,
}

#[derive(Clone, Copy)]
struct State {
    ready: bool,
    serving_while_terminating: bool,
}

/// Collects the endpoints of a port from a Service's slices.
pub fn of_port<'s>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'s Arc<EndpointSlice>>,
    node_name: &str,
) -> PortEndpoints {
    let mut all: BTreeMap<Endpoint, State> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let Some(number) = port_number(port, slice) else { continue };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            let is = |condition: Option<bool>, default: bool| condition.unwrap_or(default);
            let ready = is(conditions.and_then(|conditions| conditions.ready), true);
            let serving = is(conditions.and_then(|conditions| conditions.serving), ready);
            let terminating = is(conditions.and_then(|conditions| conditions.terminating), false);
            let Some(address) = endpoint.addresses.first() else { continue };
            let local = endpoint.node_name.as_deref() == Some(node_name);
            let state = State { ready, serving_while_terminating: serving && terminating };
            let known = Endpoint { address: address.clone(), port: number, local };
            // The same endpoint may be in two slices for a moment; being ready in one is enough.
            let entry = all.entry(known).or_insert(state);
            entry.ready |= state.ready;
            entry.serving_while_terminating |= state.serving_while_terminating;
        }
    }
    let choose = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<Endpoint> {
        let pick = |usable: fn(&State) -> bool| -> Vec<Endpoint> {
            let usable = all.iter().filter(|(endpoint, state)| wanted(endpoint) && usable(state));
            usable.map(|(endpoint, _)| endpoint.clone()).collect()
        };
        let ready = pick(|state| state.ready);
        if ready.is_empty() { pick(|state| state.serving_while_terminating) } else { ready }
    };
    PortEndpoints { cluster: choose(&|_| true), local: choose(&|endpoint| endpoint.local) }
}

/// The number that a Service's port has in a slice, by name and protocol.
fn port_number(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().flatten().find(|there| {
        there.name.as_deref().unwrap_or_default() == name
            && there.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    u16::try_from(found.port?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let value = json!({
            "addressType": "IPv4", "metadata": {"name": "s"}, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        });
        Arc::new(serde_json::from_value(value).expect("slice"))
    }

    fn addresses(endpoints: &[Endpoint]) -> Vec<&str> {
        endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect()
    }

    fn port() -> ServicePort {
        serde_json::from_value(json!({"name": "http", "port": 80})).expect("port")
    }

    #[test]
    fn ready_endpoints_first_then_those_that_still_serve_while_ending() {
        let ready = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "a"});
        let ending = json!({"addresses": ["10.0.0.2"], "nodeName": "b",
            "conditions": {"ready": false, "serving": true, "terminating": true}});
        let dead = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false}});
        let found = of_port(&port(), [slice(json!([ready, ending, dead]))].iter(), "b");
        assert_eq!(addresses(&found.cluster), ["10.0.0.1"]);
        assert_eq!(addresses(&found.local), ["10.0.0.2"], "on node b nothing else is left");
        let found = of_port(&port(), [slice(json!([ending, dead]))].iter(), "a");
        assert_eq!(addresses(&found.cluster), ["10.0.0.2"]);
        assert!(found.local.is_empty());
    }

    #[test]
    fn an_endpoint_in_two_slices_counts_once_and_ports_match_by_name() {
        let endpoint = json!([{"addresses": ["10.0.0.1"]}]);
        let found = of_port(&port(), [slice(endpoint.clone()), slice(endpoint)].iter(), "a");
        assert_eq!(found.cluster.len(), 1);
        assert_eq!(found.cluster[0].port, 8080);
        let other: ServicePort = serde_json::from_value(json!({"name": "other", "port": 81})).expect("port");
        assert_eq!(
            of_port(&other, [slice(json!([{"addresses": ["10.0.0.1"]}]))].iter(), "a"),
            PortEndpoints::default()
        );
    }
}
