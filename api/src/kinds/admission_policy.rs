//! ValidatingAdmissionPolicies and their bindings, and what MutatingAdmissionPolicies have in common with them.

use serde_json::{Map, Value};

use super::access::{default_to, each_mut, items, present, struct_mut, text};
use super::{admission_rule, check, label_selector, object_meta};
use crate::cel::admission::{Known, compile};
use crate::cel::{Environment, Type};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

/// Upstream's defaults of a policy.
pub fn default(object: &mut Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    default_to(spec, "failurePolicy", "Fail");
    default_resources(spec, "matchConstraints");
}

/// Upstream's defaults of a binding.
pub fn default_binding(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_resources(spec, "matchResources");
    }
}

pub(super) fn default_resources(spec: &mut Value, key: &str) {
    let Some(resources) = spec.get_mut(key).filter(|resources| resources.is_object()) else { return };
    default_to(resources, "matchPolicy", "Equivalent");
    default_to(resources, "namespaceSelector", Map::new());
    default_to(resources, "objectSelector", Map::new());
    for list in ["resourceRules", "excludeResourceRules"] {
        each_mut(resources, list, |rule| default_to(rule, "scope", "*"));
    }
}

/// What a new policy's status is.
pub fn initial_status() -> Value {
    Map::new().into()
}

/// Everything wrong with a new policy.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any(object, false, names::dns1123_subdomain);
    policy(object, &mut errors);
    errors
}

/// Everything wrong with a changed policy.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    policy(new, &mut errors);
    errors
}

fn policy(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    matter(spec, &path, errors);
    let (validations, audits) = (items(spec, "validations"), items(spec, "auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        for name in ["validations", "auditAnnotations"] {
            let text = "validations or auditAnnotations must be specified";
            errors.push(field::required(path.child(name), text));
        }
    }
    variables(spec, &path, errors);
    for (index, validation) in validations.iter().enumerate() {
        rule(validation, &path.child("validations").index(index), errors);
    }
    for (index, audit) in audits.iter().enumerate() {
        let at = path.child("auditAnnotations").index(index);
        check::required_name(text(audit, "key"), names::qualified_name, &at.child("key"), errors);
        if text(audit, "valueExpression").trim().is_empty() {
            let text = "valueExpression is not specified";
            errors.push(field::required(at.child("valueExpression"), text));
        }
    }
    expressions(spec, &path, errors);
}

/// What policies of both kinds say of the requests they are about.
pub(super) fn matter(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check::one_of(text(spec, "failurePolicy"), &["Fail", "Ignore"], &path.child("failurePolicy"), errors);
    if let Some(kind) = present(spec, "paramKind") {
        check::required(kind, "apiVersion", &path.child("paramKind"), errors);
        check::required(kind, "kind", &path.child("paramKind"), errors);
    }
    let at = path.child("matchConstraints");
    match present(spec, "matchConstraints") {
        None => errors.push(field::required(at, "")),
        Some(constraints) => {
            match_resources(constraints, &at, errors);
            if items(constraints, "resourceRules").is_empty() {
                errors.push(field::required(at.child("resourceRules"), ""));
            }
        }
    }
    let has_params = present(spec, "paramKind").is_some();
    admission_rule::match_conditions(spec, path, has_params, errors);
}

/// What variables need; their expressions are for [`composed`] to look at.
pub(super) fn variables(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, variable) in items(spec, "variables").iter().enumerate() {
        let at = path.child("variables").index(index);
        if text(variable, "name").is_empty() {
            errors.push(field::required(at.child("name"), "name is not specified"));
        }
        if text(variable, "expression").trim().is_empty() {
            errors.push(field::required(at.child("expression"), "expression is not specified"));
        }
    }
}

/// What a compiler says of the variables of a policy; the environments get to know them.
pub(super) fn composed(
    spec: &Value,
    path: &FieldPath,
    environments: &mut [&mut Environment],
    errors: &mut Vec<FieldError>,
) {
    let has_params = present(spec, "paramKind").is_some();
    let mut own = Known::nothing(has_params).environment(true).with_variables();
    for (index, variable) in items(spec, "variables").iter().enumerate() {
        let (at, expression) = (path.child("variables").index(index), text(variable, "expression"));
        let program = own.compile(expression);
        if let Err(error) = &program
            && !expression.trim().is_empty()
        {
            let problem = format!("compilation failed: {error}");
            errors.push(field::invalid(at.child("expression"), expression, problem));
        }
        let ty = program.map_or(Type::Dyn, |program| program.ty().clone());
        own.compose(text(variable, "name"), ty.clone());
        for environment in &mut *environments {
            environment.compose(text(variable, "name"), ty.clone());
        }
    }
}

