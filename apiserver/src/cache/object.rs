//! One version of one object as bytes, encoded once a form: the JSON that every reader and watcher gets, resourceVersion included; its protobuf
//! form and what selectors need, found on first use.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::protobuf::{self, EncodeError};
use crate::strategy::Strategy;

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    /// As in the event's JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// What comes before the object in a line of a watch.
    fn opening(self) -> &'static str {
        match self {
            Self::Added => r#"{"type":"ADDED","object":"#,
            Self::Modified => r#"{"type":"MODIFIED","object":"#,
            Self::Deleted => r#"{"type":"DELETED","object":"#,
        }
    }
}

const CLOSING: &str = "}\n";
const FIELD: &str = r#""resourceVersion":""#;

/// One version of one object.
pub struct CachedObject {
    /// The key without the resource's prefix: `NAMESPACE/NAME` or `NAME`.
    pub suffix: Box<str>,
    /// Store revision of this version.
    pub revision: i64,
    /// The type the line is encoded for.
    line_type: EventType,
    /// The whole line of a watch; the object is a slice of it.
    line: Bytes,
    /// Where `metadata`'s first field begins in the line, which is resourceVersion.
    version_at: u32,
    labels: OnceLock<BTreeMap<String, String>>,
    fields: OnceLock<Box<[(&'static str, String)]>>,
    protobuf: OnceLock<Result<ProtobufForm, EncodeError>>,
    parsed: OnceLock<Arc<Value>>,
}

/// An object's protobuf form: the frame of a watch of the object's line type; the envelope and the message are slices of it.
struct ProtobufForm {
    frame: Bytes,
    envelope_at: u32,
    message_length: u32,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct VersionOnly<'a> {
    #[serde(borrow, rename = "resourceVersion")]
    resource_version: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LabelsOnly {
    labels: Option<BTreeMap<String, String>>,
}

/// Position behind the brace that opens `metadata`, and whether `metadata` is empty. `None`: it already has a resourceVersion.
fn metadata_opening(json: &[u8]) -> Result<Option<(usize, bool)>, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(json)?;
    let metadata = envelope.metadata.get();
    let version: VersionOnly<'_> = serde_json::from_str(metadata)?;
    if version.resource_version.is_some() {
        return Ok(None);
    }
    // `metadata` borrows from `json`, so the difference of the addresses is its offset.
    let at = metadata.as_ptr() as usize - json.as_ptr() as usize + 1;
    Ok(Some((at, metadata[1..].trim_start().starts_with('}'))))
}

/// Builds the line; gives it and the position of resourceVersion in it.
fn encode(stored: &[u8], revision: i64, line_type: EventType) -> Result<(Bytes, u32), serde_json::Error> {
    let mut buffer: [u8; 20] = [0; 20];
    let mut rest = &mut buffer[..];
    // Twenty bytes hold any i64.
    let _ = write!(rest, "{revision}");
    let left = rest.len();
    let digits = &buffer[..buffer.len() - left];
    let stripped;
    let (json, at, empty) = match metadata_opening(stored)? {
        Some((at, empty)) => (stored, at, empty),
        None => {
            stripped = without_version(stored)?;
            let (at, empty) = metadata_opening(&stripped)?.unwrap_or((0, false));
            (stripped.as_slice(), at, empty)
        }
    };
    let opening = line_type.opening().as_bytes();
    let total = opening.len() + json.len() + FIELD.len() + digits.len() + 2 + CLOSING.len();
    let mut line = Vec::with_capacity(total);
    line.extend_from_slice(opening);
    line.extend_from_slice(&json[..at]);
    let version_at = line.len() as u32;
    line.extend_from_slice(FIELD.as_bytes());
    line.extend_from_slice(digits);
    line.extend_from_slice(if empty { b"\"" } else { b"\"," });
    line.extend_from_slice(&json[at..]);
    line.extend_from_slice(CLOSING.as_bytes());
    Ok((Bytes::from(line), version_at))
}

/// For values written by others with a resourceVersion inside.
fn without_version(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(json)?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    serde_json::to_vec(&value)
}

impl CachedObject {
    /// Encodes a stored value (without resourceVersion) of `revision`.
    ///
    /// # Errors
    /// The value is no JSON object with `metadata`.
    pub fn new(
        suffix: &str,
        stored: &[u8],
        revision: i64,
        line_type: EventType,
    ) -> Result<Self, serde_json::Error> {
        let (line, version_at) = encode(stored, revision, line_type)?;
        Ok(Self {
            suffix: suffix.into(),
            revision,
            line_type,
            line,
            version_at,
            labels: OnceLock::new(),
            fields: OnceLock::new(),
            protobuf: OnceLock::new(),
            parsed: OnceLock::new(),
        })
    }

    fn object_range(&self) -> Range<usize> {
        self.line_type.opening().len()..self.line.len() - CLOSING.len()
    }

    /// The object as JSON.
    pub fn json(&self) -> Bytes {
        self.line.slice(self.object_range())
    }

    /// The object as JSON, borrowed.
    pub fn json_bytes(&self) -> &[u8] {
        &self.line[self.object_range()]
    }

    /// The JSON as it is stored: without resourceVersion.
    pub fn stored(&self) -> Vec<u8> {
        let version_at = self.version_at as usize;
        let end = self.version_end();
        let object = self.object_range();
        let mut stored = Vec::with_capacity(object.len());
        stored.extend_from_slice(&self.line[object.start..version_at]);
        stored.extend_from_slice(&self.line[end..object.end]);
        stored
    }

    /// Behind resourceVersion's closing quote and comma.
    fn version_end(&self) -> usize {
        let digits_at = self.version_at as usize + FIELD.len();
        let digits = self.line[digits_at..].iter().position(|byte| *byte == b'"').unwrap_or(0);
        let end = digits_at + digits + 1;
        if self.line.get(end) == Some(&b',') { end + 1 } else { end }
    }

    /// The object, parsed.
    ///
    /// # Errors
    /// Never for an object made by [`CachedObject::new`] of what this server wrote; others may have stored what nests too deeply.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(self.json_bytes())
    }

    /// The object, parsed once for all who ask, and kept: for what other requests are judged by again and again, such as their namespace. A parsed
    /// object takes several times the room of its bytes.
    ///
    /// # Errors
    /// As [`CachedObject::value`].
    pub fn shared(&self) -> Result<Arc<Value>, serde_json::Error> {
        if let Some(parsed) = self.parsed.get() {
            return Ok(Arc::clone(parsed));
        }
        let parsed = Arc::new(self.value()?);
        Ok(Arc::clone(self.parsed.get_or_init(|| parsed)))
    }

    /// The line of a watch event of this type with this object.
    pub fn line(&self, wanted: EventType) -> Bytes {
        if wanted == self.line_type {
            return self.line.clone();
        }
        let mut line = Vec::with_capacity(self.line.len() + 3);
        line.extend_from_slice(wanted.opening().as_bytes());
        line.extend_from_slice(&self.line[self.line_type.opening().len()..]);
        Bytes::from(line)
    }

    fn protobuf(&self) -> Result<&ProtobufForm, EncodeError> {
        let form = self.protobuf.get_or_init(|| {
            let object = self.value().map_err(|_| EncodeError::Field("object"))?;
            let protobuf::Encoded { envelope, message_length } = protobuf::encode(&object)?;
            let frame = protobuf::watch_frame(self.line_type.as_str(), &envelope);
            let envelope_at = (frame.len() - envelope.len()) as u32;
            Ok(ProtobufForm { frame: frame.into(), envelope_at, message_length: message_length as u32 })
        });
        form.as_ref().map_err(EncodeError::clone)
    }

    /// The object's message in protobuf, without an envelope: how lists have it.
    ///
    /// # Errors
    /// The kind has no protobuf form, or the object holds what the form cannot.
    pub fn message(&self) -> Result<Bytes, EncodeError> {
        let form = self.protobuf()?;
        let end = form.frame.len() - protobuf::ENVELOPE_END.len();
        Ok(form.frame.slice(end - form.message_length as usize..end))
    }

    /// The frame of a watch event of this type with this object, in protobuf.
    ///
    /// # Errors
    /// The kind has no protobuf form, or the object holds what the form cannot.
    pub fn frame(&self, wanted: EventType) -> Result<Bytes, EncodeError> {
        let form = self.protobuf()?;
        if wanted == self.line_type {
            return Ok(form.frame.clone());
        }
        let envelope = &form.frame[form.envelope_at as usize..];
        Ok(protobuf::watch_frame(wanted.as_str(), envelope).into())
    }

    /// The same content with another revision: how a deletion shows the last state.
    pub fn at_revision(&self, revision: i64, line_type: EventType) -> Result<Self, serde_json::Error> {
        let copy = Self::new(&self.suffix, &self.stored(), revision, line_type)?;
        if let Some(labels) = self.labels.get() {
            let _ = copy.labels.set(labels.clone());
        }
        if let Some(fields) = self.fields.get() {
            let _ = copy.fields.set(fields.clone());
        }
        Ok(copy)
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.labels.get_or_init(|| {
            let parsed = serde_json::from_slice::<Envelope<'_>>(self.json_bytes())
                .and_then(|envelope| serde_json::from_str::<LabelsOnly>(envelope.metadata.get()));
            parsed.ok().and_then(|found| found.labels).unwrap_or_default()
        })
    }

    /// The kind's own selectable fields.
    pub fn fields(&self, strategy: &dyn Strategy) -> &[(&'static str, String)] {
        self.fields.get_or_init(|| {
            self.value()
                .map(|object| strategy.selectable_fields(&object))
                .unwrap_or_default()
                .into_boxed_slice()
        })
    }

    /// The namespace; empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        self.suffix.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.suffix.split_once('/').map_or(&*self.suffix, |(_, name)| name)
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.line.len()
    }
}

/// A stored value with its resourceVersion put in: what a single read or a write answers with.
///
/// # Errors
/// The value is no JSON object with `metadata`.
pub fn with_resource_version(stored: &[u8], revision: i64) -> Result<Bytes, serde_json::Error> {
    let (line, _) = encode(stored, revision, EventType::Added)?;
    Ok(line.slice(EventType::Added.opening().len()..line.len() - CLOSING.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored() -> Vec<u8> {
        br#"{"apiVersion":"v1","data":{"metadata":"{"},"kind":"ConfigMap","metadata":{"labels":{"a":"b"},"name":"x"}}"#.to_vec()
    }

    #[test]
    fn the_line_is_encoded_once_and_the_object_is_a_slice_of_it() {
        let object = CachedObject::new("ns/x", &stored(), 42, EventType::Modified).expect("encodes");
        let line = object.line(EventType::Modified);
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(event["type"], "MODIFIED");
        assert_eq!(event["object"]["metadata"]["resourceVersion"], "42");
        assert_eq!(event["object"], object.value().expect("JSON"));
        assert!(line.ends_with(b"}\n"));
        let inside = line.as_ptr() as usize..line.as_ptr() as usize + line.len();
        assert!(inside.contains(&(object.json().as_ptr() as usize)), "no copy");
        assert_eq!((object.namespace(), object.name()), ("ns", "x"));
        assert_eq!(object.labels()["a"], "b");
    }

    #[test]
    fn taking_the_version_out_gives_the_stored_bytes_back() {
        let object = CachedObject::new("ns/x", &stored(), 42, EventType::Added).expect("encodes");
        assert_eq!(object.stored(), stored());
        let deleted = object.at_revision(9_000, EventType::Deleted).expect("encodes");
        let event: Value = serde_json::from_slice(&deleted.line(EventType::Deleted)).expect("JSON");
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["resourceVersion"]),
            (&json!("DELETED"), &json!("9000"))
        );
    }

    #[test]
    fn the_protobuf_form_is_encoded_once_too() {
        let object = CachedObject::new("ns/x", &stored(), 42, EventType::Modified).expect("encodes");
        let frame = object.frame(EventType::Modified).expect("a form");
        let message = object.message().expect("a form");
        let inside = frame.as_ptr() as usize..frame.as_ptr() as usize + frame.len();
        assert!(inside.contains(&(message.as_ptr() as usize)), "no copy");
        let deleted = object.frame(EventType::Deleted).expect("a form");
        let envelope_at =
            |frame: &Bytes| frame.windows(4).position(|bytes| bytes == b"k8s\0").expect("magic");
        let (a, b) = (&frame[envelope_at(&frame)..], &deleted[envelope_at(&deleted)..]);
        assert_eq!(a, b);
        assert_eq!(protobuf::decode(a, "", ""), Ok(object.value().expect("JSON")));
        let other = CachedObject::new("x", br#"{"metadata":{}}"#, 1, EventType::Added).expect("encodes");
        assert!(matches!(other.message(), Err(EncodeError::Kind { .. })));
    }

    #[test]
    fn values_of_others_may_have_a_version_or_empty_metadata() {
        let json = br#"{"metadata": {"resourceVersion":"7","name":"a"}}"#;
        let value: Value =
            serde_json::from_slice(&with_resource_version(json, 8).expect("encodes")).expect("JSON");
        assert_eq!(value, json!({"metadata": {"name": "a", "resourceVersion": "8"}}));
        let value: Value =
            serde_json::from_slice(&with_resource_version(br#"{"metadata":{}}"#, 8).expect("encodes"))
                .expect("JSON");
        assert_eq!(value, json!({"metadata": {"resourceVersion": "8"}}));
        assert!(with_resource_version(b"k8s\0protobuf", 1).is_err());
        assert!(with_resource_version(br#"{"metadata":[]}"#, 1).is_err());
    }
}
