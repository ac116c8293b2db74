//! `pods/resize`: other requests and limits for containers that go on running. What becomes of it on the node is the kubelet's.

use serde_json::{Map, Value};

use super::access::{items, map, present, remove, same, set, text};
use super::pod_spec_defaults::is_sidecar;
use super::{object_meta, pod_qos, pod_spec};
use crate::field::{self, FieldError, FieldPath};
use crate::meta;

/// What may be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// The pod with the resources and resize policies that the request asks for; all the rest stays the stored pod's. Containers that are
/// not those of the stored pod are left for validation to refuse.
pub fn only_resources(new: &Value, old: &Value) -> Value {
    let none = Value::Null;
    let (after, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    if LISTS.iter().any(|list| items(after, list).len() != items(before, list).len()) {
        return new.clone();
    }
    let mut pod = old.clone();
    object_meta::keep_managers(&mut pod, new);
    for list in LISTS {
        let merged = resized(items(after, list), items(before, list));
        if let Some(spec) = pod.get_mut("spec").filter(|_| !merged.is_empty()) {
            set(spec, list, merged);
        }
    }
    pod
}

fn resized(new: &[Value], old: &[Value]) -> Vec<Value> {
    if new.iter().zip(old).any(|(new, old)| text(new, "name") != text(old, "name")) {
        return new.to_vec();
    }
    let merge = |(new, old): (&Value, &Value)| {
        let mut container = old.clone();
        for field in ["resources", "resizePolicy"] {
            match new.get(field) {
                Some(value) => set(&mut container, field, value.clone()),
                None => {
                    remove(&mut container, field);
                }
            }
        }
        container
    };
    new.iter().zip(old).map(merge).collect()
}

/// Everything wrong with a resize.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let none = Value::Null;
    let path = FieldPath::new("spec");
    let (after, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    if let Some(problem) = not_resizable(after, old, before) {
        return vec![field::forbidden("", problem)];
    }
    let mut errors = object_meta::validate_update(new, old);
    pod_spec::validate(after, &path, &mut errors);
    let status = old.get("status").unwrap_or(&none);
    let class = match text(status, "qosClass") {
        "" => pod_qos::class(before),
        class => class,
    };
    if class != pod_qos::class(after) {
        errors.push(field::invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_node_able(status) {
        errors.push(field::forbidden(&path, "Pod running on node without support for resize"));
    }
    let reordered = reordered(after, before, &path);
    if !reordered.is_empty() {
        errors.extend(reordered);
        return errors;
    }
    let mut munged = after.clone();
    for list in ["initContainers", "containers"] {
        containers(&mut munged, list, items(after, list), items(before, list), &path, &mut errors);
    }
    if errors.is_empty() && !same(Some(&munged), Some(before)) {
        errors.push(field::forbidden(&path, "only cpu and memory resources are mutable"));
    }
    errors
}

/// Why pods of this sort are never resized.
fn not_resizable(after: &Value, old: &Value, before: &Value) -> Option<&'static str> {
    let has_own_resources = |spec: &Value| {
        let list = |key| present(spec, "resources").and_then(|resources| map(resources, key));
        list("requests").or(list("limits")).is_some_and(|amounts| !amounts.is_empty())
    };
    if has_own_resources(after) || has_own_resources(before) {
        return Some("pods with pod-level resources cannot be resized");
    }
    if meta::annotations(old).is_some_and(|all| all.contains_key(super::pod_ephemeral::MIRROR)) {
        return Some("static pods cannot be resized");
    }
    (present(before, "os").is_some_and(|os| text(os, "name") == "windows"))
        .then_some("windows pods cannot be resized")
}

/// A node that can resize tells what its running containers have.
fn is_node_able(status: &Value) -> bool {
    let running =
        |one: &&Value| present(one, "state").is_some_and(|state| present(state, "running").is_some());
    let first = items(status, "containerStatuses").iter().find(running);
    first.is_none_or(|one| present(one, "resources").is_some())
}

fn reordered(after: &Value, before: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in LISTS {
        let (new, old) = (items(after, list), items(before, list));
        if new.len() != old.len() {
            errors.push(field::forbidden(
                path.child(list),
                format!("{list} may not be added or removed on resize"),
            ));
            continue;
        }
        for (index, _) in
            new.iter().zip(old).enumerate().filter(|(_, (new, old))| text(new, "name") != text(old, "name"))
        {
            errors.push(field::forbidden(
                path.child(list).index(index).child("name"),
                format!("{list} may not be renamed or reordered on resize"),
            ));
        }
    }
    errors
}

/// Checks one list of containers, and takes over what is allowed to differ in `munged` from the stored ones.
fn containers(
    munged: &mut Value,
    list: &str,
    new: &[Value],
    old: &[Value],
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let is_init = list == "initContainers";
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        let at = path.child(list).index(index).child("resources");
        if is_init && !is_sidecar(old) {
            if !same(Some(new), Some(old)) {
                errors
                    .push(field::forbidden(path, "resources for non-sidecar init containers are immutable"));
            }
            continue;
        }
        for (key, problem) in [
            ("requests", "resource requests cannot be removed"),
            ("limits", "resource limits cannot be removed"),
        ] {
            let names = |container| amounts(container, key).into_iter().flat_map(Map::keys);
            if names(old).any(|name| !names(new).any(|kept| kept == name)) {
                errors.push(field::forbidden(at.child(key), problem));
            }
        }
        let mut container = new.clone();
        set(&mut container, "resources", without_resize(new, old));
        if !same(Some(&container), Some(old)) {
            let problem = match is_init {
                true => "only cpu and memory resources for sidecar containers are mutable",
                false => "only cpu and memory resources are mutable",
            };
            errors.push(field::forbidden(path, problem));
        }
        if let Some(place) = munged.get_mut(list).and_then(|list| list.get_mut(index)) {
            *place = container;
        }
    }
}

fn amounts<'a>(container: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    present(container, "resources").and_then(|resources| map(resources, key))
}

