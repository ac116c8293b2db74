//! Containers of pods: everything wrong with one, and with a list of them.

use serde_json::Value;

use super::access::{integer, items, present, text};
use super::probe::{self, ProbeKind};
use super::{resources, security_context};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// Which list of a pod's spec a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs with the others.
    Main,
    /// Runs before them.
    Init,
    /// Was put into a running pod.
    Ephemeral,
}

/// What containers of a pod may refer to.
pub struct Surroundings<'a> {
    /// Names of the pod's volumes.
    pub volumes: &'a [&'a str],
    /// The pod's `hostNetwork`.
    pub host_network: bool,
}

/// Everything wrong with a list of containers. `taken` are the names in use, and takes up the list's own.
pub fn validate_all<'a>(
    containers: &'a [Value],
    role: Role,
    surroundings: &Surroundings<'_>,
    taken: &mut Vec<&'a str>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if containers.is_empty() && role == Role::Main {
        errors.push(field::required(path, ""));
    }
    // Ephemeral containers aim at the others, not at one another.
    let application: Vec<&str> = taken.clone();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index);
        let name = text(container, "name");
        if name.is_empty() {
            errors.push(field::required(at.child("name"), ""));
        } else {
            for problem in names::dns1123_label(name) {
                errors.push(field::invalid(at.child("name"), name, problem));
            }
            if taken.contains(&name) {
                errors.push(field::duplicate(at.child("name"), name));
            }
            taken.push(name);
        }
        validate(container, role, surroundings, &at, errors);
        if role == Role::Ephemeral {
            ephemeral(container, &application, &at, errors);
        }
    }
    if role != Role::Ephemeral {
        host_ports(containers, path, errors);
    }
}

/// What an ephemeral container may not have, besides what no init container may have either.
fn ephemeral(container: &Value, application: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let target = text(container, "targetContainerName");
    if !target.is_empty() && !application.contains(&target) {
        errors.push(field::not_found(path.child("targetContainerName"), target));
    }
    let mut forbid = |at: FieldPath| errors.push(field::forbidden(at, NOT_EPHEMERAL));
    for name in ["ports", "resources", "resizePolicy"] {
        if !super::access::same(container.get(name), None) {
            forbid(path.child(name));
        }
    }
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        for name in ["subPath", "subPathExpr"] {
            if !text(mount, name).is_empty() {
                forbid(path.child("volumeMounts").index(index).child(name));
            }
        }
    }
}

/// No two containers take the same port of the host.
fn host_ports(containers: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut taken: Vec<(&str, &str, i64)> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in items(container, "ports").iter().enumerate() {
            let number = integer(port, "hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = (text(port, "protocol"), text(port, "hostIP"), number);
            if taken.contains(&key) {
                let at = path.index(index).child("ports").index(port_index).child("hostPort");
                let shown = format!("{}/{}/{number}", key.0, key.1);
                errors.push(field::duplicate(at, shown));
            }
            taken.push(key);
        }
    }
}

