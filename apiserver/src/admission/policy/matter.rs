//! What policies of both kinds have: whom they are about, parameters, conditions and variables; and their bindings. Read once, pure.

use coracle_api::cel::admission::Known;
use coracle_api::cel::{CompileError, Environment, Program, Type};
use coracle_api::kinds::access::{items, present, text};
use coracle_api::meta;
use coracle_api::resource::{Resource, Served};
use serde_json::Value;

use crate::admission::matching::Criteria;
use crate::admission::matching::conditions::Conditions;

/// What a policy has, whatever it does.
pub(super) struct Matter {
    pub(super) name: String,
    pub(super) criteria: Result<Criteria, String>,
    /// What cannot be evaluated is let pass.
    pub(super) may_fail: bool,
    param_kind: Option<(String, String)>,
    pub(super) conditions: Conditions,
    pub(super) variables: Vec<Result<Program, CompileError>>,
}

impl Matter {
    /// That of a policy. `environments` get to know its variables.
    pub(super) fn of(object: &Value, environments: &mut [&mut Environment]) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let param_kind = present(spec, "paramKind")
            .map(|kind| (text(kind, "apiVersion").to_owned(), text(kind, "kind").to_owned()));
        let mut own = known(object).environment(true).with_variables();
        let mut variables = Vec::new();
        for variable in items(spec, "variables") {
            let program = own.compile(text(variable, "expression"));
            let ty = program.as_ref().map_or(Type::Dyn, |program| program.ty().clone());
            own.compose(text(variable, "name"), ty.clone());
            for environment in &mut *environments {
                environment.compose(text(variable, "name"), ty.clone());
            }
            variables.push(program);
        }
        Self {
            name: meta::name(object).to_owned(),
            criteria: Criteria::of(
                spec.get("matchConstraints").unwrap_or(&none),
                "resourceRules",
                "excludeResourceRules",
            ),
            may_fail: text(spec, "failurePolicy") == "Ignore",
            conditions: Conditions::of(spec, param_kind.is_some()),
            param_kind,
            variables,
        }
    }

    /// Whether its expressions may speak of parameters.
    pub(super) fn takes_params(&self) -> bool {
        self.param_kind.is_some()
    }

    /// The resource of its parameters, if it takes any.
    ///
    /// # Errors
    /// There is no such kind.
    pub(super) fn param_row(&self, served: &Served) -> Result<Option<&'static Resource>, String> {
        let Some((api_version, kind)) = &self.param_kind else { return Ok(None) };
        let found = served
            .rows()
            .find(|row| row.api_version() == *api_version && row.kind == kind && row.is_stored());
        found.map(Some).ok_or_else(|| {
            format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
        })
    }
}

/// What is known of the objects that a policy's expressions are about.
pub(super) fn known(policy: &Value) -> Known {
    Known::nothing(policy.get("spec").and_then(|spec| present(spec, "paramKind")).is_some())
}

/// A binding of a policy.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    /// What it narrows the policy to; absent: nothing.
    pub(super) criteria: Option<Result<Criteria, String>>,
    /// Which parameters it hands to the policy; null: none.
    pub(super) param_ref: Value,
    /// What a ValidatingAdmissionPolicyBinding does about what does not hold.
    pub(super) actions: Actions,
}

/// `validationActions`.
#[derive(Clone, Copy, Default)]
pub(super) struct Actions {
    pub(super) denies: bool,
    pub(super) warns: bool,
    pub(super) audits: bool,
}

impl Actions {
    /// In the API's words.
    pub(super) fn names(self) -> Vec<&'static str> {
        [(self.denies, "Deny"), (self.warns, "Warn"), (self.audits, "Audit")]
            .into_iter()
            .filter_map(|(does, word)| does.then_some(word))
            .collect()
    }
}

impl Binding {
    pub(super) fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let acts = |action: &str| items(spec, "validationActions").iter().any(|one| one == action);
        Self {
            name: meta::name(object).to_owned(),
            policy: text(spec, "policyName").to_owned(),
            criteria: present(spec, "matchResources")
                .map(|resources| Criteria::of(resources, "resourceRules", "excludeResourceRules")),
            param_ref: spec.get("paramRef").cloned().unwrap_or_default(),
            actions: Actions { denies: acts("Deny"), warns: acts("Warn"), audits: acts("Audit") },
        }
    }
}