/// The new resources with the stored ones' cpu and memory.
fn without_resize(new: &Value, old: &Value) -> Value {
    let mut resources = Map::new();
    for key in ["limits", "requests"] {
        let Some(before) = amounts(old, key) else { continue };
        let mut kept = amounts(new, key).cloned().unwrap_or_default();
        for name in RESIZABLE {
            match before.get(name) {
                Some(amount) => kept.insert(name.to_owned(), amount.clone()),
                None => kept.remove(name),
            };
        }
        resources.insert(key.to_owned(), Value::Object(kept));
    }
    Value::Object(resources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {
            "containers": [{"name": "c1", "image": "i:1", "resources": resources}, {"name": "c2", "image": "i:1"}]}});
        super::super::pod::default(&mut pod);
        pod["status"] = super::super::pod::initial_status(&pod["spec"]);
        pod
    }

    fn refusals(new: &Value, old: &Value) -> Vec<String> {
        validate_update(&only_resources(new, old), old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn cpu_and_memory_are_resized_and_nothing_else() {
        let old = pod(json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m"}}));
        let new = pod(
            json!({"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
        );
        assert!(refusals(&new, &old).is_empty(), "{:?}", refusals(&new, &old));
        let mut elsewhere = new.clone();
        elsewhere["spec"]["nodeName"] = json!("b");
        elsewhere["spec"]["containers"][0]["image"] = json!("i:2");
        let kept = only_resources(&elsewhere, &old);
        assert_eq!(kept["spec"]["containers"][0]["image"], "i:1");
        assert_eq!(kept["spec"]["containers"][0]["resources"]["limits"]["memory"], "1Gi");
        assert_eq!(kept["spec"].get("nodeName"), None);
        let mut storage = new.clone();
        storage["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] = json!("1Gi");
        assert_eq!(refusals(&storage, &old), ["spec: Forbidden: only cpu and memory resources are mutable"]);
        let mut policy = new;
        policy["spec"]["containers"][0]["resizePolicy"] =
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        assert_eq!(refusals(&policy, &old), ["spec: Forbidden: only cpu and memory resources are mutable"]);
    }

    #[test]
    fn the_class_stays_and_amounts_are_not_taken_away() {
        let none = pod(json!({}));
        let some = pod(json!({"requests": {"cpu": "1"}}));
        assert_eq!(
            refusals(&some, &none),
            ["spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing"]
        );
        let both = pod(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}));
        assert_eq!(
            refusals(&pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})), &both),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        assert_eq!(
            refusals(&pod(json!({"requests": {"cpu": "1", "memory": "1Gi"}})), &both),
            ["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"]
        );
    }

    #[test]
    fn containers_stay_in_their_places() {
        let old = pod(json!({"requests": {"cpu": "1"}}));
        let mut new = old.clone();
        new["spec"]["containers"].as_array_mut().expect("a list").reverse();
        let refused = refusals(&new, &old).join(", ");
        assert_eq!(
            refused,
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
        );
        new["spec"]["containers"].as_array_mut().expect("a list").remove(0);
        assert_eq!(
            refusals(&new, &old),
            ["spec.containers: Forbidden: containers may not be added or removed on resize"]
        );
    }

    #[test]
    fn some_pods_are_never_resized() {
        let mut old = pod(json!({"requests": {"cpu": "1"}}));
        let new = pod(json!({"requests": {"cpu": "2"}}));
        old["status"]["containerStatuses"] = json!([{"name": "c1", "state": {"running": {}}}]);
        assert_eq!(refusals(&new, &old), ["spec: Forbidden: Pod running on node without support for resize"]);
        old["metadata"]["annotations"] = json!({super::super::pod_ephemeral::MIRROR: "x"});
        assert_eq!(refusals(&new, &old), [": Forbidden: static pods cannot be resized"]);
        old["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
        assert_eq!(refusals(&new, &old), [": Forbidden: pods with pod-level resources cannot be resized"]);
    }

    #[test]
    fn sidecars_are_resized_and_other_init_containers_are_not() {
        let with = |policy: Option<&str>, cpu: &str| {
            let mut pod = pod(json!({"requests": {"cpu": "1"}}));
            pod["spec"]["initContainers"] = json!([{"name": "i", "image": "i:1", "restartPolicy": policy,
                "resources": {"requests": {"cpu": cpu}}}]);
            super::super::pod::default(&mut pod);
            pod
        };
        assert!(refusals(&with(Some("Always"), "2"), &with(Some("Always"), "1")).is_empty());
        assert_eq!(
            refusals(&with(None, "2"), &with(None, "1")),
            ["spec: Forbidden: resources for non-sidecar init containers are immutable"]
        );
    }
}