/// What a compiler says of the expressions of a policy.
fn expressions(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let known = Known::nothing(present(spec, "paramKind").is_some());
    let (mut deciding, mut telling) =
        (known.environment(true).with_variables(), known.environment(false).with_variables());
    composed(spec, path, &mut [&mut deciding, &mut telling], errors);
    let mut compiles =
        |object: &Value, key: &str, at: &FieldPath, environment: &Environment, wanted: &[Type]| {
            let expression = text(object, key);
            if !expression.trim().is_empty()
                && let Err(problem) = compile(environment, expression, wanted)
            {
                errors.push(field::invalid(at.child(key), expression, problem));
            }
        };
    for (index, validation) in items(spec, "validations").iter().enumerate() {
        let at = path.child("validations").index(index);
        compiles(validation, "expression", &at, &deciding, &[Type::Bool]);
        compiles(validation, "messageExpression", &at, &telling, &[Type::String]);
    }
    for (index, audit) in items(spec, "auditAnnotations").iter().enumerate() {
        let at = path.child("auditAnnotations").index(index);
        compiles(audit, "valueExpression", &at, &telling, &[Type::String, Type::Null]);
    }
}

fn rule(validation: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if text(validation, "expression").trim().is_empty() {
        errors.push(field::required(path.child("expression"), "expression is not specified"));
    }
    let message = text(validation, "message");
    if !message.is_empty() && message.trim().is_empty() {
        let text = "message must be non-empty if specified";
        errors.push(field::invalid(path.child("message"), message, text));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(field::invalid(path.child("message"), message, "message must not contain line breaks"));
    }
    if let Some(reason) = present(validation, "reason").and_then(Value::as_str) {
        check::one_of(reason, REASONS, &path.child("reason"), errors);
    }
}

fn match_resources(resources: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check::one_of(
        text(resources, "matchPolicy"),
        &["Equivalent", "Exact"],
        &path.child("matchPolicy"),
        errors,
    );
    for name in ["namespaceSelector", "objectSelector"] {
        match present(resources, name) {
            Some(selector) => label_selector::validate(selector, &path.child(name), errors),
            None => errors.push(field::required(path.child(name), "")),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in items(resources, list).iter().enumerate() {
            let at = path.child(list).index(index);
            admission_rule::validate(rule, &at, errors);
            let names = items(rule, "resourceNames");
            for (number, name) in names.iter().enumerate() {
                let here = at.child("resourceNames").index(number);
                check::name(name.as_str().unwrap_or_default(), names::path_segment, &here, errors);
                if names[..number].contains(name) {
                    errors.push(field::duplicate(here, name.clone()));
                }
            }
        }
    }
}

/// Everything wrong with a new binding.
pub fn validate_binding(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any(object, false, names::dns1123_subdomain);
    binding(object, &mut errors);
    errors
}

/// Everything wrong with a changed binding.
pub fn validate_binding_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    binding(new, &mut errors);
    errors
}

fn binding(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    bound(spec, &path, errors);
    let at = path.child("validationActions");
    let actions = items(spec, "validationActions");
    if actions.is_empty() {
        errors.push(field::required(&at, ""));
    }
    for (index, action) in actions.iter().enumerate() {
        check::one_of(action.as_str().unwrap_or_default(), ACTIONS, &at.index(index), errors);
        if actions[..index].contains(action) {
            errors.push(field::duplicate(at.index(index), action.clone()));
        }
    }
    let has = |name: &str| actions.iter().any(|action| action == name);
    if has("Deny") && has("Warn") {
        errors.push(field::invalid(
            at,
            Value::Array(actions.to_vec()),
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ));
    }
}

/// What bindings of both kinds say of what they bind.
pub(super) fn bound(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let policy = text(spec, "policyName");
    check::required_name(policy, names::dns1123_subdomain, &path.child("policyName"), errors);
    if let Some(reference) = present(spec, "paramRef") {
        parameters(reference, &path.child("paramRef"), errors);
    }
    if let Some(resources) = present(spec, "matchResources") {
        match_resources(resources, &path.child("matchResources"), errors);
    }
}

fn parameters(reference: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (name, selector) = (text(reference, "name"), present(reference, "selector"));
    match (name.is_empty(), selector) {
        (true, None) => errors.push(field::required(path, "one of name or selector must be specified")),
        (false, Some(_)) => {
            errors.push(field::forbidden(path.child("name"), "name and selector are mutually exclusive"));
        }
        (false, None) => check::name(name, names::path_segment, &path.child("name"), errors),
        (true, Some(selector)) => label_selector::validate(selector, &path.child("selector"), errors),
    }
    let at = path.child("parameterNotFoundAction");
    match present(reference, "parameterNotFoundAction").and_then(Value::as_str) {
        None => errors.push(field::required(at, "")),
        Some(action) => check::one_of(action, &["Allow", "Deny"], &at, errors),
    }
}

/// Everything wrong with a policy's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    let path = FieldPath::new("status").child("conditions");
    let conditions = new.pointer("/status").map(|status| items(status, "conditions")).unwrap_or_default();
    for (index, condition) in conditions.iter().enumerate() {
        for name in ["type", "status", "reason"] {
            check::required(condition, name, &path.index(index), &mut errors);
        }
    }
    errors
}
