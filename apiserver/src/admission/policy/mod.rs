//! ValidatingAdmissionPolicy: what policies say of a write, where bindings put them into force.
//!
//! One policy is in `compiled`, the objects that it takes as parameters in `parameters`, the status of policies in `status`.

mod compiled;
mod parameters;
pub mod status;

use std::sync::Arc;

use coracle_api::resource::{self, Resource};
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Plugin;
use super::matching::{Attributes, view::View};
use crate::authz::Authorizer;
use crate::cache::derived::{Derived, Made};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;
use compiled::{Binding, Decision, Policy};

const GROUP: &str = "admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

/// Reviews are asked while requests are decided upon: policies say nothing about them.
const REVIEWS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

fn row(plural: &str) -> Option<&'static Resource> {
    resource::lookup(GROUP, "v1", plural)
}

/// The policies in force.
pub struct Policies {
    authorizer: Arc<Authorizer>,
    policies: Derived<[Arc<Made<Policy>>]>,
    bindings: Derived<[Arc<Made<Binding>>]>,
}

/// A refusal, and by whom.
struct Denial {
    text: String,
    reason: String,
}

impl Policies {
    /// Of the policies and bindings that the cache has; permissions are asked of `authorizer`.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        let (policies, bindings) = (Derived::of(GROUP, "v1", POLICIES), Derived::of(GROUP, "v1", BINDINGS));
        Self { authorizer, policies, bindings }
    }

    async fn check(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if attributes.is_exempt() || REVIEWS.contains(&attributes.request.resource.group) {
            return Ok(());
        }
        attributes.wait_until_ready(&registry.cache).await?;
        let bindings = self.bindings.each(&registry.cache, Binding::of);
        if bindings.is_empty() {
            return Ok(());
        }
        let mut denials = Vec::new();
        for policy in self.policies.each(&registry.cache, Policy::of).iter().map(|made| &made.of) {
            let of_policy: Vec<&Binding> =
                bindings.iter().map(|made| &made.of).filter(|one| one.policy == policy.name).collect();
            if !of_policy.is_empty() {
                self.policy(registry, attributes, policy, &of_policy, &mut denials).await?;
            }
        }
        match denials.into_iter().next() {
            Some(denial) => Err(refusal(attributes, &denial)),
            None => Ok(()),
        }
    }

    async fn policy(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        policy: &Policy,
        bindings: &[&Binding],
        denials: &mut Vec<Denial>,
    ) -> Result<(), ApiError> {
        let misconfigured = |text: String| (!policy.may_fail).then(|| Denial { text, reason: String::new() });
        let by_policy = |error: &str| {
            format!(
                "ValidatingAdmissionPolicy '{}' denied request: failed to configure policy: {error}",
                policy.name
            )
        };
        let criteria = match &policy.criteria {
            Ok(criteria) => criteria,
            Err(error) => {
                denials.extend(misconfigured(by_policy(error)));
                return Ok(());
            }
        };
        let Some(known_as) = criteria.matches(registry, attributes).await? else { return Ok(()) };
        let param_row = match policy.param_row(&registry.cache.served()) {
            Ok(row) => row,
            Err(error) => {
                denials.extend(misconfigured(by_policy(&error)));
                return Ok(());
            }
        };
        let mut view = None;
        for binding in bindings {
            let by_binding = |error: &str| {
                format!(
                    "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: failed to configure binding: {error}",
                    policy.name, binding.name
                )
            };
            match &binding.criteria {
                Some(Ok(criteria)) if !criteria.selects(registry, attributes).await? => continue,
                Some(Err(error)) => {
                    denials.extend(misconfigured(by_binding(error)));
                    continue;
                }
                _ => {}
            }
            let found =
                parameters::collect(registry, param_row, &binding.param_ref, attributes.namespace()).await?;
            let all = match found {
                Ok(all) => all,
                Err(error) => {
                    denials.extend(misconfigured(by_binding(&error)));
                    continue;
                }
            };
            let view = match &mut view {
                Some(view) => view,
                none => none.insert(View::of(registry, &self.authorizer, attributes, known_as).await?),
            };
            for parameter in &all {
                let data = view.data(policy.takes_params().then_some(parameter));
                let audit = &attributes.request.audit;
                let mut tell =
                    |key: &str, value: &str| audit.annotate(&format!("{}/{key}", policy.name), value);
                for decision in policy.decide(&data, &mut tell) {
                    settle(attributes, policy, binding, decision, denials);
                }
            }
        }
        Ok(())
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
    let (name, bound) = (&policy.name, &binding.name);
    if binding.denies || always {
        let text =
            format!("ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {message}");
        denials.push(Denial { text, reason });
    }
    if binding.warns {
        let text = format!(
            "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {message}"
        );
        attributes.request.warnings.add(text);
    }
    if binding.audits {
        let failure = json!({
            "message": message,
            "policy": name,
            "binding": bound,
            "validationActions": binding.actions(),
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

impl Plugin for Policies {
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
