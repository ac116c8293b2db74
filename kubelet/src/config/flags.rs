//! The command line: flags that stand for a field of the configuration, and the few that have none.
//!
//! Never here: what they do.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};
use component_base::duration::GoDuration;
use component_base::flags::{LogFlags, parse_key_values};
use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};

use super::document::set;

/// Upstream flags that only some values are accepted of, or none; why is said with them.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "application-metrics-count-limit",
    "boot-id-file",
    "cgroups-per-qos",
    "cloud-config",
    "container-hints",
    "containerd",
    "containerd-namespace",
    "contention-profiling",
    "cpu-cfs-quota-period",
    "cpu-manager-policy",
    "cpu-manager-policy-options",
    "cpu-manager-reconcile-period",
    "enable-controller-attach-detach",
    "enable-load-reader",
    "enforce-node-allocatable",
    "event-burst",
    "event-qps",
    "event-storage-age-limit",
    "event-storage-event-limit",
    "eviction-max-pod-grace-period",
    "eviction-minimum-reclaim",
    "eviction-pressure-transition-period",
    "eviction-soft",
    "eviction-soft-grace-period",
    "exit-on-lock-contention",
    "experimental-allocatable-ignore-eviction",
    "experimental-mounter-path",
    "file-check-frequency",
    "global-housekeeping-interval",
    "hairpin-mode",
    "housekeeping-interval",
    "http-check-frequency",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "image-gc-high-threshold",
    "image-gc-low-threshold",
    "iptables-drop-bit",
    "iptables-masquerade-bit",
    "keep-terminated-pod-volumes",
    "kernel-memcg-notification",
    "kube-api-content-type",
    "kube-reserved-cgroup",
    "local-storage-capacity-isolation",
    "lock-file",
    "log-cadvisor-usage",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-json-split-stream",
    "log-text-info-buffer-size",
    "log-text-split-stream",
    "machine-id-file",
    "make-iptables-util-chains",
    "manifest-url",
    "manifest-url-header",
    "max-open-files",
    "maximum-dead-containers",
    "maximum-dead-containers-per-container",
    "memory-manager-policy",
    "minimum-container-ttl-duration",
    "minimum-image-ttl-duration",
    "pod-cidr",
    "protect-kernel-defaults",
    "qos-reserved",
    "read-only-port",
    "register-schedulable",
    "registry-burst",
    "registry-qps",
    "reserved-cpus",
    "reserved-memory",
    "rotate-certificates",
    "rotate-server-certificates",
    "runonce",
    "runtime-request-timeout",
    "show-hidden-metrics-for-version",
    "storage-driver-buffer-duration",
    "storage-driver-db",
    "storage-driver-host",
    "storage-driver-password",
    "storage-driver-secure",
    "storage-driver-table",
    "storage-driver-user",
    "streaming-connection-idle-timeout",
    "sync-frequency",
    "system-cgroups",
    "system-reserved-cgroup",
    "topology-manager-policy",
    "topology-manager-policy-options",
    "topology-manager-scope",
    "vmodule",
    "volume-plugin-dir",
    "volume-stats-agg-period",
];

