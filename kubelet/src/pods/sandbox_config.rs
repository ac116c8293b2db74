//! A pod's sandbox as the runtime is asked for it.
//!
//! Never here: calls.

use std::collections::HashMap;
use std::path::Path;

use k8s_cri::v1::{
    DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SecurityProfile,
    security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{Pod, SeccompProfile};
use kubelet_core::{dns, host_name, pod_view, sysctl};

use crate::context::Context;
use crate::runtime::{ANNOTATION_GRACE_PERIOD, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// The labels that tie a sandbox or container to its pod.
pub fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_POD_NAME.to_owned(), pod_view::name(pod).to_owned()),
        (LABEL_POD_NAMESPACE.to_owned(), pod_view::namespace(pod).to_owned()),
        (LABEL_POD_UID.to_owned(), pod_view::uid(pod).to_owned()),
    ])
}

/// Which namespaces the pod's processes share with whom.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod_view::spec(pod);
    let node_or = |host: Option<bool>, otherwise: NamespaceMode| {
        if host == Some(true) { NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: node_or(spec.host_network, NamespaceMode::Pod),
        pid: node_or(spec.host_pid, pid),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod),
        ..NamespaceOption::default()
    }
}

/// The same for one container, which may see the processes of another one.
pub fn container_namespaces(pod: &Pod, target: Option<&str>) -> NamespaceOption {
    let mut options = namespaces(pod);
    if let Some(id) = target.filter(|_| options.pid == NamespaceMode::Container as i32) {
        options.pid = NamespaceMode::Target as i32;
        options.target_id = id.to_owned();
    }
    options
}

/// A seccomp profile for the runtime; local ones are below `root`, the kubelet's directory.
///
/// # Errors
/// Names a profile of an unknown type.
pub fn seccomp(
    root: &Path,
    profile: Option<&SeccompProfile>,
    default_on: bool,
) -> Result<SecurityProfile, String> {
    let (kind, local) = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Unconfined") => (ProfileType::Unconfined, String::new()),
        Some("Localhost") => {
            let name = profile.and_then(|profile| profile.localhost_profile.clone()).unwrap_or_default();
            (ProfileType::Localhost, root.join("seccomp").join(name).to_string_lossy().into_owned())
        }
        Some(other) => return Err(format!("unknown seccomp profile type {other:?}")),
        None if default_on => (ProfileType::RuntimeDefault, String::new()),
        None => (ProfileType::Unconfined, String::new()),
    };
    Ok(SecurityProfile { profile_type: kind as i32, localhost_ref: local })
}

/// Builds the request's message.
///
/// # Errors
/// What in the pod's spec cannot be done.
pub fn build(context: &Context, pod: &Pod, attempt: u32) -> Result<PodSandboxConfig, String> {
    let spec = pod_view::spec(pod);
    let settings = &context.settings;
    if spec.host_users == Some(false) {
        return Err("can't set `spec.hostUsers: false`, user namespaces are not implemented by Coracle yet"
            .to_owned());
    }
    let hostname =
        host_name::of(pod, &settings.cluster_domain).for_kernel(spec.set_hostname_as_fqdn == Some(true))?;
    let resolver = dns::for_pod(pod, &settings.host_dns, &settings.cluster_dns, &settings.cluster_domain);
    let mut port_mappings = Vec::new();
    if !pod_view::host_network(pod) {
        for port in spec.containers.iter().flat_map(|container| container.ports.iter().flatten()) {
            let Some(host_port) = port.host_port.filter(|port| *port > 0) else { continue };
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "UDP" => Protocol::Udp,
                "SCTP" => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            port_mappings.push(PortMapping {
                protocol: protocol as i32,
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            });
        }
    }
    let privileged = spec.containers.iter().chain(pod_view::init_containers(pod)).any(|container| {
        container.security_context.as_ref().is_some_and(|security| security.privileged == Some(true))
    });
    let security = spec.security_context.as_ref();
    let groups = security.map(|security| {
        security.supplemental_groups.iter().flatten().copied().chain(security.fs_group).collect::<Vec<i64>>()
    });
    let sysctls = security.and_then(|security| security.sysctls.as_ref()).into_iter().flatten();
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: context.cgroups.as_ref().map(|cgroups| cgroups.pod_path(pod)).unwrap_or_default(),
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod)),
            privileged,
            supplemental_groups: groups.unwrap_or_default(),
            seccomp: Some(seccomp(&settings.root_dir, None, true)?),
            ..LinuxSandboxSecurityContext::default()
        }),
        sysctls: sysctls.map(|sysctl| (sysctl::normal_name(&sysctl.name), sysctl.value.clone())).collect(),
        ..LinuxPodSandboxConfig::default()
    };
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    // Kept for a pod that has vanished from the API server when the kubelet comes back.
    annotations.insert(ANNOTATION_GRACE_PERIOD.to_owned(), pod_view::grace_period_seconds(pod).to_string());
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod_view::name(pod).to_owned(),
            uid: pod_view::uid(pod).to_owned(),
            namespace: pod_view::namespace(pod).to_owned(),
            attempt,
        }),
        hostname: if pod_view::host_network(pod) { String::new() } else { hostname },
        log_directory: context.log_directory(pod).to_string_lossy().into_owned(),
        dns_config: Some(DnsConfig {
            servers: resolver.servers,
            searches: resolver.searches,
            options: resolver.options,
        }),
        port_mappings,
        labels: pod_labels(pod),
        annotations,
        linux: Some(linux),
        windows: None,
    })
}
