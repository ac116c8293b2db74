//! The objects that people make, and the virtual clock by which they are dated.

use serde_json::{Value, json};

/// Where virtual time begins.
pub const EPOCH: i64 = 1_700_000_000;

/// The time at which runs begin.
pub fn epoch() -> jiff::Timestamp {
    jiff::Timestamp::from_second(EPOCH).unwrap_or_default()
}

/// Now, as objects have it: whole seconds.
pub fn timestamp() -> String {
    let now = controller_manager::clock::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "containers": [{ "name": "c", "image": image }], "restartPolicy": "Always" },
    })
}

fn selector(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

/// A node that takes everything.
pub fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": {
            "allocatable": { "cpu": "64", "memory": "64Gi", "pods": "500" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// A Deployment.
pub fn deployment(name: &str, replicas: u64, strategy: &Value, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": replicas, "selector": selector(name), "template": template(name, image), "strategy": strategy,
            "revisionHistoryLimit": 3, "progressDeadlineSeconds": 600,
        },
    })
}

/// A ReplicaSet that no Deployment has.
pub fn replica_set(name: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": name },
        "spec": { "replicas": replicas, "selector": selector(name), "template": template(name, "v1") },
    })
}

/// A StatefulSet.
pub fn stateful_set(name: &str, replicas: u64, policy: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": selector(name), "template": template(name, "v1"), "serviceName": name,
            "podManagementPolicy": policy, "revisionHistoryLimit": 3,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        },
    })
}

/// A DaemonSet.
pub fn daemon_set(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": name },
        "spec": {
            "selector": selector(name), "template": template(name, "v1"), "revisionHistoryLimit": 3,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
        },
    })
}

/// A Job.
pub fn job(name: &str, completions: u64, parallelism: u64, indexed: bool) -> Value {
    let mut template = template(name, "v1");
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": {
            "completions": completions, "parallelism": parallelism, "backoffLimit": 100, "template": template,
            "completionMode": if indexed { "Indexed" } else { "NonIndexed" },
        },
    })
}

/// A budget for an app's pods.
pub fn budget(app: &str, least: u64) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": app },
        "spec": { "minAvailable": least, "selector": selector(app) },
    })
}

/// A quota of pods.
pub fn quota(pods: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "quota" },
        "spec": { "hard": { "pods": pods.to_string() } },
    })
}