/// The kubelet: runs the pods that are bound to its node.
#[derive(Parser, Debug)]
#[command(name = "kubelet", display_name = "Kubernetes", version = component_base::version::KUBERNETES)]
pub struct Flags {
    /// Kubeconfig for asking for a first certificate while --kubeconfig does not exist: that is then written.
    #[arg(long, value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Kubeconfig that says how to reach the API server.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// KubeletConfiguration file. Flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of drop-ins: files ending in .conf are merged into the configuration in lexical order.
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// The node's name; by default the host's.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// The node's address, or two separated by a comma; by default that of the way to the API server.
    #[arg(long)]
    pub node_ip: Option<String>,
    /// Labels to register with: key=value,...
    #[arg(long, default_value = "")]
    pub node_labels: String,
    /// Directory for volumes and pod files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Directory for a self-made serving certificate; `pki` in --root-dir by default.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    /// Accepted: the sandbox image is the runtime's setting.
    #[arg(long)]
    pub pod_infra_container_image: Option<String>,
    /// Accepted: the runtime stays in its cgroup.
    #[arg(long)]
    pub runtime_cgroups: Option<String>,
    /// Accepted: the kubelet stays in the cgroup that it is started in.
    #[arg(long)]
    pub kubelet_cgroups: Option<String>,
    /// Only "" and external are accepted: clouds are other programs' business.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// Feature gates, Name=true|false: what is so anyway may be said, the rest is refused by name.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// Own flag: where container logs go, as podLogsDir of the configuration.
    #[arg(long)]
    pub pod_logs_dir: Option<String>,
    /// Own flag: write a bridge network for the node's podCIDR into this CNI configuration directory.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Own flag: how long a hollow sandbox takes to start.
    #[arg(long, default_value = "0s")]
    pub hollow_start_latency: GoDuration,
    /// Those that stand for a field of the configuration.
    #[command(flatten)]
    pub fields: FieldFlags,
    /// Logging.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Flags that stand for a field of the configuration, and win over the file.
#[derive(Args, Debug, Default)]
pub struct FieldFlags {
    /// Address to serve on.
    #[arg(long)]
    pub address: Option<String>,
    /// Sysctls that pods may set beside the safe ones, comma-separated; `kernel.msg*` allows all with that beginning.
    #[arg(long, value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Option<Vec<String>>,
    /// Whether requests of unknown users are let through to the authorizer.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Whether tokens are reviewed by the API server.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub authentication_token_webhook: Option<bool>,
    /// How long the API server's word on a token holds.
    #[arg(long)]
    pub authentication_token_webhook_cache_ttl: Option<GoDuration>,
    /// Webhook, which asks the API server, or AlwaysAllow.
    #[arg(long)]
    pub authorization_mode: Option<String>,
    /// How long a permission of the API server holds.
    #[arg(long)]
    pub authorization_webhook_cache_authorized_ttl: Option<GoDuration>,
    /// How long a refusal of the API server holds.
    #[arg(long)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<GoDuration>,
    /// cgroupfs. systemd only with a runtime that says itself that it uses cgroupfs.
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    /// The cgroup below which pods get theirs.
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// CA of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<String>,
    /// DNS servers for pods, comma-separated.
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Option<Vec<String>>,
    /// The cluster's DNS domain.
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// Log files of one container that are kept, 2 at least.
    #[arg(long)]
    pub container_log_max_files: Option<i64>,
    /// Size at which a container's log is rotated.
    #[arg(long)]
    pub container_log_max_size: Option<String>,
    /// unix:///path/to/socket of a CRI runtime, or hollow:// for simulated containers.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// Whether CPU limits are enforced by quotas.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cpu_cfs_quota: Option<bool>,
    /// Whether logs, exec, attach, port-forward and running pods are served.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_debugging_handlers: Option<bool>,
    /// Whether the kubelet's port is served.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_server: Option<bool>,
    /// What must be left of a resource before the node says that it is short of it: memory.available<100Mi,...
    #[arg(long)]
    pub eviction_hard: Option<String>,
    /// Refuse to start while swap is on.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub fail_swap_on: Option<bool>,
    /// Address of the local health check.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// Port of the local health check; 0 turns it off.
    #[arg(long)]
    pub healthz_port: Option<u16>,
    /// Accepted if it is the runtime's endpoint: images come from there.
    #[arg(long)]
    pub image_service_endpoint: Option<String>,
    /// Requests beyond the rate of --kube-api-qps that may go at once.
    #[arg(long)]
    pub kube_api_burst: Option<u32>,
    /// Requests a second to the API server; no limit if it is neither given nor in the configuration.
    #[arg(long, allow_hyphen_values = true)]
    pub kube_api_qps: Option<i32>,
    /// What the node keeps for itself: cpu=200m,memory=500Mi,ephemeral-storage=1Gi.
    #[arg(long)]
    pub kube_reserved: Option<String>,
    /// Most pods on this node.
    #[arg(long)]
    pub max_pods: Option<i64>,
    /// Most images that the node's status names; -1 for all.
    #[arg(long, allow_hyphen_values = true)]
    pub node_status_max_images: Option<i64>,
    /// How often the node's status is looked at.
    #[arg(long)]
    pub node_status_update_frequency: Option<GoDuration>,
    /// How soon the kernel ends this process when memory runs out, -1000 (never) to 1000; left as it is if absent.
    #[arg(long, allow_hyphen_values = true)]
    pub oom_score_adj: Option<i64>,
    /// Directory of static pod manifests.
    #[arg(long)]
    pub pod_manifest_path: Option<String>,
    /// Most processes of one pod; -1 for no limit.
    #[arg(long, allow_hyphen_values = true)]
    pub pod_max_pids: Option<i64>,
    /// Most pods on this node for each CPU; 0 for no such limit.
    #[arg(long)]
    pub pods_per_core: Option<i64>,
    /// Port to serve on.
    #[arg(long)]
    pub port: Option<u16>,
    /// The cloud's name for this machine.
    #[arg(long)]
    pub provider_id: Option<String>,
    /// Whether to create the Node object.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub register_node: Option<bool>,
    /// Taints to register with: key=value:effect,...
    #[arg(long, default_value = "")]
    pub register_with_taints: String,
    /// The node's resolver configuration, for pods that use it.
    #[arg(long)]
    pub resolv_conf: Option<String>,
    /// Seccomp profile RuntimeDefault for pods that name none.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub seccomp_default: Option<bool>,
    /// Whether images are pulled one at a time.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub serialize_image_pulls: Option<bool>,
    /// What other programs of the machine need: cpu=200m,memory=500Mi,ephemeral-storage=1Gi.
    #[arg(long)]
    pub system_reserved: Option<String>,
    /// Serving certificate.
    #[arg(long)]
    pub tls_cert_file: Option<String>,
    /// Cipher suites of TLS 1.2 by Go's names, comma-separated; those of TLS 1.3 are all taken, as in Go.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Option<Vec<String>>,
    /// The least TLS version: VersionTLS12 (which also stands for older ones) or VersionTLS13.
    #[arg(long)]
    pub tls_min_version: Option<String>,
    /// Serving certificate's key.
    #[arg(long)]
    pub tls_private_key_file: Option<String>,
}

impl FieldFlags {
    /// Sets the fields of those that were given.
    ///
    /// # Errors
    /// Names a flag whose value cannot be read.
    pub fn apply(&self, document: &mut Value) -> Result<(), String> {
        let map = |flag: &str, text: &Option<String>, separator: char| -> Result<Value, String> {
            let Some(text) = text else { return Ok(Value::Null) };
            let pairs = parse_key_values(&text.replace(separator, "="));
            pairs.map(|pairs| json!(pairs)).map_err(|error| format!("--{flag}: {error}"))
        };
        let duration = |value: &Option<GoDuration>| value.as_ref().map(ToString::to_string);
        let taints = match self.register_with_taints.as_str() {
            "" => Value::Null,
            text => json!(text.split(',').map(parse_taint).collect::<Result<Vec<_>, _>>()?),
        };
        let fields = [
            ("address", json!(self.address)),
            ("allowedUnsafeSysctls", json!(self.allowed_unsafe_sysctls)),
            ("authentication.anonymous.enabled", json!(self.anonymous_auth)),
            ("authentication.webhook.enabled", json!(self.authentication_token_webhook)),
            (
                "authentication.webhook.cacheTTL",
                json!(duration(&self.authentication_token_webhook_cache_ttl)),
            ),
            ("authentication.x509.clientCAFile", json!(self.client_ca_file)),
            ("authorization.mode", json!(self.authorization_mode)),
            (
                "authorization.webhook.cacheAuthorizedTTL",
                json!(duration(&self.authorization_webhook_cache_authorized_ttl)),
            ),
            (
                "authorization.webhook.cacheUnauthorizedTTL",
                json!(duration(&self.authorization_webhook_cache_unauthorized_ttl)),
            ),
            ("cgroupDriver", json!(self.cgroup_driver)),
            ("cgroupRoot", json!(self.cgroup_root)),
            ("clusterDNS", json!(self.cluster_dns)),
            ("clusterDomain", json!(self.cluster_domain)),
            ("containerLogMaxFiles", json!(self.container_log_max_files)),
            ("containerLogMaxSize", json!(self.container_log_max_size)),
            ("containerRuntimeEndpoint", json!(self.container_runtime_endpoint)),
            ("cpuCFSQuota", json!(self.cpu_cfs_quota)),
            ("enableDebuggingHandlers", json!(self.enable_debugging_handlers)),
            ("enableServer", json!(self.enable_server)),
            ("evictionHard", map("eviction-hard", &self.eviction_hard, '<')?),
            ("failSwapOn", json!(self.fail_swap_on)),
            ("healthzBindAddress", json!(self.healthz_bind_address)),
            ("healthzPort", json!(self.healthz_port)),
            ("imageServiceEndpoint", json!(self.image_service_endpoint)),
            ("kubeAPIBurst", json!(self.kube_api_burst)),
            ("kubeAPIQPS", json!(self.kube_api_qps)),
            ("kubeReserved", map("kube-reserved", &self.kube_reserved, '=')?),
            ("maxPods", json!(self.max_pods)),
            ("nodeStatusMaxImages", json!(self.node_status_max_images)),
            ("nodeStatusUpdateFrequency", json!(duration(&self.node_status_update_frequency))),
            ("oomScoreAdj", json!(self.oom_score_adj)),
            ("podPidsLimit", json!(self.pod_max_pids)),
            ("podsPerCore", json!(self.pods_per_core)),
            ("port", json!(self.port)),
            ("providerID", json!(self.provider_id)),
            ("registerNode", json!(self.register_node)),
            ("registerWithTaints", taints),
            ("resolvConf", json!(self.resolv_conf)),
            ("seccompDefault", json!(self.seccomp_default)),
            ("serializeImagePulls", json!(self.serialize_image_pulls)),
            ("staticPodPath", json!(self.pod_manifest_path)),
            ("systemReserved", map("system-reserved", &self.system_reserved, '=')?),
            ("tlsCertFile", json!(self.tls_cert_file)),
            ("tlsCipherSuites", json!(self.tls_cipher_suites)),
            ("tlsMinVersion", json!(self.tls_min_version)),
            ("tlsPrivateKeyFile", json!(self.tls_private_key_file)),
        ];
        for (path, value) in fields {
            if value.is_null() {
                continue;
            }
            if value.is_object() {
                // A flag's map stands for the file's, whole.
                set(document, path, Value::Null);
            }
            set(document, path, value);
        }
        Ok(())
    }
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

