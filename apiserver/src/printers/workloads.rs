//! The tables of Deployments and ReplicaSets.

use serde_json::Value;

use super::Context;
use super::cells::{age, containers, name, number, selector};
use super::columns::{AGE, Column, NAME, number as count, text as column};

const CONTAINERS: Column = column("Containers", "Names of the containers").wide();
const IMAGES: Column = column("Images", "Images of the containers").wide();
const SELECTOR: Column = column("Selector", "Selector of the pods").wide();

pub(super) const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", "Pods that are ready, of all wanted"),
    count("Up-to-date", "Pods of the newest template"),
    count("Available", "Pods that have been ready for long enough"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn deployment(object: &Value, context: &Context) -> Vec<Value> {
    let status = |field| number(object, &["status", field]);
    let (names, images) = containers(object);
    vec![
        name(object),
        format!("{}/{}", status("readyReplicas"), number(object, &["spec", "replicas"])).into(),
        status("updatedReplicas").into(),
        status("availableReplicas").into(),
        age(object, context),
        names,
        images,
        selector(object["spec"].get("selector")),
    ]
}

pub(super) const REPLICA_SET: &[Column] = &[
    NAME,
    count("Desired", "Pods that are wanted"),
    count("Current", "Pods that are there"),
    count("Ready", "Pods that are ready"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn replica_set(object: &Value, context: &Context) -> Vec<Value> {
    let (names, images) = containers(object);
    vec![
        name(object),
        number(object, &["spec", "replicas"]).into(),
        number(object, &["status", "replicas"]).into(),
        number(object, &["status", "readyReplicas"]).into(),
        age(object, context),
        names,
        images,
        selector(object["spec"].get("selector")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replicas_containers_and_selector_show() {
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}},
            "status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}});
        let context = Context { now: "2026-01-01T00:01:00Z".parse().expect("time") };
        assert_eq!(
            Value::from(deployment(&object, &context)),
            json!(["web", "1/3", 2, 1, "60s", "a,b", "i,j", "app=web"])
        );
        assert_eq!(
            Value::from(replica_set(&object, &context)),
            json!(["web", 3, 2, 1, "60s", "a,b", "i,j", "app=web"])
        );
    }
}
