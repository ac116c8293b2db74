//! Tests of writing and reading together: any object of any message comes back as it was, and known objects have the bytes that
//! upstream writes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use serde_json::{Map, Value, json};

use super::table::{self, Field, Kind, Message, Shape};
use super::*;

/// Kinds that between them hold nearly every message.
const KINDS: &[(&str, &str)] = &[
    ("v1", "Pod"),
    ("v1", "Node"),
    ("v1", "Service"),
    ("v1", "Event"),
    ("v1", "Secret"),
    ("v1", "Namespace"),
    ("v1", "Status"),
    ("v1", "PodTemplate"),
    ("v1", "ReplicationController"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("apps/v1", "ControllerRevision"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("autoscaling/v1", "HorizontalPodAutoscaler"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("policy/v1", "PodDisruptionBudget"),
    ("coordination.k8s.io/v1", "Lease"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("events.k8s.io/v1", "Event"),
    ("authentication.k8s.io/v1", "TokenReview"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"),
    ("meta.k8s.io/v1", "PartialObjectMetadata"),
];

/// Deeper messages hold only what they must.
const DEPTH: usize = 7;

/// Fields of a message as JSON has them once Go has read them: with everything that is always there.
fn fields(message: &Message, rng: &mut TestRng, depth: usize, into: &mut Map<String, Value>) {
    for field in message.values() {
        let sparse = depth > DEPTH || !rng.next_u32().is_multiple_of(3);
        match field.shape {
            Shape::Inline => fields(inner(field), rng, depth, into),
            Shape::One if field.always && !field.omits_zero => {
                if let Some(value) = value(field, rng, depth) {
                    into.insert(field.name.into(), value);
                }
            }
            _ if sparse => {}
            Shape::One => {
                if let Some(value) =
                    value(field, rng, depth).filter(|value| !field.omits_zero || !is_zero(value))
                {
                    into.insert(field.name.into(), value);
                }
            }
            Shape::List => {
                let items: Vec<Value> =
                    (0..=rng.next_u32() % 3).filter_map(|_| value(field, rng, depth)).collect();
                if !items.is_empty() {
                    into.insert(field.name.into(), items.into());
                }
            }
            Shape::Map => {
                let entries: BTreeMap<String, Value> = (0..=rng.next_u32() % 3)
                    .filter_map(|_| Some((text(rng), value(field, rng, depth)?)))
                    .collect();
                if !entries.is_empty() {
                    into.insert(field.name.into(), entries.into_iter().collect::<Map<_, _>>().into());
                }
            }
        }
    }
}

fn inner(field: &Field) -> &'static Message {
    match field.kind {
        Kind::Message(name) | Kind::Either(name) => table::message(name).expect("a message"),
        kind => panic!("{kind:?}"),
    }
}

fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Bool(false)) || value == &json!(0) || value == &json!("")
}

fn text(rng: &mut TestRng) -> String {
    ["", "a", "app.kubernetes.io/name", "ä😀", "x\"\\\n", "0"][rng.next_u32() as usize % 6]
        .repeat(1 + rng.next_u32() as usize % 40)
}

/// A value; `None` for a time that is not set.
fn value(field: &Field, rng: &mut TestRng, depth: usize) -> Option<Value> {
    Some(match field.kind {
        Kind::String => text(rng).into(),
        Kind::Bool => (rng.next_u32().is_multiple_of(2)).into(),
        Kind::Int32 => (rng.next_u32() as i32 >> (rng.next_u32() % 32)).into(),
        Kind::Int64 => (rng.next_u64() as i64 >> (rng.next_u32() % 64)).into(),
        Kind::Double => [json!(0), json!(-3), json!(0.25), json!(1e300)][rng.next_u32() as usize % 4].clone(),
        Kind::Bytes => STANDARD.encode(text(rng)).into(),
        Kind::Strings => vec![text(rng), text(rng)].into(),
        Kind::IntOrString if rng.next_u32().is_multiple_of(2) => (rng.next_u32() as i32).into(),
        Kind::IntOrString => "25%".into(),
        Kind::Quantity => ["0", "100m", "1Gi", "-5"][rng.next_u32() as usize % 4].into(),
        Kind::Time | Kind::MicroTime if field.always && rng.next_u32().is_multiple_of(3) => return None,
        Kind::Time => {
            let time = Timestamp::from_second(i64::from(rng.next_u32() as i32)).expect("a time");
            coracle_api::meta::format_time(time).into()
        }
        Kind::MicroTime => {
            let micros = i64::from(rng.next_u32() as i32) * 1_000_003;
            let time = Timestamp::from_microsecond(micros).expect("a time");
            coracle_api::meta::format_micro_time(time).into()
        }
        Kind::Json => json!({"f:metadata": {".": {}, "f:labels": {"k:{\"a\":1}": {}}}}),
        Kind::Message(_) => {
            let mut object = Map::new();
            fields(inner(field), rng, depth + 1, &mut object);
            object.into()
        }
        Kind::Either(_) => {
            let fields: Vec<&Field> = inner(field).values().collect();
            let field = fields[rng.next_u32() as usize % fields.len()];
            let value = value(field, rng, depth + 1)?;
            if field.shape == Shape::List { vec![value].into() } else { value }
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_as_it_was(kind in 0..KINDS.len(), rng in any::<u64>().no_shrink()) {
        let (api_version, kind) = KINDS[kind];
        let seed: Vec<u8> = rng.to_le_bytes().iter().copied().cycle().take(32).collect();
        let mut rng = TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut object = Map::new();
        object.insert("apiVersion".into(), api_version.into());
        object.insert("kind".into(), kind.into());
        fields(table::message(&format!("{api_version}/{kind}")).expect("a message"), &mut rng, 0, &mut object);
        let object = Value::Object(object);
        let encoded = encode(&object).expect("encodes");
        prop_assert_eq!(decode(&encoded.envelope, "", ""), Ok(object));
    }
}

/// `bytes` as pairs of hexadecimal digits, blanks between as one likes.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|digit| char::from(digit).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn a_config_map_has_the_bytes_that_upstream_writes() {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:05Z", "labels": {"b": "2", "a": ""}},
        "data": {"k": "v"},
    });
    let wanted = hex("6b387300  0a0f 0a02 7631 1209 436f6e6669674d6170
         122e
           0a24
             0a01 61  1200  1a00  2200  2a00  3200  3800
             4204 0805 1000
             5a05 0a01 61 1200
             5a06 0a01 62 1201 32
           1206 0a01 6b 1201 76
         1a00 2200");
    assert_eq!(encode(&object).map(|encoded| encoded.envelope), Ok(wanted));
}

#[test]
fn what_go_holds_without_a_pointer_is_always_written() {
    let encoded = encode(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}})).expect("encodes");
    let message = &encoded.envelope[encoded.envelope.len() - ENVELOPE_END.len() - encoded.message_length..];
    let wanted = hex("0a10 0a00 1200 1a00 2200 2a00 3200 3800 4200  1200  1a02 0a00  1a00 2200");
    assert_eq!(message, wanted, "spec and status too, of which JSON knows nothing");
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "c"}]}});
    let pod = decode(&encode(&pod).expect("encodes").envelope, "", "").expect("decodes");
    assert_eq!(
        pod["spec"],
        json!({"containers": [{"name": "c", "resources": {}}]}),
        "no pointer became a value"
    );
}

