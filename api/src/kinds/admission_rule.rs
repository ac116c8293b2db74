//! Which requests webhooks and admission policies are about: rules and match conditions.

use serde_json::Value;

use super::access::{items, present, text};
use super::check;
use crate::cel::Type;
use crate::cel::admission::{Known, compile};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MATCH_CONDITIONS_MAX: usize = 64;

/// Everything wrong with a rule with operations.
pub fn validate(rule: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let operations = items(rule, "operations");
    let at = path.child("operations");
    alone(operations, "*", &at, "if '*' is present, must not specify other operations", errors);
    for (index, operation) in operations.iter().enumerate() {
        check::one_of(operation.as_str().unwrap_or_default(), OPERATIONS, &at.index(index), errors);
    }
    let text = "if '*' is present, must not specify other API groups";
    alone(items(rule, "apiGroups"), "*", &path.child("apiGroups"), text, errors);
    let versions = items(rule, "apiVersions");
    let at = path.child("apiVersions");
    alone(versions, "*", &at, "if '*' is present, must not specify other API versions", errors);
    for (index, _) in versions.iter().enumerate().filter(|(_, version)| *version == "") {
        errors.push(field::required(at.index(index), ""));
    }
    resources(items(rule, "resources"), &path.child("resources"), errors);
    if let Some(scope) = present(rule, "scope").and_then(Value::as_str) {
        check::one_of(scope, SCOPES, &path.child("scope"), errors);
    }
}

/// A list that is not empty, and in which a wildcard stands for everything.
fn alone(list: &[Value], wildcard: &str, path: &FieldPath, text: &str, errors: &mut Vec<FieldError>) {
    if list.is_empty() {
        errors.push(field::required(path, ""));
    }
    if list.len() > 1 && list.iter().any(|one| one == wildcard) {
        errors.push(field::invalid(path, Value::Array(list.to_vec()), text));
    }
}

fn resources(list: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (mut with_every_part, mut parts_of_all): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut has_plain = false;
    for (index, name) in list.iter().enumerate() {
        let (at, name) = (path.index(index), name.as_str().unwrap_or_default());
        match (name, name.split_once('/')) {
            ("", _) => errors.push(field::required(at, "")),
            ("*/*" | "*", _) => {}
            (_, None) => has_plain = true,
            (_, Some((resource, part))) => {
                if with_every_part.contains(&resource) {
                    let text = format!("if '{resource}/*' is present, must not specify {name}");
                    errors.push(field::invalid(&at, name, text));
                }
                if parts_of_all.contains(&part) {
                    let text = format!("if '*/{part}' is present, must not specify {name}");
                    errors.push(field::invalid(&at, name, text));
                }
                if part == "*" {
                    with_every_part.push(resource);
                }
                if resource == "*" {
                    parts_of_all.push(part);
                }
            }
        }
    }
    alone(list, "*/*", path, "if '*/*' is present, must not specify other resources", errors);
    if has_plain && list.iter().any(|name| name == "*") {
        errors.push(field::invalid(
            path,
            Value::Array(list.to_vec()),
            "if '*' is present, must not specify other resources without subresources",
        ));
    }
}

/// Everything wrong with `matchConditions`.
pub fn match_conditions(object: &Value, path: &FieldPath, has_params: bool, errors: &mut Vec<FieldError>) {
    let conditions = items(object, "matchConditions");
    if conditions.is_empty() {
        return;
    }
    let environment = Known::nothing(has_params).environment(true);
    let path = path.child("matchConditions");
    if conditions.len() > MATCH_CONDITIONS_MAX {
        errors.push(field::too_many(&path, conditions.len(), MATCH_CONDITIONS_MAX));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let (at, name) = (path.index(index), text(condition, "name"));
        if text(condition, "expression").trim().is_empty() {
            errors.push(field::required(at.child("expression"), ""));
        } else if let Err(problem) = compile(&environment, text(condition, "expression"), &[Type::Bool]) {
            errors.push(field::invalid(at.child("expression"), text(condition, "expression"), problem));
        }
        check::required_name(name, names::qualified_name, &at.child("name"), errors);
        if !name.is_empty() && conditions[..index].iter().any(|earlier| text(earlier, "name") == name) {
            errors.push(field::duplicate(at.child("name"), name));
        }
    }
}
