//! JSON patch (RFC 6902), media type `application/json-patch+json`.

use serde_json::Value;

use crate::status::ApiError;

/// The most operations that one patch may have.
pub const OPERATIONS_MAX: usize = 10_000;

/// The object with the operations of `patch` applied, in order and all or none.
///
/// A malformed patch is 400; more than [`OPERATIONS_MAX`] operations are 413; an operation that does not apply (a failed
/// `test`, a path that is not there) is 422.
pub fn apply(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations = patch
        .as_array()
        .ok_or_else(|| ApiError::bad_request("error decoding patch: a JSON patch is a list of operations"))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(ApiError::request_entity_too_large(format_args!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    attempt(object, patch).map_err(|failure| match failure {
        Failure::Malformed(error) => ApiError::bad_request(format!("error decoding patch: {error}")),
        Failure::TestFailed(error) | Failure::NotApplicable(error) => ApiError::patch_not_applicable(&error),
    })
}

/// Why a patch changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is no list of operations.
    Malformed(String),
    /// A `test` found something else.
    TestFailed(String),
    /// A path that is not there.
    NotApplicable(String),
}

/// As [`apply`], for patches that the server makes itself.
///
/// # Errors
/// See [`Failure`].
pub fn attempt(object: &Value, patch: &Value) -> Result<Value, Failure> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| Failure::Malformed(error.to_string()))?;
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &operations).map_err(|error| match error.kind {
        json_patch::PatchErrorKind::TestFailed => Failure::TestFailed(error.to_string()),
        _ => Failure::NotApplicable(error.to_string()),
    })?;
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_apply_in_order_or_not_at_all() {
        let object = json!({"spec": {"replicas": 1, "list": ["a"]}});
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 2},
            {"op": "add", "path": "/spec/list/-", "value": "b"},
            {"op": "remove", "path": "/spec/list/0"},
        ]);
        assert_eq!(apply(&object, &patch), Ok(json!({"spec": {"replicas": 2, "list": ["b"]}})));
        let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 5}]);
        let error = apply(&object, &failing).expect_err("a failed test");
        assert_eq!(
            (error.code(), error.message()),
            (422, "the server rejected our request due to an error in our request")
        );
    }

    #[test]
    fn malformed_patches_are_bad_requests() {
        let object = json!({});
        for patch in [json!({}), json!([{"op": "frobnicate", "path": "/a"}]), json!([{"op": "add"}])] {
            assert_eq!(apply(&object, &patch).map_err(|error| error.code()), Err(400), "{patch}");
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); OPERATIONS_MAX + 1]);
        assert_eq!(apply(&object, &many).map_err(|error| error.code()), Err(413));
    }
}