#[test]
fn lists_made_of_ready_items_are_those_made_at_once() {
    let item = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    let metadata = json!({"resourceVersion": "7", "continue": "c", "remainingItemCount": 3});
    let items = [item("a"), item(&"b".repeat(300))];
    let list = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": metadata, "items": items});
    let encoded: Vec<Encoded> = items.iter().map(|item| encode(item).expect("encodes")).collect();
    let total = encoded.iter().map(|item| item_length(item.message_length)).sum();
    let mut bytes = list_opening("v1", "SecretList", &metadata, total).expect("encodes").to_vec();
    for item in &encoded {
        bytes.extend(item_opening(item.message_length));
        let end = item.envelope.len() - ENVELOPE_END.len();
        bytes.extend(&item.envelope[end - item.message_length..end]);
    }
    bytes.extend(ENVELOPE_END);
    assert_eq!(encode(&list).map(|list| list.envelope), Ok(bytes));
}

#[test]
fn a_watch_frame_says_its_length_and_holds_the_envelope_at_its_end() {
    let frame = watch_frame("ADDED", b"k8s\0x");
    assert_eq!(frame, [&hex("00000010 0a05")[..], b"ADDED", &hex("1207 0a05"), b"k8s\0x"].concat());
}

#[test]
fn what_has_no_form_or_does_not_fit_is_refused() {
    assert!(has_form("v1", "PodList") && !has_form("example.com/v1", "Widget") && !has_form("v1", "List"));
    let kind = encode(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"}));
    assert!(matches!(kind, Err(EncodeError::Kind { .. })), "{kind:?}");
    let field = encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": 1}}));
    assert_eq!(field, Err(EncodeError::Field("data")));
}

#[test]
fn a_schema_that_is_one_or_a_list_or_a_truth_value_has_the_field_of_its_type() {
    let schema = json!({
        "type": "object", "maximum": 1.5,
        "properties": {"a": {"type": "array", "items": {"type": "string", "default": "x"}}},
        "additionalProperties": true,
        "dependencies": {"a": ["b"]},
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
        "spec": {
            "group": "", "names": {"plural": "", "kind": ""}, "scope": "",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let encoded = encode(&definition).expect("encodes");
    // The field, its length, then of the one field the tag: a list's items as a schema, a truth value as a number.
    for (what, bytes) in [
        ("items of one schema", "c201 2d 0a2b 0a00 1200 2200 2a06 737472696e67 3200 3a00 4205 0a03 227822"),
        ("a truth value", "f201 02 0801"),
        ("a list of names", "8202 08 0a01 61 1203 1201 62"),
        ("a number", "49 000000000000f83f"),
    ] {
        let bytes = hex(bytes);
        let found = encoded.envelope.windows(bytes.len()).any(|window| window == bytes);
        assert!(found, "{what}: {:02x?}", encoded.envelope);
    }
    let read = decode(&encoded.envelope, "", "").expect("decodes");
    assert_eq!(read["spec"]["versions"][0]["schema"]["openAPIV3Schema"], schema);
}
