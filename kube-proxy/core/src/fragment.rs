//! What one Service amounts to in the table: its chains, its sets, its elements of the shared maps. Owns the rules for ClusterIP, NodePort,
//! external addresses, traffic policies and session affinity.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::base::{
    CLUSTER_IPS, MARK_FOR_MASQUERADE, NO_ENDPOINT_NODEPORTS, NO_ENDPOINT_SERVICES, ProxyConfig, REJECT,
    SERVICE_IPS, SERVICE_NODEPORTS,
};
use crate::endpoints::{self, Endpoint, PortEndpoints};
use crate::names::{endpoint_chain, service_chain};

/// Upstream's default for how long a client keeps its endpoint, in seconds.
const AFFINITY_SECONDS: i32 = 10_800;

/// The part of the table that belongs to one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Chains by name, with their rules in order.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets of its own by name, with their definitions.
    pub sets: BTreeMap<String, String>,
    /// Elements of the shared sets (no value) and maps (a verdict), by set and key.
    pub elements: BTreeMap<(&'static str, String), Option<String>>,
}

/// Works out a Service's part. Headless Services, ExternalName Services and those without an IPv4 address have none.
pub fn of_service<'s>(
    service: &Service,
    slices: impl Iterator<Item = &'s Arc<EndpointSlice>> + Clone,
    config: &ProxyConfig,
) -> Fragment {
    let mut fragment = Fragment::default();
    let Some(spec) = &service.spec else { return fragment };
    let Some(cluster_ip) = cluster_ip(spec) else { return fragment };
    fragment.elements.insert((CLUSTER_IPS, cluster_ip.to_owned()), None);
    for port in spec.ports.iter().flatten() {
        let endpoints = endpoints::of_port(port, slices.clone(), &config.node_name);
        Port { service, spec, port, cluster_ip, endpoints: &endpoints, config }.write(&mut fragment);
    }
    fragment
}

fn cluster_ip(spec: &ServiceSpec) -> Option<&str> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let all = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
    all.map(String::as_str).find(|address| address.parse::<std::net::Ipv4Addr>().is_ok())
}

struct Port<'a> {
    service: &'a Service,
    spec: &'a ServiceSpec,
    port: &'a ServicePort,
    cluster_ip: &'a str,
    endpoints: &'a PortEndpoints,
    config: &'a ProxyConfig,
}

