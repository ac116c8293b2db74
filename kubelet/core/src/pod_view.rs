//! Short questions to a pod's spec that several modules ask: restart policies, sidecars, grace periods, names.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// What happens to an ended container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Start it again.
    Always,
    /// Start it again unless it ended with 0.
    OnFailure,
    /// Leave it.
    Never,
}

impl RestartPolicy {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }

    /// Whether a container that ended with `exit_code` is to be started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The spec, or an empty one: the API server never gives a pod without spec.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// The pod's restart policy; `Always` by default.
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    spec(pod).restart_policy.as_deref().and_then(RestartPolicy::parse).unwrap_or(RestartPolicy::Always)
}

/// A regular container's policy: its own, or the pod's.
pub fn container_restart_policy(pod: &Pod, container: &Container) -> RestartPolicy {
    container.restart_policy.as_deref().and_then(RestartPolicy::parse).unwrap_or_else(|| restart_policy(pod))
}

/// The init containers, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Whether an init container is a sidecar, which runs as long as the pod.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// A container of either kind by name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    init_containers(pod).iter().chain(&spec(pod).containers).find(|container| container.name == name)
}

/// The UID, empty if there is none.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The name, empty if there is none.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The namespace, `default` if there is none.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// Whether it runs in the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// Seconds between SIGTERM and SIGKILL when the pod is deleted: what the deletion asked for, else the spec's.
pub fn grace_period_seconds(pod: &Pod) -> i64 {
    let from_spec = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    if pod.metadata.deletion_timestamp.is_some() {
        pod.metadata.deletion_grace_period_seconds.unwrap_or(from_spec).max(0)
    } else {
        from_spec.max(0)
    }
}

/// The phase in the status, empty if there is none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the phase says that the pod will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}
