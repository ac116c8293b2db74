//! What the rules of a schema may say: each compiles against its schema, and none can cost too much, however large the data that the schema allows.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::field_path;
use super::rules;
use super::shapes::shape;
use super::structural::{Items, Structural};
use crate::cel::{REQUEST_BYTES_MAX, Shape};
use crate::field::{self, FieldError, FieldPath};
use crate::kinds::access::{present, text};

/// What one rule may cost, times the values it can apply to.
const RULE_COST_MAX: u64 = 10_000_000;
/// What all rules of a schema may cost.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// How many rules are named when all together cost too much.
const NAMED_MAX: usize = 4;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Adds everything wrong with the rules of an `openAPIV3Schema`, which has no other errors.
pub(super) fn check(schema: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut checks = Checks { errors, total: 0, expensive: Vec::new() };
    let structural = Structural::of(schema);
    checks.node(&structural, Place { is_resource: true, times: Some(1), uncorrelated: None }, path);
    let Checks { total, mut expensive, .. } = checks;
    if total > SCHEMA_COST_MAX {
        expensive.sort_by_key(|(cost, _)| Reverse(*cost));
        for (_, path) in expensive.into_iter().take(NAMED_MAX) {
            let detail = "contributed to estimated rule & messageExpression cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.push(field::forbidden(path, detail));
        }
        let name = "x-kubernetes-validations estimated rule & messageExpression cost total for entire OpenAPIv3 schema";
        errors.push(field::forbidden(path, too_expensive(name, total, SCHEMA_COST_MAX)));
    }
}

/// Where in a schema a node is.
#[derive(Clone)]
struct Place {
    /// It has a kind and metadata of its own.
    is_resource: bool,
    /// How many values there can be; `None` without limit.
    times: Option<u64>,
    /// The part above in which values have no counterpart in the object before.
    uncorrelated: Option<FieldPath>,
}

struct Checks<'e> {
    errors: &'e mut Vec<FieldError>,
    total: u64,
    expensive: Vec<(u64, FieldPath)>,
}

impl Checks<'_> {
    fn node(&mut self, schema: &Structural, place: Place, path: &FieldPath) {
        if !schema.rules.is_empty() {
            self.rules(schema, &place, &path.child("x-kubernetes-validations"));
        }
        let within = |times: Option<u64>, correlated: bool, below: &Structural| Place {
            is_resource: below.embedded,
            times: place.times.zip(times).map(|(one, other)| one.saturating_mul(other)),
            uncorrelated: place.uncorrelated.clone().or_else(|| (!correlated).then(|| path.clone())),
        };
        for (name, property) in &schema.properties {
            let below = within(Some(1), !schema.atomic, property);
            self.node(property, below, &path.child("properties").key(name));
        }
        if let Some(values) = &schema.additional {
            let below = within(schema.property_count.max, !schema.atomic, values);
            self.node(values, below, &path.child("additionalProperties"));
        }
        if let Some(items) = &schema.items {
            let below = within(schema.item_count.max, matches!(schema.list_type, Items::Map(_)), items);
            self.node(items, below, &path.child("items"));
        }
    }

    fn rules(&mut self, schema: &Structural, place: &Place, path: &FieldPath) {
        let before = self.errors.len();
        for (index, rule) in schema.rules.iter().enumerate() {
            self.texts(rule, schema, &path.index(index));
        }
        if self.errors.len() > before {
            return;
        }
        let Some(shape) = shape(schema, place.is_resource) else {
            let detail = "failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            self.errors.push(field::internal(path, format!("internal error: {detail}")));
            return;
        };
        for (index, rule) in schema.rules.iter().enumerate() {
            self.rule(rule, &shape, place, &path.index(index));
        }
    }

    fn texts(&mut self, rule: &Value, schema: &Structural, path: &FieldPath) {
        let (message, condition) = (text(rule, "message"), text(rule, "rule").trim());
        let broken = |text: &str| text.contains(['\n', '\r']);
        if condition.is_empty() {
            self.errors.push(field::required(path.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            self.errors.push(field::invalid(path.child("message"), message, detail));
        } else if broken(message.trim()) {
            let detail = "message must not contain line breaks";
            self.errors.push(field::invalid(path.child("message"), message, detail));
        } else if broken(condition) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            self.errors.push(field::required(path.child("message"), detail));
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            self.errors.push(field::required(path.child("messageExpression"), detail));
        }
        if let Some(reason) = present(rule, "reason").and_then(Value::as_str)
            && !REASONS.contains(&reason)
        {
            self.errors.push(field::not_supported(path.child("reason"), reason, &REASONS));
        }
        let given = text(rule, "fieldPath");
        let at = path.child("fieldPath");
        if !given.is_empty() && given.trim().is_empty() {
            self.errors.push(field::invalid(&at, given, "fieldPath must be non-empty if specified"));
        }
        if broken(given) {
            self.errors.push(field::invalid(&at, given, "fieldPath must not contain line breaks"));
        }
        let valid = field_path::parse(given).is_ok_and(|steps| field_path::is_in(&steps, schema));
        if !given.is_empty() && !valid {
            self.errors.push(field::invalid(&at, given, "fieldPath must be a valid path"));
        }
    }

    fn rule(&mut self, rule: &Value, shape: &Shape, place: &Place, path: &FieldPath) {
        let compiled = rules::compile(rule, shape);
        let at = path.child("rule");
        let times = place.times.unwrap_or(REQUEST_BYTES_MAX / (shape.json_bytes_min + 1));
        match &compiled.condition {
            Ok(program) => {
                let cost = program.estimate().saturating_mul(times);
                self.cost("estimated rule cost", cost, &at);
            }
            Err(detail) => self.errors.push(field::invalid(&at, as_upstream(rule), detail.as_str())),
        }
        let expression_at = path.child("messageExpression");
        match &compiled.message_expression {
            Some(Ok(program)) => {
                self.cost("estimated messageExpression cost", program.estimate(), &expression_at);
            }
            Some(Err(detail)) => {
                self.errors.push(field::invalid(expression_at, as_upstream(rule), detail.as_str()));
            }
            None => {}
        }
        if compiled.uses_old {
            if let Some(part) = &place.uncorrelated {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {part}"
                );
                self.errors.push(field::invalid(at, text(rule, "rule"), detail));
            }
        } else if let Some(given) = present(rule, "optionalOldSelf") {
            let detail = "may not be set if oldSelf is not used in rule";
            self.errors.push(field::invalid(path.child("optionalOldSelf"), given.clone(), detail));
        }
    }

    fn cost(&mut self, name: &str, cost: u64, path: &FieldPath) {
        if cost > RULE_COST_MAX {
            self.errors.push(field::forbidden(path, too_expensive(name, cost, RULE_COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.expensive.push((cost, path.clone()));
        }
    }
}

fn too_expensive(name: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let factor = if times > 100.0 {
        "more than 100x".to_owned()
    } else if times < 1.5 {
        format!("{times:.6}x")
    } else {
        format!("{times:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as upstream shows it in errors.
fn as_upstream(rule: &Value) -> Value {
    json!({
        "Rule": text(rule, "rule"),
        "Message": text(rule, "message"),
        "MessageExpression": text(rule, "messageExpression"),
        "Reason": rule.get("reason"),
        "FieldPath": text(rule, "fieldPath"),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    })
}