fn validate(
    container: &Value,
    role: Role,
    surroundings: &Surroundings<'_>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(field::required(path.child("image"), ""));
    } else if image.trim() != image {
        errors.push(field::invalid(
            path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    let sidecar = role == Role::Init && text(container, "restartPolicy") == "Always";
    restart_policy(container, role, path, errors);
    if role == Role::Main || sidecar {
        for (name, kind) in PROBES {
            if let Some(found) = present(container, name) {
                probe::validate_probe(found, *kind, &path.child(name), errors);
            }
        }
        if let Some(lifecycle) = present(container, "lifecycle") {
            for name in ["postStart", "preStop"] {
                if let Some(handler) = present(lifecycle, name) {
                    let at = path.child("lifecycle").child(name);
                    probe::validate_handler(handler, &at, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
                }
            }
        }
    } else {
        not_for_others(container, role, path, errors);
    }
    match text(container, "terminationMessagePolicy") {
        "File" | "FallbackToLogsOnError" => {}
        "" => errors.push(field::required(path.child("terminationMessagePolicy"), "")),
        other => errors.push(field::not_supported(
            path.child("terminationMessagePolicy"),
            other,
            &["FallbackToLogsOnError", "File"],
        )),
    }
    match text(container, "imagePullPolicy") {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => errors.push(field::required(path.child("imagePullPolicy"), "")),
        other => errors.push(field::not_supported(
            path.child("imagePullPolicy"),
            other,
            &["Always", "IfNotPresent", "Never"],
        )),
    }
    ports(container, surroundings, &path.child("ports"), errors);
    environment(container, path, errors);
    mounts(container, surroundings, &path.child("volumeMounts"), errors);
    if let Some(wanted) = present(container, "resources") {
        resources::validate(wanted, &path.child("resources"), errors);
    }
    security_context::validate_container(container, path, errors);
}

const PROBES: &[(&str, ProbeKind)] = &[
    ("livenessProbe", ProbeKind::Liveness),
    ("readinessProbe", ProbeKind::Readiness),
    ("startupProbe", ProbeKind::Startup),
];

fn restart_policy(container: &Value, role: Role, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("restartPolicy");
    match (role, text(container, "restartPolicy")) {
        (_, "") | (Role::Init, "Always") => {}
        (Role::Init, other) => errors.push(field::not_supported(at, other, &["Always"])),
        (Role::Main, _) => errors.push(field::forbidden(at, "may not be set for non-init containers")),
        (Role::Ephemeral, _) => errors.push(field::forbidden(at, NOT_EPHEMERAL)),
    }
}

fn not_for_others(container: &Value, role: Role, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let reason = match role {
        Role::Ephemeral => NOT_EPHEMERAL,
        _ => "may not be set for init containers without restartPolicy=Always",
    };
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if present(container, name).is_some() {
            errors.push(field::forbidden(path.child(name), reason));
        }
    }
}

fn ports(container: &Value, surroundings: &Surroundings<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut taken: Vec<&str> = Vec::new();
    for (index, port) in items(container, "ports").iter().enumerate() {
        let at = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            for problem in names::port_name(name) {
                errors.push(field::invalid(at.child("name"), name, problem));
            }
            if taken.contains(&name) {
                errors.push(field::duplicate(at.child("name"), name));
            }
            taken.push(name);
        }
        let number = integer(port, "containerPort").unwrap_or(0);
        if number == 0 {
            errors.push(field::required(at.child("containerPort"), ""));
        } else {
            for problem in names::port_number(number) {
                errors.push(field::invalid(at.child("containerPort"), number, problem));
            }
        }
        let host = integer(port, "hostPort").unwrap_or(0);
        if host != 0 {
            for problem in names::port_number(host) {
                errors.push(field::invalid(at.child("hostPort"), host, problem));
            }
            if surroundings.host_network && host != number {
                errors.push(field::invalid(
                    at.child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
        match text(port, "protocol") {
            "TCP" | "UDP" | "SCTP" => {}
            "" => errors.push(field::required(at.child("protocol"), "")),
            other => errors.push(field::not_supported(at.child("protocol"), other, &["SCTP", "TCP", "UDP"])),
        }
    }
}

fn environment(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, variable) in items(container, "env").iter().enumerate() {
        let at = path.child("env").index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(field::required(at.child("name"), ""));
        } else {
            for problem in names::environment_variable_name(name) {
                errors.push(field::invalid(at.child("name"), name, problem));
            }
        }
        if let Some(source) = present(variable, "valueFrom") {
            value_from(source, !text(variable, "value").is_empty(), &at.child("valueFrom"), errors);
        }
    }
    for (index, source) in items(container, "envFrom").iter().enumerate() {
        let at = path.child("envFrom").index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            for problem in names::environment_variable_name(prefix) {
                errors.push(field::invalid(at.child("prefix"), prefix, problem));
            }
        }
        let mut found = 0;
        for name in ["configMapRef", "secretRef"] {
            if let Some(reference) = present(source, name) {
                found += 1;
                reference_name(reference, &at.child(name), errors);
            }
        }
        if found == 0 {
            errors.push(field::invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if found > 1 {
            errors.push(field::invalid(&at, "", "may not have more than one field specified at a time"));
        }
    }
}

fn reference_name(reference: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let name = text(reference, "name");
    if name.is_empty() {
        errors.push(field::required(path.child("name"), ""));
    } else {
        for problem in names::dns1123_subdomain(name) {
            errors.push(field::invalid(path.child("name"), name, problem));
        }
    }
}

fn value_from(source: &Value, has_value: bool, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut found = 0;
    if let Some(reference) = present(source, "fieldRef") {
        found += 1;
        field_reference(reference, ENVIRONMENT_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(reference) = present(source, "resourceFieldRef") {
        found += 1;
        resource_reference(reference, false, &path.child("resourceFieldRef"), errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = present(source, name) else { continue };
        found += 1;
        let at = path.child(name);
        if text(reference, "name").is_empty() {
            errors.push(field::required(at.child("name"), ""));
        }
        let key = text(reference, "key");
        if key.is_empty() {
            errors.push(field::required(at.child("key"), ""));
        } else {
            for problem in names::config_map_key(key) {
                errors.push(field::invalid(at.child("key"), key, problem));
            }
        }
    }
    if found == 0 {
        errors.push(field::invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if has_value {
        errors.push(field::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if found > 1 {
        errors.push(field::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields that files of a downward volume may show.
pub const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The fields that a reference can name at all; each place takes some of them.
const POD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// A reference to a field of the pod.
pub fn field_reference(reference: &Value, allowed: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let api_version = text(reference, "apiVersion");
    if api_version.is_empty() {
        errors.push(field::required(path.child("apiVersion"), ""));
        return;
    }
    let wanted = text(reference, "fieldPath");
    if wanted.is_empty() {
        errors.push(field::required(path.child("fieldPath"), ""));
        return;
    }
    let at = path.child("fieldPath");
    if let Some((map, subscript)) =
        wanted.split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)))
    {
        match map {
            "metadata.annotations" => {
                for problem in names::qualified_name(&subscript.to_lowercase()) {
                    errors.push(field::invalid(&at, wanted, problem));
                }
            }
            "metadata.labels" => {
                for problem in names::qualified_name(subscript) {
                    errors.push(field::invalid(&at, wanted, problem));
                }
            }
            _ => errors.push(field::invalid(&at, wanted, "does not support subscript")),
        }
    } else if !POD_FIELDS.contains(&wanted) {
        let problem = format!("error converting fieldPath: field label not supported: {wanted}");
        errors.push(field::invalid(&at, wanted, problem));
    } else if !allowed.contains(&wanted) {
        errors.push(field::not_supported(&at, wanted, allowed));
    }
}

/// A reference to a container's resource.
pub fn resource_reference(
    reference: &Value,
    in_volume: bool,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if in_volume && text(reference, "containerName").is_empty() {
        errors.push(field::required(path.child("containerName"), ""));
    }
    let resource = text(reference, "resource");
    let known = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if resource.is_empty() {
        errors.push(field::required(path.child("resource"), ""));
    } else if !known.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        errors.push(field::not_supported(path.child("resource"), resource, &known));
    }
}

fn mounts(
    container: &Value,
    surroundings: &Surroundings<'_>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let mut taken: Vec<&str> = Vec::new();
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        let at = path.index(index);
        let name = text(mount, "name");
        if name.is_empty() {
            errors.push(field::required(at.child("name"), ""));
        } else if !surroundings.volumes.contains(&name) {
            errors.push(field::not_found(at.child("name"), name));
        }
        let target = text(mount, "mountPath");
        if target.is_empty() {
            errors.push(field::required(at.child("mountPath"), ""));
        } else if taken.contains(&target) {
            errors.push(field::invalid(at.child("mountPath"), target, "must be unique"));
        }
        taken.push(target);
        let (sub_path, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        for (name, value) in [("subPath", sub_path), ("subPathExpr", expression)] {
            local_descending_path(value, &at.child(name), errors);
        }
        if !sub_path.is_empty() && !expression.is_empty() {
            errors.push(field::invalid(
                at.child("subPathExpr"),
                expression,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        propagation(mount, container, &at, errors);
    }
}

fn propagation(mount: &Value, container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("mountPropagation");
    match text(mount, "mountPropagation") {
        "" | "HostToContainer" | "None" => {}
        "Bidirectional" => {
            let context = present(container, "securityContext");
            if !context.is_some_and(|context| super::access::boolean(context, "privileged")) {
                errors.push(field::forbidden(
                    at,
                    "Bidirectional mount propagation is available only to privileged containers",
                ));
            }
        }
        other => {
            errors.push(field::not_supported(at, other, &["Bidirectional", "HostToContainer", "None"]));
        }
    }
}

/// A path inside something: relative, without `..`.
pub fn local_descending_path(value: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if value.starts_with('/') {
        errors.push(field::invalid(path, value, "must be a relative path"));
    }
    local_non_reserved(value, path, errors);
}

/// A path without `..`.
pub fn local_non_reserved(value: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if value.split('/').any(|segment| segment == "..") {
        errors.push(field::invalid(path, value, "must not contain '..'"));
    }
}
