//! Workloads: which pods are to be scheduled as groups, and what pods say of the group they belong to.

use serde_json::Value;

use super::access::{integer, items, present, text};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// The most groups of a workload.
const GROUPS_MAX: usize = 8;

/// Everything wrong with a new workload.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    if let Some(controller) = present(spec, "controllerRef") {
        controller_reference(controller, &path.child("controllerRef"), &mut errors);
    }
    groups(items(spec, "podGroups"), &path.child("podGroups"), &mut errors);
    errors
}

/// Everything wrong with a changed workload: its groups stay, and so does the controller once it is named.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("spec");
    let of = |object: &Value, key: &str| object.get("spec").and_then(|spec| present(spec, key)).cloned();
    let mut stays = |key: &str| {
        let (new, old) = (of(new, key), of(old, key));
        object_meta::check_immutable(new.as_ref(), old.as_ref(), &path.child(key), &mut errors);
    };
    stays("podGroups");
    match of(old, "controllerRef") {
        Some(_) => stays("controllerRef"),
        None => {
            if let Some(controller) = of(new, "controllerRef") {
                controller_reference(&controller, &path.child("controllerRef"), &mut errors);
            }
        }
    }
    errors
}

fn controller_reference(controller: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let group = text(controller, "apiGroup");
    if !group.is_empty() {
        check::name(group, names::dns1123_subdomain, &path.child("apiGroup"), errors);
    }
    for key in ["kind", "name"] {
        check::required_name(text(controller, key), names::path_segment, &path.child(key), errors);
    }
}

fn groups(groups: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if groups.is_empty() {
        errors.push(field::required(path, "must have at least one item"));
    }
    if groups.len() > GROUPS_MAX {
        errors.push(field::too_many(path, groups.len(), GROUPS_MAX));
        return;
    }
    for (index, group) in groups.iter().enumerate() {
        let at = path.index(index);
        let name = text(group, "name");
        check::required_name(name, names::dns1123_label, &at.child("name"), errors);
        if groups[..index].iter().any(|other| text(other, "name") == name) {
            errors.push(field::duplicate(&at, serde_json::json!({ "name": name })));
        }
        policy(group.get("policy").unwrap_or(&Value::Null), &at.child("policy"), errors);
    }
}

/// How a group is scheduled: by one of two policies.
fn policy(policy: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (present(policy, "basic"), present(policy, "gang")) {
        (None, None) => errors.push(field::invalid(path, "", "must specify one of: `basic`, `gang`")),
        (Some(_), Some(_)) => errors.push(field::invalid(
            path,
            "{`basic`, `gang`}",
            "exactly one of `basic`, `gang` is required, but multiple fields are set",
        )),
        (_, Some(gang)) => match integer(gang, "minCount").unwrap_or(0) {
            0 => errors.push(field::required(path.child("gang").child("minCount"), "")),
            count if count < 0 => errors.push(field::invalid(
                path.child("gang").child("minCount"),
                count,
                "must be greater than or equal to 1",
            )),
            _ => {}
        },
        (Some(_), None) => {}
    }
}

/// Everything wrong with `spec.workloadRef` of a pod or a template.
pub(super) fn reference(reference: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check::name(text(reference, "name"), names::dns1123_subdomain, &path.child("name"), errors);
    check::name(text(reference, "podGroup"), names::dns1123_label, &path.child("podGroup"), errors);
    let key = text(reference, "podGroupReplicaKey");
    if !key.is_empty() {
        check::name(key, names::dns1123_label, &path.child("podGroupReplicaKey"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workload(spec: Value) -> Value {
        json!({"metadata": {"name": "training", "namespace": "default", "resourceVersion": "1"}, "spec": spec})
    }

    fn problems(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_group_has_a_name_of_its_own_and_one_policy() {
        let good = json!({"podGroups": [
            {"name": "workers", "policy": {"gang": {"minCount": 4}}},
            {"name": "driver", "policy": {"basic": {}}},
        ], "controllerRef": {"apiGroup": "batch", "kind": "Job", "name": "training"}});
        assert_eq!(problems(validate(&workload(good))), Vec::<String>::new());
        let bad = json!({"podGroups": [
            {"name": "workers", "policy": {"gang": {"minCount": 0}}},
            {"name": "workers", "policy": {}},
            {"name": "Both", "policy": {"basic": {}, "gang": {"minCount": -1}}},
            {"name": "late", "policy": {"gang": {"minCount": -1}}},
        ], "controllerRef": {"apiGroup": "not_dns", "kind": "a/b"}});
        let found = problems(validate(&workload(bad)));
        let expected = [
            "spec.controllerRef.apiGroup: Invalid value: \"not_dns\"",
            "spec.controllerRef.kind: Invalid value: \"a/b\"",
            "spec.controllerRef.name: Required value",
            "spec.podGroups[0].policy.gang.minCount: Required value",
            "spec.podGroups[1]: Duplicate value",
            "spec.podGroups[1].policy: Invalid value: \"\": must specify one of",
            "spec.podGroups[2].name: Invalid value: \"Both\"",
            "spec.podGroups[2].policy: Invalid value: \"{`basic`, `gang`}\"",
            "spec.podGroups[3].policy.gang.minCount: Invalid value: -1",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} is not {expected}");
        }
        let many: Vec<Value> =
            (0..9).map(|i| json!({"name": format!("g{i}"), "policy": {"basic": {}}})).collect();
        let found = problems(validate(&workload(json!({"podGroups": many}))));
        assert_eq!(found, ["spec.podGroups: Too many: 9: must have at most 8 items"]);
        let found = problems(validate(&workload(json!({}))));
        assert_eq!(found, ["spec.podGroups: Required value: must have at least one item"]);
    }

    #[test]
    fn groups_stay_and_so_does_a_controller_that_is_named() {
        let of = |count: i64, controller: Option<&str>| {
            let mut spec = json!({"podGroups": [{"name": "w", "policy": {"gang": {"minCount": count}}}]});
            if let Some(name) = controller {
                spec["controllerRef"] = json!({"kind": "Job", "name": name});
            }
            workload(spec)
        };
        assert!(validate_update(&of(2, None), &of(2, None)).is_empty());
        assert!(validate_update(&of(2, Some("a")), &of(2, None)).is_empty());
        for (new, path) in [(of(3, Some("a")), "spec.podGroups"), (of(2, Some("b")), "spec.controllerRef")] {
            let found = problems(validate_update(&new, &of(2, Some("a"))));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(path) && found[0].ends_with("field is immutable"), "{found:?}");
        }
    }
}
