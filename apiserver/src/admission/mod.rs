//! Policy on writes: a fixed chain of plugins, mutating ones first, each in a file of its own. Which ones run follows from the flags.

mod always;
mod always_pull_images;
mod anti_affinity_topology;
mod certificates;
mod claim_resize;
mod configuration;
mod default_class;
mod default_tolerations;
mod extended_resources;
mod external_addresses;
mod limit_ranger;
pub mod matching;
mod namespace_existence;
mod namespace_lifecycle;
mod node_restriction;
mod owner_references;
mod pod_node_selector;
mod pod_security;
mod pod_tolerations;
mod pod_topology_labels;
pub mod policy;
mod priority;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod seen;
mod service_account;
mod storage_protection;
mod taint_nodes;
mod webhook;

use std::sync::Arc;

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::authz::Authorizer;
use crate::extension::client::Clients;
use crate::options::Options;
use crate::registry::{Admission, Registry, meta};
use crate::server::request_info::{RequestInfo, Verb};
use configuration::Configuration;
use policy::mutating::{self, MutatingPolicies};
use policy::validating::ValidatingPolicies;
use reinvocation::Reinvocation;
use webhook::Webhooks;

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

/// The name of what calls webhooks that change objects. It is no [`Plugin`]: what it changes goes through all of them once more.
const MUTATING_WEBHOOKS: &str = "MutatingAdmissionWebhook";

/// The chain.
pub struct Chain {
    registry: Arc<Registry>,
    plugins: Vec<Box<dyn Plugin>>,
    /// Behind all plugins that change objects.
    policies: Option<MutatingPolicies>,
    /// Behind the policies.
    webhooks: Option<Webhooks>,
}

/// ValidatingAdmissionWebhook: asks those whom ValidatingWebhookConfigurations name.
struct ValidatingWebhooks(Webhooks);

impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.0.validate(request, object, old))
    }
}

impl Chain {
    /// The plugins that the flags, which have been checked, ask for.
    ///
    /// # Errors
    /// The configuration file or the feature gates make no sense.
    pub fn new(
        registry: Arc<Registry>,
        authorizer: &Arc<Authorizer>,
        options: &Options,
        clients: Arc<Clients>,
    ) -> Result<Arc<Self>, String> {
        let configuration = Configuration::load(options.admission_control_config_file.as_deref())?;
        let validating =
            Webhooks::validating(Arc::clone(&registry), Arc::clone(&clients), Arc::clone(authorizer));
        let gates = options.gates()?;
        // In upstream's order.
        let all: Vec<(bool, Box<dyn Plugin>)> = vec![
            (false, Box::new(always::AlwaysAdmit)),
            (false, Box::new(namespace_existence::NamespaceAutoProvision(Arc::clone(&registry)))),
            (true, Box::new(namespace_lifecycle::NamespaceLifecycle)),
            (false, Box::new(namespace_existence::NamespaceExists)),
            (false, Box::new(anti_affinity_topology::LimitPodHardAntiAffinityTopology)),
            (true, Box::new(service_account::ServiceAccount)),
            (true, Box::new(taint_nodes::TaintNodesByCondition)),
            (false, Box::new(always_pull_images::AlwaysPullImages)),
            (
                false,
                Box::new(pod_node_selector::PodNodeSelector::new(configuration.of(pod_node_selector::NAME))?),
            ),
            (true, Box::new(priority::Priority)),
            (true, Box::new(limit_ranger::LimitRanger)),
            (true, Box::new(default_tolerations::DefaultTolerationSeconds::new(options))),
            (
                false,
                Box::new(pod_tolerations::PodTolerationRestriction::new(
                    configuration.of(pod_tolerations::NAME),
                )?),
            ),
            (false, Box::new(extended_resources::ExtendedResourceToleration)),
            (true, Box::new(pod_security::PodSecurity::new(configuration.of("PodSecurity"))?)),
            (true, Box::new(default_class::DefaultStorageClass)),
            (true, Box::new(default_class::DefaultIngressClass)),
            (true, Box::new(runtime_class::RuntimeClass)),
            (true, Box::new(storage_protection::StorageObjectInUseProtection)),
            (true, Box::new(claim_resize::PersistentVolumeClaimResize)),
            (true, Box::new(certificates::CertificateApproval(Arc::clone(authorizer)))),
            (true, Box::new(certificates::CertificateSigning(Arc::clone(authorizer)))),
            (true, Box::new(certificates::CertificateSubjectRestriction)),
            (false, Box::new(node_restriction::NodeRestriction)),
            (false, Box::new(owner_references::OwnerReferencesPermissionEnforcement(Arc::clone(authorizer)))),
            (true, Box::new(pod_topology_labels::PodTopologyLabels::new(&gates))),
            (false, Box::new(external_addresses::DenyServiceExternalIPs)),
            (true, Box::new(ValidatingPolicies::new(Arc::clone(authorizer)))),
            (true, Box::new(ValidatingWebhooks(validating))),
            // Last: what another plugin refuses is not charged.
            (true, Box::new(resource_quota::ResourceQuota::new())),
            (false, Box::new(always::AlwaysDeny)),
        ];
        let plugins = all
            .into_iter()
            .filter(|(by_default, plugin)| options.runs_plugin(plugin.name(), *by_default))
            .map(|(_, plugin)| plugin)
            .collect();
        let policies = (options.runs_plugin(mutating::NAME, true)
            && gates.is_on(mutating::NAME)
            && registry.cache.serves("admissionregistration.k8s.io", mutating::VERSION))
        .then(|| MutatingPolicies::new(Arc::clone(&registry), Arc::clone(authorizer)));
        let webhooks = options
            .runs_plugin(MUTATING_WEBHOOKS, true)
            .then(|| Webhooks::mutating(Arc::clone(&registry), clients, Arc::clone(authorizer)));
        Ok(Arc::new(Self { registry, plugins, policies, webhooks }))
    }

