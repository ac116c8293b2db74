//! The command line, under kube-controller-manager's names. Owns the flags and their defaults; what they mean together is
//! `settings`'.

use std::path::PathBuf;

use clap::Parser;
use component_base::duration::GoDuration;
use component_base::flags::LogFlags;
use component_base::secure_port::SecureServingFlags;
use coracle_client::leader_election::LeaderElectionFlags;

/// Upstream's flags that this controller-manager does not have yet.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "allow-metric-labels",
    "allow-metric-labels-manifest",
    "allow-untagged-cloud",
    "attach-detach-reconcile-sync-period",
    "authentication-skip-lookup",
    "authentication-token-webhook-cache-ttl",
    "authentication-tolerate-lookup-failure",
    "authorization-always-allow-paths",
    "authorization-webhook-cache-authorized-ttl",
    "authorization-webhook-cache-unauthorized-ttl",
    "cidr-allocator-type",
    "cloud-config",
    "cloud-provider",
    "concurrent-cron-job-syncs",
    "concurrent-daemonset-syncs",
    "concurrent-deployment-syncs",
    "concurrent-endpoint-syncs",
    "concurrent-ephemeralvolume-syncs",
    "concurrent-gc-syncs",
    "concurrent-horizontal-pod-autoscaler-syncs",
    "concurrent-job-syncs",
    "concurrent-namespace-syncs",
    "concurrent-rc-syncs",
    "concurrent-replicaset-syncs",
    "concurrent-resource-claim-syncs",
    "concurrent-resource-quota-syncs",
    "concurrent-service-endpoint-syncs",
    "concurrent-service-syncs",
    "concurrent-serviceaccount-token-syncs",
    "concurrent-statefulset-syncs",
    "concurrent-ttl-after-finished-syncs",
    "concurrent-validating-admission-policy-status-syncs",
    "configure-cloud-routes",
    "contention-profiling",
    "controller-shutdown-timeout",
    "controller-start-interval",
    "disable-attach-detach-reconcile-sync",
    "disable-http2-serving",
    "disabled-metrics",
    "emulated-version",
    "emulation-forward-compatible",
    "enable-dynamic-provisioning",
    "enable-garbage-collector",
    "enable-hostpath-provisioner",
    "enable-leader-migration",
    "endpoint-updates-batch-period",
    "endpointslice-updates-batch-period",
    "external-cloud-volume-plugin",
    "flex-volume-plugin-dir",
    "http2-max-streams-per-connection",
    "kube-api-content-type",
    "leader-migration-config",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-json-split-stream",
    "log-text-info-buffer-size",
    "log-text-split-stream",
    "max-endpoints-per-slice",
    "min-compatibility-version",
    "min-resync-period",
    "mirroring-concurrent-service-endpoint-syncs",
    "mirroring-endpointslice-updates-batch-period",
    "namespace-sync-period",
    "permit-address-sharing",
    "permit-port-sharing",
    "profiling",
    "pv-recycler-increment-timeout-nfs",
    "pv-recycler-minimum-timeout-hostpath",
    "pv-recycler-minimum-timeout-nfs",
    "pv-recycler-pod-template-filepath-hostpath",
    "pv-recycler-pod-template-filepath-nfs",
    "pv-recycler-timeout-increment-hostpath",
    "requestheader-allowed-names",
    "requestheader-extra-headers-prefix",
    "requestheader-group-headers",
    "requestheader-uid-headers",
    "requestheader-username-headers",
    "route-reconciliation-period",
    "show-hidden-metrics-for-version",
    "tls-sni-cert-key",
    "unsupported-kube-api-over-localhost",
    "vmodule",
    "volume-host-allow-local-loopback",
    "volume-host-cidr-denylist",
];

