//! A container as the runtime is asked for it: environment, mounts, security, resources; and the files it needs.
//!
//! Never here: calls to the runtime.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, Image, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, Mount, MountPropagation,
};
use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext, VolumeMount};
use kubelet_core::expansion::expand;
use kubelet_core::resources::{self, CPU_PERIOD_MICROSECONDS};
use kubelet_core::spec_hash::container_hash;
use kubelet_core::{environment, pod_view};

use super::sandbox_config::{container_namespaces, pod_labels, seccomp};
use crate::context::Context;
use crate::runtime::{
    ANNOTATION_GRACE_PERIOD, ANNOTATION_HASH, ANNOTATION_RESTART_COUNT, ANNOTATION_TERMINATION_LOG,
    ANNOTATION_TERMINATION_POLICY, LABEL_CONTAINER_NAME,
};

/// How long to wait for the first list of Services; without it the environment would lack some.
const SERVICES_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
const MASKED_PATHS: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container is made from.
pub struct Making<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container in its spec.
    pub container: &'a Container,
    /// How many instances there were before.
    pub restart_count: u32,
    /// The pod's addresses.
    pub pod_ips: &'a [String],
    /// The image, present on this node.
    pub image: &'a Image,
    /// The id of the container whose processes it is to see, for ephemeral ones.
    pub target: Option<&'a str>,
}

/// Builds the request's message and writes the files it refers to.
///
/// # Errors
/// The text of `CreateContainerConfigError`.
pub async fn build(context: &Context, making: &Making<'_>) -> Result<ContainerConfig, String> {
    let Making { pod, container, restart_count, pod_ips, image, target } = *making;
    tokio::time::timeout(SERVICES_WAIT, context.services.wait_synced())
        .await
        .map_err(|_| "services have not yet been read at least once, cannot construct envvars".to_owned())?;
    let services = context.services.store().list();
    let services: Vec<_> = services.iter().map(AsRef::as_ref).collect();
    let objects = context.volumes.environment_objects(pod, container).await?;
    let facts = context.facts(pod_ips.to_vec());
    let environment = environment::build(pod, container, &services, &objects, &facts)?;
    let lookup =
        |name: &str| environment.iter().find(|(have, _)| have == name).map(|(_, value)| value.clone());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let attempt = restart_count;
    let name = &container.name;
    let log_path = format!("{name}/{attempt}.log");
    std::fs::create_dir_all(context.log_directory(pod).join(name))
        .map_err(|error| format!("cannot make the log directory: {error}"))?;
    let mut labels = pod_labels(pod);
    labels.insert(LABEL_CONTAINER_NAME.to_owned(), name.clone());
    let mut mounts = volume_mounts(context, pod, container, lookup)?;
    let hosts = mounts.iter().any(|mount| mount.container_path == "/etc/hosts");
    if !hosts && !context.runtime.is_hollow() {
        let path = write_hosts(context, pod, pod_ips)
            .map_err(|error| format!("cannot write /etc/hosts: {error}"))?;
        mounts.push(bind(&path, "/etc/hosts", false));
    }
    let mut annotations = std::collections::HashMap::from([
        (ANNOTATION_HASH.to_owned(), container_hash(container)),
        (ANNOTATION_RESTART_COUNT.to_owned(), restart_count.to_string()),
        (ANNOTATION_GRACE_PERIOD.to_owned(), pod_view::grace_period_seconds(pod).to_string()),
        (
            ANNOTATION_TERMINATION_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
    ]);
    let termination_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !termination_path.is_empty() && !context.runtime.is_hollow() {
        let path = termination_file(context, pod, name, restart_count)
            .map_err(|error| format!("cannot make the termination log: {error}"))?;
        annotations.insert(ANNOTATION_TERMINATION_LOG.to_owned(), path.to_string_lossy().into_owned());
        mounts.push(bind(&path, termination_path, false));
    }
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.clone(), attempt }),
        image: Some(ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts,
        labels,
        annotations,
        log_path,
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(context, pod, container)),
            security_context: Some(security(context, pod, container, image, target)?),
        }),
        ..ContainerConfig::default()
    })
}

fn bind(host: &Path, container: &str, readonly: bool) -> Mount {
    Mount {
        container_path: container.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..Mount::default()
    }
}