    async fn mutate_by_plugins(
        &self,
        request: &RequestInfo,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            plugin.mutate(&self.registry, request, object, old).await?;
        }
        Ok(())
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
            let (mut of_policies, mut of_webhooks) = (Reinvocation::default(), Reinvocation::default());
            for is_second in [false, true] {
                self.mutate_by_plugins(request, object, old).await?;
                if let Some(policies) = &self.policies {
                    policies.mutate(request, object, old, &mut of_policies, is_second).await?;
                }
                if let Some(webhooks) = &self.webhooks {
                    webhooks.mutate(request, object, old, &mut of_webhooks, is_second).await?;
                }
                if !of_policies.is_needed() && !of_webhooks.is_needed() {
                    break;
                }
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
            if let (None, Some(webhooks)) = (object, &self.webhooks) {
                webhooks.mutate_deletion(request, old).await?;
            }
            for plugin in &self.plugins {
                plugin.validate(&self.registry, request, object, old).await?;
            }
            Ok(())
        })
    }
}

/// 403 about the object of a request.
fn refusal(request: &RequestInfo, object: Option<&Value>, text: &str) -> ApiError {
    let name = object.map_or_else(|| request.name(), |object| meta::text(object, "name"));
    ApiError::forbidden(request.resource.group_resource(), name, text)
}

/// Whether the request is about this resource of the core group, and not about a part of it.
fn is_core(request: &RequestInfo, plural: &str) -> bool {
    request.resource.group.is_empty() && request.resource.plural == plural && request.subresource.is_none()
}

/// Whether the request gives a pod's containers other resources.
fn resizes_pod(request: &RequestInfo) -> bool {
    request.resource.group.is_empty()
        && request.resource.plural == "pods"
        && request.subresource() == Some("resize")
}

/// Whether the request makes a pod.
fn creates_pod(request: &RequestInfo, old: Option<&Value>) -> bool {
    is_core(request, "pods")
        && old.is_none()
        && matches!(request.verb, Verb::Create | Verb::Update | Verb::Patch)
}
