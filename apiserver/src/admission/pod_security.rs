//! PodSecurity: pods are held against the standards that their namespace's labels name, or the configuration where they name none. What makes pods is only
//! warned about.

use std::collections::BTreeMap;

use coracle_api::kinds::access::text;
use coracle_api::meta;
use coracle_api::pod_security::{Level, Standard, Version, violations};
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::matching::namespace;
use super::{Plugin, creates_pod};
use crate::registry::{Registry, meta as object_meta};
use crate::server::request_info::RequestInfo;

const LABELS: &str = "pod-security.kubernetes.io/";

/// What is said where labels say nothing, and what is not held against anything.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// `enforce`, `enforce-version` and so on.
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
    namespaces: Vec<String>,
}

pub(super) struct PodSecurity(File);

impl PodSecurity {
    /// With what an AdmissionConfiguration says.
    ///
    /// # Errors
    /// It makes no sense.
    pub(super) fn new(configuration: Option<&Value>) -> Result<Self, String> {
        let Some(configuration) = configuration else { return Ok(Self(File::default())) };
        let file: File =
            serde_json::from_value(configuration.clone()).map_err(|error| format!("PodSecurity: {error}"))?;
        let versions = ["v1", "v1beta1", "v1alpha1"]
            .map(|version| format!("pod-security.admission.config.k8s.io/{version}"));
        if !versions.contains(&file.api_version) || file.kind != "PodSecurityConfiguration" {
            return Err("PodSecurity: it has to be a PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1".to_owned());
        }
        for (key, value) in &file.defaults {
            let (mode, good) = match key.strip_suffix("-version") {
                Some(mode) => (mode, Version::parse(value).is_some()),
                None => (key.as_str(), Level::parse(value).is_some()),
            };
            if !good || !["enforce", "audit", "warn"].contains(&mode) {
                return Err(format!("PodSecurity: defaults.{key}: Invalid value: {value:?}"));
            }
        }
        Ok(Self(file))
    }

    fn exempts(&self, request: &RequestInfo, pod: &Value) -> bool {
        let Exemptions { usernames, runtime_classes, namespaces } = &self.0.exemptions;
        let class = text(&pod["spec"], "runtimeClassName");
        namespaces.iter().any(|name| name == request.namespace())
            || usernames.contains(&request.user.name)
            || (!class.is_empty() && runtime_classes.iter().any(|name| name == class))
    }

    async fn check(
        &self,
        registry: &Registry,
        request: &RequestInfo,
        pod: &Value,
        enforced: bool,
    ) -> Result<(), ApiError> {
        if self.exempts(request, pod) {
            return Ok(());
        }
        let namespace = namespace(registry, request.namespace()).await?;
        check(&namespace, &self.0.defaults, request, pod, enforced)
    }
}

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
                return self.check(registry, request, object, true).await;
            }
            // Changes of templates are looked at again; statuses are not.
            match template(request, object) {
                Some(template) if request.subresource.is_none() => {
                    self.check(registry, request, template, false).await
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

/// What a namespace asks for in one mode. A label that cannot be read asks for the strictest.
fn standard(namespace: &Value, defaults: &BTreeMap<String, String>, mode: &str) -> Standard {
    let label = |name: &str| {
        let given =
            meta::labels(namespace).and_then(|labels| labels.get(&format!("{LABELS}{name}"))?.as_str());
        given.or_else(|| defaults.get(name).map(String::as_str))
    };
    let (level, version) = (label(mode), label(&format!("{mode}-version")));
    Standard {
        level: level.map_or(Level::Privileged, |text| Level::parse(text).unwrap_or(Level::Restricted)),
        version: version.map_or(Version::Latest, |text| Version::parse(text).unwrap_or(Version::Latest)),
    }
}

fn check(
    namespace: &Value,
    defaults: &BTreeMap<String, String>,
    request: &RequestInfo,
    pod: &Value,
    enforced: bool,
) -> Result<(), ApiError> {
    let against = |mode| {
        let standard = standard(namespace, defaults, mode);
        violations(standard, &pod["metadata"], &pod["spec"]).map(|found| (standard, found))
    };
    if enforced {
        let policy = standard(namespace, defaults, "enforce").to_string();
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
    use crate::server::request_info::Verb;
    use coracle_api::resource;
    use serde_json::json;

    #[test]
    fn labels_name_level_and_version_and_nonsense_is_strict() {
        let namespace = json!({"metadata": {"labels": {
            "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.25",
            "pod-security.kubernetes.io/warn": "nonsense"}}});
        let none = BTreeMap::new();
        assert_eq!(standard(&namespace, &none, "enforce").to_string(), "baseline:v1.25");
        assert_eq!(standard(&namespace, &none, "warn").to_string(), "restricted:latest");
        assert_eq!(standard(&namespace, &none, "audit").to_string(), "privileged:latest");
    }

    #[test]
    fn a_configuration_speaks_where_labels_do_not_and_exempts() {
        let configuration = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
            "exemptions": {"namespaces": ["kube-system"], "runtimeClasses": ["vm"]}});
        let plugin = PodSecurity::new(Some(&configuration)).expect("makes sense");
        let named = standard(&json!({}), &plugin.0.defaults, "enforce");
        assert_eq!(named.to_string(), "baseline:v1.30");
        let row = resource::lookup("", "v1", "pods").expect("pods");
        let request = |namespace| RequestInfo::internal(Verb::Create, row, Some(namespace), None);
        assert!(plugin.exempts(&request("kube-system"), &json!({})));
        assert!(plugin.exempts(&request("a"), &json!({"spec": {"runtimeClassName": "vm"}})));
        assert!(!plugin.exempts(&request("a"), &json!({"spec": {}})));
        let mut wrong = configuration;
        wrong["defaults"]["enforce"] = "some".into();
        assert!(PodSecurity::new(Some(&wrong)).is_err());
    }
}
