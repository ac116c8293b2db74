//! Settings: command line and `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) as kubeadm writes them, merged.
//!
//! Never here: acting on them.

mod document;
mod fields;
mod file;
mod flags;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use component_base::duration::GoDuration;
use component_base::feature_gates::{FeatureGates, Program};
use component_base::flags::{LogFlags, LogFormat, parse_key_values};
use component_base::tls_protocols::TlsProtocols;
use file::FileConfig;
pub use flags::{Flags, NOT_IMPLEMENTED};
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubelet_core::allocatable::Reserved;
use serde_json::Value;

/// How long the API server's words about users hold.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// Whose a token is.
    pub token: Duration,
    /// That someone may do something.
    pub permission: Duration,
    /// That someone may not.
    pub refusal: Duration,
}

/// Everything settled.
#[derive(Debug)]
pub struct Config {
    /// How to reach the API server.
    pub kubeconfig: PathBuf,
    /// How to ask for the certificate that it names, while it is not there yet.
    pub bootstrap: Option<PathBuf>,
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
    /// TLS versions and cipher suites that are served.
    pub tls: TlsProtocols,
    /// CA of clients.
    pub client_ca: Option<PathBuf>,
    /// Whether anyone may ask.
    pub anonymous: bool,
    /// Whether tokens are reviewed by the API server.
    pub webhook_authentication: bool,
    /// Whether requests are authorized by the API server; otherwise everything is allowed.
    pub webhook_authorization: bool,
    /// How long the API server's words hold.
    pub trust: Trust,
    /// Whether to serve at all.
    pub enable_server: bool,
    /// Whether logs, exec and the like are served.
    pub debugging: bool,
    /// What `/configz` shows.
    pub shown: Value,
    /// The feature gates.
    pub gates: FeatureGates,
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
    /// Pulls at a time; `None` for no limit.
    pub pulls_at_once: Option<usize>,
    /// The longest wait before a container that keeps failing is started again.
    pub restart_backoff_max: Duration,
    /// What is kept from pods: by the kubelet and its like, and by other programs.
    pub reserved: Reserved,
    /// Requests a second to the API server, and how many beyond that at once; 0 for no limit.
    pub api_rate: (f64, u32),
    /// How soon the kernel ends this process; `None` leaves it.
    pub oom_score: Option<i64>,
    /// cgroupfs or systemd, as configured; what the runtime says wins.
    pub cgroup_driver: String,
    /// Images that the node's status names; `None` for all.
    pub images_max: Option<usize>,
    /// How long the node's lease holds.
    pub lease_seconds: i32,
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
    /// Between reports of a status that is the same.
    pub report_every: Duration,
    /// Logging.
    pub log: LogFlags,
    /// Manifests of static pods.
    pub static_pods: Option<PathBuf>,
    /// Own CNI configuration.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Merges the command line with the files it names. Warnings name fields that nobody knows.
///
/// # Errors
/// The first thing that is wrong, with its name and the next step.
pub fn load(flags: Flags) -> Result<(Config, Vec<String>), String> {
    let mut warnings = Vec::new();
    let mut document = document::load(flags.config.as_deref(), flags.config_dir.as_deref())?;
    let named = flags
        .config
        .as_ref()
        .map_or_else(|| "the configuration".to_owned(), |path| format!("--config {}", path.display()));
    fields::check(&document, &mut warnings).map_err(|error| format!("{named}: {error}"))?;
    flags.fields.apply(&mut document)?;
    if document["serverTLSBootstrap"] == true {
        warnings.push("field serverTLSBootstrap has no effect: the serving certificate is given by file, or made by the kubelet itself".to_owned());
    }
    let file: FileConfig =
        serde_json::from_value(document.clone()).map_err(|error| format!("{named}: {error}"))?;
    let kubeconfig = existing_kubeconfig(&flags)?;
    if !matches!(flags.cloud_provider.as_str(), "" | "external") {
        return Err(format!("--cloud-provider {:?}: only \"\" and external are known", flags.cloud_provider));
    }
    if file.fail_swap_on == Some(true) && swap_is_on() {
        return Err(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
                .to_owned(),
        );
    }
    if !matches!(file.cgroup_driver.as_str(), "" | "cgroupfs" | "systemd") {
        return Err(format!("cgroupDriver {:?}: must be cgroupfs or systemd", file.cgroup_driver));
    }
    let or =
        |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
    let endpoint = or(&file.container_runtime_endpoint, "unix:///run/containerd/containerd.sock");
    if !file.image_service_endpoint.is_empty() && file.image_service_endpoint != endpoint {
        return Err(
            "an image service endpoint other than the runtime's is not implemented by Coracle yet".to_owned()
        );
    }
    let serving = match (non_empty(&file.tls_cert_file), non_empty(&file.tls_private_key_file)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("--tls-cert-file and --tls-private-key-file belong together; give both".to_owned()),
    };
    let webhook_authorization = match file.authorization.mode.as_str() {
        "" | "Webhook" => true,
        "AlwaysAllow" => false,
        other => return Err(format!("authorization.mode {other:?}: must be Webhook or AlwaysAllow")),
    };
    let healthz_port = file.healthz_port.unwrap_or(10248);
    let node_name = flags
        .hostname_override
        .clone()
        .unwrap_or_else(coracle_client::config::host_name)
        .trim()
        .to_lowercase();
    if node_name.is_empty() {
        return Err("the host has no name; give --hostname-override".to_owned());
    }
    let update = duration("nodeStatusUpdateFrequency", &file.node_status_update_frequency)?;
    let report = duration("nodeStatusReportFrequency", &file.node_status_report_frequency)?;
    let config = Config {
        bootstrap: flags.bootstrap_kubeconfig.clone().filter(|_| !kubeconfig.exists()),
        kubeconfig,
        endpoint,
        node_name,
        node_ips: node_ips(&flags)?,
        node_labels: parse_key_values(&flags.node_labels)
            .map_err(|error| format!("--node-labels: {error}"))?,
        register_node: file.register_node.unwrap_or(true),
        cgroup_root: or(&file.cgroup_root, "/"),
        cert_dir: flags.cert_dir.clone().unwrap_or_else(|| flags.root_dir.join("pki")),
        pod_logs_dir: PathBuf::from(
            flags.pod_logs_dir.clone().unwrap_or_else(|| or(&file.pod_logs_dir, "/var/log/pods")),
        ),
        root_dir: flags.root_dir.clone(),
        serving,
        tls: TlsProtocols::new(&file.tls_min_version, &file.tls_cipher_suites)?,
        client_ca: non_empty(&file.authentication.x509.client_ca_file),
        anonymous: file.authentication.anonymous.enabled.unwrap_or(false),
        webhook_authentication: file.authentication.webhook.enabled.unwrap_or(true),
        webhook_authorization,
        trust: trust(&file)?,
        enable_server: file.enable_server.unwrap_or(true),
        debugging: file.enable_debugging_handlers.unwrap_or(true),
        gates: gates(&file, &flags)?,
        shown: document::with_defaults(&document),
        address: or(&file.address, "0.0.0.0"),
        port: file.port.filter(|port| *port != 0).unwrap_or(10250),
        healthz: (healthz_port != 0).then(|| (or(&file.healthz_bind_address, "127.0.0.1"), healthz_port)),
        max_pods: max_pods(&file),
        pod_pids_limit: file.pod_pids_limit.filter(|limit| *limit > 0),
        log_rotation: log_rotation(&file)?,
        pulls_at_once: pulls_at_once(&file)?,
        restart_backoff_max: restart_backoff_max(&file)?,
        reserved: Reserved {
            kube: quantities("kubeReserved", &file.kube_reserved)?,
            system: quantities("systemReserved", &file.system_reserved)?,
        },
        api_rate: api_rate(&file),
        oom_score: match file.oom_score_adj {
            Some(score) if !(-1000..=1000).contains(&score) => {
                return Err(format!("oomScoreAdj {score}: must be within the range [-1000, 1000]"));
            }
            score => score,
        },
        images_max: file.node_status_max_images.map_or(Some(50), |most| usize::try_from(most).ok()),
        lease_seconds: if file.node_lease_duration_seconds > 0 {
            file.node_lease_duration_seconds
        } else {
            40
        },
        cpu_cfs_quota: file.cpu_cfs_quota.unwrap_or(true),
        seccomp_default: file.seccomp_default.unwrap_or(false),
        eviction_hard: eviction_hard(&file),
        status_seconds: update.unwrap_or(Duration::from_secs(10)).as_secs().max(1),
        // As upstream: who says how often to look, and no more, wants to be told as often.
        report_every: report.or(update).unwrap_or(Duration::from_secs(300)),
        static_pods: non_empty(&file.static_pod_path),
        log: log_flags(&flags.log, &file),
        cni_conf_dir: flags.cni_conf_dir,
        taints: file.register_with_taints,
        provider_id: file.provider_id,
        cgroup_driver: or(&file.cgroup_driver, "cgroupfs"),
        cluster_dns: file.cluster_dns,
        cluster_domain: file.cluster_domain,
        resolv_conf: PathBuf::from(file.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".to_owned())),
        allowed_unsafe_sysctls: file.allowed_unsafe_sysctls,
    };
    Ok((config, warnings))
}

fn trust(file: &FileConfig) -> Result<Trust, String> {
    let (authentication, authorization) = (&file.authentication.webhook, &file.authorization.webhook);
    let or = |field: &str, text: &str, default: u64| {
        duration(field, text).map(|said| said.unwrap_or(Duration::from_secs(default)))
    };
    Ok(Trust {
        token: or("authentication.webhook.cacheTTL", &authentication.cache_ttl, 120)?,
        permission: or("authorization.webhook.cacheAuthorizedTTL", &authorization.cache_authorized_ttl, 300)?,
        refusal: or("authorization.webhook.cacheUnauthorizedTTL", &authorization.cache_unauthorized_ttl, 30)?,
    })
}

fn existing_kubeconfig(flags: &Flags) -> Result<PathBuf, String> {
    let kubeconfig = flags.kubeconfig.clone().ok_or(
        "--kubeconfig is required: running without an API server (standalone) is not implemented by Coracle yet",
    )?;
    let missing = |flag: &str, path: &std::path::Path| {
        Err(format!("--{flag} {} does not exist; check the path", path.display()))
    };
    match &flags.bootstrap_kubeconfig {
        _ if kubeconfig.exists() => Ok(kubeconfig),
        Some(bootstrap) if bootstrap.exists() => Ok(kubeconfig),
        Some(bootstrap) => missing("bootstrap-kubeconfig", bootstrap),
        None => missing("kubeconfig", &kubeconfig),
    }
}

fn swap_is_on() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().skip(1).any(|line| !line.is_empty()))
}

