//! PodSecurity: pods are held against the standards that their namespace's labels name. What makes pods is only warned about.

use coracle_api::meta;
use coracle_api::pod_security::{Level, Standard, Version, violations};
use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, creates_pod};
use crate::registry::{Registry, meta as object_meta};
use crate::server::request_info::RequestInfo;

const LABELS: &str = "pod-security.kubernetes.io/";

pub(super) struct PodSecurity;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(object) = object else { return Ok(()) };
            if is_new_ephemeral(request) || creates_pod(request, old) {
                let namespace = namespace(registry, request.namespace()).await?;
                return check(&namespace, request, object, true);
            }
            // Changes of templates are looked at again; statuses are not.
            match template(request, object) {
                Some(template) if request.subresource.is_none() => {
                    check(&namespace(registry, request.namespace()).await?, request, template, false)
                }
                _ => Ok(()),
            }
        })
    }
}

fn is_new_ephemeral(request: &RequestInfo) -> bool {
    request.resource.group.is_empty()
        && request.resource.plural == "pods"
        && request.subresource() == Some("ephemeralcontainers")
}

/// The template of pods in what makes pods.
fn template<'a>(request: &RequestInfo, object: &'a Value) -> Option<&'a Value> {
    let pointer = match (request.resource.group, request.resource.plural) {
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        ("", "podtemplates") => "/template",
        _ => return None,
    };
    object.pointer(pointer)
}

async fn namespace(registry: &Registry, name: &str) -> Result<Value, ApiError> {
    let namespaces =
        resource::lookup("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
    registry.known(namespaces, "", name).await
}

/// What a namespace asks for in one mode. A label that cannot be read asks for the strictest.
fn standard(namespace: &Value, mode: &str) -> Standard {
    let label = |name: String| meta::labels(namespace).and_then(|labels| labels.get(&name)?.as_str());
    let level = label(format!("{LABELS}{mode}"));
    let version = label(format!("{LABELS}{mode}-version"));
    Standard {
        level: level.map_or(Level::Privileged, |text| Level::parse(text).unwrap_or(Level::Restricted)),
        version: version.map_or(Version::Latest, |text| Version::parse(text).unwrap_or(Version::Latest)),
    }
}

fn check(namespace: &Value, request: &RequestInfo, pod: &Value, enforced: bool) -> Result<(), ApiError> {
    let against = |mode| {
        let standard = standard(namespace, mode);
        violations(standard, &pod["metadata"], &pod["spec"]).map(|found| (standard, found))
    };
    if enforced {
        let policy = standard(namespace, "enforce").to_string();
        request.audit.annotate("pod-security.kubernetes.io/enforce-policy", policy);
    }
    if enforced && let Some((standard, found)) = against("enforce") {
        let name = object_meta::text(pod, "name");
        let text = format!("violates PodSecurity \"{standard}\": {found}");
        return Err(ApiError::forbidden(request.resource.group_resource(), name, text));
    }
    if let Some((standard, found)) = against("warn") {
        request.warnings.add(format!("would violate PodSecurity \"{standard}\": {found}"));
    }
    if let Some((standard, found)) = against("audit") {
        let text = format!("would violate PodSecurity \"{standard}\": {found}");
        request.audit.annotate("pod-security.kubernetes.io/audit-violations", text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_name_level_and_version_and_nonsense_is_strict() {
        let namespace = json!({"metadata": {"labels": {
            "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.25",
            "pod-security.kubernetes.io/warn": "nonsense"}}});
        assert_eq!(standard(&namespace, "enforce").to_string(), "baseline:v1.25");
        assert_eq!(standard(&namespace, "warn").to_string(), "restricted:latest");
        assert_eq!(standard(&namespace, "audit").to_string(), "privileged:latest");
    }
}
