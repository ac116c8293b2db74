//! `/runningpods/`: what runs on the node, from the runtime alone.
//!
//! Never here: what should run.

use std::collections::BTreeMap;

use k8s_cri::v1::{Container, ContainerState, PodSandbox, PodSandboxState};
use serde_json::{Value, json};

use crate::runtime::{LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// A `PodList` of pods with a ready sandbox or a running container: names, and the images of containers that run.
pub fn pod_list(sandboxes: &[PodSandbox], containers: &[Container]) -> Value {
    let mut pods: BTreeMap<&str, (&str, &str, Vec<Value>)> = BTreeMap::new();
    let label = |labels: &'_ std::collections::HashMap<String, String>, name: &str| labels.contains_key(name);
    let ready = sandboxes.iter().filter(|sandbox| sandbox.state == PodSandboxState::SandboxReady as i32);
    let running = containers.iter().filter(|one| one.state == ContainerState::ContainerRunning as i32);
    let labelled = ready.map(|sandbox| (&sandbox.labels, None));
    for (labels, container) in labelled.chain(running.map(|one| (&one.labels, Some(one)))) {
        if !label(labels, LABEL_POD_UID) {
            continue;
        }
        let text = |name: &str| labels.get(name).map_or("", String::as_str);
        let entry = pods
            .entry(text(LABEL_POD_UID))
            .or_insert_with(|| (text(LABEL_POD_NAMESPACE), text(LABEL_POD_NAME), Vec::new()));
        if let Some(container) = container {
            let image = container.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
            entry.2.push(json!({"name": text(LABEL_CONTAINER_NAME), "image": image, "resources": {}}));
        }
    }
    let items: Vec<Value> = pods
        .into_iter()
        .map(|(uid, (namespace, name, mut containers))| {
            containers.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
            json!({
                "metadata": {"name": name, "namespace": namespace, "uid": uid},
                "spec": {"containers": containers},
                "status": {},
            })
        })
        .collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::ImageSpec;

    #[test]
    fn only_what_runs_is_listed() {
        let labels = |uid: &str, container: &str| {
            [
                (LABEL_POD_UID, uid),
                (LABEL_POD_NAME, "p"),
                (LABEL_POD_NAMESPACE, "n"),
                (LABEL_CONTAINER_NAME, container),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
        };
        let sandbox = |uid: &str, state: PodSandboxState| PodSandbox {
            labels: labels(uid, ""),
            state: state as i32,
            ..PodSandbox::default()
        };
        let container = |uid: &str, name: &str, state: ContainerState| Container {
            labels: labels(uid, name),
            state: state as i32,
            image: Some(ImageSpec { image: "demo:v1".to_owned(), ..ImageSpec::default() }),
            ..Container::default()
        };
        let foreign = PodSandbox { state: PodSandboxState::SandboxReady as i32, ..PodSandbox::default() };
        let list = pod_list(
            &[
                sandbox("u1", PodSandboxState::SandboxReady),
                sandbox("u2", PodSandboxState::SandboxNotready),
                foreign,
            ],
            &[
                container("u1", "b", ContainerState::ContainerRunning),
                container("u1", "a", ContainerState::ContainerRunning),
                container("u1", "gone", ContainerState::ContainerExited),
                container("u2", "gone", ContainerState::ContainerExited),
            ],
        );
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let pod = &list["items"][0];
        assert_eq!(pod["metadata"], json!({"name": "p", "namespace": "n", "uid": "u1"}));
        let names: Vec<&str> = pod["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(pod["spec"]["containers"][0]["image"], "demo:v1");
    }
}
