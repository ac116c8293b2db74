//! JSON patch, media type `application/json-patch+json`, as upstream's library reads RFC 6902: `test` takes null for what is not
//! there, `replace` of a field that is not there sets it, an index below zero counts from the end.

use serde_json::{Map, Value};

use crate::status::ApiError;

/// The most operations that one patch may have.
pub const OPERATIONS_MAX: usize = 10_000;

/// The most bytes of JSON that the `copy` operations of one patch may add.
pub const COPY_BYTES_MAX: usize = 3 << 20;

/// The object with the operations of `patch` applied, in order and all or none.
///
/// A patch that is no list of objects is 400; more than [`OPERATIONS_MAX`] operations are 413; an operation that does not apply (a
/// failed `test`, a path that is not there, an unknown operation) is 422.
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
        Failure::TestFailed(_) | Failure::NotApplicable(_) => ApiError::patch_not_applicable(),
    })
}

/// Why a patch changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is no list of operations.
    Malformed(String),
    /// A `test` found something else.
    TestFailed(String),
    /// A path that is not there, or an operation that is none.
    NotApplicable(String),
}

/// As [`apply`], for patches that the server makes itself.
///
/// # Errors
/// See [`Failure`].
pub fn attempt(object: &Value, patch: &Value) -> Result<Value, Failure> {
    let malformed = || Failure::Malformed("a JSON patch is a list of operations".to_owned());
    let operations = patch.as_array().ok_or_else(malformed)?;
    let operations: Option<Vec<&Map<String, Value>>> = operations.iter().map(Value::as_object).collect();
    let mut patched = object.clone();
    let mut copied = 0;
    for operation in operations.ok_or_else(malformed)? {
        operate(&mut patched, operation, &mut copied)?;
    }
    Ok(patched)
}

fn refused<T>(problem: String) -> Result<T, Failure> {
    Err(Failure::NotApplicable(problem))
}

/// One operation; `copied` counts the bytes of all copies.
fn operate(document: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), Failure> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let required = |field: &str| {
        text(field).ok_or_else(|| Failure::NotApplicable(format!("{kind} operation without {field}")))
    };
    // What is not given is null.
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match kind {
        "add" => place(document, kind, required("path")?)?.add(value()),
        "remove" => place(document, kind, required("path")?)?.remove().map(drop),
        "replace" => match required("path")? {
            "" => match value() {
                whole @ (Value::Object(_) | Value::Array(_)) => {
                    *document = whole;
                    Ok(())
                }
                _ => refused("replace operation value must be object or array".to_owned()),
            },
            path => place(document, kind, path)?.replace(value()),
        },
        "move" => {
            let moved = place(document, kind, required("from")?)?.remove()?;
            place(document, kind, required("path")?)?.add(moved)
        }
        "copy" => {
            let value = place(document, kind, required("from")?)?.get()?.cloned().unwrap_or(Value::Null);
            *copied += value.to_string().len();
            if *copied > COPY_BYTES_MAX {
                return refused(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPY_BYTES_MAX}"
                ));
            }
            place(document, kind, required("path")?)?.add(value)
        }
        "test" => {
            let path = required("path")?;
            let wanted = operation.get("value").filter(|value| !value.is_null());
            let found = match path {
                "" => Some(&*document),
                path => place(document, kind, path)?.get()?.filter(|value| !value.is_null()),
            };
            match found == wanted {
                true => Ok(()),
                false => Err(Failure::TestFailed(format!("testing value {path} failed"))),
            }
        }
        unknown => refused(format!("Unexpected kind: {unknown}")),
    }
}

