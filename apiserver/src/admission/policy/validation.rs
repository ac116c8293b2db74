//! A ValidatingAdmissionPolicy, read once: expressions that can be evaluated, and what they say of a write. Pure.

use coracle_api::cel::admission::{Data, compile};
use coracle_api::cel::{Inputs, MESSAGE_BYTES_MAX, Program, RUNTIME_COST_BUDGET, Type, Value as Found};
use coracle_api::kinds::access::{items, text};
use serde_json::Value;

use super::matter::{self, Matter};
use super::selection;
use crate::admission::matching::conditions::{Budget, failure};

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
    pub(super) matter: Matter,
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

impl selection::Policy for Policy {
    fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let known = matter::known(object);
        let (mut deciding, mut telling) =
            (known.environment(true).with_variables(), known.environment(false).with_variables());
        let matter = Matter::of(object, &mut [&mut deciding, &mut telling]);
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
            matter,
            validations: items(spec, "validations").iter().map(validation).collect(),
            annotations: items(spec, "auditAnnotations").iter().map(annotation).collect(),
        }
    }

    fn matter(&self) -> &Matter {
        &self.matter
    }
}

impl Policy {
    /// What speaks against a write. What there is to tell those who audit goes to `tell`, as key and value.
    pub(super) fn decide(&self, data: &Data<'_>, tell: &mut dyn FnMut(&str, &str)) -> Vec<Decision> {
        let failed = |message: String| {
            let decision = Decision { message, reason: String::new(), always: false };
            if self.matter.may_fail { Vec::new() } else { vec![decision] }
        };
        match self.matter.conditions.hold(data) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => return failed(error),
        }
        let mut budget = Budget::new(RUNTIME_COST_BUDGET);
        let mut inputs = Inputs::new(data.values()).with_variables(&self.matter.variables);
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
                Err(_) if self.matter.may_fail => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::policy::selection::Policy as _;
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
