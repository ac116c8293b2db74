//! A pod's resolver configuration from its DNS policy.

use k8s_openapi::api::core::v1::Pod;

use crate::pod_view;

/// What goes into `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Name servers, in order.
    pub servers: Vec<String>,
    /// Search domains, in order.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// Parses a node's `resolv.conf`.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

/// The pod's configuration given the node's, the cluster's servers and the cluster's domain.
pub fn for_pod(pod: &Pod, host: &DnsConfig, cluster_dns: &[String], cluster_domain: &str) -> DnsConfig {
    let spec = pod_view::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let use_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod_view::host_network(pod),
        _ => false,
    } && !cluster_dns.is_empty();
    let mut config = if policy == "None" {
        DnsConfig::default()
    } else if use_cluster {
        let mut searches = Vec::new();
        if !cluster_domain.is_empty() {
            searches.push(format!("{}.svc.{cluster_domain}", pod_view::namespace(pod)));
            searches.push(format!("svc.{cluster_domain}"));
            searches.push(cluster_domain.to_owned());
        }
        searches.extend(host.searches.iter().cloned());
        DnsConfig { servers: cluster_dns.to_vec(), searches, options: vec!["ndots:5".to_owned()] }
    } else {
        host.clone()
    };
    if let Some(extra) = &spec.dns_config {
        config.servers.extend(extra.nameservers.iter().flatten().cloned());
        config.searches.extend(extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            config.options.retain(|have| have.split(':').next() != Some(name));
            config.options.push(text);
        }
    }
    for list in [&mut config.servers, &mut config.searches] {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|entry| seen.insert(entry.clone()));
    }
    config.servers.truncate(3);
    config.searches.truncate(32);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn cluster_first_puts_the_cluster_before_the_host() {
        let host = parse_resolv_conf("nameserver 1.1.1.1\nsearch lan # home\noptions ndots:1 rotate\n");
        let dns = ["10.96.0.10".to_owned()];
        let config = for_pod(&pod(serde_json::json!({"containers": []})), &host, &dns, "cluster.local");
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(config.searches, ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(config.options, ["ndots:5"]);
        let host_net = pod(serde_json::json!({"containers": [], "hostNetwork": true}));
        assert_eq!(for_pod(&host_net, &host, &dns, "cluster.local"), host);
    }

    #[test]
    fn policy_none_takes_only_the_pods_own_settings() {
        let pod = pod(serde_json::json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]}}));
        let config = for_pod(&pod, &DnsConfig::default(), &[], "cluster.local");
        assert_eq!(config.servers, ["9.9.9.9"]);
        assert_eq!(config.options, ["ndots:2"]);
    }
}
