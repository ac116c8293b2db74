//! MutatingAdmissionPolicy: what policies make of an object that is written. Off unless its feature gate is on.

use std::sync::Arc;

use coracle_api::meta;
use coracle_api::resource::Resource;
use coracle_api::schema::{self, Schema};
use coracle_api::status::ApiError;
use serde_json::{Value, json};

use super::mutation::Policy;
use super::selection::{By, Policies};
use crate::admission::matching::Attributes;
use crate::admission::matching::view::View;
use crate::admission::reinvocation::Reinvocation;
use crate::admission::seen::{self, Unknown};
use crate::authz::Authorizer;
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

/// The plugin's name in the flags, and that of its feature gate.
pub const NAME: &str = "MutatingAdmissionPolicy";

/// The version that has them.
pub const VERSION: &str = "v1beta1";

/// The policies in force.
pub struct MutatingPolicies {
    registry: Arc<Registry>,
    authorizer: Arc<Authorizer>,
    policies: Policies<Policy>,
}

/// Why a policy that may not fail did.
struct Problem {
    text: String,
    reason: Option<&'static str>,
}

/// A policy with a binding and parameters, for one write.
struct Invocation<'a> {
    policy: &'a Policy,
    params: &'a Value,
    known_as: &'static Resource,
    /// What no other has.
    key: String,
}

impl MutatingPolicies {
    /// Of the policies and bindings that the cache has; permissions are asked of `authorizer`.
    pub fn new(registry: Arc<Registry>, authorizer: Arc<Authorizer>) -> Self {
        let policies = Policies::new(VERSION, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        Self { registry, authorizer, policies }
    }

    /// Lets the policies change the object, in the first or in the second round.
    ///
    /// # Errors
    /// 403: a policy could not be evaluated and may not fail. 500: what it made is no object of its kind.
    pub async fn mutate(
        &self,
        request: &RequestInfo,
        object: &mut Value,
        old: Option<&Value>,
        rounds: &mut Reinvocation,
        is_second: bool,
    ) -> Result<(), ApiError> {
        let selected =
            self.policies.selected(&self.registry, &Attributes::new(request, Some(object), old)).await?;
        if selected.is_empty() {
            return Ok(());
        }
        rounds.begin(is_second, object);
        let mut problems = Vec::new();
        for found in &selected {
            let policy = found.policy();
            let name = &policy.matter.name;
            match &found.by {
                By::Binding { binding, params, known_as } => {
                    let param = [meta::namespace(params), meta::name(params)].join("/");
                    let key = [name, binding.of.name.as_str(), &param].join("\n");
                    let invocation = Invocation { policy, params, known_as, key };
                    let found = self.invoke(&invocation, request, object, old, rounds).await?;
                    problems.extend(found.into_iter().map(|error| Problem {
                        text: format!(
                            "policy '{name}' with binding '{}' denied request: {error}",
                            binding.of.name
                        ),
                        reason: Some("Invalid"),
                    }));
                }
                By::Mistake { .. } if policy.matter.may_fail => {}
                By::Mistake { binding: Some(binding), error } => problems.push(Problem {
                    text: format!(
                        "policy '{name}' with binding '{}' denied request: failed to configure binding: {error}",
                        binding.of.name
                    ),
                    reason: None,
                }),
                By::Mistake { binding: None, error } => problems.push(Problem {
                    text: format!("policy {name:?} denied request: failed to configure policy: {error}"),
                    reason: None,
                }),
            }
        }
        rounds.end(object);
        if problems.is_empty() { Ok(()) } else { Err(refusal(request, object, &problems)) }
    }

    /// Lets one policy change the object. Gives what went wrong where that counts.
    async fn invoke(
        &self,
        invocation: &Invocation<'_>,
        request: &RequestInfo,
        object: &mut Value,
        old: Option<&Value>,
        rounds: &mut Reinvocation,
    ) -> Result<Vec<String>, ApiError> {
        let Invocation { policy, params, known_as, key } = invocation;
        let params = policy.matter.takes_params().then_some(*params);
        let mut view = self.view(request, object, old, known_as).await?;
        let counted = |error: String| if policy.matter.may_fail { Vec::new() } else { vec![error] };
        match policy.matter.conditions.hold(&view.data(params)) {
            Ok(true) if rounds.is_turn_of(key) => {}
            Ok(_) => return Ok(Vec::new()),
            Err(error) => return Ok(counted(error)),
        }
        let schema = schema_of(request, known_as)?;
        let before = object.clone();
        let mut problems = Vec::new();
        for mutation in &policy.mutations {
            match policy.patched(mutation, &view.data(params), schema) {
                Ok(None) => {}
                Ok(Some(patched)) => {
                    *object =
                        seen::accept(&self.registry, request, object, patched, known_as, Unknown::Refused)
                            .await?;
                    view = self.view(request, object, old, known_as).await?;
                }
                Err(error) => problems.extend(counted(error)),
            }
        }
        if before != *object {
            rounds.object_changed();
        }
        if policy.again {
            rounds.was_called(key.clone());
        }
        Ok(problems)
    }

    async fn view(
        &self,
        request: &RequestInfo,
        object: &Value,
        old: Option<&Value>,
        known_as: &'static Resource,
    ) -> Result<View, ApiError> {
        let attributes = Attributes::new(request, Some(object), old);
        View::of(&self.registry, &self.authorizer, &attributes, known_as).await
    }
}

/// The schema of what the policy sees.
///
/// # Errors
/// 503: there is none.
fn schema_of(request: &RequestInfo, known_as: &'static Resource) -> Result<&'static Schema, ApiError> {
    let Some(part) = request.subresource.filter(|part| part.kind != known_as.kind) else {
        return Ok(schema::of(known_as));
    };
    schema::of_kind(part.group, part.version, part.kind).ok_or_else(|| {
        let text = format!(
            "Resource kind {}/{}, Kind={} not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.",
            part.group, part.version, part.kind
        );
        ApiError::new(503, "ServiceUnavailable", text)
    })
}

/// The error that clients see: its words are the first problem's.
fn refusal(request: &RequestInfo, object: &Value, problems: &[Problem]) -> ApiError {
    let name = Attributes::new(request, Some(object), None).name();
    let mut error = ApiError::forbidden(request.resource.group_resource(), name, "");
    for problem in problems {
        error = error.with_cause(json!({"message": problem.text}));
    }
    let mut status = error.to_status();
    if let Some(first) = problems.first() {
        status["message"] = first.text.as_str().into();
        if let Some(reason) = first.reason {
            status["reason"] = reason.into();
        }
    }
    ApiError::of_status(403, status)
}
