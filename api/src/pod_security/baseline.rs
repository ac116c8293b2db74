//! The rules of the baseline level, in the order in which they are told.

use serde_json::Value;

use super::{Check, Finding, Pod, containers, plural, quoted, restricted};
use crate::kinds::access::{items, present, text};

pub(super) const CHECKS: &[Check] = &[
    plain(0, app_armor),
    Check { replaced_by: Some(restricted::capabilities), ..plain(0, capabilities) },
    plain(0, host_namespaces),
    Check { replaced_by: Some(restricted::volumes), ..plain(0, host_path_volumes) },
    plain(0, host_ports),
    plain(34, host_probes),
    plain(0, privileged),
    plain(0, proc_mount),
    plain(0, selinux),
    Check { replaced_by: Some(restricted::seccomp), ..plain(19, seccomp) },
    plain(0, sysctls),
    plain(0, windows_host_process),
];

const fn plain(since: u32, run: fn(&Pod<'_>) -> Option<Finding>) -> Check {
    Check { since, replaced_by: None, run }
}

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: &[&str] =
    &["", "container_engine_t", "container_init_t", "container_kvm_t", "container_t"];
/// Sysctls that concern the pod alone, with the release that came to allow them.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn found(reason: &'static str, detail: String) -> Option<Finding> {
    Some(Finding { reason, detail })
}

/// `pod`, `container "a"`, or both, of those that set something.
fn setters(pod_sets: bool, names: &[&str]) -> String {
    match (pod_sets, names.is_empty()) {
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", containers(names)),
        (false, _) => containers(names),
    }
}

fn security<'a>(part: &'a Value, key: &str) -> &'a Value {
    &part["securityContext"][key]
}

fn app_armor(pod: &Pod<'_>) -> Option<Finding> {
    let allowed = |kind: &str| matches!(kind, "" | "RuntimeDefault" | "Localhost");
    let profile = |part| text(security(part, "appArmorProfile"), "type");
    let mut values: Vec<String> = Vec::new();
    let pod_sets = !allowed(profile(pod.spec));
    let names = pod.named(|container| !allowed(profile(container)));
    let profiles = std::iter::once(pod.spec).chain(pod.containers()).map(profile);
    values.extend(profiles.filter(|kind| !allowed(kind)).map(|kind| format!("\"{kind}\"")));
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let mut annotated: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter(|(_, value)| {
            let value = value.as_str().unwrap_or_default();
            !(matches!(value, "" | "runtime/default") || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("\"{key}={}\"", value.as_str().unwrap_or_default()))
        .collect();
    annotated.sort_unstable();
    values.sort_unstable();
    values.dedup();
    let mut details = Vec::new();
    if !values.is_empty() {
        let who = setters(pod_sets, &names);
        details.push(format!("{who} must not set AppArmor profile type to {}", values.join(", ")));
    }
    let count = annotated.len() + values.len();
    if !annotated.is_empty() {
        let word = plural("annotation", "annotations", annotated.len());
        details.push(format!("{word} {}", annotated.join(", ")));
    }
    if count == 0 {
        return None;
    }
    found(plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count), details.join(", "))
}

fn capabilities(pod: &Pod<'_>) -> Option<Finding> {
    let added =
        |container| items(security(container, "capabilities"), "add").iter().filter_map(Value::as_str);
    let foreign = |capability: &&str| !CAPABILITIES.contains(capability);
    let names = pod.named(|container| added(container).any(|one| foreign(&one)));
    let mut all: Vec<&str> = pod.containers().flat_map(added).filter(foreign).collect();
    all.sort_unstable();
    all.dedup();
    if names.is_empty() {
        return None;
    }
    let text = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&names),
        quoted(&all)
    );
    found("non-default capabilities", text)
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Finding> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|name| pod.spec[*name] == true)
        .map(|name| format!("{name}=true"))
        .collect();
    if set.is_empty() { None } else { found("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Finding> {
    let volumes = items(pod.spec, "volumes").iter().filter(|volume| present(volume, "hostPath").is_some());
    let names: Vec<&str> = volumes.map(|volume| text(volume, "name")).collect();
    if names.is_empty() {
        return None;
    }
    found("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Finding> {
    let taken = |container| {
        items(container, "ports")
            .iter()
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
    };
    let names = pod.named(|container| taken(container).next().is_some());
    let mut ports: Vec<String> = pod.containers().flat_map(taken).map(|port| port.to_string()).collect();
    ports.sort_unstable();
    ports.dedup();
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    let word = plural("hostPort", "hostPorts", ports.len());
    found("hostPort", format!("{} {uses} {word} {}", containers(&names), ports.join(", ")))
}

fn host_probes(pod: &Pod<'_>) -> Option<Finding> {
    fn hosts(container: &Value) -> Vec<&str> {
        let handlers = [
            &container["livenessProbe"],
            &container["readinessProbe"],
            &container["startupProbe"],
            &container["lifecycle"]["postStart"],
            &container["lifecycle"]["preStop"],
        ];
        let targets =
            handlers.into_iter().flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| &handler[kind]));
        targets.map(|target| text(target, "host")).filter(|host| !host.is_empty()).collect()
    }
    let names = pod.named(|container| !hosts(container).is_empty());
    let mut all: Vec<&str> = pod.containers().flat_map(hosts).collect();
    all.sort_unstable();
    all.dedup();
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
    found("probe or lifecycle host", format!("{} {uses} {word} {}", containers(&names), quoted(&all)))
}

