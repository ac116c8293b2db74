//! Questions about permissions: `authorizer.group('apps').resource('deployments').check('create').allowed()`. Who answers them is handed in.

use std::fmt;
use std::sync::Arc;

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, no_such_overload};
use super::text;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The ServiceAccount that is asked about (namespace and name) instead of who makes the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// Empty: the object itself.
    pub subresource: String,
    /// Empty: none, or all.
    pub namespace: String,
    /// Empty: all.
    pub name: String,
    /// The verb.
    pub verb: String,
}

/// Answers questions about permissions.
pub trait Authorizer: Send + Sync {
    /// Whether it is allowed, and why.
    fn decide(&self, question: &Question) -> (bool, String);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Who,
    Path,
    Group,
    Resource,
    Decided,
}

/// A question as far as it was asked, or its answer.
#[derive(Clone)]
pub struct Authorization<'a> {
    authorizer: &'a dyn Authorizer,
    stage: Stage,
    question: Question,
    allowed: bool,
    reason: String,
}

impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authorization").field("question", &self.question).finish_non_exhaustive()
    }
}

impl<'a> Authorization<'a> {
    /// The variable `authorizer`.
    pub fn start(authorizer: &'a dyn Authorizer) -> Value<'a> {
        Authorization::about(authorizer, Stage::Who, Question::default())
    }

    /// The variable `authorizer.requestResource`: everything but the verb is asked.
    pub fn resource(authorizer: &'a dyn Authorizer, question: Question) -> Value<'a> {
        Authorization::about(authorizer, Stage::Resource, question)
    }

    fn about(authorizer: &'a dyn Authorizer, stage: Stage, question: Question) -> Value<'a> {
        let reason = String::new();
        Value::Authorization(Arc::new(Authorization { authorizer, stage, question, allowed: false, reason }))
    }

    pub(in crate::cel) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Who => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decided => "kubernetes.authorization.Decision",
        }
    }
}

pub(super) const ROWS: &[Row] = &[
    (
        ".serviceAccount(kubernetes.authorization.Authorizer, string, string): kubernetes.authorization.Authorizer",
        |values| {
            let (namespace, name) = (text(values, 1)?.to_owned(), text(values, 2)?.to_owned());
            asked(values, Stage::Who, |question| question.service_account = Some((namespace, name)))
        },
    ),
    (".path(kubernetes.authorization.Authorizer, string): kubernetes.authorization.PathCheck", |values| {
        let path = text(values, 1)?.to_owned();
        asked(values, Stage::Path, |question| question.path = Some(path))
    }),
    (".group(kubernetes.authorization.Authorizer, string): kubernetes.authorization.GroupCheck", |values| {
        let group = text(values, 1)?.to_owned();
        asked(values, Stage::Group, |question| question.group = group)
    }),
    (
        ".resource(kubernetes.authorization.GroupCheck, string): kubernetes.authorization.ResourceCheck",
        |values| {
            let resource = text(values, 1)?.to_owned();
            asked(values, Stage::Resource, |question| question.resource = resource)
        },
    ),
    (
        ".subresource(kubernetes.authorization.ResourceCheck, string): kubernetes.authorization.ResourceCheck",
        |values| {
            let subresource = text(values, 1)?.to_owned();
            asked(values, Stage::Resource, |question| question.subresource = subresource)
        },
    ),
    (
        ".namespace(kubernetes.authorization.ResourceCheck, string): kubernetes.authorization.ResourceCheck",
        |values| {
            let namespace = text(values, 1)?.to_owned();
            asked(values, Stage::Resource, |question| question.namespace = namespace)
        },
    ),
    (
        ".name(kubernetes.authorization.ResourceCheck, string): kubernetes.authorization.ResourceCheck",
        |values| {
            let name = text(values, 1)?.to_owned();
            asked(values, Stage::Resource, |question| question.name = name)
        },
    ),
    (".check(kubernetes.authorization.PathCheck, string): kubernetes.authorization.Decision", check),
    (".check(kubernetes.authorization.ResourceCheck, string): kubernetes.authorization.Decision", check),
    (".allowed(kubernetes.authorization.Decision): bool", |values| Ok(of(values)?.allowed.into())),
    (".reason(kubernetes.authorization.Decision): string", |values| Ok(of(values)?.reason.clone().into())),
    (".errored(kubernetes.authorization.Decision): bool", |_| Ok(false.into())),
    (".error(kubernetes.authorization.Decision): string", |_| Ok(String::new().into())),
];

fn of<'v, 'a>(values: &'v [Value<'a>]) -> Result<&'v Authorization<'a>, EvalError> {
    match values.first() {
        Some(Value::Authorization(authorization)) => Ok(authorization),
        _ => Err(no_such_overload()),
    }
}

fn asked<'a>(
    values: &[Value<'a>],
    stage: Stage,
    change: impl FnOnce(&mut Question),
) -> Result<Value<'a>, EvalError> {
    let mut next = of(values)?.clone();
    next.stage = stage;
    change(&mut next.question);
    Ok(Value::Authorization(Arc::new(next)))
}

fn check<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let mut decided = of(values)?.clone();
    decided.stage = Stage::Decided;
    decided.question.verb = text(values, 1)?.to_owned();
    (decided.allowed, decided.reason) = decided.authorizer.decide(&decided.question);
    Ok(Value::Authorization(Arc::new(decided)))
}
