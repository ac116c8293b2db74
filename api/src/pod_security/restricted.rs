//! The rules that the restricted level adds, in the order in which they are told.

use serde_json::Value;

use super::{Check, Finding, Pod, containers, plural, quoted};
use crate::kinds::access::{items, text};

pub(super) const CHECKS: &[Check] = &[
    plain(8, privilege_escalation),
    plain(22, capabilities),
    plain(0, volumes),
    plain(0, non_root),
    plain(23, root_user),
    plain(19, seccomp),
];

const fn plain(since: u32, run: fn(&Pod<'_>) -> Option<Finding>) -> Check {
    Check { since, replaced_by: None, run }
}

/// Kinds of volumes that reach nothing of the node.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "name",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn found(reason: &'static str, details: Vec<String>) -> Option<Finding> {
    if details.is_empty() { None } else { Some(Finding { reason, detail: details.join("; ") }) }
}

fn security<'a>(part: &'a Value, key: &str) -> &'a Value {
    &part["securityContext"][key]
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Finding> {
    if pod.is_windows() {
        return None;
    }
    let names = pod.named(|container| *security(container, "allowPrivilegeEscalation") != false);
    let text = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    found("allowPrivilegeEscalation != false", names.first().map(|_| text).into_iter().collect())
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Finding> {
    if pod.is_windows() {
        return None;
    }
    let list =
        |container, key| items(security(container, "capabilities"), key).iter().filter_map(Value::as_str);
    let keeping = pod.named(|container| !list(container, "drop").any(|one| one == "ALL"));
    let foreign = |one: &&str| *one != "NET_BIND_SERVICE";
    let adding = pod.named(|container| list(container, "add").any(|one| foreign(&one)));
    let mut added: Vec<&str> =
        pod.containers().flat_map(|container| list(container, "add")).filter(foreign).collect();
    added.sort_unstable();
    added.dedup();
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(&added)
        ));
    }
    found("unrestricted capabilities", details)
}

pub(super) fn volumes(pod: &Pod<'_>) -> Option<Finding> {
    fn kind(volume: &Value) -> Option<&str> {
        let mut fields = volume.as_object()?.iter().filter(|(_, value)| !value.is_null());
        fields.find(|(key, _)| !VOLUMES.contains(&key.as_str())).map(|(key, _)| key.as_str())
    }
    let all = items(pod.spec, "volumes");
    let names: Vec<&str> =
        all.iter().filter(|volume| kind(volume).is_some()).map(|volume| text(volume, "name")).collect();
    let mut kinds: Vec<&str> = all.iter().filter_map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let text = format!(
        "{} {} {} restricted volume {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("type", "types", kinds.len()),
        quoted(&kinds)
    );
    found("restricted volume types", names.first().map(|_| text).into_iter().collect())
}

fn non_root(pod: &Pod<'_>) -> Option<Finding> {
    let of_pod = security(pod.spec, "runAsNonRoot");
    let explicit = pod.named(|container| *security(container, "runAsNonRoot") == false);
    let silent = pod.named(|container| security(container, "runAsNonRoot").is_null());
    let mut details = Vec::new();
    if *of_pod == false {
        details.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    if !explicit.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", containers(&explicit)));
    }
    if details.is_empty() && of_pod.is_null() && !silent.is_empty() {
        details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)));
    }
    found("runAsNonRoot != true", details)
}

fn root_user(pod: &Pod<'_>) -> Option<Finding> {
    let is_root = |part: &Value| *security(part, "runAsUser") == 0;
    let names = pod.named(is_root);
    let mut details = Vec::new();
    if is_root(pod.spec) {
        details.push("pod must not set runAsUser=0".to_owned());
    }
    if !names.is_empty() {
        details.push(format!("{} must not set runAsUser=0", containers(&names)));
    }
    found("runAsUser=0", details)
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Finding> {
    if pod.is_windows() {
        return None;
    }
    fn kind(part: &Value) -> &str {
        text(security(part, "seccompProfile"), "type")
    }
    let fits = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let bad = |part: &Value| !kind(part).is_empty() && !fits(kind(part));
    let (pod_sets, names) = (bad(pod.spec), pod.named(bad));
    let mut kinds: Vec<&str> =
        std::iter::once(pod.spec).chain(pod.containers()).filter(|part| bad(part)).map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut details = Vec::new();
    if pod_sets {
        let text = format!("pod must not set securityContext.seccompProfile.type to \"{}\"", kind(pod.spec));
        details.push(text);
    }
    if !names.is_empty() {
        let text = format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            containers(&names),
            quoted(&kinds)
        );
        details.push(text);
    }
    let silent = pod.named(|container| kind(container).is_empty());
    if details.is_empty() && !fits(kind(pod.spec)) && !silent.is_empty() {
        details.push(format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&silent)
        ));
    }
    found("seccompProfile", details)
}
