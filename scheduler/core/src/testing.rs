//! Short ways to make nodes and pods for this crate's tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

pub fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

/// A pod made of the given fields; name, namespace and uid are filled in.
pub fn pod_from(fields: Value) -> Arc<Pod> {
    let mut value = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": []}});
    merge(&mut value, fields);
    let name = value["metadata"]["name"].as_str().unwrap_or("p").to_owned();
    if value["metadata"]["uid"].is_null() {
        value["metadata"]["uid"] = json!(format!("uid-{name}"));
    }
    Arc::new(serde_json::from_value(value).expect("pod"))
}

/// A pod that requests this much CPU.
pub fn pod(name: &str, cpu: &str) -> Arc<Pod> {
    pod_from(json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]}
    }))
}

/// A node made of the given fields over a usual one (4 cores, 8Gi, 110 pods).
pub fn node_from(name: &str, fields: Value) -> Arc<Node> {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi"}}
    });
    merge(&mut value, fields);
    Arc::new(serde_json::from_value(value).expect("node"))
}

/// A node with this much CPU in this zone.
pub fn node(name: &str, cpu: &str, zone: &str) -> Arc<Node> {
    node_from(
        name,
        json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": cpu}}
        }),
    )
}
