//! What every part of the kubelet shares: settings, clients, the runtime, the node's facts.
//!
//! Never here: behaviour.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_client::event_recorder::{EventKind, EventRecorder};
use coracle_client::informer::Informer;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Client, Resource};
use kubelet_core::admission::Allocatable;
use kubelet_core::dns::DnsConfig;
use kubelet_core::field_ref::NodeFacts;
use kubelet_core::pod_view;
use parking_lot::RwLock;

use crate::cgroups::Cgroups;
use crate::pods::allocated::Allocated;
use crate::pods::static_pods::StaticPods;
use crate::pods::status_manager::StatusManager;
use crate::runtime::Runtime;
use crate::volumes::Volumes;

/// Settings that do not change while the kubelet runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node_name: String,
    /// `--root-dir`.
    pub root_dir: PathBuf,
    /// Where container logs go.
    pub pod_logs_dir: PathBuf,
    /// DNS servers for pods.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The node's own resolver configuration.
    pub host_dns: DnsConfig,
    /// Bytes of memory of the node.
    pub memory_bytes: i64,
    /// What pods may use.
    pub allocatable: Allocatable,
    /// Most processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// Bytes at which a container's log is rotated, and how many files are kept.
    pub log_rotation: (u64, usize),
    /// Whether to set CPU quotas.
    pub cpu_cfs_quota: bool,
    /// The longest wait before a container that keeps failing is started again.
    pub restart_backoff_max: SignedDuration,
    /// `--allowed-unsafe-sysctls`: names, or prefixes that end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Seccomp profile for pods that name none: `RuntimeDefault` instead of `Unconfined`.
    pub seccomp_default: bool,
}

/// Shared by all parts.
pub struct Context {
    /// Settings.
    pub settings: Settings,
    /// The node's addresses, the one for pods in its network first.
    pub node_ips: Vec<String>,
    /// The API server.
    pub client: Client,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The scheme of container ids.
    pub runtime_name: String,
    /// Events.
    pub events: EventRecorder,
    /// Services of the cluster, for environments.
    pub services: Informer<Service>,
    /// This node as the API server has it.
    pub nodes: Informer<Node>,
    /// Which runtime handlers pods may ask for, by name.
    pub runtime_classes: Informer<RuntimeClass>,
    /// Pods that files on this node describe.
    pub static_pods: StaticPods,
    /// What the node has given to which pod.
    pub allocated: Allocated,
    /// Volumes.
    pub volumes: Volumes,
    /// Pod cgroups; none on hollow nodes.
    pub cgroups: Option<Cgroups>,
    /// Statuses on their way to the API server.
    pub statuses: StatusManager,
    /// Whether the runtime and its network can take pods; the error is shown in the node's Ready condition.
    pub network_ready: RwLock<Result<(), String>>,
    /// How many sandboxes are made at the same time.
    pub starts: tokio::sync::Semaphore,
    /// How many images are pulled at the same time.
    pub pulls: tokio::sync::Semaphore,
}

impl Context {
    /// Facts for the downward API.
    pub fn facts(&self, pod_ips: Vec<String>) -> NodeFacts {
        NodeFacts {
            node_name: self.settings.node_name.clone(),
            node_labels: self
                .nodes
                .store()
                .list()
                .pop()
                .and_then(|node| node.metadata.labels.clone())
                .unwrap_or_default(),
            host_ips: self.node_ips.clone(),
            pod_ips,
            allocatable_milli_cpu: self.settings.allocatable.milli_cpu,
            allocatable_memory: self.settings.allocatable.memory,
        }
    }

    /// Records an event about a pod.
    pub fn pod_event(&self, pod: &Pod, kind: EventKind, reason: &str, message: impl Into<String>) {
        self.events.record(pod.object_ref(&()), kind, reason, "", message);
    }

    /// Records an event about one container of a pod.
    pub fn container_event(
        &self,
        pod: &Pod,
        name: &str,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let list = if pod_view::init_containers(pod).iter().any(|container| container.name == name) {
            "initContainers"
        } else if pod_view::ephemeral_containers(pod).iter().any(|container| container.name == name) {
            "ephemeralContainers"
        } else {
            "containers"
        };
        let regarding =
            ObjectReference { field_path: Some(format!("spec.{list}{{{name}}}")), ..pod.object_ref(&()) };
        self.events.record(regarding, kind, reason, "", message);
    }

    /// Where a pod's logs are.
    pub fn log_directory(&self, pod: &Pod) -> PathBuf {
        let name = format!("{}_{}_{}", pod_view::namespace(pod), pod_view::name(pod), pod_view::uid(pod));
        self.settings.pod_logs_dir.join(name)
    }
}
