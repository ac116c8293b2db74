//! Validation errors that name a field, with upstream's wording, and the paths they name.
//!
//! Owns the text of a single field error and its reason. How several of them become an HTTP answer is
//! [`crate::status`]'s matter.

use std::fmt;

use serde_json::{Map, Value};

/// A path to a field such as `spec.containers[0].ports[1].name` or `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path that starts at the top-level field `name`.
    pub fn new(name: &str) -> FieldPath {
        FieldPath(name.to_owned())
    }

    /// The path of the whole object; its children start without a dot.
    pub fn root() -> FieldPath {
        FieldPath::default()
    }

    /// The path of the field `name` inside this one.
    pub fn child(&self, name: &str) -> FieldPath {
        if self.0.is_empty() {
            return FieldPath::new(name);
        }
        let mut path = String::with_capacity(self.0.len() + 1 + name.len());
        path.push_str(&self.0);
        path.push('.');
        path.push_str(name);
        FieldPath(path)
    }

    /// The path of the list item at `index`.
    pub fn index(&self, index: usize) -> FieldPath {
        FieldPath(format!("{}[{index}]", self.0))
    }

    /// The path of the map entry `key`.
    pub fn key(&self, key: &str) -> FieldPath {
        FieldPath(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> String {
        path.0
    }
}

impl From<&FieldPath> for String {
    fn from(path: &FieldPath) -> String {
        path.0.clone()
    }
}

/// What is wrong with a field. Each kind has upstream's short text and its reason in `details.causes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A reference names something that is not there.
    NotFound,
    /// The field has to be set.
    Required,
    /// The value has to be unique and is not.
    Duplicate,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of a fixed set.
    NotSupported,
    /// The field may not be set, or not be changed, in this state.
    Forbidden,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// Something failed that is not the caller's fault.
    Internal,
    /// The value is of the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The text that starts the error's message.
    pub fn text(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::Internal => "Internal error",
        }
    }

    /// The `reason` of the error's entry in `details.causes`.
    pub fn reason(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::Internal => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Where, as upstream prints it (`spec.containers[0].image`).
    pub path: String,
    /// The offending value; `None` leaves it out of the message.
    pub bad_value: Option<Value>,
    /// The rest of the sentence; may be empty.
    pub detail: String,
}

/// `path: Required value[: detail]`.
pub fn required(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError { kind: FieldErrorKind::Required, path: path.into(), bad_value: None, detail: detail.into() }
}

/// `path: Invalid value: value: detail`.
pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
    FieldError {
        kind: FieldErrorKind::Invalid,
        path: path.into(),
        bad_value: Some(value.into()),
        detail: detail.into(),
    }
}

/// `path: Invalid value: detail`, for what is wrong with more than one value.
pub fn invalid_state(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError { bad_value: None, ..invalid(path, Value::Null, detail) }
}

/// `path: Invalid value: value: detail` with the reason for a wrong JSON type.
pub fn type_invalid(
    path: impl Into<String>,
    value: impl Into<Value>,
    detail: impl Into<String>,
) -> FieldError {
    FieldError { kind: FieldErrorKind::TypeInvalid, ..invalid(path, value, detail) }
}

/// `path: Unsupported value: value: supported values: "a", "b"`; the supported values are printed in order.
pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> FieldError {
    let mut sorted: Vec<&str> = supported.to_vec();
    sorted.sort_unstable();
    not_supported_in_order(path, value, &sorted)
}

/// As [`not_supported`], for the fields whose values upstream prints in an order of its own.
pub fn not_supported_in_order(
    path: impl Into<String>,
    value: impl Into<Value>,
    supported: &[&str],
) -> FieldError {
    let quoted: Vec<String> = supported.iter().map(|value| go_quote(value)).collect();
    let detail =
        if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
    FieldError { kind: FieldErrorKind::NotSupported, ..invalid(path, value, detail) }
}

/// `path: Duplicate value: value`.
pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> FieldError {
    FieldError { kind: FieldErrorKind::Duplicate, ..invalid(path, value, "") }
}

/// `path: Not found: value`.
pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> FieldError {
    FieldError { kind: FieldErrorKind::NotFound, ..invalid(path, value, "") }
}

/// `path: Forbidden: detail`.
pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError { kind: FieldErrorKind::Forbidden, ..required(path, detail) }
}

/// `path: Too long: may not be more than MAX bytes`.
pub fn too_long(path: impl Into<String>, max_bytes: usize) -> FieldError {
    FieldError {
        kind: FieldErrorKind::TooLong,
        ..required(path, format!("may not be more than {max_bytes} bytes"))
    }
}

/// `path: Too many: ACTUAL: must have at most MAX items`.
pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> FieldError {
    let items = if max == 1 { "item" } else { "items" };
    FieldError {
        kind: FieldErrorKind::TooMany,
        ..invalid(path, actual as u64, format!("must have at most {max} {items}"))
    }
}

/// `path: Internal error: detail`.
pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError { kind: FieldErrorKind::Internal, ..required(path, detail) }
}

impl FieldError {
    /// The message without the path, as it stands in `details.causes[].message`.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        let prints_value = !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::Internal
        );
        if let (true, Some(value)) = (prints_value, &self.bad_value) {
            text.push_str(": ");
            match value {
                Value::String(string) => text.push_str(&go_quote(string)),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// This error as a `StatusCause`: `{reason, message, field}`.
    pub fn cause(&self) -> Value {
        let mut cause = Map::new();
        cause.insert("reason".into(), self.kind.reason().into());
        cause.insert("message".into(), self.body().into());
        cause.insert("field".into(), self.path.as_str().into());
        Value::Object(cause)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}

/// A string in double quotes with Go's `%q` escapes for quotes, backslashes and control characters.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            control if (control as u32) < 0x20 || control as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", control as u32));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_upstream_prints_them() {
        let path = FieldPath::new("spec").child("containers").index(0).child("ports").index(2).child("name");
        assert_eq!(path.as_str(), "spec.containers[0].ports[2].name");
        assert_eq!(FieldPath::new("metadata").child("labels").key("a/b").as_str(), "metadata.labels[a/b]");
    }

    #[test]
    fn messages_carry_value_and_detail() {
        assert_eq!(required("spec.x", "").to_string(), "spec.x: Required value");
        assert_eq!(
            invalid("spec.replicas", -1, "must be greater than or equal to 0").to_string(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(
            not_supported("spec.type", "Foo", &["NodePort", "ClusterIP"]).to_string(),
            "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"NodePort\""
        );
        assert_eq!(duplicate("a", "x\"y").to_string(), "a: Duplicate value: \"x\\\"y\"");
        assert_eq!(too_many("a", 5, 1).to_string(), "a: Too many: 5: must have at most 1 item");
        assert_eq!(too_long("a", 63).to_string(), "a: Too long: may not be more than 63 bytes");
    }
}
