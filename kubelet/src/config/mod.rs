//! Settings: command line and `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) as kubeadm writes them, merged.
//!
//! Never here: acting on them.

mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use component_base::duration::GoDuration;
use component_base::flags::{LogFlags, parse_key_values};
use file::{FileConfig, parse_file};
use k8s_openapi::api::core::v1::Taint;

/// Upstream flags that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "cloud-config",
    "config-dir",
    "credential-provider",
    "enable-server",
    "experimental-allocatable-ignore-eviction",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "keep-terminated-pod-volumes",
    "kube-reserved",
    "kube-reserved-cgroup",
    "lock-file",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-json-split-stream",
    "log-text-info-buffer-size",
    "log-text-split-stream",
    "manifest-url",
    "node-status-max-images",
    "reserved-cpus",
    "run-once",
    "seccomp-default",
    "system-cgroups",
    "system-reserved",
    "system-reserved-cgroup",
    "topology-manager-policy",
    "vmodule",
];

/// The kubelet: runs the pods that are bound to its node.
#[derive(Parser, Debug)]
#[command(name = "kubelet", display_name = "Kubernetes", version = component_base::version::KUBERNETES)]
pub struct Flags {
    /// Kubeconfig for asking for a first certificate. Only accepted when --kubeconfig exists already.
    #[arg(long, value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Kubeconfig that says how to reach the API server.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// KubeletConfiguration file. Flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// unix:///path/to/socket of a CRI runtime, or hollow:// for simulated containers.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// Accepted: images come from the same endpoint.
    #[arg(long)]
    pub image_service_endpoint: Option<String>,
    /// The node's name; by default the host's.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// The node's address, or two separated by a comma; by default that of the default route.
    #[arg(long)]
    pub node_ip: Option<String>,
    /// Labels to register with: key=value,...
    #[arg(long, default_value = "")]
    pub node_labels: String,
    /// Taints to register with: key=value:effect,...
    #[arg(long, default_value = "")]
    pub register_with_taints: String,
    /// Whether to create the Node object.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub register_node: bool,
    /// Accepted: the sandbox image is the runtime's setting.
    #[arg(long)]
    pub pod_infra_container_image: Option<String>,
    /// cgroupfs; systemd is refused.
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    /// The cgroup below which pods get theirs.
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// Directory for volumes and pod files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Directory of static pod manifests.
    #[arg(long)]
    pub pod_manifest_path: Option<PathBuf>,
    /// Directory for a self-made serving certificate.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    /// Serving certificate.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// Serving certificate's key.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// CA of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Accepted, not used.
    #[arg(long)]
    pub runtime_cgroups: Option<String>,
    /// Accepted, not used.
    #[arg(long)]
    pub kubelet_cgroups: Option<String>,
    /// The cloud's name for this machine.
    #[arg(long)]
    pub provider_id: Option<String>,
    /// Only "" and external are accepted.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// Where container logs go.
    #[arg(long)]
    pub pod_logs_dir: Option<PathBuf>,
    /// Address to serve on.
    #[arg(long)]
    pub address: Option<String>,
    /// Port to serve on.
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of the local health check; 0 turns it off.
    #[arg(long)]
    pub healthz_port: Option<u16>,
    /// Address of the local health check.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// Most pods on this node.
    #[arg(long)]
    pub max_pods: Option<i64>,
    /// DNS servers for pods, comma-separated.
    #[arg(long)]
    pub cluster_dns: Option<String>,
    /// The cluster's DNS domain.
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// The node's resolver configuration, for pods that use it.
    #[arg(long)]
    pub resolv_conf: Option<PathBuf>,
    /// Sysctls that pods may set beside the safe ones, comma-separated; `kernel.msg*` allows all with that beginning.
    #[arg(long)]
    pub allowed_unsafe_sysctls: Option<String>,
    /// Refuse to start while swap is on. Only false is accepted for now, which is what happens.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub fail_swap_on: Option<bool>,
    /// Own flag: write a bridge network for the node's podCIDR into this CNI configuration directory.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Own flag: how long a hollow sandbox takes to start.
    #[arg(long, default_value = "0s")]
    pub hollow_start_latency: GoDuration,
    /// Logging.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Everything settled.
#[derive(Debug)]
pub struct Config {
    /// How to reach the API server.
    pub kubeconfig: PathBuf,
    /// The runtime's socket, or `hollow://`.
    pub endpoint: String,
    /// The node's name.
    pub node_name: String,
    /// The node's addresses, if given.
    pub node_ips: Vec<String>,
    /// Labels to register with.
    pub node_labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
    /// Whether to create the Node.
    pub register_node: bool,
    /// The cloud's name.
    pub provider_id: String,
    /// Below which cgroup pods get theirs.
    pub cgroup_root: String,
    /// Volumes and pod files.
    pub root_dir: PathBuf,
    /// Container logs.
    pub pod_logs_dir: PathBuf,
    /// Where the serving certificate is: certificate and key.
    pub serving: Option<(PathBuf, PathBuf)>,
    /// Where to make one.
    pub cert_dir: PathBuf,
    /// CA of clients.
    pub client_ca: Option<PathBuf>,
    /// Whether anyone may ask.
    pub anonymous: bool,
    /// Whether tokens are reviewed by the API server.
    pub webhook_authentication: bool,
    /// Whether requests are authorized by the API server; otherwise everything is allowed.
    pub webhook_authorization: bool,
    /// Where to serve.
    pub address: String,
    /// Port to serve on.
    pub port: u16,
    /// Local health check; none if turned off.
    pub healthz: Option<(String, u16)>,
    /// Most pods.
    pub max_pods: i64,
    /// Most processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// DNS servers for pods.
    pub cluster_dns: Vec<String>,
    /// DNS domain.
    pub cluster_domain: String,
    /// The node's resolver configuration; empty for none.
    pub resolv_conf: PathBuf,
    /// Log rotation: bytes and files.
    pub log_rotation: (u64, usize),
    /// One pull at a time.
    pub serialize_image_pulls: bool,
    /// CPU quotas.
    pub cpu_cfs_quota: bool,
    /// Seccomp for pods that name none.
    pub seccomp_default: bool,
    /// Sysctls beyond the safe ones: names, or prefixes that end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Thresholds of MemoryPressure and DiskPressure.
    pub eviction_hard: BTreeMap<String, String>,
    /// Seconds between looks at the node's own status.
    pub status_seconds: u64,
    /// Manifests of static pods.
    pub static_pods: Option<PathBuf>,
    /// Own CNI configuration.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Merges the command line with the file it names. Warnings name fields that are ignored.
///
/// # Errors
/// The first thing that is wrong, with its name and the next step.
pub fn load(flags: Flags) -> Result<(Config, Vec<String>), String> {
    let mut warnings = Vec::new();
    let file = match &flags.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("--config {}: {error}", path.display()))?;
            parse_file(&text, &mut warnings)
                .map_err(|error| format!("--config {}: {error}", path.display()))?
        }
        None => FileConfig::default(),
    };
    let kubeconfig = flags.kubeconfig.clone().ok_or(
        "--kubeconfig is required: running without an API server (standalone) is not implemented by Coracle yet",
    )?;
    if !kubeconfig.exists() {
        return Err(match &flags.bootstrap_kubeconfig {
            Some(_) => format!(
                "--kubeconfig {} does not exist, and asking for a certificate with --bootstrap-kubeconfig is not implemented by Coracle yet; write the kubeconfig with a client certificate for system:node:NAME",
                kubeconfig.display()
            ),
            None => format!("--kubeconfig {} does not exist; check the path", kubeconfig.display()),
        });
    }
    let driver = flags.cgroup_driver.unwrap_or(file.cgroup_driver);
    if !matches!(driver.as_str(), "" | "cgroupfs") {
        return Err(format!(
            "cgroup driver {driver:?} is not implemented by Coracle yet; set cgroupDriver: cgroupfs here and SystemdCgroup = false in the runtime"
        ));
    }
    if !matches!(flags.cloud_provider.as_str(), "" | "external") {
        return Err(format!("--cloud-provider {:?}: only \"\" and external are known", flags.cloud_provider));
    }
    if flags.fail_swap_on == Some(true) {
        return Err("flag --fail-swap-on=true is not implemented by Coracle yet; remove it".to_owned());
    }
    let endpoint = flags.container_runtime_endpoint.unwrap_or(file.container_runtime_endpoint);
    let endpoint =
        if endpoint.is_empty() { "unix:///run/containerd/containerd.sock".to_owned() } else { endpoint };
    let images = flags.image_service_endpoint.unwrap_or(file.image_service_endpoint);
    if !images.is_empty() && images != endpoint {
        return Err(
            "an image service endpoint other than the runtime's is not implemented by Coracle yet".to_owned()
        );
    }
    let taints = if flags.register_with_taints.is_empty() {
        file.register_with_taints
    } else {
        flags.register_with_taints.split(',').map(parse_taint).collect::<Result<_, _>>()?
    };
    let serving_cert = flags.tls_cert_file.or_else(|| non_empty(&file.tls_cert_file));
    let serving_key = flags.tls_private_key_file.or_else(|| non_empty(&file.tls_private_key_file));
    let serving = match (serving_cert, serving_key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("--tls-cert-file and --tls-private-key-file belong together; give both".to_owned()),
    };
    let mode = file.authorization.mode;
    let webhook_authorization = match mode.as_str() {
        "" | "Webhook" => true,
        "AlwaysAllow" => false,
        other => return Err(format!("authorization.mode {other:?}: must be Webhook or AlwaysAllow")),
    };
    let healthz_port = flags.healthz_port.or(file.healthz_port).unwrap_or(10248);
    let healthz_address = flags.healthz_bind_address.unwrap_or(file.healthz_bind_address);
    let healthz_address = if healthz_address.is_empty() { "127.0.0.1".to_owned() } else { healthz_address };
    let size =
        if file.container_log_max_size.is_empty() { "10Mi".to_owned() } else { file.container_log_max_size };
    let log_bytes = kubelet_core::resources::value(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(
        size.clone(),
    ))
    .and_then(|bytes| u64::try_from(bytes).ok())
    .ok_or_else(|| format!("containerLogMaxSize {size:?} is not a quantity"))?;
    let or = |value: String, default: &str| if value.is_empty() { default.to_owned() } else { value };
    let node_name =
        flags.hostname_override.unwrap_or_else(coracle_client::config::host_name).trim().to_lowercase();
    if node_name.is_empty() {
        return Err("the host has no name; give --hostname-override".to_owned());
    }
    let cgroup_root = or(flags.cgroup_root.unwrap_or(file.cgroup_root), "/");
    let config = Config {
        kubeconfig,
        endpoint,
        node_name,
        node_ips: flags
            .node_ip
            .iter()
            .flat_map(|text| text.split(','))
            .map(|ip| {
                ip.trim()
                    .parse::<std::net::IpAddr>()
                    .map(|ip| ip.to_string())
                    .map_err(|_| format!("--node-ip {ip:?} is not an address"))
            })
            .collect::<Result<_, _>>()?,
        node_labels: parse_key_values(&flags.node_labels)
            .map_err(|error| format!("--node-labels: {error}"))?,
        taints,
        register_node: flags.register_node && file.register_node.unwrap_or(true),
        provider_id: flags.provider_id.unwrap_or(file.provider_id),
        cgroup_root,
        cert_dir: flags.cert_dir.unwrap_or_else(|| flags.root_dir.join("pki")),
        root_dir: flags.root_dir,
        pod_logs_dir: flags
            .pod_logs_dir
            .unwrap_or_else(|| PathBuf::from(or(file.pod_logs_dir, "/var/log/pods"))),
        serving,
        client_ca: flags.client_ca_file.or_else(|| non_empty(&file.authentication.x509.client_ca_file)),
        anonymous: file.authentication.anonymous.enabled.unwrap_or(false),
        webhook_authentication: file.authentication.webhook.enabled.unwrap_or(true),
        webhook_authorization,
        address: or(flags.address.unwrap_or(file.address), "0.0.0.0"),
        port: flags.port.or(file.port).unwrap_or(10250),
        healthz: (healthz_port != 0).then_some((healthz_address, healthz_port)),
        max_pods: flags.max_pods.or(file.max_pods).unwrap_or(110),
        pod_pids_limit: file.pod_pids_limit.filter(|limit| *limit > 0),
        cluster_dns: match flags.cluster_dns {
            Some(list) => list.split(',').map(str::to_owned).collect(),
            None => file.cluster_dns,
        },
        cluster_domain: flags.cluster_domain.unwrap_or(file.cluster_domain),
        resolv_conf: flags.resolv_conf.unwrap_or_else(|| {
            PathBuf::from(file.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".to_owned()))
        }),
        log_rotation: (log_bytes, file.container_log_max_files.unwrap_or(5).max(2)),
        serialize_image_pulls: file.serialize_image_pulls.unwrap_or(true),
        cpu_cfs_quota: file.cpu_cfs_quota.unwrap_or(true),
        seccomp_default: file.seccomp_default.unwrap_or(false),
        allowed_unsafe_sysctls: match flags.allowed_unsafe_sysctls {
            Some(list) => list.split(',').map(str::to_owned).collect(),
            None => file.allowed_unsafe_sysctls,
        },
        eviction_hard: file.eviction_hard,
        status_seconds: duration_seconds(&file.node_status_update_frequency)?.unwrap_or(10),
        static_pods: flags.pod_manifest_path.or_else(|| non_empty(&file.static_pod_path)),
        cni_conf_dir: flags.cni_conf_dir,
    };
    Ok((config, warnings))
}

