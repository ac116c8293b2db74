//! What the workloads write: pods of the size that Deployments make, and changes to them.

use bytes::Bytes;
use serde_json::{Value, json};

/// The namespace of everything.
pub const NAMESPACE: &str = "bench";
/// Where its pods are.
pub const PODS: &str = "/api/v1/namespaces/bench/pods";

/// The namespace and what pods in it need.
pub fn furniture() -> [(&'static str, Bytes); 2] {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    [
        ("/api/v1/namespaces", namespace.to_string().into()),
        ("/api/v1/namespaces/bench/serviceaccounts", account.to_string().into()),
    ]
}

/// A pod, about 2 KB once defaults are in.
pub fn pod(name: &str) -> Bytes {
    pod_object(name).to_string().into()
}

/// The same, to be changed.
pub fn pod_object(name: &str) -> Value {
    let env: Vec<_> = (0..6)
        .map(|number| json!({ "name": format!("SETTING_{number}"), "value": format!("value-{number}-of-{name}") }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "app": "web", "tier": "front", "pod-template-hash": "5d6f7c8b9" },
            "annotations": { "example.com/checksum": "0123456789abcdef0123456789abcdef" },
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web",
                "image": "registry.example.com/web:1.2.3",
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "env": env,
                "resources": {
                    "requests": { "cpu": "100m", "memory": "128Mi" },
                    "limits": { "cpu": "500m", "memory": "256Mi" },
                },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" }, "periodSeconds": 5 },
                "volumeMounts": [{ "name": "config", "mountPath": "/etc/web" }],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": "web" } }],
        },
    })
}

/// A status as a kubelet patches it.
pub fn status(number: u64) -> Bytes {
    let address = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    json!({
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": if number.is_multiple_of(2) { "True" } else { "False" } }],
        },
    })
    .to_string()
    .into()
}

/// The annotation that says which write an event is of.
pub const MARK: &[u8] = b"\"example.com/mark\":\"";

/// A change of an annotation.
pub fn marked(number: u64) -> Bytes {
    json!({ "metadata": { "annotations": { "example.com/mark": number.to_string() } } }).to_string().into()
}

/// What one applier wants of a pod.
pub fn applied(name: &str, number: u64) -> Bytes {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "example.com/owner": format!("team-{}", number % 1000) } },
    })
    .to_string()
    .into()
}