fn node_ips(flags: &Flags) -> Result<Vec<String>, String> {
    // An unspecified address only says which family is wanted.
    let said = flags.node_ip.as_deref().filter(|text| *text != "0.0.0.0").unwrap_or_default();
    said.split(',')
        .filter(|ip| !ip.is_empty())
        .map(|ip| {
            ip.trim()
                .parse::<std::net::IpAddr>()
                .map(|ip| ip.to_string())
                .map_err(|_| format!("--node-ip {ip:?} is not an address"))
        })
        .collect()
}

/// The gates of the file, those of the flag winning.
fn gates(file: &FileConfig, flags: &Flags) -> Result<FeatureGates, String> {
    let of_file = file.feature_gates.iter().map(|(name, value)| format!("{name}={value}"));
    let all: Vec<String> = of_file.chain(flags.feature_gates.iter().cloned()).collect();
    FeatureGates::parse(Program::Kubelet, &all.join(","))
}

fn max_pods(file: &FileConfig) -> i64 {
    let most = file.max_pods.filter(|most| *most > 0).unwrap_or(110);
    match file.pods_per_core {
        1.. => most.min(file.pods_per_core.saturating_mul(crate::node::facts::cpus())),
        _ => most,
    }
}

fn log_rotation(file: &FileConfig) -> Result<(u64, usize), String> {
    let size =
        if file.container_log_max_size.is_empty() { "10Mi" } else { file.container_log_max_size.as_str() };
    let bytes = kubelet_core::resources::value(&Quantity(size.to_owned()))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| format!("containerLogMaxSize {size:?} is not a quantity"))?;
    let files = file.container_log_max_files.unwrap_or(5);
    let files = usize::try_from(files).ok().filter(|files| *files > 1);
    let files = files.ok_or(
        "invalid configuration: containerLogMaxFiles (--container-log-max-files) must be greater than 1",
    )?;
    Ok((bytes, files))
}

