//! The command line, under kube-proxy's names. Owns the flags; a configuration file is merged in `configuration`.

use std::path::PathBuf;

use clap::Parser;
use component_base::duration::GoDuration;
use component_base::flags::LogFlags;

/// Upstream's flags that this kube-proxy does not have yet.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "bind-address-hard-fail",
    "config-sync-period",
    "conntrack-max-per-core",
    "conntrack-min",
    "conntrack-tcp-be-liberal",
    "conntrack-tcp-timeout-close-wait",
    "conntrack-tcp-timeout-established",
    "conntrack-udp-timeout",
    "conntrack-udp-timeout-stream",
    "healthz-port",
    "init-only",
    "iptables-localhost-nodeports",
    "iptables-masquerade-bit",
    "iptables-min-sync-period",
    "iptables-sync-period",
    "ipvs-exclude-cidrs",
    "ipvs-min-sync-period",
    "ipvs-scheduler",
    "ipvs-strict-arp",
    "ipvs-sync-period",
    "ipvs-tcp-timeout",
    "ipvs-tcpfin-timeout",
    "ipvs-udp-timeout",
    "kube-api-content-type",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-json-split-stream",
    "log-text-info-buffer-size",
    "log-text-split-stream",
    "metrics-port",
    "nftables-sync-period",
    "pod-bridge-interface",
    "pod-interface-name-prefix",
    "profiling",
    "proxy-port-range",
    "show-hidden-metrics-for-version",
    "vmodule",
    "write-config-to",
];

/// Makes Services reachable on this node, by nftables.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-proxy", display_name = "Kubernetes", version = component_base::version::KUBERNETES, about)]
pub struct Options {
    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1). As upstream, flags other than --hostname-override,
    /// --kubeconfig, --master, --cleanup and -v do not change what it says.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where the API server is and who we are; in-cluster if absent.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The API server's address, in place of the kubeconfig's.
    #[arg(long)]
    pub master: Option<String>,
    /// Requests a second to the API server; 0 for no limit.
    #[arg(long, default_value_t = 0.0)]
    pub kube_api_qps: f64,
    /// Requests beyond that rate that may go at once.
    #[arg(long, default_value_t = 10)]
    pub kube_api_burst: u32,
    /// This node's name; the host name if absent.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// The pods' CIDR; traffic to Services from elsewhere is masqueraded.
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// How local traffic is told; only ClusterCIDR exists.
    #[arg(long)]
    pub detect_local_mode: Option<String>,
    /// nftables, or empty for the same.
    #[arg(long)]
    pub proxy_mode: Option<String>,
    /// Where health is served.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// Where metrics are served.
    #[arg(long)]
    pub metrics_bind_address: Option<String>,
    /// Address that health and metrics fall back to.
    #[arg(long)]
    pub bind_address: Option<std::net::IpAddr>,
    /// Which of the node's addresses take NodePort traffic: `primary`, or CIDRs.
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// Masquerade all traffic to ClusterIPs.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = false)]
    pub masquerade_all: bool,
    /// Bit of the packet mark that means "masquerade".
    #[arg(long, default_value_t = 14)]
    pub nftables_masquerade_bit: u32,
    /// Shortest time between two transactions.
    #[arg(long, default_value = "1s")]
    pub nftables_min_sync_period: GoDuration,
    /// How soon the kernel ends this process when memory runs out, -1000 (never) to 1000; left as it is if absent.
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
    /// Feature gates, Name=true|false: what is so anyway may be said, the rest is refused by name.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// Remove the table and end.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = false)]
    pub cleanup: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogFlags,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_flags_says_what_is_here() {
        component_base::flags::page::check::<Options>("kube-proxy", NOT_IMPLEMENTED)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn the_command_line_of_a_large_cluster_is_taken() {
        let args = "kube-proxy --master=https://10.0.0.1 --kubeconfig=/k --cluster-cidr=10.64.0.0/14 --oom-score-adj=-998 --v=2 \
--iptables-sync-period=1m --iptables-min-sync-period=10s --ipvs-sync-period=1m --ipvs-min-sync-period=10s --feature-gates=AllAlpha=false";
        let options: Options =
            component_base::flags::try_parse_from(args.split(' ').map(Into::into), NOT_IMPLEMENTED)
                .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(options.oom_score_adj, Some(-998));
    }
}
