//! ConversionReviews: what a webhook is sent, and what of its answer counts. Pure.

use coracle_api::field::FieldPath;
use coracle_api::kinds::access::{items, present, text};
use coracle_api::kinds::object_meta;
use coracle_api::meta;
use serde_json::{Map, Value, json};

use crate::extension::review::Version;

const GROUP: &str = "apiextensions.k8s.io";

/// The question.
pub(super) fn review(version: Version, uid: &str, wanted: &str, objects: &[&Value]) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": version.api_version(GROUP),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    })
}

/// The objects of an answer.
///
/// # Errors
/// What is wrong with it, in upstream's words, or the webhook's own message.
pub(super) fn converted(version: Version, uid: &str, answer: &[u8]) -> Result<Vec<Value>, String> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let found = (text(&answer, "apiVersion"), text(&answer, "kind"));
    if version == Version::V1 && found != (version.api_version(GROUP).as_str(), "ConversionReview") {
        let (group, name) = meta::split_api_version(found.0);
        return Err(format!(
            "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {group}/{name}, Kind={}",
            found.1
        ));
    }
    let response = present(&answer, "response").ok_or("no response provided")?;
    if version == Version::V1 && text(response, "uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, "uid")));
    }
    let none = Value::Null;
    let result = response.get("result").unwrap_or(&none);
    match (text(result, "status"), text(result, "message")) {
        ("Success", _) => Ok(items(response, "convertedObjects").to_vec()),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// What is wrong with a converted object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is not the object that was to be converted.
    Object(String),
    /// Its metadata is not what metadata can be.
    Metadata(String),
}

impl Problem {
    /// What was returned and what is wrong with it, for one of `count` objects.
    pub(super) fn text(self, index: usize, count: usize) -> (String, String) {
        match self {
            Self::Object(text) if count == 1 => ("invalid object".to_owned(), text),
            Self::Object(text) => (format!("invalid converted object at index {index}"), text),
            Self::Metadata(text) if count == 1 => ("invalid metadata".to_owned(), text),
            Self::Metadata(text) => (format!("invalid metadata in object at index {index}"), text),
        }
    }
}

/// A converted object as it counts: with the metadata it had, labels and annotations aside, which a webhook may change.
///
/// # Errors
/// It is another object, of the wrong version, or has no proper labels and annotations.
pub(super) fn accept(before: &Value, mut after: Value, wanted: &str) -> Result<Value, Problem> {
    let object = |text: String| Err(Problem::Object(text));
    if text(&after, "apiVersion") != wanted {
        let found = text(&after, "apiVersion");
        return object(format!("invalid groupVersion (expected {wanted}, received {found})"));
    }
    if text(&after, "kind") != text(before, "kind") {
        let (expected, found) = (text(before, "kind"), text(&after, "kind"));
        return object(format!("invalid kind (expected {expected}, received {found})"));
    }
    for (what, of) in
        [("name", meta::name as fn(&Value) -> &str), ("namespace", meta::namespace), ("UID", meta::uid)]
    {
        if of(before) != of(&after) {
            return object(format!("must have the same {what}: {} != {}", of(before), of(&after)));
        }
    }
    let problem = |text: String| Err(Problem::Metadata(text));
    let Some(returned) = after.get("metadata") else {
        return problem("missing metadata in converted object".to_owned());
    };
    if !returned.is_object() {
        return problem(format!("invalid metadata of type {} in converted object", go_type(returned)));
    }
    let mut metadata = before.get("metadata").cloned().unwrap_or_else(|| json!({}));
    for field in ["labels", "annotations"] {
        let Some(given) = present(returned, field) else {
            coracle_api::kinds::access::remove(&mut metadata, field);
            continue;
        };
        let Some(given) = given.as_object() else {
            return problem(format!(
                "invalid metadata.{field} of type {} in converted object",
                go_type(given)
            ));
        };
        if let Some((key, value)) = given.iter().find(|(_, value)| !value.is_string()) {
            return problem(format!(
                "metadata.{field}[{key}] must be a string, but is {} in converted object",
                go_type(value)
            ));
        }
        if metadata.get(field).and_then(Value::as_object) != Some(given) {
            check(field, given).map_err(Problem::Metadata)?;
        }
        metadata[field] = Value::Object(given.clone());
    }
    after["metadata"] = metadata;
    Ok(after)
}

fn check(field: &str, given: &Map<String, Value>) -> Result<(), String> {
    let (mut errors, path) = (Vec::new(), FieldPath::new("metadata"));
    let metadata = json!({ field: given });
    match field {
        "labels" => object_meta::labels(&metadata, "labels", &path.child("labels"), &mut errors),
        _ => object_meta::annotations(&metadata, &path.child("annotation"), &mut errors),
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_to_the_question() {
        let answer = |uid: &str, result: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": {"uid": uid, "result": result, "convertedObjects": [{"a": 1}]}})
            .to_string()
        };
        let read = |text: String| converted(Version::V1, "u", text.as_bytes());
        assert_eq!(read(answer("u", json!({"status": "Success"}))), Ok(vec![json!({"a": 1})]));
        assert_eq!(
            read(answer("v", json!({"status": "Success"}))),
            Err("expected response.uid=\"u\", got \"v\"".to_owned())
        );
        assert_eq!(read(answer("u", json!({"status": "Failed", "message": "no"}))), Err("no".to_owned()));
        assert_eq!(
            read(answer("u", json!({}))),
            Err("response.result.status was '', not 'Success'".to_owned())
        );
        assert!(read("{}".to_owned()).is_err_and(|text| text.ends_with("got /, Kind=")));
        let older = br#"{"response": {"result": {"status": "Success"}}}"#;
        assert_eq!(converted(Version::V1Beta1, "u", older), Ok(Vec::new()));
    }

    #[test]
    fn a_converted_object_keeps_its_metadata_but_labels_and_annotations() {
        let before = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "u",
            "resourceVersion": "7", "labels": {"x": "y"}, "annotations": {"p": "q"}}});
        let after =
            |metadata: Value| json!({"apiVersion": "g/v2", "kind": "K", "metadata": metadata, "b": 1});
        let good = accept(&before, after(json!({"name": "a", "uid": "u", "labels": {"z": "y"}})), "g/v2");
        assert_eq!(
            good,
            Ok(after(json!({"name": "a", "uid": "u", "resourceVersion": "7", "labels": {"z": "y"}})))
        );
        for (metadata, problem) in [
            (json!({"name": "b", "uid": "u"}), Problem::Object("must have the same name: a != b".into())),
            (
                json!({"name": "a", "uid": "u", "labels": {"z": 1}}),
                Problem::Metadata(
                    "metadata.labels[z] must be a string, but is int64 in converted object".into(),
                ),
            ),
        ] {
            assert_eq!(accept(&before, after(metadata), "g/v2"), Err(problem));
        }
        let unchanged = accept(&before, before.clone(), "g/v2").expect_err("is refused");
        assert_eq!(
            unchanged.text(3, 5),
            (
                "invalid converted object at index 3".to_owned(),
                "invalid groupVersion (expected g/v2, received g/v1)".to_owned()
            )
        );
    }
}