fn pulls_at_once(file: &FileConfig) -> Result<Option<usize>, String> {
    let most = file.max_parallel_image_pulls;
    if most.is_some_and(|most| most < 1) {
        return Err("invalid configuration: maxParallelImagePulls must be a positive number".to_owned());
    }
    let parallel = most.is_some_and(|most| most > 1);
    let serial = file.serialize_image_pulls.unwrap_or(!parallel);
    if serial && parallel {
        return Err("invalid configuration: maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) set to false".to_owned());
    }
    Ok(if serial { Some(1) } else { most.and_then(|most| usize::try_from(most).ok()) })
}

fn restart_backoff_max(file: &FileConfig) -> Result<Duration, String> {
    let most = file.crash_loop_back_off.max_container_restart_period.as_deref().unwrap_or_default();
    let name = "crashLoopBackOff.maxContainerRestartPeriod";
    let Some(most) = duration(name, most)? else { return Ok(Duration::from_secs(300)) };
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&most) {
        return Err(format!(
            "invalid configuration: CrashLoopBackOff.MaxContainerRestartPeriod ({}) must be set between `1s` and `5m0s`",
            GoDuration::from(most)
        ));
    }
    Ok(most)
}

/// Amounts by resource; only those that a node can keep for itself.
fn quantities(field: &str, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Quantity>, String> {
    given
        .iter()
        .map(|(name, text)| {
            if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid") {
                return Err(format!("{field}: cannot reserve {name:?} resource"));
            }
            let quantity = Quantity(text.clone());
            match kubelet_core::resources::milli_value(&quantity) {
                Some(0..) => Ok((name.clone(), quantity)),
                Some(_) => Err(format!("{field}: resource quantity for {name:?} cannot be negative: {text}")),
                None => Err(format!("{field}: {name} {text:?} is not a quantity")),
            }
        })
        .collect()
}