fn volume_mounts(
    context: &Context,
    pod: &Pod,
    container: &Container,
    lookup: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<Mount>, String> {
    if context.runtime.is_hollow() {
        return Ok(Vec::new());
    }
    if let Some(device) = container.volume_devices.iter().flatten().next() {
        return Err(format!("volumeDevices ({:?}) are not supported by this kubelet yet", device.name));
    }
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = pod_view::spec(pod)
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == wanted.name)
            .ok_or_else(|| {
            format!("volume {:?} of mount {} is not in the pod", wanted.name, wanted.mount_path)
        })?;
        let source = context
            .volumes
            .host_path(pod_view::uid(pod), volume)
            .ok_or_else(|| format!("volume {:?} is of a kind that is not supported yet", wanted.name))?;
        let host = sub_path(&source, wanted, lookup)?;
        // These follow the API server's content; a container cannot change them.
        let generated = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some();
        let claimed = volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only);
        let read_only = wanted.read_only == Some(true) || claimed == Some(true) || generated;
        let mut mount = bind(&host, &wanted.mount_path, read_only);
        mount.propagation = match wanted.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer as i32,
            Some("Bidirectional") => MountPropagation::PropagationBidirectional as i32,
            _ => MountPropagation::PropagationPrivate as i32,
        };
        mounts.push(mount);
    }
    Ok(mounts)
}

