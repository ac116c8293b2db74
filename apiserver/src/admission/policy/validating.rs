//! ValidatingAdmissionPolicy: what policies say of a write.

use std::sync::Arc;

use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::matter::Binding;
use super::selection::{By, Policies};
use super::validation::{Decision, Policy};
use crate::admission::Plugin;
use crate::admission::matching::{Attributes, view::View};
use crate::authz::Authorizer;
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

/// The policies in force.
pub struct ValidatingPolicies {
    authorizer: Arc<Authorizer>,
    policies: Policies<Policy>,
}

/// A refusal, and by whom.
struct Denial {
    text: String,
    reason: String,
}

impl ValidatingPolicies {
    /// Of the policies and bindings that the cache has; permissions are asked of `authorizer`.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self {
            authorizer,
            policies: Policies::new("v1", super::POLICIES, "validatingadmissionpolicybindings"),
        }
    }

    async fn check(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let mut denials = Vec::new();
        let mut view: Option<(&'static Resource, View)> = None;
        for found in self.policies.selected(registry, attributes).await? {
            let policy = found.policy();
            let name = &policy.matter.name;
            let (binding, params, known_as) = match &found.by {
                By::Binding { binding, params, known_as } => (&binding.of, params, *known_as),
                By::Mistake { .. } if policy.matter.may_fail => continue,
                By::Mistake { binding, error } => {
                    let text = match binding {
                        Some(binding) => format!(
                            "ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: failed to configure binding: {error}",
                            binding.of.name
                        ),
                        None => format!(
                            "ValidatingAdmissionPolicy '{name}' denied request: failed to configure policy: {error}"
                        ),
                    };
                    denials.push(Denial { text, reason: String::new() });
                    continue;
                }
            };
            let view = match &mut view {
                Some((row, view)) if std::ptr::eq(*row, known_as) => view,
                other => {
                    let made = View::of(registry, &self.authorizer, attributes, known_as).await?;
                    &mut other.insert((known_as, made)).1
                }
            };
            let data = view.data(policy.matter.takes_params().then_some(params));
            let audit = &attributes.request.audit;
            let mut tell = |key: &str, value: &str| audit.annotate(&format!("{name}/{key}"), value);
            for decision in policy.decide(&data, &mut tell) {
                settle(attributes, policy, binding, decision, &mut denials);
            }
        }
        match denials.into_iter().next() {
            Some(denial) => Err(refusal(attributes, &denial)),
            None => Ok(()),
        }
    }
}

/// What becomes of a refusal is for the binding to say.
fn settle(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
    decision: Decision,
    denials: &mut Vec<Denial>,
) {
    let Decision { message, reason, always } = decision;
    let (name, bound) = (&policy.matter.name, &binding.name);
    if binding.actions.denies || always {
        let text =
            format!("ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {message}");
        denials.push(Denial { text, reason });
    }
    if binding.actions.warns {
        let text = format!(
            "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {message}"
        );
        attributes.request.warnings.add(text);
    }
    if binding.actions.audits {
        let failure = json!({
            "message": message,
            "policy": name,
            "binding": bound,
            "validationActions": binding.actions.names(),
        });
        attributes
            .request
            .audit
            .annotate_list("validation.policy.admission.k8s.io/validation_failure", failure);
    }
}

/// The error that clients see, with the code of the policy's reason.
fn refusal(attributes: &Attributes<'_>, denial: &Denial) -> ApiError {
    let resource = attributes.request.resource.group_resource();
    let (reason, code) = match denial.reason.as_str() {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    let error = ApiError::forbidden(resource, attributes.name(), &denial.text);
    let mut status = error.with_cause(json!({"message": denial.text})).to_status();
    status["reason"] = reason.into();
    status["code"] = code.into();
    ApiError::of_status(code, status)
}

impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move { self.check(registry, &Attributes::new(request, object, old)).await })
    }
}
