//! What is in the table whatever Services there are: maps, hooks and the chains that look Services up. Owns the fixed part of the
//! layout.
//!
//! ```text
//! prerouting, output (nat) -> services -> vmap @service-ips / @service-nodeports -> service-*, external-* -> endpoint-* (dnat)
//! input, forward, output (filter, new connections) -> vmap @no-endpoint-* -> reject; other ports of ClusterIPs -> reject
//! postrouting (nat) -> masquerading, for what mark-for-masquerade marked
//! ```

use std::fmt::Write;

/// The table everything is in.
pub const TABLE: &str = "ip kube-proxy";
/// Set of all ClusterIPs.
pub const CLUSTER_IPS: &str = "cluster-ips";
/// Set of the node's addresses that take NodePort traffic.
pub const NODEPORT_IPS: &str = "nodeport-ips";
/// Map from address, protocol and port to a Service's chain.
pub const SERVICE_IPS: &str = "service-ips";
/// Map from protocol and port to a Service's external chain.
pub const SERVICE_NODEPORTS: &str = "service-nodeports";
/// Map from address, protocol and port of Services without endpoints to what becomes of their traffic.
pub const NO_ENDPOINT_SERVICES: &str = "no-endpoint-services";
/// The same for node ports.
pub const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
/// The chain that marks a connection for masquerading.
pub const MARK_FOR_MASQUERADE: &str = "mark-for-masquerade";
/// The chain that rejects.
pub const REJECT: &str = "reject-chain";

/// What differs between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// This node's name, to tell its own endpoints.
    pub node_name: String,
    /// The pods' CIDR (IPv4): traffic to ClusterIPs from elsewhere is masqueraded. `None` masquerades none.
    pub cluster_cidr: Option<String>,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// The bit of the packet mark that means "masquerade", 0 to 31.
    pub masquerade_bit: u32,
}

impl ProxyConfig {
    /// Upstream's settings for a node.
    pub fn new(node_name: &str, cluster_cidr: Option<&str>) -> Self {
        Self {
            node_name: node_name.to_owned(),
            cluster_cidr: cluster_cidr.map(str::to_owned),
            masquerade_all: false,
            masquerade_bit: 14,
        }
    }
}

/// The lines that replace the whole table by an empty one with this layout.
pub fn reset(config: &ProxyConfig) -> String {
    let mark = 1u32 << config.masquerade_bit.min(31);
    let mut text = String::new();
    // `add` first so that `delete` cannot fail; all of it is one transaction.
    line(&mut text, format_args!("add table {TABLE}"));
    line(&mut text, format_args!("delete table {TABLE}"));
    line(&mut text, format_args!("add table {TABLE} {{ comment \"rules for kube-proxy\" ; }}"));
    for (set, comment) in
        [(CLUSTER_IPS, "Active ClusterIPs"), (NODEPORT_IPS, "IPs that accept NodePort traffic")]
    {
        line(&mut text, format_args!("add set {TABLE} {set} {{ type ipv4_addr ; comment \"{comment}\" ; }}"));
    }
    for (map, key, comment) in [
        (SERVICE_IPS, "ipv4_addr . inet_proto . inet_service", "ClusterIP and ExternalIP traffic"),
        (SERVICE_NODEPORTS, "inet_proto . inet_service", "NodePort traffic"),
        (NO_ENDPOINT_SERVICES, "ipv4_addr . inet_proto . inet_service", "services with no endpoints"),
        (NO_ENDPOINT_NODEPORTS, "inet_proto . inet_service", "service nodeports with no endpoints"),
    ] {
        line(
            &mut text,
            format_args!("add map {TABLE} {map} {{ type {key} : verdict ; comment \"{comment}\" ; }}"),
        );
    }
    for (chain, kind, hook, priority) in [
        ("filter-input", "filter", "input", 0),
        ("filter-forward", "filter", "forward", 0),
        ("filter-output", "filter", "output", 0),
        ("nat-prerouting", "nat", "prerouting", -100),
        ("nat-output", "nat", "output", -100),
        ("nat-postrouting", "nat", "postrouting", 100),
    ] {
        line(
            &mut text,
            format_args!("add chain {TABLE} {chain} {{ type {kind} hook {hook} priority {priority} ; }}"),
        );
    }
    for chain in [
        "cluster-ips-check",
        MARK_FOR_MASQUERADE,
        "masquerading",
        "nodeport-endpoints-check",
        REJECT,
        "service-endpoints-check",
        "services",
    ] {
        line(&mut text, format_args!("add chain {TABLE} {chain}"));
    }
    let rules: [(&str, String); 19] = [
        (MARK_FOR_MASQUERADE, format!("meta mark set meta mark or {mark:#x}")),
        ("masquerading", format!("meta mark and {mark:#x} == 0 return")),
        ("masquerading", format!("meta mark set meta mark xor {mark:#x}")),
        ("masquerading", "masquerade fully-random".into()),
        (REJECT, "reject".into()),
        ("cluster-ips-check", format!("ip daddr @{CLUSTER_IPS} reject")),
        (
            "service-endpoints-check",
            format!("ip daddr . meta l4proto . th dport vmap @{NO_ENDPOINT_SERVICES}"),
        ),
        (
            "nodeport-endpoints-check",
            format!("ip daddr @{NODEPORT_IPS} meta l4proto . th dport vmap @{NO_ENDPOINT_NODEPORTS}"),
        ),
        ("services", format!("ip daddr . meta l4proto . th dport vmap @{SERVICE_IPS}")),
        ("services", format!("ip daddr @{NODEPORT_IPS} meta l4proto . th dport vmap @{SERVICE_NODEPORTS}")),
        ("filter-input", "ct state new jump nodeport-endpoints-check".into()),
        ("filter-input", "ct state new jump service-endpoints-check".into()),
        ("filter-forward", "ct state new jump service-endpoints-check".into()),
        ("filter-forward", "ct state new jump cluster-ips-check".into()),
        ("filter-output", "ct state new jump service-endpoints-check".into()),
        ("filter-output", "ct state new jump cluster-ips-check".into()),
        ("nat-prerouting", "jump services".into()),
        ("nat-output", "jump services".into()),
        ("nat-postrouting", "jump masquerading".into()),
    ];
    for (chain, rule) in rules {
        line(&mut text, format_args!("add rule {TABLE} {chain} {rule}"));
    }
    text
}

/// The lines that remove the table.
pub fn cleanup() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

pub(crate) fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{content}");
}
