//! `metadata` of every kind: names, labels, annotations, owner references, finalizers, and what an update may not change.

use serde_json::Value;

use super::access::{items, map, present, text};
use crate::field::{self, FieldError, FieldPath};
use crate::meta;
use crate::names;

/// All keys and values of annotations together, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Finalizers that need no domain.
const PLAIN_FINALIZERS: &[&str] = &["orphan", "foregroundDeletion", "kubernetes"];
/// The longest field manager, in bytes.
const MANAGER_BYTES_MAX: usize = 128;

/// What a kind's names have to be.
pub type NameRule = fn(&str) -> Vec<String>;

/// Everything wrong with a new object's metadata, for the kinds of Kubernetes' own groups.
pub fn validate(object: &Value, namespaced: bool, rule: NameRule) -> Vec<FieldError> {
    let mut errors = validate_any(object, namespaced, rule);
    finalizers_with_domain(object, &mut errors);
    errors
}

/// Everything wrong with a new object's metadata, for custom resources and the kinds of the machinery around them (definitions, APIServices,
/// webhooks, policies, leases): their finalizers need no domain.
pub fn validate_any(object: &Value, namespaced: bool, rule: NameRule) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let Some(metadata) = present(object, "metadata") else {
        return vec![field::required(path.child("name"), "name or generateName is required")];
    };
    let mut errors = Vec::new();
    let (prefix, name) = (text(metadata, "generateName"), text(metadata, "name"));
    if !prefix.is_empty() {
        let masked = names::mask_trailing_dash(prefix);
        let problems = rule(&masked);
        errors.extend(
            problems.into_iter().map(|text| field::invalid(path.child("generateName"), prefix, text)),
        );
    }
    if name.is_empty() {
        errors.push(field::required(path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(rule(name).into_iter().map(|text| field::invalid(path.child("name"), name, text)));
    }
    let namespace = text(metadata, "namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.push(field::required(path.child("namespace"), ""));
        } else {
            let problems = names::dns1123_label(namespace);
            errors.extend(
                problems.into_iter().map(|text| field::invalid(path.child("namespace"), namespace, text)),
            );
        }
    } else if !namespace.is_empty() {
        errors.push(field::forbidden(path.child("namespace"), "not allowed on this type"));
    }
    accessories(metadata, &path, &mut errors);
    errors
}

