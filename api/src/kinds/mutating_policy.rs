//! MutatingAdmissionPolicies and their bindings.

use std::sync::Arc;

use serde_json::Value;

use super::access::{default_to, items, present, struct_mut, text};
use super::{admission_policy, check, object_meta};
use crate::cel::admission::{Known, compile};
use crate::cel::{self, Environment, Type};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Nothing is left to change of what is deleted.
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

/// How a mutation says what it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `JSONPatch{…}` operations.
    JsonPatch,
    /// An `Object{…}` to be merged in.
    ApplyConfiguration,
}

impl PatchType {
    /// Both, in the order of their names.
    pub const ALL: [PatchType; 2] = [PatchType::ApplyConfiguration, PatchType::JsonPatch];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            PatchType::JsonPatch => "JSONPatch",
            PatchType::ApplyConfiguration => "ApplyConfiguration",
        }
    }

    /// The field of a mutation that belongs to it.
    pub fn field(self) -> &'static str {
        match self {
            PatchType::JsonPatch => "jsonPatch",
            PatchType::ApplyConfiguration => "applyConfiguration",
        }
    }

    /// The type of what its expression gives.
    pub fn wanted(self) -> Type {
        match self {
            PatchType::JsonPatch => Type::List(Arc::new(Type::Made(cel::JSON_PATCH.into()))),
            PatchType::ApplyConfiguration => Type::Made(cel::OBJECT.into()),
        }
    }

    /// That of a mutation.
    pub fn of(mutation: &Value) -> Option<PatchType> {
        Self::ALL.into_iter().find(|one| one.name() == text(mutation, "patchType"))
    }
}

/// Upstream's defaults of a policy.
pub fn default(object: &mut Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    default_to(spec, "failurePolicy", "Fail");
    admission_policy::default_resources(spec, "matchConstraints");
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
    admission_policy::matter(spec, &path, errors);
    operations(spec, "matchConstraints", &path, errors);
    admission_policy::variables(spec, &path, errors);
    let known = Known::nothing(present(spec, "paramKind").is_some());
    let mut patching = known.environment(true).with_variables().with_patches();
    admission_policy::composed(spec, &path, &mut [&mut patching], errors);
    let mutations = items(spec, "mutations");
    let at = path.child("mutations");
    if mutations.is_empty() {
        errors.push(field::required(&at, "mutations must contain at least one item"));
    }
    for (index, one) in mutations.iter().enumerate() {
        mutation(one, &patching, &at.index(index), errors);
    }
    let at = path.child("reinvocationPolicy");
    match text(spec, "reinvocationPolicy") {
        "" => errors.push(field::required(at, "")),
        given => check::one_of(given, &["IfNeeded", "Never"], &at, errors),
    }
}

/// The operations that rules name.
fn operations(spec: &Value, resources: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child(resources).child("resourceRules").child("operations");
    let rules = spec.get(resources).map(|resources| items(resources, "resourceRules")).unwrap_or_default();
    for operation in rules.iter().flat_map(|rule| items(rule, "operations")) {
        check::one_of(operation.as_str().unwrap_or_default(), OPERATIONS, &at, errors);
    }
}

fn mutation(mutation: &Value, environment: &Environment, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let given = text(mutation, "patchType");
    let at = path.child("patchType");
    let Some(own) = PatchType::of(mutation) else {
        errors.push(match given {
            "" => field::required(at, ""),
            given => field::not_supported(at, given, &PatchType::ALL.map(PatchType::name)),
        });
        return;
    };
    for other in PatchType::ALL.into_iter().filter(|other| *other != own) {
        if present(mutation, other.field()).is_some() {
            errors.push(field::invalid(
                path.child(other.field()),
                format!("{{{}}}", other.field()),
                format!("must not be specified when patchType is {given}"),
            ));
        }
    }
    let at = path.child(own.field());
    let Some(patch) = present(mutation, own.field()) else {
        errors.push(field::required(at, format!("must be specified when patchType is {given}")));
        return;
    };
    let (at, expression) = (at.child("expression"), text(patch, "expression").trim());
    if expression.is_empty() {
        errors.push(field::required(at, ""));
    } else if let Err(problem) = compile(environment, expression, &[own.wanted()]) {
        errors.push(field::invalid(at, expression, problem));
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
    admission_policy::bound(spec, &path, errors);
    operations(spec, "matchResources", &path, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy_with(rest: Value) -> Value {
        let policy = json!({"metadata": {"name": "p.example.com"}, "spec": {
            "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "variables": [{"name": "who", "expression": "request.userInfo.username"}],
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": "Object{metadata: Object.metadata{labels: {'by': variables.who}}}"}}]}});
        let mut policy = crate::patch::merge::apply(&policy, &json!({"spec": rest})).expect("merges");
        default(&mut policy);
        policy
    }

    fn problems(rest: Value) -> Vec<String> {
        validate(&policy_with(rest)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_upstreams_and_leave_the_reinvocation_policy_out() {
        let policy = policy_with(json!({"reinvocationPolicy": null}));
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(policy["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        assert_eq!(policy["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
        let problems: Vec<String> = validate(&policy).iter().map(ToString::to_string).collect();
        assert_eq!(problems, ["spec.reinvocationPolicy: Required value"]);
    }

    #[test]
    fn what_is_wrong_with_policies_is_told_in_upstreams_words() {
        assert_eq!(problems(json!({})), Vec::<String>::new());
        let with = |mutation: Value| problems(json!({"mutations": [mutation]}));
        for (found, expected) in [
            (
                problems(json!({"mutations": []})),
                vec!["spec.mutations: Required value: mutations must contain at least one item"],
            ),
            (
                with(json!({"applyConfiguration": {"expression": "Object{}"}})),
                vec!["spec.mutations[0].patchType: Required value"],
            ),
            (
                with(json!({"patchType": "Other"})),
                vec![
                    "spec.mutations[0].patchType: Unsupported value: \"Other\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
                ],
            ),
            (
                with(json!({"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}})),
                vec![
                    "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
                    "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                ],
            ),
            (
                with(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": " "}})),
                vec!["spec.mutations[0].jsonPatch.expression: Required value"],
            ),
            (
                with(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}})),
                vec![
                    "spec.mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object",
                ],
            ),
            (
                problems(json!({"matchConstraints": {"resourceRules": [
                    {"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}})),
                vec![
                    "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
                ],
            ),
        ] {
            assert_eq!(found, expected);
        }
        let found = problems(json!({"variables": [{"name": "who", "expression": "Object{}"}]}));
        assert!(found[0].contains("undeclared reference to 'Object'"), "{found:?}");
    }

    #[test]
    fn bindings_name_a_policy_and_nothing_to_delete() {
        let binding = json!({"metadata": {"name": "b"}, "spec": {"paramRef": {"name": "x"},
            "matchResources": {"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
                {"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}}});
        let found: Vec<String> = validate_binding(&binding).iter().map(ToString::to_string).collect();
        assert_eq!(found[0], "spec.policyName: Required value");
        assert_eq!(found[1], "spec.paramRef.parameterNotFoundAction: Required value");
        assert!(
            found[2]
                .starts_with("spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\"")
        );
    }
}
