//! Asks a server that a kubeconfig file names what a user may do. Requests that its match conditions leave out are not its matter.

use std::time::Duration;

use coracle_api::cel::{
    Environment, Inputs, MATCH_CONDITIONS_COST_BUDGET, Meter, Program, Shape, Type, Value as Found,
};
use coracle_api::kinds::access::{boolean, text};
use serde_json::{Value, json};

use super::{Attributes, Opinion, question};
use crate::extension::kubeconfig::Remote;
use crate::extension::review::Version;
use crate::recent::Recent;
use crate::server::request_info::UserInfo;

const REMEMBERED_MAX: usize = 8192;
/// A longer question is not remembered: clients say how long it is.
const REMEMBERED_BYTES_MAX: usize = 10_000;

/// What is said about a webhook.
pub(super) struct Settings {
    /// For the log.
    pub(super) name: String,
    /// Of the reviews it is sent.
    pub(super) version: Version,
    /// How long it is remembered that something is allowed.
    pub(super) allowed: Duration,
    /// How long it is remembered that something is not.
    pub(super) refused: Duration,
    /// How long it may take.
    pub(super) patience: Duration,
    /// When it does not answer, the request is refused, whatever others say.
    pub(super) refuses_by_default: bool,
}

/// A webhook.
pub(super) struct Webhook {
    settings: Settings,
    remote: Remote,
    conditions: Conditions,
    recent: Recent<String, Opinion>,
}

/// What has to hold of a request for the webhook to be asked.
struct Conditions {
    programs: Vec<(String, Program)>,
    /// Of what they see.
    ty: Type,
}

impl Webhook {
    /// Asked about requests for which all conditions hold.
    ///
    /// # Errors
    /// A condition that cannot be compiled.
    pub(super) fn new(settings: Settings, remote: Remote, conditions: &[String]) -> Result<Self, String> {
        let conditions = Conditions::compile(conditions)?;
        Ok(Self { settings, remote, conditions, recent: Recent::new(REMEMBERED_MAX) })
    }

    /// What it says.
    pub(super) async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Opinion {
        let spec = question::spec(user, attributes);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Opinion::None(String::new()),
            Err(error) => return self.unanswered(&error),
        }
        let key = spec.to_string();
        if let Some(known) = self.recent.get(&key) {
            return known;
        }
        match self.remote.ask(&review(self.settings.version, spec), self.settings.patience).await {
            Ok(answer) => {
                let opinion = verdict(&answer);
                let time = match &opinion {
                    Opinion::Allow(_) => self.settings.allowed,
                    _ => self.settings.refused,
                };
                if key.len() <= REMEMBERED_BYTES_MAX {
                    self.recent.put(key, opinion.clone(), time);
                }
                opinion
            }
            Err(error) => self.unanswered(&error),
        }
    }

    fn unanswered(&self, error: &str) -> Opinion {
        tracing::warn!(webhook = self.settings.name, error, "an authorization webhook did not answer");
        match self.settings.refuses_by_default {
            true => Opinion::Deny(String::new()),
            false => Opinion::None(String::new()),
        }
    }
}

impl Conditions {
    fn compile(texts: &[String]) -> Result<Self, String> {
        let shape = shape();
        let ty = shape.ty.clone();
        let environment = Environment::new().with("request", shape);
        let compiled = texts.iter().map(|text| match environment.compile(text) {
            Ok(program) if *program.ty() == Type::Bool => Ok((text.clone(), program)),
            Ok(_) => Err(format!("matchConditions: {text:?}: must evaluate to bool")),
            Err(error) => Err(format!("matchConditions: {text:?}: compilation failed: {error}")),
        });
        Ok(Self { programs: compiled.collect::<Result<_, _>>()?, ty })
    }

