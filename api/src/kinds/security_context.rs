//! Security contexts of pods and containers.

use serde_json::Value;

use super::access::{boolean, integer, items, present, text};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const ID_MAX: i64 = 2_147_483_647;

const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL_RULE: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// Sysctls of a namespace that a pod may take from its host: names, or what names begin with before a `*`.
const HOST_SYSCTLS: [(&str, &[&str]); 2] =
    [("hostNetwork", &["net.*"]), ("hostIPC", &["kernel.sem", "kernel.shm*", "kernel.msg*", "fs.mqueue.*"])];

/// Parts of small letters, digits, `-` and `_`, with dots or slashes between them.
fn is_sysctl_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= SYSCTL_BYTES_MAX
        && name.split(['.', '/']).map(str::as_bytes).all(|part| {
            part.first().is_some_and(|first| plain(*first))
                && part.last().is_some_and(|last| plain(*last))
                && part.iter().all(|byte| plain(*byte) || matches!(byte, b'-' | b'_'))
        })
}

/// A sysctl's name with dots between its parts: who writes the first one as a slash, writes slashes for dots and the other way round.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|letter| {
                if letter == '/' {
                    '.'
                } else if letter == '.' {
                    '/'
                } else {
                    letter
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn id(object: &Value, name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(id) = integer(object, name)
        && !(0..=ID_MAX).contains(&id)
    {
        errors.push(field::invalid(path.child(name), id, names::inclusive_range_error(0, ID_MAX)));
    }
}

fn seccomp(object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(profile) = present(object, "seccompProfile") else { return };
    let at = path.child("seccompProfile");
    let local = present(profile, "localhostProfile");
    match text(profile, "type") {
        "Localhost" if local.is_none() => errors.push(field::required(
            at.child("localhostProfile"),
            "must be set when seccomp type is Localhost",
        )),
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" => {
            if let Some(local) = local {
                errors.push(field::invalid(
                    at.child("localhostProfile"),
                    local.clone(),
                    "can only be set when seccomp type is Localhost",
                ));
            }
        }
        "" => errors.push(field::required(at.child("type"), "type is required when seccompProfile is set")),
        other => errors.push(field::not_supported(
            at.child("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        )),
    }
}

/// A pod's security context, and the namespaces of the host that the spec asks for.
pub fn validate_pod(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("securityContext");
    if boolean(spec, "shareProcessNamespace") && boolean(spec, "hostPID") {
        errors.push(field::invalid(
            path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    let Some(context) = present(spec, "securityContext") else { return };
    id(context, "fsGroup", &at, errors);
    id(context, "runAsUser", &at, errors);
    id(context, "runAsGroup", &at, errors);
    for (index, group) in items(context, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or(-1);
        if !(0..=ID_MAX).contains(&group) {
            errors.push(field::invalid(
                at.child("supplementalGroups").index(index),
                group,
                names::inclusive_range_error(0, ID_MAX),
            ));
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, sysctl) in items(context, "sysctls").iter().enumerate() {
        let name = text(sysctl, "name");
        let at = at.child("sysctls").index(index).child("name");
        if name.is_empty() {
            errors.push(field::required(&at, ""));
        } else if !is_sysctl_name(name) {
            errors.push(field::invalid(&at, name, SYSCTL_RULE));
        } else if seen.contains(&name) {
            errors.push(field::duplicate(&at, name));
        }
        seen.push(name);
        let full = dotted(name);
        for (host, patterns) in HOST_SYSCTLS {
            let concerned = patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => full.starts_with(start),
                None => full == *pattern,
            });
            if boolean(spec, host) && concerned {
                errors.push(field::invalid(&at, name, format!("may not be specified when '{host}' is true")));
            }
        }
    }
    if let Some(policy) = present(context, "fsGroupChangePolicy").and_then(Value::as_str)
        && !matches!(policy, "Always" | "OnRootMismatch")
    {
        errors.push(field::not_supported(
            at.child("fsGroupChangePolicy"),
            policy,
            &["Always", "OnRootMismatch"],
        ));
    }
    seccomp(context, &at, errors);
}

/// A container's security context.
pub fn validate_container(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("securityContext");
    let Some(context) = present(container, "securityContext") else { return };
    id(context, "runAsUser", &at, errors);
    id(context, "runAsGroup", &at, errors);
    if let Some(kind) = present(context, "procMount").and_then(Value::as_str)
        && !matches!(kind, "Default" | "Unmasked")
    {
        errors.push(field::not_supported(at.child("procMount"), kind, &["Default", "Unmasked"]));
    }
    seccomp(context, &at, errors);
    if present(context, "allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false) {
        if boolean(context, "privileged") {
            errors.push(field::invalid(
                &at,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let capabilities = present(context, "capabilities");
        let added = capabilities.map(|capabilities| items(capabilities, "add")).unwrap_or_default();
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            errors.push(field::invalid(
                &at,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
}
