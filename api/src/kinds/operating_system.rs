//! Which fields of a pod make no sense on the operating system that it names.

use serde_json::Value;

use super::access::{items, present, text};
use super::pod_spec_defaults::CONTAINER_LISTS;
use crate::field::{self, FieldError, FieldPath};

/// Fields of a pod's security context that Windows does not know, in the order in which they are complained about.
const POD_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];
const POD: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const CONTAINER_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// `os`, and what of the spec is not for it.
pub(super) fn validate(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(system) = present(spec, "os") else { return };
    let at = path.child("os");
    match text(system, "name") {
        "linux" => {
            let refused = |context: &Value, at: FieldPath, errors: &mut Vec<FieldError>| {
                forbid(
                    context,
                    &["windowsOptions"],
                    at,
                    "windows options cannot be set for a linux pod",
                    errors,
                );
            };
            each_context(spec, path, errors, refused, refused);
        }
        "windows" => {
            let detail = "cannot be set for a windows pod";
            // False is as good as absent.
            let set: Vec<&str> = POD
                .iter()
                .copied()
                .filter(|key| *key == "hostUsers" || present(spec, key) == Some(&Value::Bool(true)))
                .collect();
            forbid(spec, &set, path.clone(), detail, errors);
            each_context(
                spec,
                path,
                errors,
                |context, at, errors| forbid(context, POD_CONTEXT, at, detail, errors),
                |context, at, errors| forbid(context, CONTAINER_CONTEXT, at, detail, errors),
            );
        }
        "" => errors.push(field::required(at.child("name"), "cannot be empty")),
        other => errors.push(field::not_supported(at, other, &["linux", "windows"])),
    }
}

fn forbid(object: &Value, keys: &[&str], path: FieldPath, detail: &str, errors: &mut Vec<FieldError>) {
    let set = keys.iter().filter(|key| present(object, key).is_some());
    errors.extend(set.map(|key| field::forbidden(path.child(key), detail)));
}

/// The security context of the pod, then of each container.
fn each_context(
    spec: &Value,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
    of_pod: impl Fn(&Value, FieldPath, &mut Vec<FieldError>),
    of_container: impl Fn(&Value, FieldPath, &mut Vec<FieldError>),
) {
    if let Some(context) = present(spec, "securityContext") {
        of_pod(context, path.child("securityContext"), errors);
    }
    for list in CONTAINER_LISTS {
        for (index, container) in items(spec, list).iter().enumerate() {
            if let Some(context) = present(container, "securityContext") {
                of_container(context, path.child(list).index(index).child("securityContext"), errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_system_has_its_fields() {
        let spec = |system: &str| {
            json!({"os": {"name": system}, "hostPID": true, "hostIPC": false,
                "securityContext": {"runAsUser": 1, "windowsOptions": {}},
                "containers": [{"securityContext": {"privileged": true, "windowsOptions": {}}}]})
        };
        let said = |system: &str| {
            let mut errors = Vec::new();
            validate(&spec(system), &FieldPath::new("spec"), &mut errors);
            errors.iter().map(|error| format!("{}: {}", error.path, error.body())).collect::<Vec<_>>()
        };
        assert_eq!(
            said("linux"),
            [
                "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            ]
        );
        assert_eq!(
            said("windows"),
            [
                "spec.hostPID: Forbidden: cannot be set for a windows pod",
                "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ]
        );
        assert_eq!(
            said("plan9"),
            ["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""]
        );
    }
}