    /// Whether all hold. One that does not counts more than one that cannot be evaluated.
    fn hold(&self, spec: &Value) -> Result<bool, String> {
        let mut meter = Meter::new(MATCH_CONDITIONS_COST_BUDGET);
        let mut failed = None;
        for (text, program) in &self.programs {
            match program.evaluate(&mut Inputs::new(vec![Some(Found::of(spec, &self.ty))]), &mut meter) {
                Ok(Found::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(error) => failed = Some(format!("expression '{text}' resulted in error: {error}")),
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

/// The question; the older version has another name for groups.
fn review(version: Version, mut spec: Value) -> Value {
    if let (Version::V1Beta1, Some(fields)) = (version, spec.as_object_mut())
        && let Some(groups) = fields.remove("groups")
    {
        fields.insert("group".into(), groups);
    }
    json!({"kind": "SubjectAccessReview", "apiVersion": version.api_version("authorization.k8s.io"), "metadata": {},
        "spec": spec, "status": {"allowed": false}})
}

fn verdict(answer: &Value) -> Opinion {
    let none = Value::Null;
    let status = answer.get("status").unwrap_or(&none);
    let reason = text(status, "reason").to_owned();
    match (boolean(status, "denied"), boolean(status, "allowed")) {
        (true, _) => Opinion::Deny(reason),
        (false, true) => Opinion::Allow(reason),
        (false, false) => Opinion::None(reason),
    }
}

/// What conditions see: the spec of a SubjectAccessReview.
fn shape() -> Shape {
    let texts = || Shape::list(Shape::text(), u64::MAX);
    let selector = |name| {
        let requirement = [("key", Shape::text()), ("operator", Shape::text()), ("values", texts())];
        let requirements =
            Shape::list(Shape::object("kubernetes.SelectorRequirement", requirement), u64::MAX);
        Shape::object(name, [("requirements", requirements), ("rawSelector", Shape::text())])
    };
    let resource = Shape::object(
        "kubernetes.ResourceAttributes",
        [
            ("namespace", Shape::text()),
            ("verb", Shape::text()),
            ("group", Shape::text()),
            ("version", Shape::text()),
            ("resource", Shape::text()),
            ("subresource", Shape::text()),
            ("name", Shape::text()),
            ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
            ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
        ],
    );
    let path = [("path", Shape::text()), ("verb", Shape::text())];
    Shape::object(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes", resource),
            ("nonResourceAttributes", Shape::object("kubernetes.NonResourceAttributes", path)),
            ("user", Shape::text()),
            ("groups", texts()),
            ("extra", Shape::map(texts(), u64::MAX)),
            ("uid", Shape::text()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_allow_refuse_or_leave_it_to_others() {
        let said = |status: Value| verdict(&json!({ "status": status }));
        assert_eq!(said(json!({"allowed": true, "reason": "r"})), Opinion::Allow("r".into()));
        assert_eq!(said(json!({"allowed": true, "denied": true})), Opinion::Deny(String::new()));
        assert_eq!(said(json!({"allowed": false})), Opinion::None(String::new()));
        let older = review(Version::V1Beta1, json!({"user": "u", "groups": ["g"]}));
        assert_eq!(older["spec"], json!({"user": "u", "group": ["g"]}));
    }

    #[test]
    fn conditions_see_what_is_asked_for() {
        let holds =
            |text: &str, spec: &Value| Conditions::compile(&[text.to_owned()]).expect(text).hold(spec);
        let spec = json!({"user": "u", "groups": ["g"], "resourceAttributes": {"resource": "pods", "namespace": "n"}});
        for (text, expected) in [
            ("request.user == 'u' && 'g' in request.groups", Ok(true)),
            ("has(request.resourceAttributes) && request.resourceAttributes.namespace == 'm'", Ok(false)),
            ("!has(request.nonResourceAttributes)", Ok(true)),
        ] {
            assert_eq!(holds(text, &spec), expected, "{text}");
        }
        assert!(holds("request.resourceAttributes.name == ''", &json!({})).is_err());
    }
}
