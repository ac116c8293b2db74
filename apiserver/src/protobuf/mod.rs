//! Kubernetes' protobuf form of objects, turned into the value that the same object has in JSON, and back. Pure.
//!
//! Typed clients send and ask for `application/vnd.kubernetes.protobuf`: four magic bytes, then an envelope with apiVersion, kind
//! and the object's own message. What the messages hold is in `messages`.

mod encode;
mod envelope;
mod message;
#[cfg(test)]
mod roundtrip;
mod table;
mod wire;

use serde_json::{Map, Value};

pub use envelope::{
    ENVELOPE_END, Encoded, encode, has_form, item_length, item_opening, list_opening, watch_frame,
};
use wire::Reader;

/// The media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What each body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deeply messages may stand in each other.
const DEPTH_MAX: usize = 100;

/// Why bytes are no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The magic bytes are missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The end comes within a value.
    #[error("proto: unexpected end of the data")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("proto: integer overflow")]
    Varint,
    /// A field with the tag 0.
    #[error("proto: illegal tag 0")]
    Tag,
    /// A wire type that does not exist or that no field has.
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    /// A field whose payload is of another type than the field.
    #[error("proto: wrong wireType for field {0}")]
    FieldType(&'static str),
    /// A field whose value does not exist.
    #[error("proto: field {0} holds {1}")]
    FieldValue(&'static str, &'static str),
    /// Messages within messages beyond any object's depth.
    #[error("proto: messages are nested more than {DEPTH_MAX} deep")]
    Depth,
    /// The envelope says that the object is in another form.
    #[error("the envelope holds an object in the form {0:?}: send it as plain protobuf")]
    Form(String),
    /// The envelope names a kind that is not served.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    Kind {
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },
}

/// Why an object has no protobuf form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Nobody knows the kind's messages.
    #[error("kind \"{kind}\" of version \"{api_version}\" has no protobuf form")]
    Kind {
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// A field holds what its type cannot hold.
    #[error("proto: field {0} does not hold what its type says")]
    Field(&'static str),
    /// Messages within messages beyond any object's depth.
    #[error("proto: messages are nested more than {DEPTH_MAX} deep")]
    Depth,
}

/// What the envelope holds.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    encoding: &'a str,
    form: &'a str,
}