/// The path of a mount's subPath; it must stay inside the volume, links included.
fn sub_path(
    source: &Path,
    wanted: &VolumeMount,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf, String> {
    let relative = match (&wanted.sub_path, &wanted.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) if !expression.is_empty() => {
            let missing = std::cell::RefCell::new(Vec::new());
            let expanded = expand(expression, |name| {
                let value = lookup(name);
                if value.is_none() {
                    missing.borrow_mut().push(format!("{name:?}"));
                }
                value
            });
            if !missing.borrow().is_empty() {
                return Err(format!("missing value for {}", missing.borrow().join(", ")));
            }
            expanded
        }
        _ => return Ok(source.to_owned()),
    };
    let parts = Path::new(&relative).components();
    if parts
        .clone()
        .any(|part| !matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
    {
        return Err(format!("subPath {relative:?} must be relative and must not contain '..'"));
    }
    let failed =
        |error: io::Error| format!("failed to prepare subPath for volumeMount \"{}\": {error}", wanted.name);
    let full = source.join(&relative);
    if !full.exists() {
        std::fs::create_dir_all(&full).map_err(failed)?;
        // Whoever may write to the volume may write to its part.
        let permissions = std::fs::metadata(source).map_err(failed)?.permissions();
        std::fs::set_permissions(&full, permissions).map_err(failed)?;
    }
    let root = std::fs::canonicalize(source).map_err(failed)?;
    let resolved = std::fs::canonicalize(&full).map_err(failed)?;
    if resolved.starts_with(&root) {
        Ok(resolved)
    } else {
        Err(format!("subPath {relative:?} leads out of volume {:?}", wanted.name))
    }
}

/// The pod's `/etc/hosts`, the same for all its containers.
fn write_hosts(context: &Context, pod: &Pod, pod_ips: &[String]) -> io::Result<PathBuf> {
    let names = kubelet_core::host_name::of(pod, &context.settings.cluster_domain);
    let path = context.volumes.pod_directory(pod_view::uid(pod)).join("etc-hosts");
    let spec = pod_view::spec(pod);
    let mut text = if pod_view::host_network(pod) {
        let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{own}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let full = names.qualified().map(|full| format!("{full}\t")).unwrap_or_default();
        for ip in pod_ips {
            let _ = writeln!(text, "{ip}\t{full}{}", names.short);
        }
        text
    };
    if let Some(aliases) = spec.host_aliases.as_ref().filter(|aliases| !aliases.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ =
                writeln!(text, "{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
        }
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // In place: other containers of the pod have this very file mounted.
    std::fs::write(&path, text)?;
    Ok(path)
}

fn termination_file(context: &Context, pod: &Pod, name: &str, restart_count: u32) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let directory = context.volumes.pod_directory(pod_view::uid(pod)).join("containers").join(name);
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{restart_count:08x}"));
    std::fs::File::create(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    // The instance before the last is no longer asked for.
    if let Some(old) = restart_count.checked_sub(2) {
        let _ = std::fs::remove_file(directory.join(format!("{old:08x}")));
    }
    Ok(path)
}

/// A container's part of the node as the runtime is asked for it.
pub fn linux_resources(context: &Context, pod: &Pod, container: &Container) -> LinuxContainerResources {
    let values = resources::container_values(container);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_MICROSECONDS,
        cpu_quota: values.cpu_quota.filter(|_| context.settings.cpu_cfs_quota).unwrap_or(0),
        cpu_shares: values.cpu_shares,
        memory_limit_in_bytes: values.memory_limit.unwrap_or(0),
        oom_score_adj: resources::oom_score_adj(pod, container, context.settings.memory_bytes),
        ..LinuxContainerResources::default()
    }
}

fn security(
    context: &Context,
    pod: &Pod,
    container: &Container,
    image: &Image,
    target: Option<&str>,
) -> Result<LinuxContainerSecurityContext, String> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let of_pod = pod_view::spec(pod).security_context.as_ref();
    let user = own.run_as_user.or_else(|| of_pod.and_then(|security| security.run_as_user));
    let group = own.run_as_group.or_else(|| of_pod.and_then(|security| security.run_as_group));
    let image_user = image.uid.as_ref().map(|uid| uid.value);
    let non_root =
        own.run_as_non_root.or_else(|| of_pod.and_then(|security| security.run_as_non_root)) == Some(true);
    if non_root {
        let described = format!("(pod: \"{}\", container: {})", pod_view::describe(pod), container.name);
        match (user, image_user) {
            (Some(0), _) => return Err(format!("container's runAsUser breaks non-root policy {described}")),
            (Some(_), _) => {}
            (None, Some(0)) => {
                return Err(format!("container has runAsNonRoot and image will run as root {described}"));
            }
            (None, Some(_)) => {}
            (None, None) if image.username.is_empty() => {
                return Err(format!("container has runAsNonRoot and image will run as root {described}"));
            }
            (None, None) => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {described}",
                    image.username
                ));
            }
        }
    }
    let privileged = own.privileged == Some(true);
    let escalation = own.allow_privilege_escalation.unwrap_or(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let groups = of_pod.map(|security| {
        security.supplemental_groups.iter().flatten().copied().chain(security.fs_group).collect::<Vec<i64>>()
    });
    let run_as = user.or_else(|| image_user.filter(|_| image.username.is_empty()));
    let profile = own
        .seccomp_profile
        .as_ref()
        .or_else(|| of_pod.and_then(|security| security.seccomp_profile.as_ref()));
    Ok(LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            ..Capability::default()
        }),
        privileged,
        namespace_options: Some(container_namespaces(pod, target)),
        run_as_user: run_as.map(|value| Int64Value { value }),
        // A group needs a user; root is the default one.
        run_as_group: group
            .filter(|_| run_as.is_some() || !image.username.is_empty())
            .map(|value| Int64Value { value }),
        run_as_username: if run_as.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups.unwrap_or_default(),
        no_new_privs: !escalation && !privileged,
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: if privileged {
            Some(seccomp(&context.settings.root_dir, None, false)?)
        } else {
            Some(seccomp(&context.settings.root_dir, profile, context.settings.seccomp_default)?)
        },
        ..LinuxContainerSecurityContext::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_cannot_leave_its_volume() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink(root.path(), volume.join("out")).unwrap();
        let mount = |path: &str| VolumeMount { sub_path: Some(path.to_owned()), ..VolumeMount::default() };
        assert!(sub_path(&volume, &mount("a/b"), |_| None).unwrap().ends_with("volume/a/b"));
        for path in ["../x", "/x", "out", "out/volume2"] {
            assert!(sub_path(&volume, &mount(path), |_| None).is_err(), "{path}");
        }
        let expression = VolumeMount { sub_path_expr: Some("$(N)/x".to_owned()), ..VolumeMount::default() };
        assert_eq!(sub_path(&volume, &expression, |_| None).unwrap_err(), "missing value for \"N\"");
        assert!(
            sub_path(&volume, &expression, |_| Some("pod".to_owned())).unwrap().ends_with("volume/pod/x")
        );
    }
}
