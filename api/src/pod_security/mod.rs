//! The Pod Security Standards: levels, versions, and what a pod violates at each. Pure; who is asked about what is the server's matter.

mod baseline;
mod restricted;

use std::fmt;

use serde_json::Value;

use crate::kinds::access::{items, text};

/// The version whose standards are the newest here.
const LATEST_MINOR: u32 = 35;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// Nothing that is known to give it the node.
    Baseline,
    /// Only what hardened pods need.
    Restricted,
}

impl Level {
    /// Reads a namespace's label.
    pub fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "privileged" => Level::Privileged,
            "baseline" => Level::Baseline,
            "restricted" => Level::Restricted,
            _ => return None,
        })
    }
}

/// The Kubernetes version whose standards count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The newest.
    Latest,
    /// That of a minor release.
    Minor(u32),
}

impl Version {
    /// Reads a namespace's label: `latest` or `v1.N`.
    pub fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let digits = text.strip_prefix("v1.")?;
        let plain =
            digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.parse().ok().filter(|_| plain).map(Version::Minor)
    }

    fn minor(self) -> u32 {
        match self {
            Version::Latest => LATEST_MINOR,
            Version::Minor(minor) => minor.min(LATEST_MINOR),
        }
    }
}

/// A level of a version, as `restricted:latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// How much a pod may do.
    pub level: Level,
    /// By which version's rules.
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version {
            Version::Latest => formatter.write_str("latest"),
            Version::Minor(minor) => write!(formatter, "v1.{minor}"),
        }
    }
}

/// What a check found.
struct Finding {
    reason: &'static str,
    detail: String,
}

/// One rule.
struct Check {
    /// The minor release that brought it.
    since: u32,
    /// The restricted rule of later releases that says more and stands for it.
    replaced_by: Option<fn(&Pod<'_>) -> Option<Finding>>,
    run: fn(&Pod<'_>) -> Option<Finding>,
}

/// What checks look at.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    minor: u32,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, list))
    }

    /// The names of the containers for which `holds`.
    fn named(&self, mut holds: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| holds(container))
            .map(|container| text(container, "name"))
            .collect()
    }

    /// Rules about Linux' means of security do not hold for pods of Windows, since 1.25.
    fn is_windows(&self) -> bool {
        self.minor >= 25 && self.spec["os"]["name"] == "windows"
    }
}

/// What a pod (its metadata and spec) violates, as the server tells it; `None` when it may be.
pub fn violations(standard: Standard, metadata: &Value, spec: &Value) -> Option<String> {
    let pod = Pod { metadata, spec, minor: standard.version.minor() };
    let is_restricted = standard.level == Level::Restricted;
    let in_force = |check: &&Check| check.since <= pod.minor;
    let replaced = |check: &Check| {
        let later = restricted::CHECKS.iter().filter(in_force).map(|check| check.run);
        is_restricted
            && check.replaced_by.is_some_and(|by| later.into_iter().any(|run| std::ptr::fn_addr_eq(run, by)))
    };
    let base = baseline::CHECKS.iter().filter(in_force).filter(|check| !replaced(check));
    let more = restricted::CHECKS.iter().filter(in_force).filter(|_| is_restricted);
    let found: Vec<String> = base
        .chain(more)
        .filter(|_| standard.level != Level::Privileged)
        .filter_map(|check| (check.run)(&pod))
        .map(|finding| format!("{} ({})", finding.reason, finding.detail))
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

fn plural<'a>(one: &'a str, several: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { several }
}

fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(level: Level, version: Version, spec: Value) -> String {
        violations(Standard { level, version }, &json!({}), &spec).unwrap_or_default()
    }

    #[test]
    fn a_plain_pod_violates_what_clients_know() {
        let plain = json!({"containers": [{"name": "a"}]});
        assert_eq!(
            of(Level::Restricted, Version::Latest, plain.clone()),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        assert_eq!(of(Level::Baseline, Version::Latest, plain.clone()), "");
        assert_eq!(of(Level::Privileged, Version::Latest, plain), "");
    }

    #[test]
    fn a_hardened_pod_is_restricted_enough() {
        let spec = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "v", "configMap": {"name": "c"}}],
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
        assert_eq!(of(Level::Restricted, Version::Latest, spec), "");
    }

    #[test]
    fn what_gives_a_pod_the_node_is_told_at_baseline() {
        let spec = json!({"hostNetwork": true, "hostPID": true,
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}], "seLinuxOptions": {"type": "x", "user": "u"}},
            "containers": [
                {"name": "a", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true, "procMount": "Unmasked",
                    "seccompProfile": {"type": "Unconfined"}}},
                {"name": "b", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}}]});
        assert_eq!(
            of(Level::Baseline, Version::Latest, spec),
            "non-default capabilities (container \"b\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), hostPort (container \"a\" uses hostPort 80), privileged (container \"a\" must not set securityContext.privileged=true), procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\"), seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set), seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\"), forbidden sysctls (kernel.msgmax)"
        );
    }

    #[test]
    fn older_versions_know_fewer_rules() {
        let plain = json!({"containers": [{"name": "a"}]});
        assert_eq!(
            of(Level::Restricted, Version::Minor(18), plain),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)"
        );
        assert_eq!(Version::parse("v1.25"), Some(Version::Minor(25)));
        assert_eq!((Version::parse("1.25"), Version::parse("v1.025")), (None, None));
        let standard = Standard { level: Level::Restricted, version: Version::Minor(25) };
        assert_eq!(standard.to_string(), "restricted:v1.25");
    }
}
