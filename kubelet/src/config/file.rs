//! The fields of a `KubeletConfiguration` file, and what happens to those that are not implemented.
//!
//! Never here: flags, defaults.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;

/// The fields of `KubeletConfiguration` that are honoured; `rest` holds the others.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileConfig {
    pub api_version: String,
    pub kind: String,
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
    pub pod_pids_limit: Option<i64>,
    pub pod_logs_dir: String,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub resolv_conf: Option<String>,
    pub container_log_max_size: String,
    pub container_log_max_files: Option<usize>,
    pub serialize_image_pulls: Option<bool>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    pub seccomp_default: Option<bool>,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub eviction_hard: BTreeMap<String, String>,
    pub register_node: Option<bool>,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub register_with_taints: Vec<Taint>,
    pub node_status_update_frequency: String,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub anonymous: Enabled,
    pub webhook: Enabled,
    pub x509: X509,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Enabled {
    pub enabled: Option<bool>,
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
}

/// Fields that change nothing here: rotation is the certificate issuer's, the rest tunes what is not there.
const HARMLESS: &[&str] = &[
    "rotateCertificates",
    "serverTLSBootstrap",
    "logging",
    "memorySwap",
    "failSwapOn",
    "hairpinMode",
    "featureGates",
    "kubeletCgroups",
    "runtimeCgroups",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "crashLoopBackOff",
    "enableServer",
    "contentType",
    "kubeAPIQPS",
    "kubeAPIBurst",
    "eventRecordQPS",
    "eventBurst",
    "syncFrequency",
    "streamingConnectionIdleTimeout",
    "runtimeRequestTimeout",
    "volumeStatsAggPeriod",
    "cpuManagerReconcilePeriod",
];

/// Fields that would change what a user relies on: refused unless at their default.
const REFUSED: &[(&str, &str)] = &[
    ("systemReserved", "{}"),
    ("kubeReserved", "{}"),
    ("cpuManagerPolicy", "none"),
    ("memoryManagerPolicy", "None"),
    ("topologyManagerPolicy", "none"),
    ("staticPodURL", ""),
    ("reservedSystemCPUs", ""),
    ("reservedMemory", "[]"),
    ("shutdownGracePeriod", "0s"),
    ("shutdownGracePeriodCriticalPods", "0s"),
    ("evictionSoft", "{}"),
];

/// Reads a file's text. Warnings name fields that have no effect.
///
/// # Errors
/// What is wrong, or the field that is not implemented.
pub fn parse_file(text: &str, warnings: &mut Vec<String>) -> Result<FileConfig, String> {
    let file: FileConfig = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    if file.kind != "KubeletConfiguration" || file.api_version != "kubelet.config.k8s.io/v1beta1" {
        return Err(format!(
            "kind {:?} of apiVersion {:?}; must be KubeletConfiguration of kubelet.config.k8s.io/v1beta1",
            file.kind, file.api_version
        ));
    }
    for (name, value) in &file.rest {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // What kubeadm writes for "use the default".
        if HARMLESS.contains(&name.as_str())
            || matches!(text.as_str(), "0s" | "0" | "" | "null" | "{}" | "[]" | "false")
        {
            continue;
        }
        match REFUSED.iter().find(|(refused, _)| refused == name) {
            Some((_, default)) if text == *default => {}
            Some(_) => return Err(format!("field {name} is not implemented by Coracle yet; remove it")),
            None => warnings.push(format!(
                "field {name} of the KubeletConfiguration is not implemented and has no effect"
            )),
        }
    }
    Ok(file)
}
