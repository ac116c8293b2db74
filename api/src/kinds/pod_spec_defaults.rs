//! Upstream's defaults of a pod's spec, in pods and in templates of pods.

use serde_json::{Value, json};

use super::access::{
    boolean, default_number, default_text, default_to, drop_nulls, each_mut, integer, items, map, present,
    set, struct_mut, text,
};
use super::{probe, volume};

/// The three lists of containers.
pub const CONTAINER_LISTS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a `PodSpec`, wherever it stands.
pub fn default_pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    drop_nulls(spec);
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "schedulerName", "default-scheduler");
    account(spec);
    each_mut(spec, "volumes", volume::default);
    for list in CONTAINER_LISTS {
        each_mut(spec, list, default_container);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
fn account(spec: &mut Value) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !name.is_empty() {
        set(spec, "serviceAccountName", name.as_str());
        set(spec, "serviceAccount", name);
    }
}

fn default_container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    let policy = pull_policy(text(container, "image"));
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    each_mut(container, "ports", |port| default_text(port, "protocol", "TCP"));
    each_mut(container, "env", |variable| {
        let Some(source) = variable.get_mut("valueFrom") else { return };
        if let Some(reference) = source.get_mut("fieldRef") {
            default_text(reference, "apiVersion", "v1");
        }
        if let Some(reference) = source.get_mut("resourceFieldRef") {
            default_to(reference, "divisor", "0");
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(name) {
            probe::default_probe(found);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(name) {
                probe::default_handler(handler);
            }
        }
    }
}

/// `Always` for the tag `latest`, said or implied; `IfNotPresent` for any other tag and for digests.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':').map(|(_, tag)| tag), digest) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// What only pods themselves get, not templates: requests out of limits, host ports, service links.
pub fn default_pod_only(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default_to(spec, "enableServiceLinks", true);
    let host_network = boolean(spec, "hostNetwork");
    for list in ["initContainers", "containers"] {
        each_mut(spec, list, |container| {
            requests_from_limits(container);
            if host_network {
                each_mut(container, "ports", |port| {
                    let number = integer(port, "containerPort").unwrap_or(0);
                    default_number(port, "hostPort", number);
                });
            }
        });
    }
    if host_network {
        default_to(spec, "hostNetwork", true);
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else { return };
    let limits = map(resources, "limits").filter(|limits| !limits.is_empty()).cloned();
    let Some(limits) = limits else { return };
    let Some(requests) = struct_mut(resources, "requests") else { return };
    for (name, limit) in limits {
        default_to(requests, &name, limit);
    }
}

/// Defaults of a `PodTemplateSpec` at `template` of a controller's spec.
pub fn default_template(spec: &mut Value) {
    let Some(template) = struct_mut(spec, "template") else { return };
    drop_nulls(template);
    default_to(template, "metadata", json!({}));
    if let Some(pod) = struct_mut(template, "spec") {
        default_pod_spec(pod);
    }
}

/// Every container of a spec that is to run: the name of its list, and itself.
pub fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    CONTAINER_LISTS.iter().flat_map(move |list| items(spec, list).iter().map(move |item| (*list, item)))
}

/// Whether an init container goes on running beside the others.
pub fn is_sidecar(container: &Value) -> bool {
    present(container, "restartPolicy").and_then(Value::as_str) == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:v1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
