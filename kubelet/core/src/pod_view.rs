//! Short questions to a pod's spec that several modules ask: restart policies, sidecars, grace periods, names.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

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

/// The containers that were put into the running pod for debugging.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An ephemeral container with the fields that it has in common with the others. It has no ports, probes, lifecycle or
/// resources of its own.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        name: ephemeral.name.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        ..Container::default()
    }
}

/// A container of whatever kind by name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let listed = init_containers(pod).iter().chain(&spec(pod).containers);
    listed.into_iter().find(|container| container.name == name).map(Cow::Borrowed).or_else(|| {
        let ephemeral = ephemeral_containers(pod).iter().find(|container| container.name == name)?;
        Some(Cow::Owned(as_container(ephemeral)))
    })
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