    #[test]
    fn the_page_of_flags_says_what_is_here() {
        component_base::flags::page::check::<Flags>("kubelet", NOT_IMPLEMENTED)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn applied(args: &str) -> Result<Value, String> {
        let args = std::iter::once("kubelet").chain(args.split_whitespace()).map(Into::into);
        let flags: Flags = component_base::flags::try_parse_from(args, NOT_IMPLEMENTED)
            .map_err(|error| error.to_string())?;
        let mut document = json!({"evictionHard": {"nodefs.available": "5%"}, "port": 1});
        flags.fields.apply(&mut document)?;
        Ok(document)
    }

    #[test]
    fn flags_win_over_the_file_field_by_field() {
        let document = applied(
            "--eviction-hard=memory.available<1Gi --anonymous-auth --authorization-mode AlwaysAllow --oom-score-adj=-999 \
             --cluster-dns=10.0.0.10,10.0.0.11 --register-with-taints=a=b:NoSchedule --node-status-update-frequency=5s \
             --kube-reserved=cpu=100m,memory=1Gi --authorization-webhook-cache-authorized-ttl=1m",
        )
        .unwrap();
        for (pointer, value) in [
            ("/evictionHard", json!({"memory.available": "1Gi"})),
            ("/authentication/anonymous/enabled", json!(true)),
            ("/authorization", json!({"mode": "AlwaysAllow", "webhook": {"cacheAuthorizedTTL": "1m0s"}})),
            ("/clusterDNS", json!(["10.0.0.10", "10.0.0.11"])),
            ("/registerWithTaints", json!([{"key": "a", "value": "b", "effect": "NoSchedule"}])),
            ("/nodeStatusUpdateFrequency", json!("5s")),
            ("/kubeReserved", json!({"cpu": "100m", "memory": "1Gi"})),
            ("/oomScoreAdj", json!(-999)),
            ("/port", json!(1)),
        ] {
            assert_eq!(document.pointer(pointer), Some(&value), "{pointer} in {document}");
        }
        assert!(applied("--register-with-taints=x").unwrap_err().contains("key[=value]:effect"));
        assert!(applied("--kube-reserved=cpu").unwrap_err().starts_with("--kube-reserved: "));
    }

    #[test]
    fn the_command_lines_of_start_scripts_are_taken() {
        for line in [
            // kubeadm's drop-in and /var/lib/kubelet/kubeadm-flags.env.
            "--bootstrap-kubeconfig=/b --kubeconfig=/k --config=/c --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
             --pod-infra-container-image=registry.k8s.io/pause:3.10 --hostname-override=n --node-ip=10.0.0.1 --cloud-provider=external \
             --register-with-taints=node-role.kubernetes.io/control-plane:NoSchedule",
            // local-up-cluster.sh, with what it has when nothing is set.
            "--v=3 --vmodule= --hostname-override=127.0.0.1 --cloud-provider= --cloud-config= --bootstrap-kubeconfig=/b --kubeconfig=/k \
             --config=/tmp/kubelet.yaml",
            // GCE and kind.
            "--v=2 --cloud-provider=external --cert-dir=/var/lib/kubelet/pki/ --experimental-mounter-path=/m --volume-plugin-dir=/v \
             --node-labels=a=b --runtime-cgroups=/system.slice/containerd.service --register-schedulable=true --pod-cidr=10.123.45.0/29",
            "--runtime-cgroups=/system.slice/containerd.service --node-ip=172.18.0.2 --provider-id=kind://docker/kind/n --node-labels= \
             --cgroup-root=/kubelet --fail-swap-on=false --hostname-override=n",
            // Switches stand alone before others.
            "--rotate-certificates --make-iptables-util-chains=false --protect-kernel-defaults=false --cgroups-per-qos --port=1",
            "--housekeeping_interval=10s --read-only-port=0 --hairpin-mode=hairpin-veth --streaming-connection-idle-timeout=4h",
        ] {
            applied(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert_eq!(applied("--rotate-certificates --port=7").unwrap()["port"], 7);
        for (line, name) in [
            ("--protect-kernel-defaults", "protect-kernel-defaults"),
            ("--manifest-url=http://x", "manifest-url"),
            ("--cpu-manager-policy=static", "cpu-manager-policy"),
            ("--read-only-port=10255", "read-only-port"),
        ] {
            let error = applied(line).unwrap_err();
            assert!(
                error.starts_with(&format!("flag --{name} is not implemented by Coracle yet (")),
                "{error}"
            );
        }
        assert_eq!(applied("--no-such").unwrap_err(), "unknown flag: --no-such");
    }
}
