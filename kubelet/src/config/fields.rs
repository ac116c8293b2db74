//! Every field of `KubeletConfiguration` v1beta1 at v1.35: which of them work, which change nothing here whatever they
//! say, and which are refused unless they say what is so anyway.
//!
//! Never here: what the working ones do.

use serde_json::Value;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is honoured; nothing more is to be said.
    Works,
    /// These values are accepted, `*` for any; why. Whatever means "the default" always is.
    Accepted(&'static [&'static str], &'static str),
}

use Verdict::{Accepted, Works};

const ANY: &[&str] = &["*"];
const TRUE: &[&str] = &["true"];
const FALSE: &[&str] = &["false"];
const NONE: &[&str] = &[];
const NO_MANAGER: &str = "CPUs and memory are not pinned to containers";
const NO_IMAGE_GC: &str = "images are not removed";
const NO_PROFILES: &str = "profiles are not served";
const NO_SHUTDOWN: &str = "the node's own shutdown is not watched for";
const BY_CHANGE: &str = "pods are looked at when something happens to them";
const NO_STATIC_URL: &str = "static pods come from a directory";
const NO_FILTER: &str = "the node's packet filter is kube-proxy's business, as upstream by now";

/// By name.
pub const FIELDS: &[(&str, Verdict)] = &[
    ("address", Works),
    ("allowedUnsafeSysctls", Works),
    ("authentication", Works),
    ("authorization", Works),
    ("cgroupDriver", Works),
    ("cgroupRoot", Works),
    ("cgroupsPerQOS", Accepted(TRUE, "every pod has its cgroup below that of its class")),
    ("clusterDNS", Works),
    ("clusterDomain", Works),
    ("configMapAndSecretChangeDetectionStrategy", Accepted(ANY, "ConfigMaps and Secrets are watched")),
    ("containerLogMaxFiles", Works),
    ("containerLogMaxSize", Works),
    ("containerLogMaxWorkers", Accepted(ANY, "logs are looked at every ten seconds, one after the other")),
    (
        "containerLogMonitorInterval",
        Accepted(ANY, "logs are looked at every ten seconds, one after the other"),
    ),
    ("containerRuntimeEndpoint", Works),
    ("contentType", Accepted(ANY, "the API server takes and gives every content type")),
    ("cpuCFSQuota", Works),
    ("cpuCFSQuotaPeriod", Accepted(&["100ms"], "upstream needs the gate CustomCPUCFSQuotaPeriod for others")),
    ("cpuManagerPolicy", Accepted(&["none"], NO_MANAGER)),
    ("cpuManagerPolicyOptions", Accepted(NONE, NO_MANAGER)),
    ("cpuManagerReconcilePeriod", Accepted(ANY, NO_MANAGER)),
    ("crashLoopBackOff", Works),
    ("enableContentionProfiling", Accepted(FALSE, NO_PROFILES)),
    ("enableControllerAttachDetach", Accepted(TRUE, "attaching is the controller-manager's work")),
    ("enableDebugFlagsHandler", Accepted(ANY, NO_PROFILES)),
    ("enableDebuggingHandlers", Works),
    ("enableProfilingHandler", Accepted(ANY, NO_PROFILES)),
    ("enableServer", Works),
    ("enableSystemLogHandler", Accepted(ANY, "the host's log files are not served")),
    ("enableSystemLogQuery", Accepted(FALSE, "the host's log files are not served")),
    (
        "enforceNodeAllocatable",
        Accepted(&["[\"pods\"]", "[\"none\"]"], "what a node can give is kept to when pods are admitted"),
    ),
    ("eventBurst", Accepted(ANY, "events are gathered by object, as upstream does besides")),
    ("eventRecordQPS", Accepted(ANY, "events are gathered by object, as upstream does besides")),
    ("evictionHard", Works),
    ("evictionMaxPodGracePeriod", Accepted(ANY, "pods are not evicted by the node")),
    ("evictionMinimumReclaim", Accepted(NONE, "pods are not evicted by the node")),
    (
        "evictionPressureTransitionPeriod",
        Accepted(ANY, "the node says at once that it is short of something"),
    ),
    ("evictionSoft", Accepted(NONE, "pods are not evicted by the node")),
    ("evictionSoftGracePeriod", Accepted(NONE, "pods are not evicted by the node")),
    ("failCgroupV1", Accepted(ANY, "both versions of cgroups will do")),
    ("failSwapOn", Works),
    ("featureGates", Works),
    ("fileCheckFrequency", Accepted(ANY, "manifests are looked at every second")),
    ("hairpinMode", Accepted(ANY, "the network's own configuration says so")),
    ("healthzBindAddress", Works),
    ("healthzPort", Works),
    ("httpCheckFrequency", Accepted(ANY, NO_STATIC_URL)),
    ("imageGCHighThresholdPercent", Accepted(ANY, NO_IMAGE_GC)),
    ("imageGCLowThresholdPercent", Accepted(ANY, NO_IMAGE_GC)),
    ("imageMaximumGCAge", Accepted(ANY, NO_IMAGE_GC)),
    ("imageMinimumGCAge", Accepted(ANY, NO_IMAGE_GC)),
    (
        "imagePullCredentialsVerificationPolicy",
        Accepted(&["NeverVerify"], "an image that is there may be used by all pods of the node"),
    ),
    ("imageServiceEndpoint", Works),
    ("iptablesDropBit", Accepted(ANY, NO_FILTER)),
    ("iptablesMasqueradeBit", Accepted(ANY, NO_FILTER)),
    ("kernelMemcgNotification", Accepted(ANY, "memory is looked at by time")),
    ("kubeAPIBurst", Works),
    ("kubeAPIQPS", Works),
    ("kubeletCgroups", Accepted(ANY, "the kubelet stays in the cgroup that it is started in")),
    ("kubeReserved", Works),
    ("kubeReservedCgroup", Accepted(NONE, "what is reserved is not enforced on a cgroup")),
    ("localStorageCapacityIsolation", Accepted(ANY, "the storage that pods use is not limited")),
    ("logging", Works),
    ("makeIPTablesUtilChains", Accepted(ANY, NO_FILTER)),
    ("maxOpenFiles", Accepted(ANY, "the limit is that of whoever starts the kubelet")),
    ("maxParallelImagePulls", Works),
    ("maxPods", Works),
    ("memoryManagerPolicy", Accepted(&["None"], NO_MANAGER)),
    ("memorySwap", Accepted(&["{\"swapBehavior\":\"NoSwap\"}"], "containers get no swap")),
    ("memoryThrottlingFactor", Accepted(ANY, "upstream needs the gate MemoryQoS for it")),
    ("mergeDefaultEvictionSettings", Works),
    ("nodeLeaseDurationSeconds", Works),
    ("nodeStatusMaxImages", Works),
    ("nodeStatusReportFrequency", Works),
    ("nodeStatusUpdateFrequency", Works),
    ("oomScoreAdj", Works),
    ("podCIDR", Accepted(ANY, "it is of kubelets without an API server")),
    ("podLogsDir", Works),
    ("podPidsLimit", Works),
    ("podsPerCore", Works),
    ("port", Works),
    ("preloadedImagesVerificationAllowlist", Accepted(NONE, "the use of images is not verified")),
    ("protectKernelDefaults", Accepted(FALSE, "the kernel's settings are left as they are")),
    ("providerID", Works),
    ("qosReserved", Accepted(NONE, "upstream needs the gate QOSReserved for it")),
    ("readOnlyPort", Accepted(&["0"], "there is no port that asks nobody who they are")),
    ("registerNode", Works),
    ("registerWithTaints", Works),
    ("registryBurst", Accepted(ANY, "the runtime takes pulls as they come")),
    ("registryPullQPS", Accepted(ANY, "the runtime takes pulls as they come")),
    ("reservedMemory", Accepted(NONE, NO_MANAGER)),
    ("reservedSystemCPUs", Accepted(NONE, NO_MANAGER)),
    ("resolvConf", Works),
    ("rotateCertificates", Accepted(ANY, "client certificates are renewed by those who issue them")),
    ("runOnce", Accepted(FALSE, "the kubelet runs until it is told to end")),
    (
        "runtimeRequestTimeout",
        Accepted(ANY, "calls of the runtime have deadlines of their own, by what they do"),
    ),
    ("seccompDefault", Works),
    ("serializeImagePulls", Works),
    (
        "serverTLSBootstrap",
        Accepted(ANY, "the serving certificate is given by file, or made by the kubelet itself"),
    ),
    ("showHiddenMetricsForVersion", Accepted(NONE, "no metric is hidden")),
    ("shutdownGracePeriod", Accepted(NONE, NO_SHUTDOWN)),
    ("shutdownGracePeriodByPodPriority", Accepted(NONE, NO_SHUTDOWN)),
    ("shutdownGracePeriodCriticalPods", Accepted(NONE, NO_SHUTDOWN)),
    ("singleProcessOOMKill", Accepted(ANY, "the runtime decides how a container runs out of memory")),
    ("staticPodPath", Works),
    ("staticPodURL", Accepted(NONE, NO_STATIC_URL)),
    ("staticPodURLHeader", Accepted(NONE, NO_STATIC_URL)),
    ("streamingConnectionIdleTimeout", Accepted(ANY, "streams end with their connections")),
    ("syncFrequency", Accepted(ANY, BY_CHANGE)),
    ("systemCgroups", Accepted(NONE, "other processes stay in their cgroups")),
    ("systemReserved", Works),
    ("systemReservedCgroup", Accepted(NONE, "what is reserved is not enforced on a cgroup")),
    ("tlsCertFile", Works),
    ("tlsCipherSuites", Works),
    ("tlsMinVersion", Works),
    ("tlsPrivateKeyFile", Works),
    ("topologyManagerPolicy", Accepted(&["none"], NO_MANAGER)),
    ("topologyManagerPolicyOptions", Accepted(NONE, NO_MANAGER)),
    ("topologyManagerScope", Accepted(ANY, NO_MANAGER)),
    ("tracing", Accepted(NONE, "there are no traces")),
    ("userNamespaces", Accepted(NONE, "pods with user namespaces of their own get those of the runtime")),
    ("volumePluginDir", Accepted(ANY, "there are no FlexVolumes; a pod that has one is told so")),
    ("volumeStatsAggPeriod", Accepted(ANY, "the use of volumes is not gathered")),
];