fn api_rate(file: &FileConfig) -> (f64, u32) {
    let burst = if file.kube_api_burst == 0 { 100 } else { file.kube_api_burst };
    match file.kube_api_qps {
        // As upstream, which takes 0 for its default.
        Some(0) => (50.0, burst),
        Some(rate) => (f64::from(rate.max(0)), burst),
        None => (0.0, burst),
    }
}

/// The thresholds: upstream's where the file says nothing at all, or where it wants them merged.
fn eviction_hard(file: &FileConfig) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if file.eviction_hard.is_empty() || file.merge_default_eviction_settings == Some(true) {
        for (signal, threshold) in [
            ("memory.available", "100Mi"),
            ("nodefs.available", "10%"),
            ("nodefs.inodesFree", "5%"),
            ("imagefs.available", "15%"),
            ("imagefs.inodesFree", "5%"),
        ] {
            all.insert(signal.to_owned(), threshold.to_owned());
        }
    }
    all.extend(file.eviction_hard.clone());
    all
}

/// The flags, and what the file says where they say nothing.
fn log_flags(flags: &LogFlags, file: &FileConfig) -> LogFlags {
    let default = LogFlags::default();
    let mut log = flags.clone();
    if log.verbosity == default.verbosity && file.logging.verbosity > 0 {
        log.verbosity = file.logging.verbosity;
    }
    if file.logging.format == "json" {
        log.format = LogFormat::Json;
    }
    log
}