/// Keeps the cluster as it was asked to be.
#[derive(Clone, Debug, Parser)]
#[command(name = "controller-manager", display_name = "Kubernetes", version = component_base::version::KUBERNETES, about)]
pub struct Options {
    /// Where the API server is and who we are; in-cluster if absent.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The API server's address, in place of the kubeconfig's.
    #[arg(long)]
    pub master: Option<String>,
    /// Requests a second to the API server, of each identity that controllers act as; 0 for no limit.
    #[arg(long, default_value_t = 0.0)]
    pub kube_api_qps: f64,
    /// Requests beyond that rate that may go at once.
    #[arg(long, default_value_t = 30)]
    pub kube_api_burst: u32,
    /// Controllers to run: names, `-name` for not, `*` for all.
    #[arg(long, default_value = "*", value_delimiter = ',', allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// Kubeconfig for checking the tokens of those who read the metrics. Health and metrics are served to all so far.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig for asking whether they may. Health and metrics are served to all so far.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Certificates whose holders may read the metrics. They are served to all so far.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Certificates of proxies that name users in headers. Health and metrics are served to all so far.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The health and metrics port (HTTPS); 0 for none.
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
    /// Give nodes their pod address ranges out of --cluster-cidr.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = false)]
    pub allocate_node_cidrs: bool,
    /// Pod addresses of the cluster: one CIDR, or one of each family.
    #[arg(long, default_value = "", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Addresses of Services: no node gets them.
    #[arg(long, default_value = "", value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<String>,
    /// Prefix length of a node's range in a single-family cluster: 24 for IPv4 and 64 for IPv6 by default.
    #[arg(long)]
    pub node_cidr_mask_size: Option<u32>,
    /// The same for IPv4.
    #[arg(long)]
    pub node_cidr_mask_size_ipv4: Option<u32>,
    /// The same for IPv6.
    #[arg(long)]
    pub node_cidr_mask_size_ipv6: Option<u32>,
    /// The cluster's name, for cloud resources; nothing uses it yet.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    /// Certificate of the CA that signs certificate requests, for all signers.
    #[arg(long)]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// Certificate of the CA that signs only for clients of the API server.
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    /// Certificate of the CA that signs only for kubelets as clients.
    #[arg(long)]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    /// Certificate of the CA that signs only for kubelets as servers.
    #[arg(long)]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    /// Certificate of the CA that signs only for requests of no known kind.
    #[arg(long)]
    pub cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
    /// The longest that a signed certificate lasts, and how long it does when the request does not say.
    #[arg(long, default_value = "8760h0m0s")]
    pub cluster_signing_duration: GoDuration,
    /// How often a claim that waits is looked at again, and people are told again what for.
    #[arg(long, default_value = "15s")]
    pub pvclaimbinder_sync_period: GoDuration,
    /// Leave a volume that a node still uses attached, however long that node has not been well.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = false)]
    pub disable_force_detach_on_timeout: bool,
    /// A token Secret that a cluster made for an account and that nobody has used for so long is not good any more, and after as long again deleted.
    #[arg(long, default_value = "8760h0m0s")]
    pub legacy_service_account_token_clean_up_period: GoDuration,
    /// How often quotas are counted anew even if nothing was freed.
    #[arg(long, default_value = "5m0s")]
    pub resource_quota_sync_period: GoDuration,
    /// Addresses of one subset of Endpoints that are mirrored to EndpointSlices at most.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub mirroring_max_endpoints_per_subset: u16,
    /// How often autoscalers are looked at.
    #[arg(long, default_value = "15s")]
    pub horizontal_pod_autoscaler_sync_period: GoDuration,
    /// The window in which the highest recommendation counts before an autoscaler scales down.
    #[arg(long, default_value = "5m0s")]
    pub horizontal_pod_autoscaler_downscale_stabilization: GoDuration,
    /// How far a metric may be from its target, as a part of it, before an autoscaler scales.
    #[arg(long, default_value_t = 0.1)]
    pub horizontal_pod_autoscaler_tolerance: f64,
    /// For so long after its start the CPU of a pod counts only while it is ready.
    #[arg(long, default_value = "5m0s")]
    pub horizontal_pod_autoscaler_cpu_initialization_period: GoDuration,
    /// For so long after its start a pod that becomes unready counts as not started yet.
    #[arg(long, default_value = "30s")]
    pub horizontal_pod_autoscaler_initial_readiness_delay: GoDuration,
    /// Certificates published to each namespace as kube-root-ca.crt.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// Key that signs ServiceAccount tokens in Secrets (pods get theirs from the TokenRequest API).
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// Let each controller act as its own ServiceAccount in kube-system instead of the process's user.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = false)]
    pub use_service_account_credentials: bool,
    /// How often nodes are looked at.
    #[arg(long, default_value = "5s")]
    pub node_monitor_period: GoDuration,
    /// Silence after which a node becomes Unknown.
    #[arg(long, default_value = "50s")]
    pub node_monitor_grace_period: GoDuration,
    /// The same for a node that has never reported.
    #[arg(long, default_value = "1m0s")]
    pub node_startup_grace_period: GoDuration,
    /// Nodes of a healthy zone that are emptied a second.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f64,
    /// Nodes of a partly broken large zone that are emptied a second.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f64,
    /// Share of broken nodes from which a zone counts as partly broken.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f64,
    /// Nodes from which a zone counts as large.
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// Has no effect any more, upstream as here: tolerations decide.
    #[arg(long)]
    pub pod_eviction_timeout: Option<GoDuration>,
    /// Ended pods that may stay; 0 for all.
    #[arg(long, default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,
    /// Feature gates, Name=true|false: what is so anyway may be said, the rest is refused by name.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub leader_election: LeaderElectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogFlags,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let args = std::iter::once("controller-manager").chain(args.iter().copied()).map(Into::into);
        component_base::flags::try_parse_from(args, NOT_IMPLEMENTED).map_err(|error| error.to_string())
    }

    #[test]
    fn the_page_of_flags_says_what_is_here() {
        component_base::flags::page::check::<Options>("kube-controller-manager", NOT_IMPLEMENTED)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn kubeadms_command_line_is_taken() {
        let options = parse(&[
            "--allocate-node-cidrs=true",
            "--authentication-kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--authorization-kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--bind-address=127.0.0.1",
            "--client-ca-file=/etc/kubernetes/pki/ca.crt",
            "--cluster-cidr=10.244.0.0/16",
            "--cluster-name=kubernetes",
            "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt",
            "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key",
            "--controllers=*,bootstrapsigner,tokencleaner",
            "--kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--leader-elect=true",
            "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt",
            "--root-ca-file=/etc/kubernetes/pki/ca.crt",
            "--service-account-private-key-file=/etc/kubernetes/pki/sa.key",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--use-service-account-credentials=true",
        ])
        .expect("parses");
        assert_eq!(options.controllers, ["*", "bootstrapsigner", "tokencleaner"]);
        assert_eq!(options.secure_port, 10257);
    }

    #[test]
    fn the_start_script_of_a_development_cluster_is_taken() {
        let options = parse(&[
            "--v=3",
            "--vmodule=",
            "--service-account-private-key-file=/c/sa.key",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--root-ca-file=/c/server-ca.crt",
            "--cluster-signing-cert-file=/c/client-ca.crt",
            "--cluster-signing-key-file=/c/client-ca.key",
            "--enable-hostpath-provisioner=false",
            "--pvclaimbinder-sync-period=15s",
            "--feature-gates=AllAlpha=false",
            "--emulated-version=",
            "--cloud-provider=",
            "--cloud-config=",
            "--configure-cloud-routes=true",
            "--authentication-kubeconfig",
            "/c/controller.kubeconfig",
            "--authorization-kubeconfig",
            "/c/controller.kubeconfig",
            "--kubeconfig",
            "/c/controller.kubeconfig",
            "--use-service-account-credentials",
            "--controllers=*",
            "--leader-elect=false",
            "--cert-dir=/c",
            "--master=https://localhost:6443",
        ])
        .expect("parses");
        assert!(options.use_service_account_credentials && !options.leader_election.leader_elect);
    }

    #[test]
    fn what_large_clusters_tune_is_taken() {
        let options = parse(&[
            "--kube-api-qps=100",
            "--kube-api-burst=200",
            "--concurrent-deployment-syncs=50",
            "--min-resync-period=12h0m0s",
            "--tls-min-version=VersionTLS12",
            "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "--profiling=false",
            "--flex-volume-plugin-dir=/usr/libexec/flex",
            "--requestheader-username-headers=X-Remote-User",
        ])
        .expect("parses");
        assert_eq!((options.kube_api_qps, options.kube_api_burst), (100.0, 200));
    }

    #[test]
    fn a_flag_that_is_not_there_yet_is_refused_by_name() {
        let error = parse(&["--leader-migration-config=/x"]).expect_err("refused");
        assert!(error.contains("--leader-migration-config is not implemented"), "{error}");
    }
}
