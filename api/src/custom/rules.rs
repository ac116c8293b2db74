//! The rules of a structural schema (`x-kubernetes-validations`), compiled once, and what they say of a custom resource, in upstream's words.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::field_path::{self, Step};
use super::shapes::shape;
use super::structural::{Items, Structural};
use crate::cel::{
    Environment, EvalError, Inputs, MESSAGE_BYTES_MAX, Meter, PER_CALL_LIMIT, Program, RUNTIME_COST_BUDGET,
    Shape, Type, Value,
};
use crate::field::{self, FieldError, FieldErrorKind, FieldPath};
use crate::kinds::access::{boolean, text};

/// What values of a schema node are held to.
#[derive(Debug)]
pub struct Rules {
    own: Vec<Rule>,
    /// The type in the words of errors.
    kind: &'static str,
    shape: Option<Shape>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    list_type: Items,
    atomic: bool,
}

/// A rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    /// What holds; the error when it cannot be compiled.
    pub(super) condition: Result<Program, String>,
    /// What makes the message, when that compiles.
    pub(super) message_expression: Option<Result<Program, String>>,
    /// Whether the rule compares with the value before.
    pub(super) uses_old: bool,
    optional_old: bool,
    rule: String,
    message: String,
    reason: String,
    steps: Vec<Step>,
}

/// Compiles a rule of a node with this shape.
pub(super) fn compile(rule: &Json, shape: &Shape) -> Rule {
    let optional_old = boolean(rule, "optionalOldSelf");
    let mut old = shape.clone();
    if optional_old {
        old.ty = Type::Optional(std::sync::Arc::new(old.ty));
    }
    let environment = Environment::new().with("self", shape.clone()).with("oldSelf", old);
    let condition = environment
        .compile(text(rule, "rule"))
        .map_err(|error| format!("compilation failed: {error}"))
        .and_then(|program| match program.ty() {
            Type::Bool | Type::Dyn => Ok(program),
            _ => Err("cel expression must evaluate to a bool".to_owned()),
        });
    let message_expression =
        Some(text(rule, "messageExpression")).filter(|text| !text.trim().is_empty()).map(|text| {
            let compiled = environment.compile(text);
            compiled.map_err(|error| format!("messageExpression compilation failed: {error}")).and_then(
                |program| match program.ty() {
                    Type::String => Ok(program),
                    _ => Err("messageExpression must evaluate to a string".to_owned()),
                },
            )
        });
    let uses =
        |program: &Result<Program, String>| program.as_ref().is_ok_and(|program| program.uses("oldSelf"));
    Rule {
        uses_old: uses(&condition) || message_expression.as_ref().is_some_and(uses),
        condition,
        message_expression,
        optional_old,
        rule: text(rule, "rule").trim().to_owned(),
        message: text(rule, "message").trim().to_owned(),
        reason: text(rule, "reason").to_owned(),
        steps: field_path::parse(text(rule, "fieldPath")).unwrap_or_default(),
    }
}

impl Rules {
    /// The rules of a schema and all below; `None` when there are none.
    pub fn of(schema: &Structural) -> Option<Rules> {
        Rules::node(schema, true)
    }

    fn node(schema: &Structural, is_resource: bool) -> Option<Rules> {
        let below = |schema: &Structural| Rules::node(schema, schema.embedded);
        let properties: BTreeMap<String, Rules> = schema
            .properties
            .iter()
            .filter_map(|(name, property)| Some((name.clone(), below(property)?)))
            .collect();
        let additional = schema.additional.as_deref().and_then(below).map(Box::new);
        let items = schema.items.as_deref().and_then(below).map(Box::new);
        let shape = if schema.rules.is_empty() { None } else { shape(schema, is_resource) };
        let own: Vec<Rule> = match &shape {
            Some(shape) => schema.rules.iter().map(|rule| compile(rule, shape)).collect(),
            None => Vec::new(),
        };
        if own.is_empty() && properties.is_empty() && additional.is_none() && items.is_none() {
            return None;
        }
        Some(Rules {
            own,
            kind: schema.kind.name(),
            shape,
            properties,
            additional,
            items,
            list_type: schema.list_type.clone(),
            atomic: schema.atomic,
        })
    }
}

/// What rules say of an object.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is refused.
    pub errors: Vec<FieldError>,
    /// What would be refused if it had not been so before.
    pub warnings: Vec<FieldError>,
}