/// Reads an object. apiVersion and kind are the envelope's, or, where it has none, those that are expected.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8], api_version: &str, kind: &str) -> Result<Value, DecodeError> {
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?)?;
    for form in [envelope.encoding, envelope.form] {
        if !form.is_empty() && form != MEDIA_TYPE {
            return Err(DecodeError::Form(form.to_owned()));
        }
    }
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let (api_version, kind) = (or(envelope.api_version, api_version), or(envelope.kind, kind));
    let message = if kind == "DeleteOptions" {
        // The same in every group.
        table::message("meta.k8s.io/v1/DeleteOptions")
    } else {
        table::message(&format!("{api_version}/{kind}"))
    };
    let Some(message) = message else {
        return Err(DecodeError::Kind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), Value::String(api_version));
    object.insert("kind".to_owned(), Value::String(kind));
    message::decode(envelope.raw, message, &mut object, 0)?;
    Ok(Value::Object(object))
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut envelope = Self::default();
        let mut fields = Reader::new(bytes);
        while let Some((tag, payload)) = fields.next_field()? {
            match tag {
                1 => envelope.read_type(message::bytes(payload, "typeMeta")?)?,
                2 => envelope.raw = message::bytes(payload, "raw")?,
                3 => envelope.encoding = message::text(payload, "contentEncoding")?,
                4 => envelope.form = message::text(payload, "contentType")?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        let mut fields = Reader::new(bytes);
        while let Some((tag, payload)) = fields.next_field()? {
            match tag {
                1 => self.api_version = message::text(payload, "apiVersion")?,
                2 => self.kind = message::text(payload, "kind")?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    /// A field that holds a number.
    fn number(tag: u64, value: u64) -> Vec<u8> {
        [varint(tag << 3), varint(value)].concat()
    }

    /// A field that holds text, bytes or a message.
    fn field(tag: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [varint(tag << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    /// A map's entry.
    fn entry(tag: u64, key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
        field(tag, [field(1, key), field(2, value)].concat())
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = field(1, [field(1, api_version), field(2, kind)].concat());
        [MAGIC.to_vec(), type_meta, field(2, raw), field(3, ""), field(4, "")].concat()
    }

    fn read(api_version: &str, kind: &str, raw: &[u8]) -> Result<Value, DecodeError> {
        decode(&body(api_version, kind, raw), "", "")
    }

    #[test]
    fn a_deployment_as_kubectl_sends_it() {
        let container = [field(1, "demo"), field(2, "demo:v1"), field(5, ""), field(8, ""), number(16, 0)];
        let pod_spec = [field(2, container.concat()), field(3, ""), number(4, 0), number(11, 0)].concat();
        let metadata = [field(1, ""), field(8, ""), entry(11, "app", "web")].concat();
        let template = [field(1, &metadata), field(2, pod_spec)].concat();
        let strategy =
            [field(1, ""), field(2, field(1, [number(1, 1), number(2, 0), field(3, "25%")].concat()))];
        let spec = [
            number(1, 0),
            field(2, entry(1, "app", "web")),
            field(3, template),
            field(4, strategy.concat()),
            number(5, 0),
            number(7, 0),
        ];
        let named = [field(1, "web"), metadata].concat();
        let raw = [field(1, named), field(2, spec.concat()), field(3, number(1, 0))].concat();
        assert_eq!(
            read("apps/v1", "Deployment", &raw),
            Ok(json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {
                            "containers": [{"name": "demo", "image": "demo:v1", "resources": {}}],
                            "terminationGracePeriodSeconds": 0,
                        },
                    },
                    "strategy": {"rollingUpdate": {"maxUnavailable": "25%"}},
                },
                "status": {},
            })),
            "the second, empty name wins over the first, as the last of a field always does"
        );
    }

    #[test]
    fn sources_of_volumes_and_secret_keys_stand_beside_their_names() {
        let volume = [field(1, "scratch"), field(2, field(2, field(1, "")))].concat();
        let key = [field(1, field(1, "creds")), field(2, "token"), number(3, 0)].concat();
        let env = [field(1, "TOKEN"), field(2, ""), field(3, field(4, key))].concat();
        let probe =
            [field(1, field(2, [field(1, "/"), field(2, [number(1, 0), number(2, 80)].concat())].concat()))];
        let container = [field(1, "c"), field(7, env), field(10, probe.concat())].concat();
        let raw = field(2, [field(1, volume), field(2, container), number(21, 0)].concat());
        assert_eq!(
            read("v1", "Pod", &raw).map(|pod| pod["spec"].clone()),
            Ok(json!({
                "automountServiceAccountToken": false,
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "containers": [{
                    "name": "c",
                    "env": [{"name": "TOKEN", "valueFrom": {
                        "secretKeyRef": {"name": "creds", "key": "token", "optional": false},
                    }}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
                }],
            }))
        );
    }

    #[test]
    fn secrets_quantities_times_and_managed_fields_look_as_in_json() {
        let secret = [entry(2, "key", [0xff, 0x00]), field(3, "Opaque")].concat();
        assert_eq!(
            read("v1", "Secret", &secret),
            Ok(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"key": "/wA="}}))
        );
        let managed =
            [field(1, "kubectl"), field(4, number(1, 1_700_000_000)), field(7, field(1, r#"{"f:a":{}}"#))];
        let metadata = field(1, [field(8, ""), field(17, managed.concat())].concat());
        let status = field(3, entry(1, "cpu", field(1, "4")));
        assert_eq!(
            read("v1", "Node", &[metadata, status].concat()),
            Ok(json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"managedFields": [
                    {"manager": "kubectl", "time": "2023-11-14T22:13:20Z", "fieldsV1": {"f:a": {}}},
                ]},
                "status": {"capacity": {"cpu": "4"}},
            }))
        );
        let lease = field(2, field(3, [number(1, 1_700_000_000), number(2, 5000)].concat()));
        assert_eq!(
            read("coordination.k8s.io/v1", "Lease", &lease).map(|lease| lease["spec"].clone()),
            Ok(json!({"acquireTime": "2023-11-14T22:13:20.000005Z"}))
        );
        let user =
            field(2, [field(3, "x"), entry(4, "scopes", [field(1, "a"), field(1, "b")].concat())].concat());
        assert_eq!(
            read("authentication.k8s.io/v1", "TokenReview", &field(3, user[..].as_ref()))
                .map(|review| review["status"]["user"].clone()),
            Ok(json!({"groups": ["x"], "extra": {"scopes": ["a", "b"]}}))
        );
    }

    #[test]
    fn negative_numbers_packed_lists_and_delete_options_of_any_group() {
        let options = [number(1, 0), field(4, "Background"), number(3, 0)].concat();
        assert_eq!(
            read("apps/v1", "DeleteOptions", &options),
            Ok(json!({
                "apiVersion": "apps/v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "propagationPolicy": "Background",
                "orphanDependents": false,
            }))
        );
        let priority = number(2, i64::from(-5_i32) as u64);
        let class = decode(&body("", "", &priority), "scheduling.k8s.io/v1", "PriorityClass");
        assert_eq!(class.map(|class| class["value"].clone()), Ok(json!(-5)));
        let groups = |list: Vec<u8>| {
            let context = field(14, list);
            read("v1", "Pod", &field(2, context)).map(|pod| pod["spec"]["securityContext"].clone())
        };
        assert_eq!(groups(field(4, [1, 2])), Ok(json!({"supplementalGroups": [1, 2]})));
        assert_eq!(groups([number(4, 1), number(4, 2)].concat()), Ok(json!({"supplementalGroups": [1, 2]})));
    }

    #[test]
    fn what_is_no_object_is_refused_with_the_reason() {
        assert_eq!(decode(b"{}", "v1", "Pod"), Err(DecodeError::Magic));
        assert_eq!(decode(b"k8s\0\x12\x05", "v1", "Pod"), Err(DecodeError::Truncated));
        let error = read("example.com/v1", "Foo", &[]).expect_err("an unknown kind");
        assert_eq!(error.to_string(), "no kind \"Foo\" is registered for version \"example.com/v1\"");
        assert_eq!(read("v1", "Pod", &number(1, 1)), Err(DecodeError::FieldType("metadata")));
        assert_eq!(
            read("v1", "Pod", &field(1, field(1, [0xff]))),
            Err(DecodeError::FieldValue("name", "text that is not UTF-8"))
        );
        let gzip = [MAGIC.to_vec(), field(3, "gzip")].concat();
        assert_eq!(decode(&gzip, "v1", "Pod"), Err(DecodeError::Form("gzip".to_owned())));
    }

    #[test]
    fn unknown_tags_are_passed_over() {
        let raw = [number(1000, 7), field(1001, "x"), vec![0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
        assert_eq!(read("v1", "Pod", &raw), Ok(json!({"apiVersion": "v1", "kind": "Pod"})));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, "v1", "Pod");
            let _ = decode(&[MAGIC, &bytes].concat(), "v1", "Pod");
            for (api_version, kind) in [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Node"), ("v1", "Secret")] {
                let _ = read(api_version, kind, &bytes);
            }
        }

        #[test]
        fn no_change_of_a_byte_makes_it_panic(position in 0_usize..200, byte in any::<u8>()) {
            let container = [field(1, "c"), field(10, field(1, field(2, number(2, 80))))].concat();
            let spec = field(2, [field(2, container), number(4, 30)].concat());
            let mut body = body("v1", "Pod", &[field(1, field(1, "web")), spec].concat());
            let position = position % body.len();
            body[position] = byte;
            let _ = decode(&body, "v1", "Pod");
        }
    }
}