/// Labels, annotations, owners, finalizers, managers: what may change after creation.
fn accessories(metadata: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    labels(metadata, "labels", &path.child("labels"), errors);
    annotations(metadata, &path.child("annotations"), errors);
    owner_references(metadata, &path.child("ownerReferences"), errors);
    for (index, finalizer) in items(metadata, "finalizers").iter().enumerate() {
        let at = path.child("finalizers").index(index);
        finalizer_name(finalizer.as_str().unwrap_or_default(), &at, errors);
    }
    let has = |name: &str| items(metadata, "finalizers").iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(field::invalid(
            path.child("finalizers"),
            Value::Array(items(metadata, "finalizers").to_vec()),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    for (index, manager) in items(metadata, "managedFields").iter().enumerate() {
        let at = path.child("managedFields").index(index);
        let operation = text(manager, "operation");
        if !matches!(operation, "Apply" | "Update") {
            errors.push(field::invalid(at.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let fields_type = text(manager, "fieldsType");
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.push(field::invalid(at.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        if text(manager, "manager").len() > MANAGER_BYTES_MAX {
            errors.push(field::too_long(at.child("manager"), MANAGER_BYTES_MAX));
        }
    }
}

/// A map of labels at `key` of `object`.
pub fn labels(object: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (name, value) in map(object, key).into_iter().flatten() {
        for problem in names::qualified_name(name) {
            errors.push(field::invalid(path, name.as_str(), problem));
        }
        let value = value.as_str().unwrap_or_default();
        for problem in names::label_value(value) {
            errors.push(field::invalid(path, value, problem));
        }
    }
}

/// Annotations: their keys in lower case are qualified names, and all of them together are bounded.
pub fn annotations(metadata: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut total = 0;
    for (name, value) in map(metadata, "annotations").into_iter().flatten() {
        for problem in names::qualified_name(&name.to_lowercase()) {
            errors.push(field::invalid(path, name.as_str(), problem));
        }
        total += name.len() + value.as_str().unwrap_or_default().len();
    }
    if total > ANNOTATIONS_BYTES_MAX {
        errors.push(field::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

fn owner_references(metadata: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut controller: Option<&Value> = None;
    for (index, owner) in items(metadata, "ownerReferences").iter().enumerate() {
        let at = path.index(index);
        if text(owner, "apiVersion").split('/').next_back().unwrap_or_default().is_empty() {
            errors.push(field::invalid(
                at.child("apiVersion"),
                text(owner, "apiVersion"),
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            if text(owner, name).is_empty() {
                errors.push(field::invalid(at.child(name), "", "must not be empty"));
            }
        }
        if text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Event" {
            errors.push(field::invalid(
                &at,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            match controller {
                None => controller = Some(owner),
                Some(first) => errors.push(field::invalid(
                    path,
                    Value::Array(items(metadata, "ownerReferences").to_vec()),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                        text(first, "kind"),
                        text(first, "name"),
                        text(owner, "kind"),
                        text(owner, "name")
                    ),
                )),
            }
        }
    }
}

/// A finalizer of Kubernetes' own groups: a qualified name, with a domain unless it is one of the system's own.
pub fn validate_finalizer(finalizer: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    finalizer_name(finalizer, path, errors);
    finalizer_domain(finalizer, path, errors);
}

fn finalizer_name(finalizer: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let problems = names::qualified_name(finalizer);
    errors.extend(problems.into_iter().map(|text| field::invalid(path, finalizer, text)));
}

fn finalizer_domain(finalizer: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !finalizer.contains('/') && !PLAIN_FINALIZERS.contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(field::invalid(path, finalizer, detail));
    }
}

/// What there is to say of finalizers that an update or creation adds to an object of [`validate_any`], and that may be another writer's too.
pub fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(meta::finalizers).unwrap_or_default();
    let mut added: Vec<&str> =
        meta::finalizers(new).into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
    added.sort_unstable();
    let alone = |finalizer: &&str| !finalizer.contains('/') && !PLAIN_FINALIZERS.contains(finalizer);
    let text = |finalizer| {
        format!(
            "metadata.finalizers: {}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers",
            field::go_quote(finalizer)
        )
    };
    added.into_iter().filter(alone).map(text).collect()
}

fn finalizers_with_domain(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("metadata").child("finalizers");
    for (index, finalizer) in meta::finalizers(object).into_iter().enumerate() {
        finalizer_domain(finalizer, &path.index(index), errors);
    }
}

/// The error of a field that an update may not change.
pub fn immutable(path: impl Into<String>, value: Option<&Value>) -> FieldError {
    field::invalid(path, value.cloned().unwrap_or(Value::Null), "field is immutable")
}

/// Pushes [`immutable`] when a field differs.
pub fn check_immutable(
    new: Option<&Value>,
    old: Option<&Value>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if !super::access::same(new, old) {
        errors.push(immutable(path, new));
    }
}

/// Takes over who manages which fields, for a write that leaves the rest of the metadata alone.
pub fn keep_managers(object: &mut Value, from: &Value) {
    let managers = from.get("metadata").and_then(|metadata| metadata.get("managedFields")).cloned();
    let Some(metadata) = object.get_mut("metadata") else { return };
    match managers {
        Some(managers) => super::access::set(metadata, "managedFields", managers),
        None => {
            super::access::remove(metadata, "managedFields");
        }
    }
}

/// Everything wrong with changed metadata, for the kinds of Kubernetes' own groups.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_any_update(new, old);
    finalizers_with_domain(new, &mut errors);
    errors
}

/// Everything wrong with changed metadata, for the kinds of [`validate_any`].
pub fn validate_any_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let none = Value::Null;
    let (after, before) = (new.get("metadata").unwrap_or(&none), old.get("metadata").unwrap_or(&none));
    let mut errors = Vec::new();
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let differs = !super::access::same(after.get(name), before.get(name));
        // A deletion that was asked for since may be missing in what a client sends; the registry fills it in.
        if differs && !(name.starts_with("deletion") && before.get(name).is_none()) {
            errors.push(immutable(path.child(name), after.get(name)));
        }
    }
    if present(before, "deletionTimestamp").is_some() {
        let added: Vec<&str> = items(after, "finalizers")
            .iter()
            .filter(|finalizer| !items(before, "finalizers").contains(finalizer))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|name| field::go_quote(name)).collect();
            errors.push(field::forbidden(
                path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    listed.join(", ")
                ),
            ));
        }
    }
    let generation = |metadata: &Value| metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation(after) < generation(before) {
        errors.push(field::invalid(path.child("generation"), generation(after), "must not be decremented"));
    }
    accessories(after, &path, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_labels_and_owners_are_checked() {
        let object = json!({"metadata": {"name": "Web", "namespace": "default", "labels": {"-a": "b c"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "", "name": "x", "uid": "1"}], "finalizers": ["nobody"]}});
        let errors = texts(&validate(&object, true, names::dns1123_subdomain));
        assert!(
            errors[0].starts_with("metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain")
        );
        assert!(errors.iter().any(|text| text.starts_with("metadata.labels: Invalid value: \"-a\"")));
        assert!(errors.iter().any(|text| text.starts_with("metadata.labels: Invalid value: \"b c\"")));
        assert!(errors.contains(
            &"metadata.ownerReferences[0].kind: Invalid value: \"\": must not be empty".to_owned()
        ));
        assert!(errors.iter().any(|text| text.contains("neither a standard finalizer name")));
        let others = texts(&validate_any(&object, true, names::dns1123_subdomain));
        assert_eq!(others, errors[..errors.len() - 1], "a custom resource's finalizers need no domain");
        let nameless = validate(&json!({"metadata": {}}), false, names::dns1123_subdomain);
        assert_eq!(texts(&nameless), ["metadata.name: Required value: name or generateName is required"]);
    }

    #[test]
    fn nothing_holds_an_object_that_is_going_later_than_now() {
        let old = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"
            ]
        );
        new["metadata"]["finalizers"] = json!([]);
        assert!(validate_update(&new, &old).is_empty());
    }
}
