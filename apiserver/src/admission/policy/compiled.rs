//! A policy and a binding, read once: what they are about, and expressions that can be evaluated. Pure.

use coracle_api::cel::admission::{Data, Known, compile};
use coracle_api::cel::{
    CompileError, Inputs, MESSAGE_BYTES_MAX, Program, RUNTIME_COST_BUDGET, Type, Value as Found,
};
use coracle_api::kinds::access::{items, present, text};
use coracle_api::meta;
use coracle_api::resource::{Resource, Served};
use serde_json::Value;

use crate::admission::matching::Criteria;
use crate::admission::matching::conditions::{Budget, Conditions, failure};

/// What has to hold.
struct Validation {
    expression: String,
    condition: Result<Program, String>,
    message: String,
    message_expression: Option<Program>,
    reason: String,
}

/// What is told to those who audit.
struct Annotation {
    key: String,
    expression: String,
    value: Result<Program, String>,
}

/// A ValidatingAdmissionPolicy.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) criteria: Result<Criteria, String>,
    /// What cannot be evaluated is let pass.
    pub(super) may_fail: bool,
    param_kind: Option<(String, String)>,
    conditions: Conditions,
    variables: Vec<Result<Program, CompileError>>,
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
}

/// A refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) message: String,
    /// Empty: `Invalid`.
    pub(super) reason: String,
    /// It counts whatever the binding says.
    pub(super) always: bool,
}

impl Policy {
    pub(super) fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let param_kind = present(spec, "paramKind")
            .map(|kind| (text(kind, "apiVersion").to_owned(), text(kind, "kind").to_owned()));
        let known = Known::nothing(param_kind.is_some());
        let (mut deciding, mut telling) =
            (known.environment(true).with_variables(), known.environment(false).with_variables());
        let mut variables = Vec::new();
        for variable in items(spec, "variables") {
            let program = deciding.compile(text(variable, "expression"));
            let ty = program.as_ref().map_or(Type::Dyn, |program| program.ty().clone());
            deciding.compose(text(variable, "name"), ty.clone());
            telling.compose(text(variable, "name"), ty);
            variables.push(program);
        }
        let validation = |one: &Value| Validation {
            expression: text(one, "expression").trim().to_owned(),
            condition: compile(&deciding, text(one, "expression"), &[Type::Bool]),
            message: text(one, "message").trim().to_owned(),
            message_expression: Some(text(one, "messageExpression"))
                .filter(|text| !text.is_empty())
                .and_then(|text| compile(&telling, text, &[Type::String]).ok()),
            reason: text(one, "reason").to_owned(),
        };
        let annotation = |one: &Value| Annotation {
            key: text(one, "key").to_owned(),
            expression: text(one, "valueExpression").to_owned(),
            value: compile(&telling, text(one, "valueExpression"), &[Type::String, Type::Null]),
        };
        Self {
            name: meta::name(object).to_owned(),
            criteria: Criteria::of(
                spec.get("matchConstraints").unwrap_or(&none),
                "resourceRules",
                "excludeResourceRules",
            ),
            may_fail: text(spec, "failurePolicy") == "Ignore",
            conditions: Conditions::of(spec, param_kind.is_some()),
            validations: items(spec, "validations").iter().map(validation).collect(),
            annotations: items(spec, "auditAnnotations").iter().map(annotation).collect(),
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

    /// What speaks against a write. What there is to tell those who audit goes to `tell`, as key and value.
    pub(super) fn decide(&self, data: &Data<'_>, tell: &mut dyn FnMut(&str, &str)) -> Vec<Decision> {
        let failed = |message: String| {
            let decision = Decision { message, reason: String::new(), always: false };
            if self.may_fail { Vec::new() } else { vec![decision] }
        };
        match self.conditions.hold(data) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => return failed(error),
        }
        let mut budget = Budget::new(RUNTIME_COST_BUDGET);
        let mut inputs = Inputs::new(data.values()).with_variables(&self.variables);
        let mut decisions = Vec::new();
        for validation in &self.validations {
            let program = match &validation.condition {
                Ok(program) => program,
                Err(error) => {
                    decisions.extend(failed(format!("compilation error: {error}")));
                    continue;
                }
            };
            match budget.evaluate(program, &mut inputs) {
                Err(spent) => return failed(spent.to_owned()),
                Ok(Ok(Found::Bool(true))) => {}
                Ok(Ok(_)) => match message(validation, &mut budget, &mut inputs) {
                    Ok(message) => {
                        decisions.push(Decision {
                            message,
                            reason: validation.reason.clone(),
                            always: false,
                        });
                    }
                    Err(spent) => decisions.extend(failed(format!("failed messageExpression: {spent}"))),
                },
                Ok(Err(error)) => decisions.extend(failed(failure(&validation.expression, &error))),
            }
        }
        decisions.extend(self.annotate(&mut inputs, tell));
        decisions
    }

