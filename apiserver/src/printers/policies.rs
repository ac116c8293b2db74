//! The tables of what the server itself obeys: webhooks, admission policies, flow control, signing requests, other servers.

use coracle_api::kinds::certificate_request;
use coracle_api::meta::get;
use serde_json::Value;

use super::Context;
use super::cells::{NONE, age, list, name, selector, text};
use super::columns::{AGE, Column, NAME, number as count, text as column};
use super::duration::human;

const UNSET: &str = "<unset>";

pub(super) const WEBHOOKS: &[Column] = &[NAME, count("Webhooks", "Number of webhooks"), AGE];

pub(super) fn webhooks(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), (list(object, &["webhooks"]).len() as i64).into(), age(object, context)]
}

pub(super) const POLICY: &[Column] = &[
    NAME,
    count("Validations", "Number of rules"),
    column("ParamKind", "The kind of objects that hold parameters"),
    AGE,
];

pub(super) fn policy(object: &Value, context: &Context) -> Vec<Value> {
    counted(object, "validations", context)
}

pub(super) const MUTATING_POLICY: &[Column] = &[
    NAME,
    count("Mutations", "Number of changes"),
    column("ParamKind", "The kind of objects that hold parameters"),
    AGE,
];

pub(super) fn mutating_policy(object: &Value, context: &Context) -> Vec<Value> {
    counted(object, "mutations", context)
}

/// A policy with how many it has of its expressions.
fn counted(object: &Value, expressions: &str, context: &Context) -> Vec<Value> {
    let kind = &object["spec"]["paramKind"];
    let shown = if kind.is_object() {
        format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"]))
    } else {
        UNSET.to_owned()
    };
    let rules = list(object, &["spec", expressions]).len() as i64;
    vec![name(object), rules.into(), shown.into(), age(object, context)]
}

pub(super) const POLICY_BINDING: &[Column] = &[
    NAME,
    column("PolicyName", "The policy that is bound"),
    column("ParamRef", "Where its parameters are"),
    AGE,
];

pub(super) fn policy_binding(object: &Value, context: &Context) -> Vec<Value> {
    let reference = &object["spec"]["paramRef"];
    let shown = match (text(reference, &["namespace"]), text(reference, &["name"])) {
        ("", "") if reference.get("selector").is_some() => selector(reference.get("selector")),
        (_, "") => UNSET.into(),
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    };
    vec![name(object), text(object, &["spec", "policyName"]).into(), shown, age(object, context)]
}

pub(super) const FLOW_SCHEMA: &[Column] = &[
    NAME,
    column("PriorityLevel", "The level that matching requests belong to"),
    count("MatchingPrecedence", "Which of several matching schemas counts: the lowest"),
    column("DistinguisherMethod", "What tells flows apart"),
    AGE,
    column("MissingPL", "Whether the level is missing"),
];

pub(super) fn flow_schema(object: &Value, context: &Context) -> Vec<Value> {
    let method = match text(object, &["spec", "distinguisherMethod", "type"]) {
        "" => NONE,
        method => method,
    };
    let conditions = list(object, &["status", "conditions"]);
    let dangling = conditions.iter().find(|condition| text(condition, &["type"]) == "Dangling");
    vec![
        name(object),
        text(object, &["spec", "priorityLevelConfiguration", "name"]).into(),
        get(object, &["spec", "matchingPrecedence"]).and_then(Value::as_i64).unwrap_or_default().into(),
        method.into(),
        age(object, context),
        dangling.map_or("?", |condition| text(condition, &["status"])).into(),
    ]
}

pub(super) const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    column("Type", "Whether the level is limited"),
    column("NominalConcurrencyShares", "Its share of the server"),
    column("Queues", "Number of queues"),
    column("HandSize", "Number of queues that a flow may use"),
    column("QueueLengthLimit", "How many requests wait in a queue"),
    AGE,
];

pub(super) fn priority_level(object: &Value, context: &Context) -> Vec<Value> {
    let at = |path: &[&str]| -> Value {
        let number = get(&object["spec"]["limited"], path).and_then(Value::as_i64);
        number.map_or_else(|| NONE.into(), |number| number.to_string().into())
    };
    vec![
        name(object),
        text(object, &["spec", "type"]).into(),
        at(&["nominalConcurrencyShares"]),
        at(&["limitResponse", "queuing", "queues"]),
        at(&["limitResponse", "queuing", "handSize"]),
        at(&["limitResponse", "queuing", "queueLengthLimit"]),
        age(object, context),
    ]
}

pub(super) const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "Who is to sign"),
    column("Requestor", "Who asked"),
    column("RequestedDuration", "How long the certificate is to be valid"),
    column("Condition", "What became of it"),
];

pub(super) fn signing_request(object: &Value, context: &Context) -> Vec<Value> {
    let signer = match text(object, &["spec", "signerName"]) {
        "" => NONE,
        signer => signer,
    };
    let duration = get(object, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
    vec![
        name(object),
        age(object, context),
        signer.into(),
        text(object, &["spec", "username"]).into(),
        duration.map_or_else(|| NONE.to_owned(), human).into(),
        certificate_request::state(object).into(),
    ]
}

pub(super) const API_SERVICE: &[Column] =
    &[NAME, column("Service", "Who serves the group"), column("Available", "Whether it can be reached"), AGE];

pub(super) fn api_service(object: &Value, context: &Context) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let shown = if service.is_object() {
        format!("{}/{}", text(service, &["namespace"]), text(service, &["name"]))
    } else {
        "Local".to_owned()
    };
    let conditions = list(object, &["status", "conditions"]);
    let available = conditions.iter().find(|condition| text(condition, &["type"]) == "Available");
    let available =
        match available.map(|condition| (text(condition, &["status"]), text(condition, &["reason"]))) {
            None => "Unknown".to_owned(),
            Some(("True", _) | (_, "")) => {
                available.map(|one| text(one, &["status"])).unwrap_or_default().to_owned()
            }
            Some((status, reason)) => format!("{status} ({reason})"),
        };
    vec![name(object), shown.into(), available.into(), age(object, context)]
}
