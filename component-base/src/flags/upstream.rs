//! Upstream flags that a program has no setting for: which values say what is so anyway and are accepted, and why others are refused. A program names
//! those of them that upstream's has; here is what they share.
//!
//! Never here: flags that work.

/// One of them.
struct Flag {
    name: &'static str,
    /// The values that are accepted; `*` is any. An empty value always is: start scripts give unset variables so.
    accepted: &'static [&'static str],
    /// Why these values change nothing, or why others are refused.
    why: &'static str,
}

const fn flag(name: &'static str, accepted: &'static [&'static str], why: &'static str) -> Flag {
    Flag { name, accepted, why }
}

const ANY: &[&str] = &["*"];
const FALSE: &[&str] = &["false"];
const TRUE: &[&str] = &["true"];
/// Any value of a switch.
const EITHER: &[&str] = &["true", "false"];
const NO_CLOUD: &str = "clouds are other programs' business";
const NO_COLLECTOR: &str =
    "collections are worked off as fast as the API server takes the calls, 64 at a time";
const OPEN: &str = "health and metrics are served to all";
const NO_RESYNC: &str = "work follows from watches alone; nothing is listed again after a while";
const LOG: &str = "log lines are written at once, to standard error";
const OTHER_MODE: &str = "settings of proxy modes that are not in use have no effect";
const NO_RECYCLER: &str = "volumes are not recycled";
const NO_THROTTLE: &str = "it counts only with --audit-log-batch-throttle-enable, which is off by default";
const NO_PEERS: &str = "requests are not passed on to API servers of other versions";
const NO_LABEL_LISTS: &str = "metrics have all their labels";
const NO_PROFILES: &str = "profiles are not served";
const NO_CADVISOR: &str = "there is no cAdvisor in the kubelet";
const NO_EVENT_RATE: &str = "events are gathered by object, as upstream does besides";
const NO_EVICTION: &str = "pods are not evicted by the node";
const NO_FILTER: &str = "the node's packet filter is kube-proxy's business, as upstream by now";
const NO_IMAGE_GC: &str = "images are not removed";
const NO_MANAGER: &str = "CPUs and memory are not pinned to containers";
const NO_PULL_RATE: &str = "the runtime takes pulls as they come";
const NO_STATIC_URL: &str = "static pods come from a directory";
const LEVEL: &str = "the level served is always v1.35";

/// By name.
const FLAGS: &[Flag] = &[
    flag("aggregator-reject-forwarding-redirect", TRUE, "redirects of other servers are not followed"),
    flag("allow-metric-labels", &[], NO_LABEL_LISTS),
    flag("allow-metric-labels-manifest", &[], NO_LABEL_LISTS),
    flag("allow-untagged-cloud", FALSE, NO_CLOUD),
    flag("apiserver-count", ANY, "it is of an endpoint reconciler that upstream has deprecated"),
    flag("application-metrics-count-limit", ANY, NO_CADVISOR),
    flag("attach-detach-reconcile-sync-period", ANY, NO_RESYNC),
    flag("audit-log-batch-throttle-burst", ANY, NO_THROTTLE),
    flag("audit-log-batch-throttle-enable", FALSE, "batches are written as fast as the file takes them"),
    flag("audit-log-batch-throttle-qps", ANY, NO_THROTTLE),
    flag("authentication-skip-lookup", ANY, OPEN),
    flag("authentication-token-webhook-cache-ttl", ANY, OPEN),
    flag("authentication-tolerate-lookup-failure", ANY, OPEN),
    flag("authorization-always-allow-paths", ANY, OPEN),
    flag("authorization-webhook-cache-authorized-ttl", ANY, OPEN),
    flag("authorization-webhook-cache-unauthorized-ttl", ANY, OPEN),
    flag("bind-address-hard-fail", TRUE, "an address in use always ends the start"),
    flag("boot-id-file", ANY, NO_CADVISOR),
    flag("cgroups-per-qos", TRUE, "every pod has its cgroup below that of its class"),
    flag("cidr-allocator-type", &["RangeAllocator"], "ranges come out of --cluster-cidr"),
    flag("cloud-config", &[], NO_CLOUD),
    flag("cloud-provider", &["external"], NO_CLOUD),
    flag("concurrent-cron-job-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-daemonset-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-deployment-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-endpoint-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-ephemeralvolume-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-gc-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-horizontal-pod-autoscaler-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-job-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-namespace-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-rc-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-replicaset-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-resource-claim-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-resource-quota-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-service-endpoint-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-service-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-serviceaccount-token-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-statefulset-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-ttl-after-finished-syncs", ANY, NO_COLLECTOR),
    flag("concurrent-validating-admission-policy-status-syncs", ANY, NO_COLLECTOR),
    flag("config-sync-period", ANY, NO_RESYNC),
    flag("configure-cloud-routes", ANY, NO_CLOUD),
    flag("conntrack-max-per-core", &["0"], "the node's connection tracking is left as it is"),
    flag("conntrack-min", &["0"], "the node's connection tracking is left as it is"),
    flag("conntrack-tcp-be-liberal", FALSE, "the node's connection tracking is left as it is"),
    flag("conntrack-tcp-timeout-close-wait", &["0s", "0"], "the node's connection tracking is left as it is"),
    flag(
        "conntrack-tcp-timeout-established",
        &["0s", "0"],
        "the node's connection tracking is left as it is",
    ),
    flag("conntrack-udp-timeout", &["0s", "0"], "the node's connection tracking is left as it is"),
    flag("conntrack-udp-timeout-stream", &["0s", "0"], "the node's connection tracking is left as it is"),
    flag("container-hints", ANY, NO_CADVISOR),
    flag("containerd", ANY, NO_CADVISOR),
    flag("containerd-namespace", ANY, NO_CADVISOR),
    flag("contention-profiling", FALSE, NO_PROFILES),
    flag("controller-shutdown-timeout", ANY, "controllers end at once when they are told to"),
    flag("controller-start-interval", &["0s", "0"], "all controllers start at once"),
    flag(
        "coordinated-leadership-lease-duration",
        ANY,
        "leaders elect themselves, as upstream's do by default",
    ),
    flag(
        "coordinated-leadership-renew-deadline",
        ANY,
        "leaders elect themselves, as upstream's do by default",
    ),
    flag("coordinated-leadership-retry-period", ANY, "leaders elect themselves, as upstream's do by default"),
    flag("cpu-cfs-quota-period", &["100ms"], "upstream needs the gate CustomCPUCFSQuotaPeriod for others"),
    flag("cpu-manager-policy", &["none"], NO_MANAGER),
    flag("cpu-manager-policy-options", &[], NO_MANAGER),
    flag("cpu-manager-reconcile-period", ANY, NO_MANAGER),
    flag("debug-socket-path", &[], NO_PROFILES),
    flag("delete-collection-workers", ANY, "the objects of a collection are deleted in one pass"),
    flag("disable-attach-detach-reconcile-sync", ANY, NO_RESYNC),
    flag("disable-http2-serving", FALSE, "HTTP/2 is served"),
    flag("disabled-metrics", &[], "all metrics are served"),
    flag("emulated-version", &["1.35", "v1.35", "kube=1.35", "kube=v1.35"], LEVEL),
    flag("emulation-forward-compatible", FALSE, LEVEL),
    flag("enable-controller-attach-detach", TRUE, "attaching is the controller-manager's work"),
    flag("enable-dynamic-provisioning", TRUE, "external provisioners are always asked"),
    flag("enable-garbage-collector", TRUE, "garbage is collected"),
    flag("enable-hostpath-provisioner", FALSE, "volumes are provisioned by external provisioners alone"),
    flag("enable-leader-migration", FALSE, "there is one lease for all controllers"),
    flag("enable-load-reader", EITHER, NO_CADVISOR),
    flag("enable-logs-handler", FALSE, "the host's log files are not served"),
    flag("endpoint-updates-batch-period", &["0s", "0"], "changes of endpoints are written at once"),
    flag("endpointslice-updates-batch-period", &["0s", "0"], "changes of endpoints are written at once"),
    flag(
        "enforce-node-allocatable",
        &["pods", "none"],
        "what a node can give is kept to when pods are admitted",
    ),
    flag("etcd-count-metric-poll-period", ANY, "objects are counted as they change"),
    flag("etcd-db-metric-poll-interval", ANY, "the store's own metrics have its size"),
    flag("etcd-servers-overrides", &[], "all resources are in one store"),
    flag("event-burst", ANY, NO_EVENT_RATE),
    flag("event-qps", ANY, NO_EVENT_RATE),
    flag("event-storage-age-limit", ANY, NO_CADVISOR),
    flag("event-storage-event-limit", ANY, NO_CADVISOR),
    flag("eviction-max-pod-grace-period", ANY, NO_EVICTION),
    flag("eviction-minimum-reclaim", &[], NO_EVICTION),
    flag("eviction-pressure-transition-period", ANY, "the node says at once that it is short of something"),
    flag("eviction-soft", &[], NO_EVICTION),
    flag("eviction-soft-grace-period", &[], NO_EVICTION),
    flag("exit-on-lock-contention", FALSE, "nothing is locked"),
    flag("experimental-allocatable-ignore-eviction", FALSE, "what must stay free is not given to pods"),
    flag("experimental-mounter-path", ANY, "upstream itself does not use it any more"),
    flag("external-cloud-volume-plugin", &[], NO_CLOUD),
    flag("file-check-frequency", ANY, "manifests are looked at every second"),
    flag("flex-volume-plugin-dir", ANY, "there are no FlexVolumes; a pod that has one is told so"),
    flag("global-housekeeping-interval", ANY, NO_CADVISOR),
    flag("hairpin-mode", ANY, "the network's own configuration says so"),
    flag("housekeeping-interval", ANY, NO_CADVISOR),
    flag("http-check-frequency", ANY, NO_STATIC_URL),
    flag("identity-lease-duration-seconds", ANY, "API servers do not announce themselves"),
    flag("identity-lease-renew-interval-seconds", ANY, "API servers do not announce themselves"),
    flag("image-credential-provider-bin-dir", &[], "registries are asked with pull secrets only"),
    flag("image-credential-provider-config", &[], "registries are asked with pull secrets only"),
    flag("image-gc-high-threshold", ANY, NO_IMAGE_GC),
    flag("image-gc-low-threshold", ANY, NO_IMAGE_GC),
    flag("init-only", FALSE, "nothing needs more privileges at first than later"),
    flag("iptables-drop-bit", ANY, NO_FILTER),
    flag(
        "iptables-localhost-nodeports",
        FALSE,
        "node ports are not served on loopback addresses, as in nftables mode",
    ),
    flag("iptables-masquerade-bit", ANY, OTHER_MODE),
    flag("iptables-min-sync-period", ANY, OTHER_MODE),
    flag("iptables-sync-period", ANY, OTHER_MODE),
    flag("ipvs-exclude-cidrs", ANY, OTHER_MODE),
    flag("ipvs-min-sync-period", ANY, OTHER_MODE),
    flag("ipvs-scheduler", ANY, OTHER_MODE),
    flag("ipvs-strict-arp", ANY, OTHER_MODE),
    flag("ipvs-sync-period", ANY, OTHER_MODE),
    flag("ipvs-tcp-timeout", ANY, OTHER_MODE),
    flag("ipvs-tcpfin-timeout", ANY, OTHER_MODE),
    flag("ipvs-udp-timeout", ANY, OTHER_MODE),
    flag("keep-terminated-pod-volumes", FALSE, "volumes of pods that have ended are removed"),
    flag("kernel-memcg-notification", EITHER, "memory is looked at by time"),
    flag("kube-api-content-type", ANY, "the API server takes and gives every content type"),
    flag("kube-reserved-cgroup", &[], "what is reserved is not enforced on a cgroup"),
    flag("kubelet-port", ANY, "nodes say themselves which port their kubelet has"),
    flag("kubelet-read-only-port", ANY, "nodes say themselves which port their kubelet has"),
    flag("kubernetes-service-node-port", &["0"], "the Service kubernetes has no node port"),
    flag("leader-migration-config", &[], "there is one lease for all controllers"),
    flag(
        "lease-reuse-duration-seconds",
        ANY,
        "it trades memory of the store for exactness; events end when they should",
    ),
    flag("livez-grace-period", ANY, "/livez never waits for what is done once at start"),
    flag("local-storage-capacity-isolation", EITHER, "the storage that pods use is not limited"),
    flag("lock-file", &[], "nothing is locked"),
    flag("log-cadvisor-usage", EITHER, NO_CADVISOR),
    flag("log-flush-frequency", ANY, LOG),
    flag("log-json-info-buffer-size", ANY, LOG),
    flag("log-json-split-stream", FALSE, LOG),
    flag("log-text-info-buffer-size", ANY, LOG),
    flag("log-text-split-stream", FALSE, LOG),
    flag("logtostderr", TRUE, LOG),
    flag("machine-id-file", ANY, NO_CADVISOR),
    flag("make-iptables-util-chains", EITHER, NO_FILTER),
    flag("manifest-url", &[], NO_STATIC_URL),
    flag("manifest-url-header", &[], NO_STATIC_URL),
    flag("max-connection-bytes-per-sec", &["0"], "connections of users are not slowed down"),
    flag("max-endpoints-per-slice", &["100"], "a slice has up to 100 endpoints"),
    flag("max-open-files", ANY, "the limit is that of whoever starts the kubelet"),
    flag("maximum-dead-containers", &["-1"], "ended containers go with their pods"),
    flag(
        "maximum-dead-containers-per-container",
        &["1"],
        "the last container before the running one is kept",
    ),
    flag("memory-manager-policy", &["None"], NO_MANAGER),
    flag("min-compatibility-version", &["1.34", "v1.34", "kube=1.34", "kube=v1.34"], LEVEL),
    flag("min-resync-period", ANY, NO_RESYNC),
    flag("minimum-container-ttl-duration", &["0s", "0"], "ended containers do not wait to be removed"),
    flag("minimum-image-ttl-duration", ANY, NO_IMAGE_GC),
    flag("mirroring-concurrent-service-endpoint-syncs", ANY, NO_COLLECTOR),
    flag(
        "mirroring-endpointslice-updates-batch-period",
        &["0s", "0"],
        "changes of endpoints are written at once",
    ),
    flag("namespace-sync-period", ANY, NO_RESYNC),
    flag("nftables-sync-period", ANY, "the table is written anew when it is found to differ"),
    flag("peer-advertise-ip", &[], NO_PEERS),
    flag("peer-advertise-port", &[], NO_PEERS),
    flag("peer-ca-file", &[], NO_PEERS),
    flag("permit-address-sharing", FALSE, "a port has one listener"),
    flag("permit-port-sharing", FALSE, "a port has one listener"),
    flag("pod-bridge-interface", &[], "local traffic is told by --cluster-cidr"),
    flag("pod-cidr", ANY, "it is of kubelets without an API server"),
    flag("pod-interface-name-prefix", &[], "local traffic is told by --cluster-cidr"),
    flag("profiling", FALSE, NO_PROFILES),
    flag("protect-kernel-defaults", FALSE, "the kernel's settings are left as they are"),
    flag("proxy-port-range", ANY, "it is of a proxy mode that upstream has removed"),
    flag("pv-recycler-increment-timeout-nfs", ANY, NO_RECYCLER),
    flag("pv-recycler-minimum-timeout-hostpath", ANY, NO_RECYCLER),
    flag("pv-recycler-minimum-timeout-nfs", ANY, NO_RECYCLER),
    flag("pv-recycler-pod-template-filepath-hostpath", ANY, NO_RECYCLER),
    flag("pv-recycler-pod-template-filepath-nfs", ANY, NO_RECYCLER),
    flag("pv-recycler-timeout-increment-hostpath", ANY, NO_RECYCLER),
    flag("qos-reserved", &[], "upstream needs the gate QOSReserved for it"),
    flag("read-only-port", &["0"], "there is no port that asks nobody who they are"),
    flag("register-schedulable", TRUE, "taints say where pods may not go"),
    flag("registry-burst", ANY, NO_PULL_RATE),
    flag("registry-qps", ANY, NO_PULL_RATE),
    flag("requestheader-allowed-names", ANY, OPEN),
    flag("requestheader-extra-headers-prefix", ANY, OPEN),
    flag("requestheader-group-headers", ANY, OPEN),
    flag("requestheader-uid-headers", ANY, OPEN),
    flag("requestheader-username-headers", ANY, OPEN),
    flag("reserved-cpus", &[], NO_MANAGER),
    flag("reserved-memory", &[], NO_MANAGER),
    flag("rotate-certificates", EITHER, "client certificates are renewed by those who issue them"),
    flag(
        "rotate-server-certificates",
        EITHER,
        "the serving certificate is given by file, or made by the kubelet itself",
    ),
    flag("route-reconciliation-period", ANY, NO_CLOUD),
    flag("runonce", FALSE, "the kubelet runs until it is told to end"),
    flag("runtime-config-emulation-forward-compatible", FALSE, LEVEL),
    flag("runtime-request-timeout", ANY, "calls of the runtime have deadlines of their own, by what they do"),
    flag(
        "service-account-signing-endpoint",
        &[],
        "tokens are signed by this server, with --service-account-signing-key-file",
    ),
    flag("show-hidden-metrics-for-version", &[], "no metric is hidden"),
    flag("shutdown-watch-termination-grace-period", ANY, "watches end at once when the server does"),
    flag("storage-driver-buffer-duration", ANY, NO_CADVISOR),
    flag("storage-driver-db", ANY, NO_CADVISOR),
    flag("storage-driver-host", ANY, NO_CADVISOR),
    flag("storage-driver-password", ANY, NO_CADVISOR),
    flag("storage-driver-secure", EITHER, NO_CADVISOR),
    flag("storage-driver-table", ANY, NO_CADVISOR),
    flag("storage-driver-user", ANY, NO_CADVISOR),
    flag("storage-initialization-timeout", ANY, "the server is not ready until its store has answered"),
    flag("streaming-connection-idle-timeout", ANY, "streams end with their connections"),
    flag("sync-frequency", ANY, "pods are looked at when something happens to them"),
    flag("system-cgroups", &[], "other processes stay in their cgroups"),
    flag("system-reserved-cgroup", &[], "what is reserved is not enforced on a cgroup"),
    flag("topology-manager-policy", &["none"], NO_MANAGER),
    flag("topology-manager-policy-options", &[], NO_MANAGER),
    flag("topology-manager-scope", ANY, NO_MANAGER),
    flag("tracing-config-file", &[], "there are no traces"),
    flag("unsupported-kube-api-over-localhost", FALSE, "the kubeconfig says where the API server is"),
    flag("vmodule", ANY, "verbosity is set for the whole program, by --v or RUST_LOG"),
    flag("volume-host-allow-local-loopback", ANY, "volumes are provisioned by external provisioners alone"),
    flag("volume-host-cidr-denylist", ANY, "volumes are provisioned by external provisioners alone"),
    flag("volume-plugin-dir", ANY, "there are no FlexVolumes; a pod that has one is told so"),
    flag("volume-stats-agg-period", ANY, "the use of volumes is not gathered"),
];

fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Whether a flag may be given this value.
pub(super) fn is_accepted(name: &str, value: &str) -> bool {
    value.is_empty()
        || find(name).is_some_and(|flag| flag.accepted.contains(&"*") || flag.accepted.contains(&value))
}

/// Whether a flag stands alone rather than before its value.
pub(super) fn is_switch(name: &str) -> bool {
    find(name).is_some_and(|flag| [TRUE, FALSE, EITHER].contains(&flag.accepted))
}

/// The reason in brackets, if there is one.
pub(super) fn reason(name: &str) -> String {
    match find(name) {
        Some(Flag { accepted: [], why, .. }) => format!(" ({why})"),
        Some(Flag { accepted, why, .. }) => format!(" (only {} is accepted: {why})", accepted.join(" or ")),
        None => String::new(),
    }
}

/// What the page of flags says of one.
pub(super) fn row(name: &str) -> String {
    match find(name) {
        None => "refused | not implemented yet".to_owned(),
        Some(Flag { accepted: [], why, .. }) => format!("refused | {why}"),
        Some(Flag { accepted: ["*"] | ["true", "false"], why, .. }) => format!("accepted | {why}"),
        Some(Flag { accepted, why, .. }) => format!("accepted as `{}` | {why}", accepted[0]),
    }
}

/// The end of `--help`: what is accepted without effect and what is refused, each with its reason.
pub(super) fn help(names: &[&str]) -> String {
    let mut names: Vec<&str> = names.to_vec();
    names.sort_unstable();
    let (accepted, refused): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| find(name).is_some_and(|flag| !flag.accepted.is_empty()));
    let accepted = accepted.into_iter().filter_map(find).map(|flag| match flag.accepted {
        ["*"] | ["true", "false"] => format!("      --{}: {}\n", flag.name, flag.why),
        values => format!("      --{}={}: {}\n", flag.name, values[0], flag.why),
    });
    let refused = refused.into_iter().map(|name| {
        format!("      --{name}: {}\n", find(name).map_or("not implemented yet", |flag| flag.why))
    });
    format!(
        "Accepted without effect, because they say what is so anyway (as is an empty value of any upstream flag):\n{}\nRefused:\n{}",
        accepted.collect::<String>(),
        refused.collect::<String>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_in_order_and_say_why() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].name.replace('-', " ") < pair[1].name.replace('-', " ")));
        assert!(FLAGS.iter().all(|flag| !flag.why.is_empty()));
    }

    #[test]
    fn help_tells_them_apart() {
        let help = help(&["vmodule", "profiling", "etcd-servers-overrides", "alpha"]);
        for line in [
            "      --profiling=false: profiles are not served",
            "      --vmodule: verbosity",
            "Refused:\n      --alpha: not implemented yet\n      --etcd-servers-overrides: all resources are in one store\n",
        ] {
            assert!(help.contains(line), "{line} in\n{help}");
        }
    }
}
