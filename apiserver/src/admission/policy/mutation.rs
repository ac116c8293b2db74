//! A MutatingAdmissionPolicy, read once: expressions that make patches, and what they make of an object. Pure.

use coracle_api::apply;
use coracle_api::cel::admission::{Data, compile};
use coracle_api::cel::{Inputs, Program, RUNTIME_COST_BUDGET, Value as Found};
use coracle_api::kinds::access::{items, present, text};
use coracle_api::kinds::mutating_policy::PatchType;
use coracle_api::patch::json::{self, Failure};
use coracle_api::schema::Schema;
use serde_json::{Map, Value};

use super::matter::{self, Matter};
use super::selection;
use crate::admission::matching::conditions::{Budget, failure};

/// A MutatingAdmissionPolicy.
pub(super) struct Policy {
    pub(super) matter: Matter,
    pub(super) mutations: Vec<Mutation>,
    /// It wants to see the object again when others change it afterwards.
    pub(super) again: bool,
}

/// One change.
pub(super) struct Mutation {
    patch_type: PatchType,
    expression: String,
    program: Result<Program, String>,
}

impl selection::Policy for Policy {
    fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let mut patching = matter::known(object).environment(true).with_variables().with_patches();
        let matter = Matter::of(object, &mut [&mut patching]);
        let mutation = |one: &Value| {
            let patch_type = PatchType::of(one)?;
            let expression = text(present(one, patch_type.field())?, "expression").trim().to_owned();
            let program = compile(&patching, &expression, &[patch_type.wanted()]);
            Some(Mutation { patch_type, expression, program })
        };
        Self {
            mutations: items(spec, "mutations").iter().filter_map(mutation).collect(),
            again: text(spec, "reinvocationPolicy") == "IfNeeded",
            matter,
        }
    }

    fn matter(&self) -> &Matter {
        &self.matter
    }
}

impl Policy {
    /// What a mutation of this policy makes of `data.object`, which is one of a kind with this schema; `None`: nothing.
    ///
    /// # Errors
    /// Why it could not be evaluated or applied, in upstream's words.
    pub(super) fn patched(
        &self,
        mutation: &Mutation,
        data: &Data<'_>,
        schema: &Schema,
    ) -> Result<Option<Value>, String> {
        let program = mutation.program.as_ref().map_err(Clone::clone)?;
        let mut inputs = Inputs::new(data.values()).with_variables(&self.matter.variables);
        let mut budget = Budget::new(RUNTIME_COST_BUDGET);
        let value =
            budget.evaluate(program, &mut inputs)?.map_err(|error| failure(&mutation.expression, &error))?;
        match mutation.patch_type {
            PatchType::JsonPatch => operations(&value).and_then(|patch| patch_with(data.object, &patch)),
            PatchType::ApplyConfiguration => {
                in_place(&value)?;
                let mut applied = value.to_json()?;
                for field in ["apiVersion", "kind"] {
                    if let (Some(kind), Some(fields)) = (data.object.get(field), applied.as_object_mut()) {
                        fields.insert(field.to_owned(), kind.clone());
                    }
                }
                let laid = apply::overlay(data.object, &applied, schema);
                laid.map(Some).map_err(|error| format!("error applying patch: {error}"))
            }
        }
    }
}

/// Checks the types of made objects.
fn in_place(value: &Found<'_>) -> Result<(), String> {
    match value.misplaced_types().as_slice() {
        [] => Ok(()),
        problems => Err(format!("type mismatch: {}", problems.join("\n"))),
    }
}

/// A list of `JSONPatch{…}` as a patch.
fn operations(value: &Found<'_>) -> Result<Value, String> {
    let odd = || "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned();
    let one = |item: &Found<'_>| {
        let Found::Made(made) = item else { return Err(odd()) };
        let mut operation = Map::new();
        for name in ["op", "path", "from"] {
            let text = made.fields.get(name).and_then(Found::as_str).unwrap_or_default();
            // There is always a path, if only to everything.
            if name != "from" || !text.is_empty() {
                operation.insert(name.to_owned(), text.into());
            }
        }
        if let Some(value) = made.fields.get("value") {
            in_place(value)?;
            let value = value.to_json().map_err(|error| {
                format!(
                    "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}"
                )
            })?;
            operation.insert("value".to_owned(), value);
        }
        Ok(Value::Object(operation))
    };
    let items = value.items().ok_or_else(odd)?;
    Ok(Value::Array(items.iter().map(one).collect::<Result<_, _>>()?))
}

