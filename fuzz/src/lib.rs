//! What the API server does with bytes that anyone may send it, as functions of bytes that must neither panic nor take memory without
//! bound. The fuzz targets run them for as long as one likes; `apiserver/tests/bad_input.rs` runs them for some seconds, seeded.

use apiserver::protobuf;
use apiserver::registry::continue_token::ContinueToken;
use apiserver::server::request_info::{Query, ResourcePath};
use coracle_api::cel::{Environment, Inputs, Meter, PER_CALL_LIMIT, Shape, Type, Value as CelValue};
use coracle_api::quantity::Quantity;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::{apply, decode, patch, schema};
use serde_json::{Value, json};

/// What is done with bytes.
pub type Target = fn(&[u8]);

/// Every function with its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("bodies", bodies),
    ("protobuf_bodies", protobuf_bodies),
    ("selectors", selectors),
    ("patches", patches),
    ("urls", urls),
    ("expressions", expressions),
];

fn text(data: &[u8]) -> &str {
    let end = std::str::from_utf8(data).map_or_else(|error| error.valid_up_to(), str::len);
    std::str::from_utf8(&data[..end]).unwrap_or_default()
}

/// JSON and YAML bodies, and what a pod's schema makes of them.
pub fn bodies(data: &[u8]) {
    let pod = schema::of_kind("", "v1", "Pod").expect("pods are built in");
    for decoded in [decode::json(data), decode::yaml(data)].into_iter().flatten() {
        let mut object = decoded.value;
        if schema::check_types(&object, pod).is_ok() {
            schema::prune(&mut object, pod);
            coracle_api::kinds::pod::validate(&object);
        }
    }
}

/// Protobuf bodies; what can be read is written again.
pub fn protobuf_bodies(data: &[u8]) {
    for kind in ["Pod", "Service", "Secret"] {
        if let Ok(object) = protobuf::decode(data, "v1", kind) {
            // Not everything that can be read has a form to be written in.
            let _ = protobuf::encode(&object);
        }
    }
}

/// Selectors of labels and fields, quantities and continue tokens.
pub fn selectors(data: &[u8]) {
    let text = text(data);
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches_with(|_| Some("5"));
        selector.matches(None);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        selector.matches(|_| Some("a"));
    }
    if let Ok(quantity) = text.parse::<Quantity>() {
        let _ = quantity.to_string().parse::<Quantity>().expect("what is written can be read");
    }
    // A token that is none is an error like any other.
    let _ = ContinueToken::decode(text);
}

/// The four kinds of patches of a deployment that is there.
pub fn patches(data: &[u8]) {
    let schema = schema::of_kind("apps", "v1", "Deployment").expect("deployments are built in");
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "finalizers": ["x/y"], "labels": {"a": "b"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}}},
    });
    let Ok(decoded) = decode::yaml(data) else { return };
    let body: Value = decoded.value;
    // Refusals are answers.
    let _ = patch::json::apply(&object, &body);
    let _ = patch::merge::apply(&object, &body);
    let _ = patch::strategic::apply(&object, &body, schema);
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    if let Ok(made) = apply::apply(None, &body, "one", "", false, schema, now) {
        let _ = apply::apply(Some(&made), &body, "two", "", true, schema, now);
    }
    let _ = apply::apply(Some(&object), &body, "one", "", false, schema, now);
}

/// Paths and queries.
pub fn urls(data: &[u8]) {
    let text = text(data);
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    ResourcePath::parse(path);
    let query = Query::parse(Some(query));
    query.flag("watch");
    query.all("dryRun").count();
}

/// Expressions of custom resources' rules: checked, estimated, evaluated within what one may cost.
pub fn expressions(data: &[u8]) {
    let environment = Environment::new().with("self", Shape::dynamic());
    let Ok(program) = environment.compile(text(data)) else { return };
    program.estimate();
    let object = json!({"a": 1, "b": "text", "c": [1, 2, 3], "d": {"e": true}});
    let mut inputs = Inputs::new(vec![Some(CelValue::of(&object, &Type::Dyn))]);
    // An expression that costs too much or fails is an answer.
    let _ = program.evaluate(&mut inputs, &mut Meter::new(PER_CALL_LIMIT));
}
