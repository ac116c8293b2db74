//! The errors that the API answers with: HTTP code, reason, message and details in upstream's words.
//!
//! Owns the `metav1.Status` of a failure. Which request ends in which error is the server's matter.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::field::FieldError;

/// The group and plural name of a resource, printed as `deployments.apps` or, in the core group, `pods`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural resource name.
    pub resource: &'a str,
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            formatter.write_str(self.resource)
        } else {
            write!(formatter, "{}.{}", self.resource, self.group)
        }
    }
}

/// The group and kind of an object, printed as `Deployment.apps` or `Pod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupKind<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The kind.
    pub kind: &'a str,
}

impl fmt::Display for GroupKind<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            formatter.write_str(self.kind)
        } else {
            write!(formatter, "{}.{}", self.kind, self.group)
        }
    }
}

/// An error that a client sees: one HTTP answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Inner {
    code: u16,
    reason: &'static str,
    message: String,
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Value>,
    retry_after_seconds: Option<u32>,
    continue_token: String,
    has_details: bool,
    /// Another server's words, which stand for all of the above.
    foreign: Option<Value>,
}

/// Reasons that callers may tell apart.
const REASONS: &[&str] = &[
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

/// The result of anything that can end in an [`ApiError`].
pub type ApiResult<T> = Result<T, ApiError>;

/// What clients make of an answer 404 that is no `Status`.
const NO_SUCH_PATH: &str = "the server could not find the requested resource";

impl ApiError {
    /// An error with `code`, `reason` and `message` and nothing else; for what has no constructor of its own.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> ApiError {
        ApiError(Box::new(Inner { code, reason, message: message.into(), ..Inner::default() }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> ApiError {
        self.0.group = group.to_owned();
        self.0.kind = kind.to_owned();
        self.0.name = name.to_owned();
        self.0.has_details = true;
        self
    }

    /// 404 `pods "web" not found`.
    pub fn not_found(resource: GroupResource<'_>, name: &str) -> ApiError {
        ApiError::new(404, "NotFound", format!("{resource} \"{name}\" not found")).about(
            resource.group,
            resource.resource,
            name,
        )
    }

    /// 404 for a path that leads nowhere. Clients get plain text then, from which they make `the server could not find the requested resource`.
    pub fn path_not_found() -> ApiError {
        ApiError::new(404, "NotFound", NO_SUCH_PATH)
    }

    /// Whether it is about a path that leads nowhere.
    pub fn is_path_not_found(&self) -> bool {
        self.0.code == 404 && self.0.message == NO_SUCH_PATH
    }

    /// 409 `pods "web" already exists`.
    pub fn already_exists(resource: GroupResource<'_>, name: &str) -> ApiError {
        ApiError::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists")).about(
            resource.group,
            resource.resource,
            name,
        )
    }

    /// 409 `Operation cannot be fulfilled on pods "web": …`.
    pub fn conflict(resource: GroupResource<'_>, name: &str, error: impl fmt::Display) -> ApiError {
        ApiError::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {resource} \"{name}\": {error}"),
        )
        .about(resource.group, resource.resource, name)
    }

    /// The conflict of an update whose resourceVersion is not the stored one.
    pub fn modified_conflict(resource: GroupResource<'_>, name: &str) -> ApiError {
        ApiError::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of server-side apply: the fields in `causes` belong to other managers.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Value>) -> ApiError {
        let mut error = ApiError::new(409, "Conflict", message).about("", "", "");
        error.0.causes = causes;
        error
    }

    /// 422 `Pod "web" is invalid: spec.containers: Required value`.
    pub fn invalid(kind: GroupKind<'_>, name: &str, errors: Vec<FieldError>) -> ApiError {
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in &errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let mut message = format!("{kind} \"{name}\" is invalid");
        match texts.as_slice() {
            [] => {}
            [text] => message.push_str(&format!(": {text}")),
            several => message.push_str(&format!(": [{}]", several.join(", "))),
        }
        let mut error = ApiError::new(422, "Invalid", message).about(kind.group, kind.kind, name);
        error.0.causes = errors.iter().map(FieldError::cause).collect();
        error
    }

    /// 422 for a patch that does not apply to the object: `the server rejected our request due to an error in our request`.
    pub fn patch_not_applicable() -> ApiError {
        ApiError::new(422, "Invalid", "the server rejected our request due to an error in our request")
            .about("", "", "")
    }

    /// 400 with the given message.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "BadRequest", message)
    }

    /// 403 `pods "web" is forbidden: …`; without a name `pods is forbidden: …`.
    pub fn forbidden(resource: GroupResource<'_>, name: &str, message: impl fmt::Display) -> ApiError {
        let text = match (resource.resource.is_empty(), name.is_empty()) {
            (true, true) => format!("forbidden: {message}"),
            (true, false) => format!("{name:?} is forbidden: {message}"),
            (false, true) => format!("{resource} is forbidden: {message}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {message}"),
        };
        ApiError::new(403, "Forbidden", text).about(resource.group, resource.resource, name)
    }

    /// 401 `Unauthorized`.
    pub fn unauthorized() -> ApiError {
        ApiError::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405 `patch is not supported on resources of kind "pods"`.
    pub fn method_not_supported(resource: GroupResource<'_>, verb: &str) -> ApiError {
        ApiError::new(
            405,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind \"{resource}\""),
        )
        .about(resource.group, resource.resource, "")
    }

    /// 405 for a path that is served, with another method.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .about("", "", "")
    }

    /// 405: the verb is not allowed while the resource's definition is being deleted.
    pub fn definition_terminating(resource: GroupResource<'_>, verb: &str) -> ApiError {
        let message = format!("{verb} not allowed while custom resource definition is terminating");
        ApiError::new(405, "MethodNotAllowed", message).about(resource.group, resource.resource, "")
    }

    /// 406: none of the media types the client accepts can be served.
    pub fn not_acceptable(supported: &[&str]) -> ApiError {
        ApiError::new(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", supported.join(", ")),
        )
    }

    /// 415: the body's media type is not understood.
    pub fn unsupported_media_type(supported: &[&str]) -> ApiError {
        ApiError::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                supported.join(", ")
            ),
        )
    }

    /// 410 with reason `Gone`.
    pub fn gone(message: impl Into<String>) -> ApiError {
        ApiError::new(410, "Gone", message)
    }

    /// 410 with reason `Expired`: the resource version or the continue token is too old.
    pub fn expired(message: impl Into<String>) -> ApiError {
        ApiError::new(410, "Expired", message)
    }

    /// 504 `Timeout: …`; the client may try again after `retry_after_seconds`.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> ApiError {
        let mut error = ApiError::new(504, "Timeout", format!("Timeout: {message}")).about("", "", "");
        error.0.retry_after_seconds = Some(retry_after_seconds);
        error
    }

    /// 504 for a list or watch at a resource version that this server has not reached yet.
    pub fn too_large_resource_version(requested: u64, current: u64, retry_after_seconds: u32) -> ApiError {
        let mut error = ApiError::timeout(
            format_args!("Too large resource version: {requested}, current: {current}"),
            retry_after_seconds,
        );
        error.0.causes.push(json!({
            "reason": "ResourceVersionTooLarge",
            "message": "Too large resource version",
        }));
        error
    }

    /// 429 with the given message.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> ApiError {
        let mut error = ApiError::new(429, "TooManyRequests", message).about("", "", "");
        error.0.retry_after_seconds = Some(retry_after_seconds);
        error
    }

    /// 413 `Request entity too large: …`.
    pub fn request_entity_too_large(message: impl fmt::Display) -> ApiError {
        ApiError::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 500 `Internal error occurred: …`.
    pub fn internal(message: impl fmt::Display) -> ApiError {
        let mut error = ApiError::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .about("", "", "");
        error.0.causes.push(json!({"message": message.to_string()}));
        error
    }

    /// 503 with the given message.
    pub fn service_unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(503, "ServiceUnavailable", message)
    }

    /// 501: the part of the API is known and not there yet.
    pub fn not_implemented(message: impl Into<String>) -> ApiError {
        ApiError::new(501, "NotImplemented", message)
    }

    /// The `Status` that another server answered with, under `code`. What it leaves out stays out.
    pub fn of_status(code: u16, status: Value) -> ApiError {
        let message = status.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = status.get("reason").and_then(Value::as_str).unwrap_or_default();
        let reason = REASONS.iter().copied().find(|reason| *reason == found).unwrap_or_default();
        let mut error = ApiError::new(code, reason, message);
        error.0.foreign = Some(status);
        error
    }

    /// The same error with one more entry in `details.causes`.
    pub fn with_cause(mut self, cause: Value) -> ApiError {
        self.0.causes.push(cause);
        self.0.has_details = true;
        self
    }

    /// The same error with `details.uid`.
    pub fn with_uid(mut self, uid: &str) -> ApiError {
        self.0.uid = uid.to_owned();
        self.0.has_details = true;
        self
    }

    /// Adds the token with which an expired list can be continued all the same.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> ApiError {
        self.0.continue_token = token;
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// The machine-readable reason (`NotFound`, `Conflict`, …).
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of a `Retry-After` header, in seconds.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.0.retry_after_seconds
    }

    /// The entries of `details.causes`.
    pub fn causes(&self) -> &[Value] {
        &self.0.causes
    }

    /// The `metav1.Status` object of this error.
    pub fn to_status(&self) -> Value {
        let inner = &*self.0;
        let mut status = Map::new();
        if let Some(Value::Object(foreign)) = &inner.foreign {
            status.insert("metadata".into(), json!({}));
            status.extend(foreign.clone());
            for (field, value) in [("kind", "Status"), ("apiVersion", "v1"), ("status", "Failure")] {
                status.insert(field.into(), value.into());
            }
            status.insert("code".into(), inner.code.into());
            return Value::Object(status);
        }
        status.insert("kind".into(), "Status".into());
        status.insert("apiVersion".into(), "v1".into());
        let mut metadata = Map::new();
        if !inner.continue_token.is_empty() {
            metadata.insert("continue".into(), inner.continue_token.as_str().into());
        }
        status.insert("metadata".into(), Value::Object(metadata));
        status.insert("status".into(), "Failure".into());
        status.insert("message".into(), inner.message.as_str().into());
        status.insert("reason".into(), inner.reason.into());
        if inner.has_details {
            let mut details = Map::new();
            for (key, value) in
                [("name", &inner.name), ("group", &inner.group), ("kind", &inner.kind), ("uid", &inner.uid)]
            {
                if !value.is_empty() {
                    details.insert(key.into(), value.as_str().into());
                }
            }
            if !inner.causes.is_empty() {
                details.insert("causes".into(), Value::Array(inner.causes.clone()));
            }
            if let Some(seconds) = inner.retry_after_seconds.filter(|seconds| *seconds > 0) {
                details.insert("retryAfterSeconds".into(), seconds.into());
            }
            status.insert("details".into(), Value::Object(details));
        }
        status.insert("code".into(), inner.code.into());
        Value::Object(status)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

/// The `Status` of a success, as a delete that removed the object answers it.
pub fn success(resource: GroupResource<'_>, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", resource.group), ("kind", resource.resource), ("uid", uid)]
    {
        if !value.is_empty() {
            details.insert(key.into(), value.into());
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;

    const DEPLOYMENTS: GroupResource<'_> = GroupResource { group: "apps", resource: "deployments" };

    #[test]
    fn not_found_names_the_resource_and_fills_details() {
        assert_eq!(
            ApiError::not_found(DEPLOYMENTS, "web").to_status(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" not found", "reason": "NotFound",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 404})
        );
    }

    #[test]
    fn invalid_lists_each_cause() {
        let kind = GroupKind { group: "", kind: "Pod" };
        let error = ApiError::invalid(kind, "web", vec![field::required("spec.containers", "")]);
        assert_eq!(error.message(), "Pod \"web\" is invalid: spec.containers: Required value");
        assert_eq!(
            error.to_status()["details"]["causes"],
            json!([{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"}])
        );
        let two = vec![field::required("a", ""), field::forbidden("b", "no")];
        assert_eq!(
            ApiError::invalid(kind, "web", two).message(),
            "Pod \"web\" is invalid: [a: Required value, b: Forbidden: no]"
        );
    }

    #[test]
    fn forbidden_reads_with_and_without_a_name() {
        assert_eq!(ApiError::forbidden(DEPLOYMENTS, "", "no").message(), "deployments.apps is forbidden: no");
        assert_eq!(
            ApiError::forbidden(DEPLOYMENTS, "web", "no").message(),
            "deployments.apps \"web\" is forbidden: no"
        );
    }
}