impl Port<'_> {
    fn id(&self) -> (&str, &str, &str, &str) {
        (
            self.service.metadata.namespace.as_deref().unwrap_or_default(),
            self.service.metadata.name.as_deref().unwrap_or_default(),
            self.port.protocol.as_deref().unwrap_or("TCP"),
            self.port.name.as_deref().unwrap_or_default(),
        )
    }

    fn chain(&self, prefix: &str) -> String {
        let (namespace, name, protocol, port_name) = self.id();
        service_chain(prefix, namespace, name, protocol, port_name)
    }

    fn protocol(&self) -> String {
        self.id().2.to_ascii_lowercase()
    }

    fn write(&self, fragment: &mut Fragment) {
        let internal_local = self.spec.internal_traffic_policy.as_deref() == Some("Local");
        let external_local = self.spec.external_traffic_policy.as_deref() == Some("Local");
        let node_port = self.port.node_port.filter(|port| *port > 0);
        let externals: Vec<_> = self
            .spec
            .external_ips
            .iter()
            .flatten()
            .filter(|address| address.parse::<std::net::Ipv4Addr>().is_ok())
            .collect();
        let has_external = node_port.is_some() || !externals.is_empty();
        let any = !self.endpoints.cluster.is_empty();
        let any_local = !self.endpoints.local.is_empty();
        let to = |chain: &str| Some(format!("goto {chain}"));
        let nowhere = |local_only: bool| {
            // Endpoints elsewhere that the policy keeps traffic from: drop. None at all: tell the client.
            if local_only && any { Some("drop".to_owned()) } else { Some(format!("goto {REJECT}")) }
        };

        let (service, local, external) = (self.chain("service"), self.chain("local"), self.chain("external"));
        let uses_service = any && (!internal_local || has_external);
        let uses_local = any_local && (internal_local || (external_local && has_external));
        if uses_service {
            self.write_balancing(fragment, &service, &self.endpoints.cluster, !internal_local);
        }
        if uses_local {
            self.write_balancing(fragment, &local, &self.endpoints.local, internal_local);
        }
        if any || any_local {
            let used = self.endpoints.cluster.iter().filter(|_| uses_service);
            for endpoint in used.chain(self.endpoints.local.iter().filter(|_| uses_local)) {
                self.write_endpoint(fragment, endpoint);
            }
        }

        let internal = if internal_local { any_local } else { any };
        let key = format!("{} . {} . {}", self.cluster_ip, self.protocol(), self.port.port);
        if internal {
            let target = if internal_local { &local } else { &service };
            fragment.elements.insert((SERVICE_IPS, key), to(target));
        } else {
            fragment.elements.insert((NO_ENDPOINT_SERVICES, key), nowhere(internal_local));
        }

        if !has_external {
            return;
        }
        let reachable = if external_local { any_local } else { any };
        if any {
            self.write_external(fragment, &external, &service, uses_local.then_some(&local), external_local);
        }
        let node_port_key = node_port.map(|port| format!("{} . {port}", self.protocol()));
        let external_keys =
            externals.iter().map(|ip| format!("{ip} . {} . {}", self.protocol(), self.port.port));
        let entries = node_port_key
            .into_iter()
            .map(|key| (SERVICE_NODEPORTS, NO_ENDPOINT_NODEPORTS, key))
            .chain(external_keys.map(|key| (SERVICE_IPS, NO_ENDPOINT_SERVICES, key)));
        for (found, missing, key) in entries {
            if any {
                fragment.elements.insert((found, key.clone()), to(&external));
            }
            if !reachable {
                fragment.elements.insert((missing, key), nowhere(external_local));
            }
        }
    }

    /// A chain that spreads connections over endpoints.
    fn write_balancing(
        &self,
        fragment: &mut Fragment,
        chain: &str,
        endpoints: &[Endpoint],
        takes_cluster_ip: bool,
    ) {
        let mut rules = Vec::new();
        if takes_cluster_ip {
            let to = format!("ip daddr {}", self.cluster_ip);
            if self.config.masquerade_all {
                rules.push(format!("{to} jump {MARK_FOR_MASQUERADE}"));
            } else if let Some(cidr) = &self.config.cluster_cidr {
                rules.push(format!("{to} ip saddr != {cidr} jump {MARK_FOR_MASQUERADE}"));
            }
        }
        if self.has_affinity() {
            for endpoint in endpoints {
                let (set, target) =
                    (self.endpoint_name("affinity", endpoint), self.endpoint_name("endpoint", endpoint));
                rules.push(format!("ip saddr @{set} goto {target}"));
            }
        }
        let targets: Vec<_> = endpoints
            .iter()
            .enumerate()
            .map(|(at, endpoint)| format!("{at} : goto {}", self.endpoint_name("endpoint", endpoint)))
            .collect();
        rules.push(format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), targets.join(" , ")));
        fragment.chains.insert(chain.to_owned(), rules);
    }

    fn write_endpoint(&self, fragment: &mut Fragment, endpoint: &Endpoint) {
        let chain = self.endpoint_name("endpoint", endpoint);
        // A connection that comes back to where it came from has to look as if it came from the node.
        let mut rules = vec![format!("ip saddr {} jump {MARK_FOR_MASQUERADE}", endpoint.address)];
        if self.has_affinity() {
            let set = self.endpoint_name("affinity", endpoint);
            let seconds = self.affinity_seconds();
            rules.push(format!("update @{set} {{ ip saddr }}"));
            fragment
                .sets
                .insert(set, format!("{{ type ipv4_addr ; flags dynamic,timeout ; timeout {seconds}s ; }}"));
        }
        rules.push(format!(
            "meta l4proto {} dnat to {}:{}",
            self.protocol(),
            endpoint.address,
            endpoint.port
        ));
        fragment.chains.insert(chain, rules);
    }

    /// The chain for traffic from outside the cluster.
    fn write_external(
        &self,
        fragment: &mut Fragment,
        chain: &str,
        service: &str,
        local: Option<&String>,
        local_only: bool,
    ) {
        let mut rules = Vec::new();
        if local_only {
            // Pods and the node itself reach all endpoints; only traffic from outside has to stay, with its source address.
            if let Some(cidr) = &self.config.cluster_cidr {
                rules.push(format!("ip saddr {cidr} goto {service}"));
            }
            rules.push(format!("fib saddr type local jump {MARK_FOR_MASQUERADE}"));
            rules.push(format!("fib saddr type local goto {service}"));
            rules.extend(local.map(|local| format!("goto {local}")));
        } else {
            rules.push(format!("jump {MARK_FOR_MASQUERADE}"));
            rules.push(format!("goto {service}"));
        }
        fragment.chains.insert(chain.to_owned(), rules);
    }

    fn endpoint_name(&self, prefix: &str, endpoint: &Endpoint) -> String {
        endpoint_chain(prefix, self.id(), &endpoint.address, endpoint.port)
    }

    fn has_affinity(&self) -> bool {
        self.spec.session_affinity.as_deref() == Some("ClientIP")
    }

    fn affinity_seconds(&self) -> i32 {
        let config = self.spec.session_affinity_config.as_ref();
        let seconds =
            config.and_then(|config| config.client_ip.as_ref()).and_then(|client| client.timeout_seconds);
        seconds.filter(|seconds| *seconds > 0).unwrap_or(AFFINITY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fragment(spec: Value, endpoints: Value) -> Fragment {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "web"}, "spec": spec
        }))
        .expect("service");
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {"name": "web-1"}, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }))
        .expect("slice");
        let config = ProxyConfig::new("node-a", Some("10.244.0.0/16"));
        of_service(&service, [Arc::new(slice)].iter(), &config)
    }

    fn spec(extra: Value) -> Value {
        let mut spec = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
        for (key, value) in extra.as_object().expect("object") {
            spec[key] = value.clone();
        }
        spec
    }

    fn one_endpoint(node: &str) -> Value {
        json!([{"addresses": ["10.244.1.2"], "nodeName": node}])
    }

    fn verdict<'f>(fragment: &'f Fragment, set: &'static str, key: &str) -> Option<&'f str> {
        fragment.elements.get(&(set, key.to_owned()))?.as_deref()
    }

    fn rules<'f>(fragment: &'f Fragment, prefix: &str) -> &'f [String] {
        let found = fragment.chains.iter().find(|(name, _)| name.starts_with(prefix));
        found.map_or(&[], |(_, rules)| rules)
    }

    #[test]
    fn a_cluster_ip_leads_to_its_endpoints() {
        let fragment = fragment(spec(json!({})), one_endpoint("node-b"));
        assert!(
            verdict(&fragment, SERVICE_IPS, "10.96.0.5 . tcp . 80")
                .is_some_and(|to| to.starts_with("goto service-"))
        );
        let service = rules(&fragment, "service-");
        assert_eq!(service[0], "ip daddr 10.96.0.5 ip saddr != 10.244.0.0/16 jump mark-for-masquerade");
        assert!(service[1].starts_with("numgen random mod 1 vmap { 0 : goto endpoint-"), "{service:?}");
        assert_eq!(
            rules(&fragment, "endpoint-"),
            ["ip saddr 10.244.1.2 jump mark-for-masquerade", "meta l4proto tcp dnat to 10.244.1.2:8080"]
        );
        assert_eq!(fragment.chains.len(), 2);
    }

    #[test]
    fn without_endpoints_the_client_is_told() {
        let fragment =
            fragment(spec(json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}]})), json!([]));
        assert_eq!(
            verdict(&fragment, NO_ENDPOINT_SERVICES, "10.96.0.5 . tcp . 80"),
            Some("goto reject-chain")
        );
        assert_eq!(verdict(&fragment, NO_ENDPOINT_NODEPORTS, "tcp . 30080"), Some("goto reject-chain"));
        assert!(fragment.chains.is_empty());
        assert!(verdict(&fragment, SERVICE_IPS, "10.96.0.5 . tcp . 80").is_none());
    }

    #[test]
    fn local_policies_keep_traffic_on_the_node_and_drop_what_cannot_stay() {
        let ports = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
        let here =
            fragment(spec(json!({"externalTrafficPolicy": "Local", "ports": ports})), one_endpoint("node-a"));
        let external = rules(&here, "external-");
        assert!(external[0].starts_with("ip saddr 10.244.0.0/16 goto service-"), "{external:?}");
        assert!(external[3].starts_with("goto local-"), "{external:?}");
        let elsewhere =
            fragment(spec(json!({"externalTrafficPolicy": "Local", "ports": ports})), one_endpoint("node-b"));
        assert_eq!(verdict(&elsewhere, NO_ENDPOINT_NODEPORTS, "tcp . 30080"), Some("drop"));
        assert!(
            verdict(&elsewhere, SERVICE_NODEPORTS, "tcp . 30080").is_some(),
            "the node itself still gets through"
        );
        let internal = fragment(spec(json!({"internalTrafficPolicy": "Local"})), one_endpoint("node-b"));
        assert_eq!(verdict(&internal, NO_ENDPOINT_SERVICES, "10.96.0.5 . tcp . 80"), Some("drop"));
        assert!(internal.chains.is_empty(), "{internal:?}");
    }

    #[test]
    fn client_ip_affinity_remembers_clients_per_endpoint() {
        let fragment = fragment(
            spec(
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
            ),
            one_endpoint("node-b"),
        );
        let (set, definition) = fragment.sets.first_key_value().expect("a set");
        assert_eq!(definition, "{ type ipv4_addr ; flags dynamic,timeout ; timeout 60s ; }");
        assert!(rules(&fragment, "service-")[1].starts_with(&format!("ip saddr @{set} goto endpoint-")));
        assert_eq!(rules(&fragment, "endpoint-")[1], format!("update @{set} {{ ip saddr }}"));
    }

    #[test]
    fn headless_and_external_name_services_have_no_part() {
        assert_eq!(fragment(json!({"clusterIP": "None"}), json!([])), Fragment::default());
        assert_eq!(
            fragment(json!({"type": "ExternalName", "externalName": "x"}), json!([])),
            Fragment::default()
        );
    }
}
