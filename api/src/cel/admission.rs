//! What expressions of admission policies and match conditions of webhooks see: `object`, `oldObject`, `request`, `namespaceObject`, `params`,
//! `authorizer` and `variables`.

use serde_json::Value as Json;

use super::{Authorization, Authorizer, Environment, Program, Question, Shape, Type, Value};

/// What is known of the objects that expressions are about.
#[derive(Clone, Debug)]
pub struct Known {
    /// `object` and `oldObject`.
    pub object: Shape,
    /// `params`, where there are any.
    pub params: Option<Shape>,
}

impl Known {
    /// Objects of any kind.
    pub fn nothing(has_params: bool) -> Known {
        Known { object: Shape::dynamic(), params: has_params.then(Shape::dynamic) }
    }

    /// The variables of expressions. Permissions can be asked for where it makes a decision, not where it makes a message.
    pub fn environment(&self, with_authorizer: bool) -> Environment {
        let mut environment = Environment::new()
            .with("object", self.object.clone())
            .with("oldObject", self.object.clone())
            .with("request", request())
            .with("namespaceObject", namespace());
        if let Some(params) = &self.params {
            environment = environment.with("params", params.clone());
        }
        if with_authorizer {
            let opaque = |name| Shape::plain(Type::Opaque(name), 0, 2);
            environment = environment
                .with("authorizer", opaque("kubernetes.authorization.Authorizer"))
                .with("authorizer.requestResource", opaque("kubernetes.authorization.ResourceCheck"));
        }
        environment
    }
}

/// The data behind the variables, as JSON; null for what is not there.
pub struct Data<'a> {
    /// The object as it is to be.
    pub object: &'a Json,
    /// The object as it is.
    pub old: &'a Json,
    /// The request.
    pub request: &'a Json,
    /// The namespace of the object.
    pub namespace: &'a Json,
    /// The parameters of the policy; absent where it takes none.
    pub params: Option<&'a Json>,
    /// Who answers about permissions.
    pub authorizer: &'a dyn Authorizer,
}

impl<'a> Data<'a> {
    /// Values in the order in which [`Known::environment`] declares them.
    pub fn values(&self) -> Vec<Option<Value<'a>>> {
        let dynamic = |json: &'a Json| Some(Value::of(json, &Type::Dyn));
        let mut values = vec![
            dynamic(self.object),
            dynamic(self.old),
            Some(Value::of(self.request, &request().ty)),
            Some(Value::of(self.namespace, &namespace().ty)),
        ];
        values.extend(self.params.map(dynamic));
        values.push(Some(Authorization::start(self.authorizer)));
        let text = |pointer: &str| {
            self.request.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
        };
        let question = Question {
            group: text("/resource/group"),
            resource: text("/resource/resource"),
            subresource: text("/subResource"),
            namespace: text("/namespace"),
            name: text("/name"),
            ..Question::default()
        };
        values.push(Some(Authorization::resource(self.authorizer, question)));
        values
    }
}

/// Compiles an expression that has to give one of these types.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn compile(environment: &Environment, text: &str, wanted: &[Type]) -> Result<Program, String> {
    let program = environment.compile(text).map_err(|error| format!("compilation failed: {error}"))?;
    if wanted.contains(program.ty()) {
        return Ok(program);
    }
    let given = program.ty();
    Err(match wanted {
        [one] => format!("must evaluate to {one} but got {given}"),
        all => format!(
            "must evaluate to one of [{}] but got {given}",
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        ),
    })
}

fn texts() -> Shape {
    Shape::map(Shape::text(), u64::MAX)
}

fn boolean() -> Shape {
    Shape::plain(Type::Bool, 0, 4)
}

