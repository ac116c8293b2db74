//! The fields of a `KubeletConfiguration` that are honoured, with their types.
//!
//! Never here: flags, defaults, what becomes of the other fields.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

/// See `docs/flags.md` for all fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileConfig {
    pub address: String,
    pub port: Option<u16>,
    pub healthz_bind_address: String,
    pub healthz_port: Option<u16>,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub cgroup_driver: String,
    pub cgroup_root: String,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub container_runtime_endpoint: String,
    pub image_service_endpoint: String,
    pub static_pod_path: String,
    pub max_pods: Option<i64>,
    pub pods_per_core: i64,
    pub pod_pids_limit: Option<i64>,
    pub pod_logs_dir: String,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub tls_cipher_suites: Vec<String>,
    pub tls_min_version: String,
    pub resolv_conf: Option<String>,
    pub container_log_max_size: String,
    pub container_log_max_files: Option<i64>,
    pub serialize_image_pulls: Option<bool>,
    pub max_parallel_image_pulls: Option<i64>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    pub crash_loop_back_off: CrashLoopBackOff,
    pub enable_debugging_handlers: Option<bool>,
    pub enable_server: Option<bool>,
    pub fail_swap_on: Option<bool>,
    pub feature_gates: BTreeMap<String, bool>,
    #[serde(rename = "kubeAPIQPS")]
    pub kube_api_qps: Option<i32>,
    #[serde(rename = "kubeAPIBurst")]
    pub kube_api_burst: u32,
    pub kube_reserved: BTreeMap<String, String>,
    pub system_reserved: BTreeMap<String, String>,
    pub logging: Logging,
    pub seccomp_default: Option<bool>,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub eviction_hard: BTreeMap<String, String>,
    pub merge_default_eviction_settings: Option<bool>,
    pub register_node: Option<bool>,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub register_with_taints: Vec<Taint>,
    pub node_lease_duration_seconds: i32,
    pub node_status_max_images: Option<i64>,
    pub node_status_report_frequency: String,
    pub node_status_update_frequency: String,
    pub oom_score_adj: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub anonymous: Enabled,
    pub webhook: AuthenticationWebhook,
    pub x509: X509,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Enabled {
    pub enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuthenticationWebhook {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Authorization {
    pub mode: String,
    pub webhook: AuthorizationWebhook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationWebhook {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: String,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Logging {
    pub format: String,
    pub verbosity: i32,
}
