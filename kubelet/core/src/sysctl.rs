//! Which kernel settings a pod may ask for.
//!
//! Never here: setting them; the runtime does.

use k8s_openapi::api::core::v1::Pod;

use crate::pod_status::Waiting;
use crate::pod_view;

/// Settings that are namespaced and cannot hurt other pods; upstream's list.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Settings of the network namespace; those of the IPC namespace are the rest of what is namespaced.
const NETWORK: &str = "net.";
const IPC: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];

/// The name with dots as separators. `net/ipv4/x` and `net.ipv4.x` are the same; in a name whose first separator is a
/// slash a dot stands for itself, as in the name of a network device, and becomes a slash.
pub fn normal_name(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(index) if name.as_bytes()[index] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn allowed(name: &str, pattern: &str) -> bool {
    let pattern = normal_name(pattern);
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Checks a pod's settings. `unsafe_allowed` is what the node's operator allows beside the safe ones.
///
/// # Errors
/// Reason and message of the pod's failure, as upstream words them.
pub fn admit(pod: &Pod, unsafe_allowed: &[String]) -> Result<(), Waiting> {
    let spec = pod_view::spec(pod);
    let refuse = |message: String| {
        let message = format!("Pod was rejected: {message}");
        Err(Waiting { reason: "SysctlForbidden".to_owned(), message })
    };
    let security = spec.security_context.as_ref();
    for sysctl in security.and_then(|security| security.sysctls.as_ref()).into_iter().flatten() {
        let name = normal_name(&sysctl.name);
        let shown = format!("forbidden sysctl: {name:?}");
        if spec.host_network == Some(true) && name.starts_with(NETWORK) {
            return refuse(format!("{shown} not allowed with host net enabled"));
        }
        if spec.host_ipc == Some(true) && IPC.iter().any(|prefix| name.starts_with(prefix)) {
            return refuse(format!("{shown} not allowed with host ipc enabled"));
        }
        if !SAFE.contains(&name.as_str()) && !unsafe_allowed.iter().any(|pattern| allowed(&name, pattern)) {
            return refuse(format!("{shown} not allowlisted"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(name: &str, more: serde_json::Value, unsafe_allowed: &[&str]) -> Result<(), String> {
        let mut spec =
            json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let allowed: Vec<String> = unsafe_allowed.iter().map(|name| (*name).to_owned()).collect();
        admit(&pod, &allowed).map_err(|refused| refused.message)
    }

    #[test]
    fn only_safe_or_allowed_settings_pass() {
        assert_eq!(check("kernel.shm_rmid_forced", json!({}), &[]), Ok(()));
        assert_eq!(check("net/ipv4/tcp_syncookies", json!({}), &[]), Ok(()));
        let refused = check("kernel.msgmax", json!({}), &[]).unwrap_err();
        assert_eq!(refused, "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
        assert_eq!(check("kernel.msgmax", json!({}), &["kernel.msg*"]), Ok(()));
        assert!(check("net.ipv4.tcp_syncookies", json!({"hostNetwork": true}), &[]).is_err());
        assert!(check("kernel.shm_rmid_forced", json!({"hostIPC": true}), &[]).is_err());
    }

    #[test]
    fn slashes_become_dots() {
        assert_eq!(normal_name("net/ipv4/conf/eth0.100/mtu"), "net.ipv4.conf.eth0/100.mtu");
        assert_eq!(normal_name("net.ipv4.conf.eth0/100.mtu"), "net.ipv4.conf.eth0/100.mtu");
    }
}