fn non_empty(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// A duration; `None` if it is empty or zero, which stands for the default.
fn duration(field: &str, text: &str) -> Result<Option<Duration>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let duration: GoDuration = text.parse().map_err(|_| format!("{field} {text:?} is not a duration"))?;
    Ok(Some(duration.get()).filter(|duration| !duration.is_zero()))
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
        let args = args.into_iter().map(Into::into);
        load(
            component_base::flags::try_parse_from(args, NOT_IMPLEMENTED)
                .map_err(|error| error.to_string())?,
        )
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
        assert!(with("imageGCHighThresholdPercent: 100").unwrap().1.is_empty());
        assert!(with("noSuchField: 85").unwrap().1[0].contains("noSuchField"));
        assert!(load_with("kind: Pod", &[]).unwrap_err().contains("KubeletConfiguration"));
        assert!(
            load_with(KUBEADM, &["--register-with-taints=x"]).unwrap_err().contains("key[=value]:effect")
        );
    }

    #[test]
    fn a_missing_kubeconfig_says_what_to_do() {
        let args = ["kubelet", "--kubeconfig=/nonexistent/k"].map(Into::into);
        let flags = component_base::flags::try_parse_from(args, NOT_IMPLEMENTED).unwrap();
        assert!(load(flags).unwrap_err().contains("does not exist"));
    }

    /// As `hack/local-up-cluster.sh` writes it.
    const LOCAL_UP: &str = "
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: \"127.0.0.1\"
cgroupDriver: \"\"
cgroupRoot: \"\"
cgroupsPerQOS: true
clusterDNS: [10.0.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: \"unix:///run/containerd/containerd.sock\"
cpuCFSQuota: true
cpuManagerPolicy: \"\"
memoryManagerPolicy: \"None\"
systemReserved:
  memory: 50Mi
enableControllerAttachDetach: true
evictionPressureTransitionPeriod: \"1m\"
failCgroupV1: false
failSwapOn: false
port: 10250
readOnlyPort: 0
rotateCertificates: true
runtimeRequestTimeout: \"2m\"
staticPodPath: /run/kubernetes/static-pods
resolvConf: /tmp/resolv.conf
authentication:
  webhook: {enabled: true}
  x509: {clientCAFile: /var/run/kubernetes/client-ca.crt}
authorization: {mode: Webhook}
evictionHard:
  memory.available: \"100Mi\"
  nodefs.available: \"10%\"
  nodefs.inodesFree: \"5%\"
featureGates:
  AllAlpha: false
";

    #[test]
    fn what_local_up_cluster_writes_is_taken_without_a_warning() {
        let (config, warnings) = load_with(LOCAL_UP, &["--v=3", "--vmodule=", "--cloud-provider="]).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.address, "127.0.0.1");
        assert_eq!(config.reserved.system["memory"], Quantity("50Mi".to_owned()));
        assert_eq!(config.eviction_hard.len(), 3, "what is said stands for the defaults, whole");
        assert_eq!(config.cgroup_driver, "cgroupfs");
    }

    #[test]
    fn fields_and_flags_are_settled() {
        let with = |extra: &str, flags: &[&str]| {
            load_with(&format!("{KUBEADM}{extra}\n"), flags).map(|(config, _)| config)
        };
        let config = with(
            "nodeStatusReportFrequency: 1m\nmaxParallelImagePulls: 3\nfeatureGates: {SidecarContainers: true}\nnodeStatusMaxImages: -1",
            &["--pods-per-core=1000000", "--max-pods=7", "--oom-score-adj=-998", "--kube-api-qps=5", "--tls-min-version=VersionTLS13"],
        )
        .unwrap();
        assert_eq!((config.pulls_at_once, config.max_pods, config.oom_score), (Some(3), 7, Some(-998)));
        assert_eq!((config.report_every, config.images_max), (Duration::from_secs(60), None));
        assert_eq!(config.api_rate, (5.0, 100));
        assert_eq!(config.shown["maxPods"], 7, "what flags say is shown too");
        assert_eq!(config.eviction_hard["nodefs.available"], "10%");
        for (extra, flags, text) in [
            ("maxParallelImagePulls: 3\nserializeImagePulls: true", &[][..], "SerializeImagePulls"),
            ("crashLoopBackOff: {maxContainerRestartPeriod: 10m}", &[], "(10m0s) must be set between"),
            ("containerLogMaxFiles: 1", &[], "must be greater than 1"),
            ("systemReserved: {gpu: \"1\"}", &[], "cannot reserve \"gpu\" resource"),
            ("featureGates: {NoSuch: true}", &[], "unrecognized feature gate: NoSuch"),
            (
                "",
                &["--feature-gates=SidecarContainers=false"],
                "cannot set feature gate SidecarContainers to false",
            ),
            ("", &["--tls-min-version=VersionTLS9"], "VersionTLS9"),
            ("", &["--oom-score-adj=2000"], "[-1000, 1000]"),
            ("port: many", &[], "--config "),
        ] {
            let error = with(extra, flags).unwrap_err();
            assert!(error.contains(text), "{text:?} in {error:?}");
        }
    }

    #[test]
    fn drop_ins_and_flags_win_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let drop_in =
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 3\nport: 4\n";
        std::fs::write(directory.path().join("50-more.conf"), drop_in).unwrap();
        let flag = format!("--config-dir={}", directory.path().display());
        let (config, _) = load_with(KUBEADM, &[&flag, "--port=5"]).unwrap();
        assert_eq!((config.max_pods, config.port), (3, 5));
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
    }
}