/// An `AdmissionRequest` without its objects.
fn request() -> Shape {
    let kind = || {
        let fields = [("group", Shape::text()), ("version", Shape::text()), ("kind", Shape::text())];
        Shape::object("kubernetes.GroupVersionKind", fields)
    };
    let resource = || {
        let fields = [("group", Shape::text()), ("version", Shape::text()), ("resource", Shape::text())];
        Shape::object("kubernetes.GroupVersionResource", fields)
    };
    let user = Shape::object(
        "kubernetes.UserInfo",
        [
            ("username", Shape::text()),
            ("uid", Shape::text()),
            ("groups", Shape::list(Shape::text(), u64::MAX)),
            ("extra", Shape::map(Shape::list(Shape::text(), u64::MAX), u64::MAX)),
        ],
    );
    Shape::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Shape::text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Shape::text()),
            ("name", Shape::text()),
            ("namespace", Shape::text()),
            ("operation", Shape::text()),
            ("userInfo", user),
            ("dryRun", boolean()),
            ("options", Shape::dynamic()),
        ],
    )
}

/// A namespace, but for what only its controllers know.
fn namespace() -> Shape {
    let time = || Shape::plain(Type::Timestamp, 0, 22);
    let metadata = Shape::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Shape::text()),
            ("generateName", Shape::text()),
            ("namespace", Shape::text()),
            ("labels", texts()),
            ("annotations", texts()),
            ("uid", Shape::text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", Shape::plain(Type::Int, 0, 1)),
            ("deletionTimestamp", time()),
            ("generation", Shape::plain(Type::Int, 0, 1)),
            ("resourceVersion", Shape::text()),
            ("finalizers", Shape::list(Shape::text(), u64::MAX)),
        ],
    );
    let finalizers = [("finalizers", Shape::list(Shape::text(), u64::MAX))];
    Shape::object(
        "kubernetes.Namespace",
        [
            ("metadata", metadata),
            ("spec", Shape::object("kubernetes.NamespaceSpec", finalizers)),
            ("status", Shape::object("kubernetes.NamespaceStatus", [("phase", Shape::text())])),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{Inputs, Meter, PER_CALL_LIMIT};
    use serde_json::json;

    struct Only;

    impl Authorizer for Only {
        fn decide(&self, question: &Question) -> (bool, String) {
            (question.verb == "create" && question.resource == "deployments", "because".to_owned())
        }
    }

    #[test]
    fn expressions_see_the_request_and_ask_for_permissions() {
        let (object, request) = (
            json!({"spec": {"replicas": 3}}),
            json!({"operation": "CREATE", "resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "userInfo": {"groups": ["a"]}, "options": {"x": 1}}),
        );
        let params = json!({"max": 5});
        let data = Data {
            object: &object,
            old: &Json::Null,
            request: &request,
            namespace: &Json::Null,
            params: Some(&params),
            authorizer: &Only,
        };
        let environment = Known::nothing(true).environment(true);
        for text in [
            "object.spec.replicas < params.max",
            "oldObject == null && namespaceObject == null",
            "request.operation == 'CREATE' && 'a' in request.userInfo.groups && request.options.x == 1",
            "authorizer.group('apps').resource('deployments').namespace('x').check('create').allowed()",
            "authorizer.group('').resource('pods').check('create').reason() == 'because'",
            "authorizer.requestResource.check('create').allowed() && !authorizer.path('/x').check('get').allowed()",
        ] {
            let program = compile(&environment, text, &[Type::Bool]).expect(text);
            let mut meter = Meter::new(PER_CALL_LIMIT);
            let result = program.evaluate(&mut Inputs::new(data.values()), &mut meter);
            assert!(matches!(result, Ok(Value::Bool(true))), "{text}: {result:?}");
        }
        let error = |text: &str| compile(&environment, text, &[Type::Bool]).expect_err(text);
        assert_eq!(error("object.spec"), "must evaluate to bool but got dyn");
        assert!(error("request.none == ''").contains("undefined field 'none'"));
        let plain = Known::nothing(false).environment(false);
        assert!(
            compile(&plain, "params.x == 1", &[Type::Bool])
                .is_err_and(|error| error.contains("undeclared reference to 'params'"))
        );
        assert!(compile(&plain, "authorizer.path('').check('').allowed()", &[Type::Bool]).is_err());
    }
}
