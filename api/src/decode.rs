//! Request bodies: JSON or YAML bytes to [`Value`], with fields that are given twice found and depth bounded.
//!
//! Never looks at what the fields mean; [`crate::schema`] does.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::ApiError;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The body; of a field given more than once, the last value.
    pub value: Value,
    /// A complaint for each field given more than once: with its path in JSON (`duplicate field "spec.replicas"`), with its
    /// line in YAML (`line 9: key "replicas" already set in map`).
    pub duplicates: Vec<String>,
}

/// The most keys given twice that are named of a YAML body; each takes another reading.
const REPEATED_KEYS_MAX: usize = 16;

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
    let duplicates = duplicates.iter().map(|path| duplicate_field_text(path)).collect();
    Ok(Decoded { value, duplicates })
}

/// Reads one YAML document (JSON is such too). Keys that are no strings become strings, `<<` merges.
pub fn yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if looks_too_deep(bytes) {
        return Err(DecodeError("recursion limit exceeded".to_owned()));
    }
    let mut duplicates = Vec::new();
    let value = Node { duplicates: &mut duplicates, merges: true }
        .deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))
        .map_err(|error| DecodeError(error.to_string()))?;
    let named = 0..duplicates.len().min(REPEATED_KEYS_MAX);
    let duplicates = named.filter_map(|index| repeated_key(bytes, index)).collect();
    Ok(Decoded { value, duplicates })
}

/// Whether brackets lie deeper within one another than anybody reads. The YAML scanner finds that out late: it looks at all that are open with each
/// piece of text. A guess from the look of the text, which sees brackets in quotes and in comments too, but not those within words.
fn looks_too_deep(bytes: &[u8]) -> bool {
    const OPEN_MAX: usize = 256;
    let (mut open, mut before) = (0_usize, b'\n');
    for byte in bytes {
        match byte {
            b'[' | b'{' if before.is_ascii_whitespace() || b"[{,:-?".contains(&before) => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > OPEN_MAX {
            return true;
        }
        before = *byte;
    }
    false
}

/// The complaint about the key with which a map of a YAML body is given something for the `index`-th time again. The
/// decoder tells lines in errors alone, so a reading has to fail there.
fn repeated_key(bytes: &[u8], index: usize) -> Option<String> {
    let mut finder = Finder { to_skip: index, found: String::new() };
    let failure = Found(&mut finder).deserialize(serde_yaml_ng::Deserializer::from_slice(bytes)).err()?;
    let line = failure.location()?.line();
    Some(format!("line {line}: key {:?} already set in map", finder.found))
}

/// The text in which upstream's YAML reader puts the complaints of [`Decoded::duplicates`] together.
pub fn yaml_errors(lines: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))
}

/// The complaints about a JSON body that is read straight into a type, in the order in which its reader comes to them: fields of
/// these paths that the type does not have, and fields given twice, but none within the unknown ones, which are skipped.
pub fn in_reading_order(json: &[u8], unknown: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    let unknown = unknown.iter().map(String::as_str).collect();
    let reader = Reader { path: String::new(), unknown: &unknown, complaints: &mut complaints };
    // The body has been read before: it is JSON.
    let _ = reader.deserialize(&mut serde_json::Deserializer::from_slice(json));
    let mut seen = HashSet::new();
    complaints.retain(|complaint| seen.insert(complaint.clone()));
    complaints
}

/// 400 for fields that are unknown or given twice under `fieldValidation=Strict`; each text as in `unknown field "spec.foo"`.
pub fn strict_decoding_error(kind: &str, version: &str, errors: &[String]) -> ApiError {
    cannot_be_handled(kind, version, &format!("strict decoding error: {}", errors.join(", ")))
}

/// 400 for a body that is not of the kind that it should be.
pub fn cannot_be_handled(kind: &str, version: &str, message: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {message}"))
}

/// The text of an unknown field in warnings and strict errors.
pub fn unknown_field_text(path: &str) -> String {
    format!("unknown field \"{path}\"")
}

/// The text of a duplicate field in warnings and strict errors.
fn duplicate_field_text(path: &str) -> String {
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
        while let Some(key) = access.next_key_seed(Key(|_: &str| false))? {
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

/// A key of a map; YAML also has numbers and booleans there. The closure says whether to fail at it.
struct Key<F>(F);

impl<F: FnMut(&str) -> bool> Key<F> {
    fn take<E: Error>(mut self, key: String) -> Result<String, E> {
        if (self.0)(&key) { Err(E::custom("repeated key")) } else { Ok(key) }
    }
}

impl<'de, F: FnMut(&str) -> bool> DeserializeSeed<'de> for Key<F> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<F: FnMut(&str) -> bool> Visitor<'_> for Key<F> {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field name")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        self.take(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<String, E> {
        self.take(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        self.take(value.to_string())
    }
}

/// Fails at the key that is given again after `to_skip` others, and keeps it.
struct Finder {
    to_skip: usize,
    found: String,
}

impl Finder {
    fn is_it(&mut self, key: &str, seen: &mut HashSet<String>) -> bool {
        if key == "<<" || seen.insert(key.to_owned()) {
            return false;
        }
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return false;
        }
        key.clone_into(&mut self.found);
        true
    }
}

