//! Policy on writes: a fixed chain of plugins, mutating ones first, each in a file of its own. Which ones run follows from the flags.

mod default_class;
mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod quota_usage;
mod resource_quota;
mod runtime_class;
mod service_account;
mod taint_nodes;

use std::sync::Arc;

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::options::Options;
use crate::registry::{Admission, Registry};
use crate::server::request_info::{RequestInfo, Verb};

/// One policy. Both calls default to letting pass.
trait Plugin: Send + Sync {
    /// Its name in the flags.
    fn name(&self) -> &'static str;

    /// May change the object.
    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        _request: &'a RequestInfo,
        _object: &'a mut Value,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// May refuse the request. `object` is absent for deletions.
    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        _request: &'a RequestInfo,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Plugins that upstream runs by default and that are not here yet: what they guard is not guarded.
const DEFAULT_BUT_MISSING: &[&str] = &[
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "PersistentVolumeClaimResize",
    "StorageObjectInUseProtection",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// The chain.
pub struct Chain {
    registry: Arc<Registry>,
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// The default plugins with those of the flags added and removed.
    ///
    /// # Errors
    /// A flag names a plugin that is not here.
    pub fn new(registry: Arc<Registry>, options: &Options) -> Result<Arc<Self>, String> {
        let all: Vec<(bool, Box<dyn Plugin>)> = vec![
            (true, Box::new(namespace_lifecycle::NamespaceLifecycle)),
            (true, Box::new(service_account::ServiceAccount)),
            (true, Box::new(taint_nodes::TaintNodesByCondition)),
            (true, Box::new(priority::Priority)),
            (true, Box::new(limit_ranger::LimitRanger)),
            (true, Box::new(default_tolerations::DefaultTolerationSeconds)),
            (true, Box::new(pod_security::PodSecurity)),
            (true, Box::new(default_class::DefaultStorageClass)),
            (true, Box::new(default_class::DefaultIngressClass)),
            (true, Box::new(runtime_class::RuntimeClass)),
            (false, Box::new(node_restriction::NodeRestriction)),
            // Last: what another plugin refuses is not charged.
            (true, Box::new(resource_quota::ResourceQuota::new())),
        ];
        for (flag, names) in [
            ("--enable-admission-plugins", &options.enable_admission_plugins),
            ("--disable-admission-plugins", &options.disable_admission_plugins),
        ] {
            let known = |name: &str| all.iter().any(|(_, plugin)| plugin.name() == name);
            // Leaving out what is not there anyway needs no complaint.
            let acceptable = |name: &str| {
                known(name) || (flag.starts_with("--disable") && DEFAULT_BUT_MISSING.contains(&name))
            };
            if let Some(name) = names.iter().find(|name| !name.is_empty() && !acceptable(name)) {
                let known: Vec<&str> = all.iter().map(|(_, plugin)| plugin.name()).collect();
                return Err(format!(
                    "{flag}: {name} is not implemented by Coracle yet; there are {}",
                    known.join(", ")
                ));
            }
        }
        let named = |list: &[String], name: &str| list.iter().any(|n| n == name);
        let plugins = all
            .into_iter()
            .filter(|(by_default, plugin)| {
                (*by_default || named(&options.enable_admission_plugins, plugin.name()))
                    && !named(&options.disable_admission_plugins, plugin.name())
            })
            .map(|(_, plugin)| plugin)
            .collect();
        tracing::warn!(
            plugins = DEFAULT_BUT_MISSING.join(","),
            "admission plugins that upstream runs by default and that are not here yet"
        );
        Ok(Arc::new(Self { registry, plugins }))
    }
}

impl Admission for Chain {
    fn mutate<'a>(
        &'a self,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            for plugin in &self.plugins {
                plugin.mutate(&self.registry, request, object, old).await?;
            }
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            for plugin in &self.plugins {
                plugin.validate(&self.registry, request, object, old).await?;
            }
            Ok(())
        })
    }
}

/// Whether the request is about this resource of the core group, and not about a part of it.
fn is_core(request: &RequestInfo, plural: &str) -> bool {
    request.resource.group.is_empty() && request.resource.plural == plural && request.subresource.is_none()
}

/// Whether the request makes a pod.
fn creates_pod(request: &RequestInfo, old: Option<&Value>) -> bool {
    is_core(request, "pods")
        && old.is_none()
        && matches!(request.verb, Verb::Create | Verb::Update | Verb::Patch)
}
