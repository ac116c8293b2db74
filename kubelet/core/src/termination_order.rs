//! Which containers of a pod that ends wait for which: sidecars for all regular containers, and for the sidecars after them.
//!
//! Never here: waiting.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::pod_view;

/// For each container of `running` that has to wait: the names of those that end before it, all of them running ones.
///
/// With `side1` and `side2` before `main`: `side2` waits for `main`, `side1` for `main` and `side2`.
pub fn waits_for(pod: &Pod, running: &[&str]) -> BTreeMap<String, Vec<String>> {
    let runs = |name: &str| running.contains(&name);
    let mut before: Vec<String> = pod_view::spec(pod)
        .containers
        .iter()
        .map(|container| container.name.clone())
        .filter(|name| runs(name))
        .collect();
    let mut waits = BTreeMap::new();
    let sidecars = pod_view::init_containers(pod).iter().filter(|container| pod_view::is_sidecar(container));
    for sidecar in sidecars.rev().filter(|sidecar| runs(&sidecar.name)) {
        if !before.is_empty() {
            waits.insert(sidecar.name.clone(), before.clone());
        }
        before.push(sidecar.name.clone());
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(running: &[&str]) -> Vec<String> {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "one", "restartPolicy": "Always"}, {"name": "once"}, {"name": "two", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b"}]}}))
        .unwrap();
        waits_for(&pod, running)
            .iter()
            .map(|(name, before)| format!("{name} after {}", before.join(" ")))
            .collect()
    }

    #[test]
    fn sidecars_end_after_the_others_the_last_one_first() {
        assert_eq!(described(&["a", "b", "one", "two"]), ["one after a b two", "two after a b"]);
    }

    #[test]
    fn nobody_waits_for_what_does_not_run() {
        assert_eq!(described(&["b", "one"]), ["one after b"]);
        assert_eq!(described(&["one", "two"]), ["one after two"]);
        assert_eq!(described(&["two"]), Vec::<String>::new());
        assert_eq!(described(&["once", "a"]), Vec::<String>::new());
    }
}