fn non_empty(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn duration_seconds(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let duration: GoDuration =
        text.parse().map_err(|_| format!("nodeStatusUpdateFrequency {text:?} is not a duration"))?;
    Ok(Some(duration.get().as_secs()).filter(|seconds| *seconds > 0))
}

/// `key=value:effect` or `key:effect`.
fn parse_taint(text: &str) -> Result<Taint, String> {
    let wrong = || format!("--register-with-taints {text:?}: must be key[=value]:effect");
    let (key, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!(
            "--register-with-taints {text:?}: effect must be NoSchedule, PreferNoSchedule or NoExecute"
        ));
    }
    let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value.to_owned())));
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADM: &str = "
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: cgroupfs
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /nonexistent/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";

    fn load_with(text: &str, more: &[&str]) -> Result<(Config, Vec<String>), String> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yaml");
        let kubeconfig = directory.path().join("kubelet.conf");
        std::fs::write(&config, text).unwrap();
        std::fs::write(&kubeconfig, "").unwrap();
        let mut args = vec![
            "kubelet".to_owned(),
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--bootstrap-kubeconfig=/nonexistent".to_owned(),
            "--hostname-override=Node-A".to_owned(),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        load(Flags::try_parse_from(args).map_err(|error| error.to_string())?)
    }

    #[test]
    fn what_kubeadm_writes_is_taken_without_a_warning() {
        let (config, warnings) =
            load_with(KUBEADM, &["--node-labels=a=b", "--register-with-taints=k=v:NoSchedule"]).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.node_name, "node-a");
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
        assert_eq!(config.static_pods, Some(PathBuf::from("/nonexistent/manifests")));
        assert_eq!(config.taints[0].effect, "NoSchedule");
        assert!(config.webhook_authorization && !config.anonymous);
        assert_eq!((config.port, config.status_seconds), (10250, 10));
    }

    #[test]
    fn what_is_not_there_is_refused_or_warned_of_by_name() {
        let with = |extra: &str| load_with(&format!("{KUBEADM}{extra}\n"), &[]);
        assert!(with("cpuManagerPolicy: static").unwrap_err().contains("cpuManagerPolicy"));
        assert!(
            with("imageGCHighThresholdPercent: 85").unwrap().1[0].contains("imageGCHighThresholdPercent")
        );
        assert!(load_with(&KUBEADM.replace("cgroupfs", "systemd"), &[]).unwrap_err().contains("systemd"));
        assert!(load_with("kind: Pod", &[]).unwrap_err().contains("KubeletConfiguration"));
        assert!(
            load_with(KUBEADM, &["--register-with-taints=x"]).unwrap_err().contains("key[=value]:effect")
        );
    }

    #[test]
    fn a_missing_kubeconfig_says_what_to_do() {
        let flags = Flags::try_parse_from(["kubelet", "--kubeconfig=/nonexistent/k"]).unwrap();
        assert!(load(flags).unwrap_err().contains("does not exist"));
    }
}