/// Holds an object to the rules; `old` is what it was before, if it was.
pub fn judge(object: &Json, old: Option<&Json>, rules: &Rules) -> Verdict {
    let mut judgement = Judgement { remaining: Some(RUNTIME_COST_BUDGET), verdict: Verdict::default() };
    judgement.node(rules, object, old, None, &FieldPath::root());
    judgement.verdict
}

/// Why no rules were looked at: errors of the schema come first.
pub fn blocked(errors: &[FieldError]) -> Option<FieldError> {
    let blocking = [
        FieldErrorKind::NotSupported,
        FieldErrorKind::Required,
        FieldErrorKind::TooLong,
        FieldErrorKind::TooMany,
        FieldErrorKind::TypeInvalid,
    ];
    errors.iter().any(|error| blocking.contains(&error.kind)).then(|| {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        field::invalid("<nil>", Json::Null, detail)
    })
}

struct Judgement {
    /// What may still be spent; `None` when nothing is looked at any more.
    remaining: Option<u64>,
    verdict: Verdict,
}

/// A value and what it was.
type Pair<'v> = (&'v Json, &'v Json);

fn shown(path: &FieldPath) -> String {
    if path.as_str().is_empty() { "<nil>".to_owned() } else { path.as_str().to_owned() }
}

impl Judgement {
    fn node(
        &mut self,
        rules: &Rules,
        value: &Json,
        old: Option<&Json>,
        nearest: Option<Pair<'_>>,
        path: &FieldPath,
    ) {
        let old = old.filter(|old| !old.is_null());
        if value.is_null() || self.remaining.is_none() {
            return;
        }
        let own = old.map(|old| (value, old));
        self.own(rules, value, old, own.or(nearest), path);
        let nearest = own.or(nearest);
        match value {
            Json::Object(fields) => {
                let before = old.and_then(Json::as_object).filter(|_| !rules.atomic);
                for (name, field) in fields {
                    let old = before.and_then(|before| before.get(name));
                    if let Some(rules) = rules.properties.get(name) {
                        self.node(rules, field, old, nearest, &path.child(name));
                    } else if let Some(rules) = &rules.additional {
                        self.node(rules, field, old, nearest, &path.key(name));
                    }
                }
            }
            Json::Array(items) => {
                let Some(below) = &rules.items else { return };
                let before = old.and_then(Json::as_array);
                for (index, item) in items.iter().enumerate() {
                    let old = before.and_then(|before| same_item(item, before, &rules.list_type));
                    self.node(below, item, old, nearest, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn own(
        &mut self,
        rules: &Rules,
        value: &Json,
        old: Option<&Json>,
        correlated: Option<Pair<'_>>,
        path: &FieldPath,
    ) {
        let Some(shape) = &rules.shape else { return };
        for rule in &rules.own {
            if self.remaining.is_none() {
                return;
            }
            if rule.uses_old && old.is_none() && !rule.optional_old {
                continue;
            }
            let program = match &rule.condition {
                Ok(program) => program,
                Err(error) => {
                    self.refuse(rules, path, format!("rule compile error: {error}"));
                    continue;
                }
            };
            let before = old.map(|old| Value::of(old, &shape.ty));
            let before = if rule.optional_old {
                Some(Value::Optional(before.map(std::sync::Arc::new)))
            } else {
                before
            };
            let mut inputs = Inputs::new(vec![Some(Value::of(value, &shape.ty)), before]);
            let mut meter = Meter::new(PER_CALL_LIMIT);
            let result = program.evaluate(&mut inputs, &mut meter);
            if !self.spend(meter.spent()) {
                let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
                self.refuse(rules, path, detail.to_owned());
                return;
            }
            let named = if rule.message.is_empty() { &rule.rule } else { &rule.message };
            match result {
                Ok(Value::Bool(true)) => {}
                Err(error @ EvalError::NoSuchOverload) => self.refuse(
                    rules,
                    path,
                    format!("'{error}': call arguments did not match a supported operator, function or macro signature for rule: {named}"),
                ),
                Err(error @ EvalError::CostLimitExceeded) => {
                    self.remaining = None;
                    self.refuse(
                        rules,
                        path,
                        format!("'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {named}"),
                    );
                }
                Err(error) => self.refuse(rules, path, format!("{error} evaluating rule: {named}")),
                Ok(_) => {
                    let at = rule.steps.iter().fold(path.clone(), |path, step| match step {
                        Step::Field(name) => path.child(name),
                        Step::Key(key) => path.key(key),
                    });
                    let message = self.message(rule, &mut inputs);
                    let error = match message {
                        Ok(message) => for_reason(rule, shown(&at), displayed(rules.kind, value), message),
                        Err(detail) => field::invalid(shown(&at), rules.kind, detail),
                    };
                    let unchanged = || correlated.is_some_and(|(now, before)| now == before);
                    if !rule.uses_old && unchanged() {
                        self.verdict.warnings.push(error);
                    } else {
                        self.verdict.errors.push(error);
                    }
                }
            }
        }
    }

    fn refuse(&mut self, rules: &Rules, path: &FieldPath, detail: String) {
        self.verdict.errors.push(field::invalid(shown(path), rules.kind, detail));
    }

    /// Takes a cost from what may be spent. Whether that was enough.
    fn spend(&mut self, cost: u64) -> bool {
        self.remaining = self.remaining.and_then(|remaining| remaining.checked_sub(cost));
        self.remaining.is_some()
    }

    /// The message of a rule that does not hold; an error when looking for it has used up the budget.
    fn message(&mut self, rule: &Rule, inputs: &mut Inputs<'_, '_>) -> Result<String, String> {
        let fallback = || {
            if rule.message.is_empty() { format!("failed rule: {}", rule.rule) } else { rule.message.clone() }
        };
        let Some(Ok(program)) = &rule.message_expression else { return Ok(fallback()) };
        let mut meter = Meter::new(PER_CALL_LIMIT);
        let result = program.evaluate(inputs, &mut meter);
        if !self.spend(meter.spent()) {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned());
        }
        match result {
            Err(EvalError::CostLimitExceeded) => {
                self.remaining = None;
                Err("no further validation rules will be run due to call cost exceeds limit for messageExpression".to_owned())
            }
            Ok(value) => {
                let made = value.as_str().map(str::trim).unwrap_or_default();
                let usable = !made.is_empty() && made.len() <= MESSAGE_BYTES_MAX && !made.contains('\n');
                Ok(if usable { made.to_owned() } else { fallback() })
            }
            Err(_) => Ok(fallback()),
        }
    }
}

/// What an error shows of a value that breaks a rule: simple values as they are, nothing of large ones.
fn displayed(kind: &str, value: &Json) -> Option<Json> {
    (!matches!(kind, "object" | "array")).then(|| value.clone())
}

fn for_reason(rule: &Rule, path: String, value: Option<Json>, detail: String) -> FieldError {
    let (kind, bad_value, detail) = match rule.reason.as_str() {
        "FieldValueForbidden" => return field::forbidden(path, detail),
        "FieldValueRequired" => return field::required(path, detail),
        "FieldValueDuplicate" => (FieldErrorKind::Duplicate, value, String::new()),
        _ => (FieldErrorKind::Invalid, value, detail),
    };
    FieldError { kind, path, bad_value, detail }
}

/// What an item was before: only keys tell.
fn same_item<'v>(item: &Json, before: &'v [Json], list_type: &Items) -> Option<&'v Json> {
    let Items::Map(keys) = list_type else { return None };
    before.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::schema_rules;
    use serde_json::json;

    fn problems(schema: &Json) -> Vec<String> {
        let mut errors = Vec::new();
        schema_rules::check(schema, &FieldPath::new("s"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn texts(schema: &Json, object: &Json, old: Option<&Json>) -> (Vec<String>, Vec<String>) {
        assert_eq!(problems(schema), Vec::<String>::new());
        let rules = Rules::of(&Structural::of(schema)).expect("there are rules");
        let verdict = judge(object, old, &rules);
        let shown = |errors: Vec<FieldError>| errors.iter().map(ToString::to_string).collect();
        (shown(verdict.errors), shown(verdict.warnings))
    }

    #[test]
    fn rules_of_all_levels_are_held() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name != 'no'", "fieldPath": ".spec.x"}], "properties": {
            "spec": {"type": "object", "x-kubernetes-validations": [
                {"rule": "self.x + self.y > 0"},
                {"rule": "self.x < 5", "messageExpression": "'x is ' + string(self.x)", "reason": "FieldValueForbidden", "fieldPath": ".x"}],
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}, "a-b": {"type": "string"}, "in": {"type": "string"},
                    "list": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 9,
                        "x-kubernetes-validations": [{"rule": "self.startsWith('a')", "message": "must start with a"}]}},
                    "map": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}}}}});
        let object = json!({"metadata": {"name": "no"}, "spec": {"x": 7, "y": -9, "list": ["a", "b"], "map": {"k": 0}}});
        assert_eq!(
            texts(&schema, &object, None).0,
            [
                "spec.x: Invalid value: failed rule: self.metadata.name != 'no'",
                "spec: Invalid value: failed rule: self.x + self.y > 0",
                "spec.x: Forbidden: x is 7",
                "spec.list[1]: Invalid value: \"b\": must start with a",
                "spec.map[k]: Invalid value: 0: failed rule: self > 0",
            ]
        );
    }

    #[test]
    fn transitions_compare_with_what_was() {
        let schema = json!({"type": "object", "properties": {
            "num": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > oldSelf"}]},
            "opt": {"type": "integer", "x-kubernetes-validations": [{"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true}]},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "maxItems": 9,
                "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.v == oldSelf.v", "message": "v is immutable"}]}}}});
        let old = json!({"num": 10, "opt": 1, "list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]});
        let new =
            json!({"num": 9, "opt": 2, "list": [{"k": "b", "v": 3}, {"k": "c", "v": 9}, {"k": "a", "v": 1}]});
        assert!(texts(&schema, &old, None).0.is_empty());
        assert_eq!(
            texts(&schema, &new, Some(&old)).0,
            [
                "list[0]: Invalid value: v is immutable",
                "num: Invalid value: 9: failed rule: self > oldSelf",
                "opt: Invalid value: 2: failed rule: !oldSelf.hasValue() || oldSelf.value() == self",
            ]
        );
    }

    #[test]
    fn what_has_not_changed_is_only_warned_about() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]}, "b": {"type": "integer"}}});
        let (errors, warnings) = texts(&schema, &json!({"a": 1, "b": 2}), Some(&json!({"a": 1, "b": 1})));
        assert_eq!(
            (errors, warnings),
            (Vec::new(), vec!["a: Invalid value: 1: failed rule: self > 5".to_owned()])
        );
        let (errors, _) = texts(&schema, &json!({"a": 2}), Some(&json!({"a": 1})));
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a_rule_that_costs_too_much_is_cut_off() {
        let schema = json!({"type": "object", "properties": {"large": {"type": "array", "maxItems": 725, "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]}}});
        let object = json!({"large": vec![20; 725]});
        assert_eq!(
            texts(&schema, &object, None).0,
            [
                "large: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(x, self.all(y, x == y))"
            ]
        );
    }

    #[test]
    fn wrong_rules_are_refused_with_the_definition() {
        let with = |property: Json| problems(&json!({"type": "object", "properties": {"x": property}}));
        let rule = |rule: Json| {
            with(
                json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [rule]}),
            )
        };
        let at = "s.properties[x].x-kubernetes-validations[0]";
        for (given, path, wanted) in [
            (
                json!({"rule": "self.z == 100"}),
                "rule",
                "compilation failed: ERROR: <input>:1:5: undefined field 'z'",
            ),
            (json!({"rule": "self = 42"}), "rule", "Syntax error"),
            (json!({"rule": "self.a"}), "rule", "cel expression must evaluate to a bool"),
            (json!({"rule": " "}), "rule", "Required value: rule is not specified"),
            (json!({"rule": "true", "message": " "}), "message", "message must be non-empty if specified"),
            (
                json!({"rule": "true", "messageExpression": "1"}),
                "messageExpression",
                "messageExpression must evaluate to a string",
            ),
            (json!({"rule": "true", "reason": "Odd"}), "reason", "Unsupported value: \"Odd\""),
            (json!({"rule": "true", "fieldPath": ".b"}), "fieldPath", "fieldPath must be a valid path"),
            (
                json!({"rule": "true", "optionalOldSelf": true}),
                "optionalOldSelf",
                "may not be set if oldSelf is not used in rule",
            ),
        ] {
            let found = rule(given.clone());
            assert!(
                found.len() == 1
                    && found[0].starts_with(&format!("{at}.{path}: "))
                    && found[0].contains(wanted),
                "{given}: {found:?}"
            );
        }
        let found = with(json!({"type": "array", "items": {"type": "array", "items": {"type": "string"},
            "x-kubernetes-validations": [{"rule": "self.all(s, s == 'string constant')"}]}}));
        assert!(
            found[1].contains("Forbidden: estimated rule cost exceeds budget by factor of more than 100x"),
            "{found:?}"
        );
        assert!(
            found.iter().any(|one| one.starts_with("s: Forbidden: x-kubernetes-validations estimated rule")),
            "{found:?}"
        );
        let found = with(
            json!({"type": "array", "maxItems": 3, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
        );
        assert!(
            found[0].contains(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[x]"
            ),
            "{found:?}"
        );
        let found =
            problems(&json!({"type": "object", "anyOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]}));
        assert_eq!(found, ["s.anyOf[0].x-kubernetes-validations: Forbidden: must be empty to be structural"]);
    }
}
