//! Security contexts of pods and containers.

use serde_json::Value;

use super::access::{boolean, integer, items, present, text};
use super::check;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const ID_MAX: i64 = 2_147_483_647;

/// Of seccomp's and AppArmor's profiles.
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
/// As long as a path.
const APP_ARMOR_BYTES_MAX: usize = 4095;
const CREDENTIALS_BYTES_MAX: usize = 64 << 10;
const USER_BYTES_MAX: usize = 104;

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
        "Localhost" => {
            let (file, at) = (text(profile, "localhostProfile"), at.child("localhostProfile"));
            if file.starts_with('/') {
                errors.push(field::invalid(&at, file, "must be a relative path"));
            }
            if file.split('/').any(|part| part == "..") {
                errors.push(field::invalid(&at, file, "must not contain '..'"));
            }
        }
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
        other => errors.push(field::not_supported(at.child("type"), other, PROFILE_TYPES)),
    }
}

fn app_armor(object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(profile) = present(object, "appArmorProfile") else { return };
    let at = path.child("appArmorProfile");
    let local = present(profile, "localhostProfile").and_then(Value::as_str);
    let local_at = at.child("localhostProfile");
    match (text(profile, "type"), local) {
        ("Localhost", None | Some("")) => {
            errors.push(field::required(local_at, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(field::invalid(&local_at, name, "must not be padded with whitespace"));
            }
            if name.len() > APP_ARMOR_BYTES_MAX {
                errors.push(field::too_long(&local_at, APP_ARMOR_BYTES_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(field::invalid(local_at, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(field::required(at.child("type"), "type is required when appArmorProfile is set"))
        }
        (other, _) => errors.push(field::not_supported(at.child("type"), other, PROFILE_TYPES)),
    }
}

fn windows_options(object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(options) = present(object, "windowsOptions") else { return };
    let at = path.child("windowsOptions");
    let given = |key: &str| present(options, key).and_then(Value::as_str).map(|value| (value, at.child(key)));
    if let Some((name, at)) = given("gmsaCredentialSpecName") {
        errors.extend(
            names::dns1123_subdomain(name).into_iter().map(|problem| field::invalid(&at, name, problem)),
        );
    }
    if let Some((content, at)) = given("gmsaCredentialSpec") {
        if content.is_empty() {
            errors.push(field::invalid(at, content, "gmsaCredentialSpec cannot be an empty string"));
        } else if content.len() > CREDENTIALS_BYTES_MAX {
            errors.push(field::invalid(at, content, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some((name, at)) = given("runAsUserName") {
        errors.extend(user_name_problem(name).map(|problem| field::invalid(at, name, problem)));
    }
}

/// What is wrong with `DOMAIN\USER` or `USER`.
fn user_name_problem(name: &str) -> Option<String> {
    let fail = |text: &str| Some(format!("runAsUserName {text}"));
    let mut parts = name.split('\\');
    let (first, second, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if name.is_empty() {
        return fail("cannot be an empty string");
    }
    if name.contains(char::is_control) {
        return fail("cannot contain control characters");
    }
    if more.is_some() {
        return fail("cannot contain more than one backslash");
    }
    let (domain, user) = second.map_or((None, first), |user| (Some(first), user));
    if let Some(domain) = domain {
        let is_net_bios = (1..=15).contains(&domain.chars().count())
            && !domain.starts_with('.')
            && !domain.contains(['/', ':', '*', '?', '"', '<', '>', '|']);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if domain.len() >= 256 {
            return Some("runAsUserName's Domain length must be under 256 characters".to_owned());
        }
        if !is_net_bios && !domain.split('.').all(label) {
            return Some("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        return Some("runAsUserName's User cannot be empty".to_owned());
    }
    if user.len() > USER_BYTES_MAX {
        return Some(format!(
            "runAsUserName's User length must not be longer than {USER_BYTES_MAX} characters"
        ));
    }
    if user.chars().all(|letter| matches!(letter, '.' | ' ')) {
        return Some("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        return Some(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned(),
        );
    }
    None
}

/// One of a few words, if it is there.
fn one_of(object: &Value, key: &str, known: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(word) = present(object, key).and_then(Value::as_str) {
        check::one_of(word, known, &path.child(key), errors);
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
    one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], &at, errors);
    one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], &at, errors);
    one_of(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], &at, errors);
    seccomp(context, &at, errors);
    app_armor(context, &at, errors);
    windows_options(context, &at, errors);
}

/// A container's security context.
pub fn validate_container(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("securityContext");
    let Some(context) = present(container, "securityContext") else { return };
    id(context, "runAsUser", &at, errors);
    id(context, "runAsGroup", &at, errors);
    one_of(context, "procMount", &["Default", "Unmasked"], &at, errors);
    seccomp(context, &at, errors);
    app_armor(context, &at, errors);
    windows_options(context, &at, errors);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(validate: fn(&Value, &FieldPath, &mut Vec<FieldError>), context: Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(&json!({"securityContext": context}), &FieldPath::new("spec"), &mut errors);
        errors.iter().map(|error| format!("{}: {}", error.path, error.body())).collect()
    }

    #[test]
    fn profiles_are_of_a_known_kind() {
        let one = |context: Value| said(validate_container, context).concat();
        assert_eq!(
            one(json!({"appArmorProfile": {"type": "Localhost"}})),
            "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost"
        );
        assert_eq!(
            one(json!({"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}})),
            "spec.securityContext.appArmorProfile.localhostProfile: Invalid value: \"x\": can only be set when AppArmor type is Localhost"
        );
        assert!(one(json!({"appArmorProfile": {"type": "Other"}})).contains("Unsupported value: \"Other\""));
        assert_eq!(one(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}})), "");
        assert_eq!(
            one(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}})),
            "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'"
        );
        assert!(
            said(validate_pod, json!({"supplementalGroupsPolicy": "Some"}))
                .concat()
                .contains("\"Merge\", \"Strict\"")
        );
    }

    #[test]
    fn users_of_windows_may_have_a_domain() {
        for good in ["ContainerUser", "NT AUTHORITY\\SYSTEM", "a.b.example\\x"] {
            assert_eq!(user_name_problem(good), None, "{good}");
        }
        for bad in ["", "a\\b\\c", "\\x", "d\\", "...", "a@b", "a\nb"] {
            assert!(user_name_problem(bad).is_some(), "{bad}");
        }
    }
}