/// A patch whose test fails is not applied, which is no error.
fn patch_with(object: &Value, patch: &Value) -> Result<Option<Value>, String> {
    match json::attempt(object, patch) {
        Ok(patched) => Ok(Some(patched)),
        Err(Failure::TestFailed(_)) => Ok(None),
        Err(Failure::NotApplicable(error) | Failure::Malformed(error)) => Err(format!("JSONPath: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::policy::selection::Policy as _;
    use coracle_api::cel::{Authorizer, Question};
    use coracle_api::schema;
    use serde_json::json;

    struct Nobody;

    impl Authorizer for Nobody {
        fn decide(&self, _question: &Question) -> (bool, String) {
            (false, String::new())
        }
    }

    fn patched(patch_type: &str, expression: &str) -> Result<Option<Value>, String> {
        let field = if patch_type == "JSONPatch" { "jsonPatch" } else { "applyConfiguration" };
        let policy = Policy::of(&json!({"metadata": {"name": "p"}, "spec": {
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "names", "expression": "object.spec.containers.map(c, c.name)"}],
            "mutations": [{"patchType": patch_type, field: {"expression": expression}}]}}));
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let params = json!({"data": {"proxy": "m"}});
        let data = Data {
            object: &object,
            old: &Value::Null,
            request: &json!({"operation": "CREATE"}),
            namespace: &Value::Null,
            params: Some(&params),
            authorizer: &Nobody,
        };
        let schema = schema::of_kind("", "v1", "Pod").expect("pods have a schema");
        policy.patched(&policy.mutations[0], &data, schema)
    }

    #[test]
    fn apply_configurations_are_merged_in() {
        let expression = "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'proxy', image: params.data.proxy}]}}";
        let made = patched("ApplyConfiguration", expression).expect("is made").expect("changes it");
        assert_eq!(made["spec"]["initContainers"], json!([{"name": "proxy", "image": "m"}]));
        assert_eq!(made["spec"]["containers"], json!([{"name": "c", "image": "i"}]));
        for (expression, error) in [
            (
                "Object{spec: Object.spec{none: 1}}",
                "error applying patch: failed to convert patch object to typed object: .spec.none: field not declared in schema",
            ),
            (
                "Object{spec: Object.spec{nodeSelector: {'a': 'b'}}}",
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.nodeSelector",
            ),
            (
                "Object{spec: Object.wrong{}}",
                "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type",
            ),
            (
                "Object{metadata: Object.metadata{name: object.none}}",
                "expression 'Object{metadata: Object.metadata{name: object.none}}' resulted in error: no such key: none",
            ),
        ] {
            assert_eq!(patched("ApplyConfiguration", expression), Err(error.to_owned()), "{expression}");
        }
    }

    #[test]
    fn json_patches_are_applied_unless_a_test_fails() {
        let expression = "[JSONPatch{op: 'test', path: '/spec/containers/0/name', value: variables.names[0]}, \
            JSONPatch{op: 'add', path: '/metadata/labels', value: {'count': string(size(variables.names))}}, \
            JSONPatch{op: 'copy', from: '/metadata/name', path: '/metadata/labels/name'}]";
        let made = patched("JSONPatch", expression).expect("is made").expect("changes it");
        assert_eq!(made["metadata"]["labels"], json!({"count": "1", "name": "x"}));
        assert_eq!(patched("JSONPatch", "[JSONPatch{op: 'test', path: '/kind', value: 'Node'}]"), Ok(None));
        let error = patched("JSONPatch", "[JSONPatch{op: 'remove', path: '/metadata/labels/x'}]");
        assert!(error.is_err_and(|error| error.starts_with("JSONPath: ")));
        let error = patched("JSONPatch", "[JSONPatch{op: 'add', path: '/spec/x', value: quantity('1')}]");
        assert!(error.is_err_and(|error| {
            error.starts_with("JSONPath valueExpression evaluated to a type that could not marshal to JSON")
        }));
    }
}