    /// Tells those who audit, and what keeps them from being told.
    fn annotate(&self, inputs: &mut Inputs<'_, '_>, tell: &mut dyn FnMut(&str, &str)) -> Vec<Decision> {
        let mut budget = Budget::new(RUNTIME_COST_BUDGET);
        let mut problems = Vec::new();
        for annotation in &self.annotations {
            let value = match &annotation.value {
                Ok(program) => match budget.evaluate(program, inputs) {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(error)) => Err(failure(&annotation.expression, &error)),
                    Err(spent) => Err(spent.to_owned()),
                },
                Err(error) => Err(format!("compilation error: {error}")),
            };
            match value {
                Ok(value) => {
                    if let Some(value) = value.as_str().map(str::trim).filter(|value| !value.is_empty()) {
                        tell(&annotation.key, value);
                    }
                }
                Err(_) if self.may_fail => {}
                Err(message) => problems.push(Decision { message, reason: String::new(), always: true }),
            }
        }
        problems
    }
}

/// The message of a validation that does not hold.
fn message(
    validation: &Validation,
    budget: &mut Budget,
    inputs: &mut Inputs<'_, '_>,
) -> Result<String, &'static str> {
    if let Some(program) = &validation.message_expression
        && let Ok(value) = budget.evaluate(program, inputs)?
        && let Some(made) = value.as_str().map(str::trim)
        && !made.is_empty()
        && made.len() <= MESSAGE_BYTES_MAX
        && !made.contains('\n')
    {
        return Ok(made.to_owned());
    }
    if !validation.message.is_empty() {
        return Ok(validation.message.clone());
    }
    Ok(format!("failed expression: {}", validation.expression))
}

/// A ValidatingAdmissionPolicyBinding.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    /// What it narrows the policy to; absent: nothing.
    pub(super) criteria: Option<Result<Criteria, String>>,
    /// Which parameters it hands to the policy; null: none.
    pub(super) param_ref: Value,
    pub(super) denies: bool,
    pub(super) warns: bool,
    pub(super) audits: bool,
}

impl Binding {
    /// What it does about what does not hold, in the API's words.
    pub(super) fn actions(&self) -> Vec<&'static str> {
        [(self.denies, "Deny"), (self.warns, "Warn"), (self.audits, "Audit")]
            .into_iter()
            .filter_map(|(does, word)| does.then_some(word))
            .collect()
    }

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
            denies: acts("Deny"),
            warns: acts("Warn"),
            audits: acts("Audit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::cel::{Authorizer, Question};
    use serde_json::json;

    struct Nobody;

    impl Authorizer for Nobody {
        fn decide(&self, _question: &Question) -> (bool, String) {
            (false, String::new())
        }
    }

    fn decide(spec: Value, object: Value, params: Option<Value>) -> Vec<String> {
        let policy = Policy::of(&json!({"metadata": {"name": "p"}, "spec": spec}));
        let request = json!({"operation": "CREATE"});
        let data = Data {
            object: &object,
            old: &Value::Null,
            request: &request,
            namespace: &Value::Null,
            params: params.as_ref(),
            authorizer: &Nobody,
        };
        policy.decide(&data, &mut |_, _| {}).into_iter().map(|decision| decision.message).collect()
    }

    #[test]
    fn what_does_not_hold_is_told_in_the_words_of_the_policy() {
        let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "max", "expression": "int(params.data.max)"}],
            "validations": [
                {"expression": "variables.replicas <= variables.max", "messageExpression": "'at most ' + string(variables.max)"},
                {"expression": "object.spec.replicas > 0", "message": "not none"},
                {"expression": "object.spec.replicas != 7"}]});
        let params = json!({"data": {"max": "5"}});
        let of = |replicas: i64| {
            decide(spec.clone(), json!({"spec": {"replicas": replicas}}), Some(params.clone()))
        };
        assert_eq!(of(3), Vec::<String>::new());
        assert_eq!(of(7), ["at most 5", "failed expression: object.spec.replicas != 7"]);
        assert_eq!(of(0), ["not none"]);
    }

    #[test]
    fn conditions_and_the_failure_policy_decide_what_counts() {
        let mut spec = json!({"matchConditions": [{"name": "a", "expression": "object.kind == 'X'"}],
            "validations": [{"expression": "object.none.none == 1"}]});
        assert!(decide(spec.clone(), json!({"kind": "Y"}), None).is_empty());
        assert_eq!(
            decide(spec.clone(), json!({"kind": "X"}), None),
            ["expression 'object.none.none == 1' resulted in error: no such key: none"]
        );
        assert_eq!(decide(spec.clone(), json!({}), None).len(), 1);
        spec["failurePolicy"] = "Ignore".into();
        assert!(decide(spec, json!({"kind": "X"}), None).is_empty());
    }
}
