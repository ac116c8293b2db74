//! `pods/ephemeralcontainers`: containers put into a running pod, for debugging. They may be added; those that are there stay as they are.

use serde_json::Value;

use super::access::{items, same, set, text};
use super::{object_meta, pod_spec};
use crate::field::{self, FieldError, FieldPath};
use crate::meta;

/// The annotation of a pod that a node made from a file and only shows here.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const LIST: &str = "ephemeralContainers";

/// The pod with the ephemeral containers that the request asks for; all the rest stays the stored pod's.
pub fn only_ephemeral_containers(new: &Value, old: &Value) -> Value {
    let wanted = new.get("spec").and_then(|spec| spec.get(LIST)).cloned();
    let mut pod = old.clone();
    object_meta::keep_managers(&mut pod, new);
    if let Some(spec) = pod.get_mut("spec") {
        match wanted {
            Some(list) => set(spec, LIST, list),
            None => {
                super::access::remove(spec, LIST);
            }
        }
    }
    pod
}

/// Everything wrong with a change of a pod's ephemeral containers.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    if meta::annotations(old).is_some_and(|all| all.contains_key(MIRROR)) {
        return vec![field::forbidden("", "static pods do not support ephemeral containers")];
    }
    let path = FieldPath::new("spec");
    let mut errors = object_meta::validate_update(new, old);
    let none = Value::Null;
    let (after, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    pod_spec::validate(after, &path, &mut errors);
    for known in items(before, LIST) {
        let name = text(known, "name");
        let problem = match items(after, LIST).iter().find(|container| text(container, "name") == name) {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(container) if same(Some(container), Some(known)) => continue,
            Some(container) => {
                let lines = super::pod_update::differences(Some(container), Some(known), LIST);
                format!("existing ephemeral containers {name:?} may not be changed\n{lines}")
            }
        };
        errors.push(field::forbidden(path.child(LIST), problem));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(ephemeral: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {
            "containers": [{"name": "app", "image": "i:1"}], "ephemeralContainers": ephemeral}});
        super::super::pod::default(&mut pod);
        pod
    }

    fn texts(new: &Value, old: &Value) -> Vec<String> {
        validate_update(new, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ephemeral_containers_are_added_and_never_changed_or_removed() {
        let old = pod(json!([{"name": "one", "image": "i:1"}]));
        let more = pod(
            json!([{"name": "one", "image": "i:1"}, {"name": "two", "image": "i", "targetContainerName": "app"}]),
        );
        assert!(texts(&more, &old).is_empty(), "{:?}", texts(&more, &old));
        assert_eq!(
            texts(&pod(json!([])), &old),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"one\" may not be removed\n"
            ]
        );
        let changed = texts(&pod(json!([{"name": "one", "image": "i:2"}])), &old);
        assert!(changed[0].starts_with(
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"one\" may not be changed\n"
        ));
    }

    #[test]
    fn ephemeral_containers_are_no_part_of_the_application() {
        let old = pod(json!([]));
        let refused = |container: Value| texts(&pod(json!([container])), &old).join("; ");
        assert_eq!(
            refused(json!({"name": "x", "image": "i", "ports": [{"containerPort": 80}]})),
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"
        );
        assert_eq!(
            refused(json!({"name": "x", "image": "i", "targetContainerName": "nobody"})),
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"nobody\""
        );
        assert_eq!(
            refused(json!({"name": "app", "image": "i"})),
            "spec.ephemeralContainers[0].name: Duplicate value: \"app\""
        );
        let mut mirror = old.clone();
        mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
        assert_eq!(texts(&old, &mirror), [": Forbidden: static pods do not support ephemeral containers"]);
    }

    #[test]
    fn nothing_else_changes_on_the_way() {
        let old = pod(json!([]));
        let mut new = pod(json!([{"name": "x", "image": "i"}]));
        new["spec"]["nodeName"] = json!("elsewhere");
        new["metadata"]["labels"] = json!({"a": "b"});
        let kept = only_ephemeral_containers(&new, &old);
        assert_eq!(kept["spec"]["ephemeralContainers"][0]["name"], "x");
        assert_eq!(kept["metadata"], old["metadata"]);
        assert_eq!(kept["spec"].get("nodeName"), None);
    }
}
