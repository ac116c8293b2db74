//! The tables of what makes pods that run for ever, and of its parts.

use serde_json::Value;

use super::Context;
use super::cells::{
    NONE, age, containers, containers_at, labels, list, name, number, or_none, selector, text,
};
use super::columns::{AGE, Column, NAME, number as count, text as column};

pub(super) const CONTAINERS: Column = column("Containers", "Names of the containers").wide();
pub(super) const IMAGES: Column = column("Images", "Images of the containers").wide();
pub(super) const SELECTOR: Column = column("Selector", "Selector of the pods").wide();

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

/// The cells of a ReplicationController, whose selector is a map, under the columns of a ReplicaSet.
pub(super) fn replication_controller(object: &Value, context: &Context) -> Vec<Value> {
    let mut cells = replica_set(object, context);
    cells.pop();
    cells.push(labels(object["spec"].get("selector")));
    cells
}

pub(super) const STATEFUL_SET: &[Column] =
    &[NAME, column("Ready", "Pods that are ready, of all wanted"), AGE, CONTAINERS, IMAGES];

pub(super) fn stateful_set(object: &Value, context: &Context) -> Vec<Value> {
    let (names, images) = containers(object);
    let (ready, wanted) =
        (number(object, &["status", "readyReplicas"]), number(object, &["spec", "replicas"]));
    vec![name(object), format!("{ready}/{wanted}").into(), age(object, context), names, images]
}

pub(super) const DAEMON_SET: &[Column] = &[
    NAME,
    count("Desired", "Nodes that are to run a pod"),
    count("Current", "Nodes that run one"),
    count("Ready", "Nodes whose pod is ready"),
    count("Up-to-date", "Nodes with a pod of the newest template"),
    count("Available", "Nodes whose pod has been ready for long enough"),
    column("Node Selector", "Labels of the nodes that are to run a pod"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn daemon_set(object: &Value, context: &Context) -> Vec<Value> {
    let status = |field| number(object, &["status", field]).into();
    let (names, images) = containers(object);
    vec![
        name(object),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels(object["spec"]["template"]["spec"].get("nodeSelector")),
        age(object, context),
        names,
        images,
        selector(object["spec"].get("selector")),
    ]
}

pub(super) const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    column("Controller", "What the revision is of"),
    count("Revision", "Number of the revision"),
    AGE,
];

pub(super) fn controller_revision(object: &Value, context: &Context) -> Vec<Value> {
    let owners = list(object, &["metadata", "ownerReferences"]);
    let controller = owners.iter().find(|owner| owner["controller"] == true).map(|owner| {
        let group = text(owner, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
        let kind = text(owner, &["kind"]).to_lowercase();
        let separator = if group.is_empty() { "" } else { "." };
        format!("{kind}{separator}{group}/{}", text(owner, &["name"]))
    });
    vec![
        name(object),
        or_none(controller.as_deref().unwrap_or(NONE)),
        number(object, &["revision"]).into(),
        age(object, context),
    ]
}

pub(super) const POD_TEMPLATE: &[Column] = &[
    NAME,
    column("Containers", "Names of the containers"),
    column("Images", "Images of the containers"),
    column("Pod Labels", "Labels of pods made from it"),
];

pub(super) fn pod_template(object: &Value, _: &Context) -> Vec<Value> {
    let (names, images) = containers_at(object, &["template", "spec", "containers"]);
    vec![name(object), names, images, labels(object["template"]["metadata"].get("labels"))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revisions_name_their_controller() {
        let mut object = json!({"metadata": {"name": "db-1", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": true}]}, "revision": 3});
        let context = Context { now: jiff::Timestamp::UNIX_EPOCH };
        assert_eq!(
            Value::from(controller_revision(&object, &context)),
            json!(["db-1", "statefulset.apps/db", 3, "<unknown>"])
        );
        object["metadata"]["ownerReferences"] = json!([]);
        assert_eq!(controller_revision(&object, &context)[1], "<none>");
    }

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
