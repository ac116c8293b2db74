//! Request bodies: JSON or YAML bytes to [`Value`], with duplicate fields found and depth bounded.
//!
//! Never looks at what the fields mean; [`crate::schema`] does.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::ApiError;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The body; of a field given more than once, the last value.
    pub value: Value,
    /// The paths of fields given more than once (`spec.replicas`, `spec.containers[0].name`).
    pub duplicates: Vec<String>,
}

/// The body is not JSON or YAML, or is nested too deeply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

/// Reads JSON. Nesting of more than 127 levels is refused.
pub fn json(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { duplicates: &mut duplicates, merges: false }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| DecodeError(error.to_string()))?;
    Ok(Decoded { value, duplicates })
}

/// Reads one YAML document (JSON is such too). Keys that are no strings become strings, `<<` merges.
pub fn yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut duplicates = Vec::new();
    let value = Node { duplicates: &mut duplicates, merges: true }
        .deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))
        .map_err(|error| DecodeError(error.to_string()))?;
    Ok(Decoded { value, duplicates })
}

/// 400 for fields that are unknown or given twice under `fieldValidation=Strict`; each text as in `unknown field "spec.foo"`.
pub fn strict_decoding_error(kind: &str, version: &str, errors: &[String]) -> ApiError {
    cannot_be_handled(kind, version, &format!("strict decoding error: {}", errors.join(", ")))
}

/// 400 for a body that is not of the kind that it should be.
pub fn cannot_be_handled(kind: &str, version: &str, message: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {message}"))
}

/// The text of a duplicate field in warnings and strict errors.
pub fn duplicate_field_text(path: &str) -> String {
    format!("duplicate field \"{path}\"")
}

struct Node<'a> {
    duplicates: &'a mut Vec<String>,
    merges: bool,
}

/// Puts `prefix` before each path found since `start`.
fn prefix_paths(paths: &mut [String], prefix: impl Fn() -> String) {
    for path in paths {
        let separator = if path.starts_with('[') { "" } else { "." };
        *path = format!("{}{separator}{path}", prefix());
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format_args!("{value} is not a number that JSON can hold")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let start = self.duplicates.len();
            let node = Node { duplicates: self.duplicates, merges: self.merges };
            let Some(item) = access.next_element_seed(node)? else { break };
            let index = items.len();
            prefix_paths(&mut self.duplicates[start..], || format!("[{index}]"));
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = access.next_key_seed(Key)? {
            let start = self.duplicates.len();
            let node = Node { duplicates: self.duplicates, merges: self.merges };
            let value = access.next_value_seed(node)?;
            prefix_paths(&mut self.duplicates[start..], || key.clone());
            if self.merges && key == "<<" {
                merged.push(value);
            } else if map.contains_key(&key) {
                self.duplicates.push(key.clone());
                map.insert(key, value);
            } else {
                map.insert(key, value);
            }
        }
        for source in merged {
            let sources = match source {
                Value::Array(sources) => sources,
                other => vec![other],
            };
            for source in sources {
                let Value::Object(fields) = source else {
                    return Err(A::Error::custom("map merge requires map or sequence of maps as the value"));
                };
                for (key, value) in fields {
                    map.entry(key).or_insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key of a map; YAML also has numbers and booleans there.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field name")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_named_by_path_and_the_last_value_stays() {
        let body = br#"{"spec":{"replicas":1,"replicas":2,"c":[{"n":1},{"n":1,"n":2,"p":{"q":1,"q":1}}]},"spec2":1}"#;
        let decoded = super::json(body).expect("JSON");
        assert_eq!(decoded.duplicates, vec!["spec.replicas", "spec.c[1].n", "spec.c[1].p.q"]);
        assert_eq!(decoded.value["spec"]["replicas"], 2);
    }

    #[test]
    fn yaml_reads_as_json_does() {
        let decoded =
            yaml(b"a: &x\n  1: b\n  true: c\nd:\n  <<: *x\n  e: 1.5\nf: [~, \"y\", -3]\n").expect("YAML");
        assert_eq!(
            decoded.value,
            json!({"a": {"1": "b", "true": "c"}, "d": {"1": "b", "true": "c", "e": 1.5}, "f": [null, "y", -3]})
        );
        assert_eq!(yaml(b"a: 1\na: 2\n").map(|decoded| decoded.duplicates), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn bad_bodies_are_refused() {
        assert!(super::json(b"{\"a\":1} x").is_err());
        assert!(super::json(b"").is_err());
        assert!(super::json("[".repeat(100_000).as_bytes()).is_err());
        assert!(yaml(b"a: .nan").is_err());
        assert!(yaml(b"a: 1\n---\nb: 1\n").is_err());
        assert!(yaml("[".repeat(2_000).as_bytes()).is_err());
    }
}