/// What a path's last part names, which need not be there.
enum Place<'d> {
    Field(&'d mut Map<String, Value>, String),
    Item(&'d mut Vec<Value>, String),
}

/// Finds a path's place; what holds it has to be there.
fn place<'d>(document: &'d mut Value, kind: &str, path: &str) -> Result<Place<'d>, Failure> {
    let missing =
        || Failure::NotApplicable(format!("{kind} operation does not apply: doc is missing path: {path}"));
    // What stands before the first slash is not looked at.
    let mut parts: Vec<String> =
        path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let last = parts.pop().ok_or_else(missing)?;
    let mut holder = document;
    for part in parts {
        holder = match holder {
            Value::Object(fields) => fields.get_mut(&part),
            Value::Array(items) => {
                index(&part, items.len(), items.len()).ok().and_then(|at| items.get_mut(at))
            }
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match holder {
        Value::Object(fields) => Ok(Place::Field(fields, last)),
        Value::Array(items) => Ok(Place::Item(items, last)),
        _ => Err(missing()),
    }
}

/// An index into `length` items, below `end`; one below zero counts back from `end`.
fn index(part: &str, length: usize, end: usize) -> Result<usize, Failure> {
    let number: i64 = part
        .parse()
        .map_err(|_| Failure::NotApplicable(format!("value was not a proper array index: '{part}'")))?;
    let from_end = || end.checked_sub(usize::try_from(number.unsigned_abs()).ok()?);
    let at = if number < 0 { from_end() } else { usize::try_from(number).ok() };
    at.filter(|at| *at < end && *at <= length)
        .ok_or_else(|| Failure::NotApplicable(format!("Unable to access invalid index: {number}")))
}

impl<'d> Place<'d> {
    fn get(self) -> Result<Option<&'d Value>, Failure> {
        Ok(match self {
            Place::Field(fields, name) => fields.get(&name),
            Place::Item(items, part) => {
                let at = index(&part, items.len(), items.len())?;
                items.get(at)
            }
        })
    }

    fn add(self, value: Value) -> Result<(), Failure> {
        match self {
            Place::Field(fields, name) => {
                fields.insert(name, value);
            }
            Place::Item(items, part) if part == "-" => items.push(value),
            Place::Item(items, part) => {
                let at = index(&part, items.len(), items.len() + 1)?;
                items.insert(at, value);
            }
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), Failure> {
        match self {
            Place::Field(fields, name) => {
                fields.insert(name, value);
            }
            Place::Item(items, part) => {
                let at = index(&part, items.len(), items.len())?;
                items[at] = value;
            }
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, Failure> {
        match self {
            Place::Field(fields, name) => match fields.remove(&name) {
                Some(value) => Ok(value),
                None => refused(format!("Unable to remove nonexistent key: {name}")),
            },
            Place::Item(items, part) => {
                let at = index(&part, items.len(), items.len())?;
                Ok(items.remove(at))
            }
        }
    }
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
        assert_eq!(error.to_status()["details"], json!({}));
    }

    #[test]
    fn each_operation_does_what_upstreams_library_makes_of_it() {
        let object = json!({"a": {"b": 1, "n": null, "x/y": 2, "m~n": 3}, "l": ["p", {"q": 1}, "r"]});
        let one = |operation: Value| attempt(&object, &json!([operation]));
        let changed = |pointer: &str, value: Value| {
            let mut wanted = object.clone();
            *wanted.pointer_mut(pointer).expect("what is changed") = value;
            Ok(wanted)
        };
        let same = || Ok(object.clone());
        for (operation, wanted) in [
            // The helpers of controllers add their first finalizer so.
            (json!({"op": "test", "path": "/a/none", "value": null}), same()),
            (json!({"op": "test", "path": "/a/none"}), same()),
            (json!({"op": "test", "path": "/a/n", "value": null}), same()),
            (json!({"op": "test", "path": "/a/x~1y", "value": 2}), same()),
            (json!({"op": "test", "path": "/a/m~0n", "value": 3}), same()),
            (json!({"op": "test", "path": "", "value": object.clone()}), same()),
            (json!({"op": "test", "path": "/l/-1", "value": "r"}), same()),
            (json!({"op": "replace", "path": "/a/b", "value": 7}), changed("/a/b", json!(7))),
            (json!({"op": "replace", "path": "/a/b"}), changed("/a/b", Value::Null)),
            (json!({"op": "replace", "path": "/l/-3", "value": "s"}), changed("/l/0", json!("s"))),
            (json!({"op": "replace", "path": "/l/1/q", "value": "s"}), changed("/l/1/q", json!("s"))),
            (json!({"op": "replace", "path": "/a/c", "value": 1}), {
                changed("/a", json!({"b": 1, "c": 1, "n": null, "x/y": 2, "m~n": 3}))
            }),
            (json!({"op": "replace", "path": "", "value": {"k": 1}}), Ok(json!({"k": 1}))),
            (
                json!({"op": "add", "path": "/l/-1", "value": 0}),
                changed("/l", json!(["p", {"q": 1}, "r", 0])),
            ),
            (json!({"op": "add", "path": "/l/3", "value": 0}), changed("/l", json!(["p", {"q": 1}, "r", 0]))),
            (json!({"op": "add", "path": "/l/0", "value": 0}), changed("/l", json!([0, "p", {"q": 1}, "r"]))),
            (json!({"op": "remove", "path": "/l/-2"}), changed("/l", json!(["p", "r"]))),
            (
                json!({"op": "move", "from": "/l/0", "path": "/l/-"}),
                changed("/l", json!([{"q": 1}, "r", "p"])),
            ),
            (json!({"op": "copy", "from": "/l/0", "path": "/a/b"}), changed("/a/b", json!("p"))),
            (json!({"op": "copy", "from": "/a/none", "path": "/a/b"}), changed("/a/b", Value::Null)),
        ] {
            assert_eq!(one(operation.clone()), wanted, "{operation}");
        }
        for operation in [
            json!({"op": "test", "path": "/a/b", "value": 2}),
            json!({"op": "test", "path": "/a/b", "value": null}),
            json!({"op": "test", "path": "/a/none", "value": 1}),
        ] {
            assert!(matches!(one(operation.clone()), Err(Failure::TestFailed(_))), "{operation}");
        }
        for operation in [
            json!({"op": "test", "path": "/none/b", "value": null}),
            json!({"op": "test", "path": "/a/b/c", "value": null}),
            json!({"op": "test", "path": "/a/n/c", "value": null}),
            json!({"op": "test", "path": "/l/3", "value": null}),
            json!({"op": "replace", "path": "/none/b", "value": 1}),
            json!({"op": "replace", "path": "/l/3", "value": 1}),
            json!({"op": "replace", "path": "/l/-4", "value": 1}),
            json!({"op": "replace", "path": "", "value": 1}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "add", "path": "a", "value": {}}),
            json!({"op": "add", "path": "/l/4", "value": 1}),
            json!({"op": "add", "path": "/l/x", "value": 1}),
            json!({"op": "remove", "path": "/a/none"}),
            json!({"op": "remove", "path": "/l/3"}),
            json!({"op": "move", "from": "/a/none", "path": "/a/b"}),
            json!({"op": "frobnicate", "path": "/a"}),
            json!({"op": "add"}),
            json!({"path": "/a"}),
        ] {
            assert!(matches!(one(operation.clone()), Err(Failure::NotApplicable(_))), "{operation}");
        }
    }

    #[test]
    fn malformed_patches_are_bad_requests() {
        let object = json!({});
        for patch in [json!({}), json!([1]), json!("x")] {
            assert_eq!(apply(&object, &patch).map_err(|error| error.code()), Err(400), "{patch}");
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); OPERATIONS_MAX + 1]);
        assert_eq!(apply(&object, &many).map_err(|error| error.code()), Err(413));
    }

    #[test]
    fn copies_do_not_grow_without_end() {
        let object = json!({"a": ["0123456789"]});
        let doubling = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::Array(vec![doubling; 64]);
        assert_eq!(apply(&object, &patch).map_err(|error| error.code()), Err(422));
    }
}