/// Whether a value stands for the default in all fields.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => matches!(text.as_str(), "" | "0s"),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_unset),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Looks at the fields of a configuration. Warnings name those that nobody knows, as upstream, which reads on.
///
/// # Errors
/// Names the first field that asks for what is not there, and says why.
pub fn check(document: &Value, warnings: &mut Vec<String>) -> Result<(), String> {
    for (name, value) in document.as_object().into_iter().flatten() {
        if matches!(name.as_str(), "kind" | "apiVersion") {
            continue;
        }
        let Some((_, verdict)) = FIELDS.iter().find(|(known, _)| known == name) else {
            warnings.push(format!("strict decoding error: unknown field {name:?}; it has no effect"));
            continue;
        };
        let Accepted(values, why) = verdict else { continue };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if is_unset(value) || values.contains(&"*") || values.contains(&text.as_str()) {
            continue;
        }
        return Err(match values {
            [] => format!("field {name} is not implemented by Coracle yet ({why}); remove it"),
            _ => format!(
                "field {name}: {text} is not implemented by Coracle yet (only {} is accepted: {why}); remove it",
                values.join(" or ")
            ),
        });
    }
    Ok(())
}

/// The table of `docs/flags.md`.
#[cfg(test)]
pub fn page() -> String {
    let mut text = "## KubeletConfiguration\n\nThe fields of the kubelet's configuration file (kubelet.config.k8s.io/v1beta1); \
what flags say wins. An unknown field is warned of, as upstream.\n\n| Field | | Why |\n| --- | --- | --- |\n"
        .to_owned();
    for (name, verdict) in FIELDS {
        text.push_str(&match verdict {
            Works => format!("| `{name}` | works |  |\n"),
            Accepted([], why) => format!("| `{name}` | refused | {why} |\n"),
            Accepted(["*"], why) => format!("| `{name}` | accepted | {why} |\n"),
            Accepted(values, why) => format!("| `{name}` | accepted as `{}` | {why} |\n", values[0]),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_in_order() {
        let sorted = |pair: &[(&str, Verdict)]| pair[0].0.to_lowercase() < pair[1].0.to_lowercase();
        let unsorted = FIELDS.windows(2).find(|pair| !sorted(pair));
        assert_eq!(unsorted, None);
    }

    #[test]
    fn what_asks_for_what_is_not_there_is_named() {
        let refused = |document: Value| check(&document, &mut Vec::new()).unwrap_err();
        for (document, text) in [
            (json!({"cpuManagerPolicy": "static"}), "field cpuManagerPolicy: static is not implemented"),
            (json!({"cgroupsPerQOS": false}), "only true is accepted"),
            (
                json!({"staticPodURL": "http://x"}),
                "field staticPodURL is not implemented by Coracle yet (static pods",
            ),
            (json!({"evictionSoft": {"memory.available": "1Gi"}}), "evictionSoft"),
            (json!({"readOnlyPort": 10255}), "readOnlyPort: 10255"),
        ] {
            let said = refused(document);
            assert!(said.contains(text), "{text:?} in {said:?}");
        }
    }

    #[test]
    fn what_means_the_default_is_taken_and_the_unknown_is_warned_of() {
        let mut warnings = Vec::new();
        let document = json!({"kind": "K", "cpuManagerPolicy": "none", "shutdownGracePeriod": "0s", "staticPodURL": "",
            "evictionSoft": {}, "memorySwap": {}, "tracing": null, "imageGCHighThresholdPercent": 80, "noSuch": 1,
            "enforceNodeAllocatable": ["pods"], "cgroupsPerQOS": true, "userNamespaces": {"idsPerPod": null}});
        check(&document, &mut warnings).unwrap();
        assert_eq!(warnings, ["strict decoding error: unknown field \"noSuch\"; it has no effect"]);
    }

    #[test]
    fn the_page_has_the_fields() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flags.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, after) = text.split_once("## KubeletConfiguration\n").unwrap_or((&text, ""));
        let end = after.find("\n## ").map_or(after.len(), |end| end + 1);
        if format!("## KubeletConfiguration\n{}", after[..end].trim_end()) == page().trim_end() {
            return;
        }
        let rest = &after[end..];
        let gap = if rest.is_empty() { "" } else { "\n" };
        assert!(std::env::var_os("UPDATE_FLAGS").is_some(), "docs/flags.md: run once with UPDATE_FLAGS=1");
        std::fs::write(&path, format!("{}\n\n{}{gap}{rest}", before.trim_end(), page())).unwrap();
    }
}
