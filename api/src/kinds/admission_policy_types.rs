//! Checks the expressions of an admission policy against the kinds it is about. What is found is told in its status and changes nothing.

use serde_json::{Value, json};

use super::access::{items, present, text};
use crate::cel::admission::Known;
use crate::cel::{Shape, Type};
use crate::custom;
use crate::resource::Resource;
use crate::schema;

/// The most kinds that are looked at.
const KINDS_MAX: usize = 10;

/// What was found.
#[derive(Debug, PartialEq)]
pub struct Checked {
    /// The generation that was looked at.
    pub generation: i64,
    /// `status.typeChecking`.
    pub type_checking: Value,
}

/// A policy's generation.
pub fn generation(policy: &Value) -> i64 {
    policy.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

/// Checks a policy, if it was not yet; `find` gives the row of a group, version and plural.
pub fn check(
    policy: &Value,
    find: &dyn Fn(&str, &str, &str) -> Option<&'static Resource>,
) -> Option<Checked> {
    let generation = generation(policy);
    let observed = policy.pointer("/status/observedGeneration").and_then(Value::as_i64);
    if observed == Some(generation) {
        return None;
    }
    let none = Value::Null;
    let spec = policy.get("spec").unwrap_or(&none);
    let kinds = kinds(spec, find);
    let params = present(spec, "paramKind").map(|_| Shape::dynamic());
    let mut warnings = Vec::new();
    for (index, validation) in items(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(validation, field);
            if expression.is_empty() {
                continue;
            }
            let found: Vec<String> = kinds
                .iter()
                .filter_map(|(name, shape)| {
                    let known = Known { object: shape.clone(), params: params.clone() };
                    let mut environment = known.environment(true).with_variables();
                    for variable in items(spec, "variables") {
                        let program = environment.compile(text(variable, "expression"));
                        let ty = program.map_or(Type::Dyn, |program| program.ty().clone());
                        environment.compose(text(variable, "name"), ty);
                    }
                    let error = environment.compile(expression).err()?;
                    Some(format!("{name}: {error}\n"))
                })
                .collect();
            if !found.is_empty() {
                let field_ref = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": field_ref, "warning": found.join("\n")}));
            }
        }
    }
    let type_checking = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
    Some(Checked { generation, type_checking })
}

/// The kinds that a policy names without wildcards, with what their objects look like.
fn kinds(spec: &Value, find: &dyn Fn(&str, &str, &str) -> Option<&'static Resource>) -> Vec<(String, Shape)> {
    let mut rows: Vec<&'static Resource> = Vec::new();
    let constraints = spec.get("matchConstraints").unwrap_or(&Value::Null);
    let listed = |rule: &Value, field: &str| -> Vec<String> {
        items(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for rule in items(constraints, "resourceRules") {
        let (groups, versions) = (listed(rule, "apiGroups"), listed(rule, "apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let plurals = listed(rule, "resources");
        let plurals: Vec<&String> = plurals.iter().filter(|name| !name.contains(['*', '/'])).collect();
        for group in &groups {
            for version in &versions {
                let found = plurals.iter().filter_map(|plural| find(group, version, plural));
                rows.extend(found.filter(|row| !rows.contains(row)).collect::<Vec<_>>());
            }
        }
    }
    rows.truncate(KINDS_MAX);
    rows.sort_by_key(|row| (row.group, row.version, row.kind));
    let shaped = rows.into_iter().filter_map(|row| {
        let shape = match row.custom {
            Some(definition) => custom::shape_of(&definition.schema)?,
            None => schema::shape(schema::of_kind(row.group, row.version, row.kind)?, row.kind),
        };
        Some((format!("{}/{}, Kind={}", row.group, row.version, row.kind), shape))
    });
    shaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;

    fn checked(expression: &str, message: &str) -> Value {
        let policy = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}, "spec": {
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": expression, "messageExpression": message}]}});
        let find = |group: &str, version: &str, plural: &str| resource::lookup(group, version, plural);
        let found = check(&policy, &find).expect("not checked yet");
        assert_eq!(found.generation, 2);
        found.type_checking
    }

    #[test]
    fn expressions_are_checked_against_the_kinds_they_are_about() {
        assert_eq!(checked("object.spec.replicas > 1 && variables.replicas < 9", ""), json!({}));
        assert_eq!(
            checked(
                "object.spec.template.spec.containers.all(c, c.image.startsWith('x') && !has(c.resources.limits))",
                ""
            ),
            json!({})
        );
        let found =
            checked("object.spec.replicas > '1'", "'wants replicas > 1, got ' + object.spec.replicas");
        let warnings = &found["expressionWarnings"];
        assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
        let text = warnings[0]["warning"].as_str().unwrap_or_default();
        assert!(text.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"), "{text}");
        assert_eq!(warnings[1]["fieldRef"], "spec.validations[0].messageExpression");
        let text = warnings[1]["warning"].as_str().unwrap_or_default();
        assert!(text.contains("found no matching overload for '_+_' applied to '(string, int)'"), "{text}");
        assert!(checked("object.spec.nothing == 1", "").to_string().contains("undefined field 'nothing'"));
    }
}