struct Found<'a>(&'a mut Finder);

impl<'de> DeserializeSeed<'de> for Found<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visits of what holds no keys.
macro_rules! pass_over_scalars {
    () => {
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a value")
        }

        fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
            Ok(())
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
            Ok(())
        }

        fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
            Ok(())
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
            Ok(())
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
            Ok(())
        }

        fn visit_unit<E: Error>(self) -> Result<(), E> {
            Ok(())
        }
    };
}

impl<'de> Visitor<'de> for Found<'_> {
    type Value = ();

    pass_over_scalars!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element_seed(Found(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while access.next_key_seed(Key(|key: &str| self.0.is_it(key, &mut seen)))?.is_some() {
            access.next_value_seed(Found(self.0))?;
        }
        Ok(())
    }
}

/// Comes by the fields of a JSON body as the reader into a type does.
struct Reader<'a> {
    path: String,
    unknown: &'a HashSet<&'a str>,
    complaints: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    pass_over_scalars!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let path = format!("{}[{index}]", self.path);
            let item = Reader { path, unknown: self.unknown, complaints: self.complaints };
            if access.next_element_seed(item)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            let separator = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{separator}{key}", self.path);
            if self.unknown.contains(path.as_str()) {
                self.complaints.push(unknown_field_text(&path));
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            if !seen.insert(key) {
                self.complaints.push(duplicate_field_text(&path));
            }
            access.next_value_seed(Reader { path, unknown: self.unknown, complaints: self.complaints })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn deep_brackets_are_refused_before_they_are_read() {
        let start = std::time::Instant::now();
        for bracket in ["[", "{", "[{", "- [", "{\"a\":", "[ a, "] {
            assert!(yaml(bracket.repeat(200_000).as_bytes()).is_err(), "{bracket}");
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
        // What people write: lists of lists, and what terminals are sent.
        let lists = format!("a: [{}]", "[[1, 2], {b: []}], ".repeat(1000));
        assert!(yaml(lists.as_bytes()).is_ok());
        let text = format!("a: \"{}\"", "\\e[31mx\\e[0m".repeat(1000));
        assert!(yaml(text.as_bytes()).is_ok());
    }

    #[test]
    fn duplicates_are_named_by_path_and_the_last_value_stays() {
        let body = br#"{"spec":{"replicas":1,"replicas":2,"c":[{"n":1},{"n":1,"n":2,"p":{"q":1,"q":1}}]},"spec2":1}"#;
        let decoded = super::json(body).expect("JSON");
        let named = ["spec.replicas", "spec.c[1].n", "spec.c[1].p.q"].map(duplicate_field_text);
        assert_eq!(decoded.duplicates, named);
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
    }

    #[test]
    fn what_yaml_gives_twice_is_named_with_its_line() {
        let body = b"\na: 1\nb:\n  - {c: 1}\n  - c: 1\n    c: 2\nd: {1: x,\n  1: y}\na: 2\n";
        let lines = [
            "line 6: key \"c\" already set in map",
            "line 8: key \"1\" already set in map",
            "line 9: key \"a\" already set in map",
        ];
        let duplicates = yaml(body).expect("YAML").duplicates;
        assert_eq!(duplicates, lines);
        assert_eq!(
            yaml_errors(&duplicates[..2]),
            "yaml: unmarshal errors:\n  line 6: key \"c\" already set in map\n  line 8: key \"1\" already set in map"
        );
    }

    #[test]
    fn complaints_come_in_the_order_of_the_body() {
        let body = br#"{"z":1,"spec":{"odd":{"a":1,"a":2},"n":1,"n":2,"n":3,"odd":1,"c":[{"x":1,"y":1,"y":2}]},"a":1}"#;
        let unknown = ["a", "spec.c[0].x", "spec.odd", "z"].map(String::from);
        assert_eq!(
            in_reading_order(body, &unknown),
            [
                "unknown field \"z\"",
                "unknown field \"spec.odd\"",
                "duplicate field \"spec.n\"",
                "unknown field \"spec.c[0].x\"",
                "duplicate field \"spec.c[0].y\"",
                "unknown field \"a\"",
            ]
        );
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