fn privileged(pod: &Pod<'_>) -> Option<Finding> {
    let names = pod.named(|container| *security(container, "privileged") == true);
    if names.is_empty() {
        return None;
    }
    found("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Finding> {
    let of = |container| security(container, "procMount").as_str().unwrap_or("Default");
    let names = pod.named(|container| of(container) != "Default");
    let mut kinds: Vec<&str> = pod.containers().map(of).filter(|kind| *kind != "Default").collect();
    kinds.sort_unstable();
    kinds.dedup();
    if names.is_empty() {
        return None;
    }
    let text = format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&kinds));
    found("procMount", text)
}

fn selinux(pod: &Pod<'_>) -> Option<Finding> {
    let allowed =
        |kind: &str| SELINUX_TYPES.contains(&kind) && (kind != "container_engine_t" || pod.minor >= 31);
    fn options(part: &Value) -> &Value {
        security(part, "seLinuxOptions")
    }
    let bad = |part: &Value| {
        let options = options(part);
        !allowed(text(options, "type"))
            || !text(options, "user").is_empty()
            || !text(options, "role").is_empty()
    };
    let (pod_sets, names) = (bad(pod.spec), pod.named(bad));
    if !pod_sets && names.is_empty() {
        return None;
    }
    let all = || std::iter::once(pod.spec).chain(pod.containers()).map(options);
    let mut kinds: Vec<&str> =
        all().map(|options| text(options, "type")).filter(|kind| !allowed(kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut values = Vec::new();
    if !kinds.is_empty() {
        values.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(&kinds)));
    }
    for name in ["user", "role"] {
        if all().any(|options| !text(options, name).is_empty()) {
            values.push(format!("{name} may not be set"));
        }
    }
    let who = setters(pod_sets, &names);
    found(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", values.join("; ")),
    )
}

fn seccomp(pod: &Pod<'_>) -> Option<Finding> {
    let bad = |part: &Value| {
        !matches!(text(security(part, "seccompProfile"), "type"), "" | "RuntimeDefault" | "Localhost")
    };
    let (pod_sets, names) = (bad(pod.spec), pod.named(bad));
    if !pod_sets && names.is_empty() {
        return None;
    }
    let all = std::iter::once(pod.spec).chain(pod.containers()).filter(|part| bad(part));
    let mut kinds: Vec<&str> = all.map(|part| text(security(part, "seccompProfile"), "type")).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let who = setters(pod_sets, &names);
    let text = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
    found("seccompProfile", text)
}

fn sysctls(pod: &Pod<'_>) -> Option<Finding> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= pod.minor);
    let names: Vec<&str> = items(&pod.spec["securityContext"], "sysctls")
        .iter()
        .map(|sysctl| text(sysctl, "name"))
        .filter(|name| !allowed(name))
        .collect();
    if names.is_empty() { None } else { found("forbidden sysctls", names.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Finding> {
    let bad = |part: &Value| security(part, "windowsOptions")["hostProcess"] == true;
    let (pod_sets, names) = (bad(pod.spec), pod.named(bad));
    if !pod_sets && names.is_empty() {
        return None;
    }
    let who = setters(pod_sets, &names);
    found("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
