//! PersistentVolumeClaims.

use serde_json::{Value, json};

use super::access::{default_text, default_to, present, remove, same, set, struct_mut, text};
use super::persistent_volume::{VOLUME_MODES, access_modes, class_name};
use super::{check, label_selector, object_meta, resources};
use crate::field::{self, FieldError, FieldPath};
use crate::names;
use crate::quantity::Quantity;

/// The annotation that named the class before the field did.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_to(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = struct_mut(object, "status") {
        default_text(status, "phase", "Pending");
    }
}

/// The older and the newer way to name where the data come from say the same.
pub fn normalize(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    match (present(spec, "dataSource").cloned(), present(spec, "dataSourceRef").cloned()) {
        (Some(source), None) => set(spec, "dataSourceRef", source),
        (None, Some(reference)) if text(&reference, "namespace").is_empty() => {
            let is_volume_data = matches!(
                (text(&reference, "apiGroup"), text(&reference, "kind")),
                ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
            );
            if is_volume_data {
                set(spec, "dataSource", reference);
            }
        }
        _ => {}
    }
}

/// What a new claim's status is.
pub fn initial_status() -> Value {
    json!({"phase": "Pending"})
}

/// Everything wrong with a new claim.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    validate_spec(object.get("spec").unwrap_or(&Value::Null), &FieldPath::new("spec"), &mut errors);
    errors
}

/// Everything wrong with a claim's spec, also in a template.
pub fn validate_spec(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(selector) = present(spec, "selector") {
        label_selector::validate(selector, &path.child("selector"), errors);
    }
    access_modes(spec, "at least 1 access mode is required", path, errors);
    let at = path.child("resources").key("storage");
    match requested(spec) {
        None => errors.push(field::required(at, "")),
        Some(value) => {
            check::positive_quantity(value, &at, errors);
            resources::validate_value("storage", value, &at, errors);
        }
    }
    class_name(spec, "storageClassName", path, errors);
    if let Some(mode) = present(spec, "volumeMode").and_then(Value::as_str) {
        check::one_of(mode, VOLUME_MODES, &path.child("volumeMode"), errors);
    }
    data_sources(spec, path, errors);
    class_name(spec, "volumeAttributesClassName", path, errors);
}

fn requested(spec: &Value) -> Option<&Value> {
    spec.get("resources")?.get("requests")?.get("storage").filter(|value| !value.is_null())
}

fn data_sources(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (source, reference) = (present(spec, "dataSource"), present(spec, "dataSourceRef"));
    for (value, name) in [(source, "dataSource"), (reference, "dataSourceRef")] {
        let Some(value) = value else { continue };
        let at = path.child(name);
        check::required(value, "name", &at, errors);
        check::required(value, "kind", &at, errors);
        let (group, kind) = (text(value, "apiGroup"), text(value, "kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(field::invalid(&at, kind, text));
        }
        if !group.is_empty() {
            check::name(group, names::dns1123_subdomain, &at.child("apiGroup"), errors);
        }
    }
    let namespace = reference.map(|reference| text(reference, "namespace")).unwrap_or_default();
    if !namespace.is_empty() {
        let at = path.child("dataSourceRef").child("namespace");
        check::name(namespace, names::dns1123_label, &at, errors);
    }
    let (Some(source), Some(reference)) = (source, reference) else { return };
    let shown = path.child("dataSource").as_str().to_owned();
    if !namespace.is_empty() {
        let text = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(field::invalid(path, shown, text));
    } else if ["apiGroup", "kind", "name"].iter().any(|key| !same(source.get(key), reference.get(key))) {
        errors.push(field::invalid(path, shown, "must match dataSourceRef"));
    }
}

/// Everything wrong with a changed claim: only its size, its class of attributes and the volume it gets may change.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    validate_spec(spec, &path, &mut errors);
    let class = |object: &Value| {
        let annotations = crate::meta::annotations(object)?;
        annotations.get(CLASS_ANNOTATION).and_then(Value::as_str).map(str::to_owned)
    };
    if class(new) != class(old) {
        let at = FieldPath::new("metadata").child("annotations").key(CLASS_ANNOTATION);
        errors.push(field::invalid(at, class(new).unwrap_or_default(), "field is immutable"));
    }
    unchanged(new, spec, before, class(old).as_deref(), &mut errors);
    size(spec, before, old, &path, &mut errors);
    let at = FieldPath::new("volumeMode");
    object_meta::check_immutable(spec.get("volumeMode"), before.get("volumeMode"), &at, &mut errors);
    let name = "volumeAttributesClassName";
    if present(before, name).is_some() {
        let wrong = match present(spec, name).and_then(Value::as_str) {
            None => "update from non-nil value to nil is forbidden",
            Some("") => "update from non-nil value to an empty string is forbidden",
            Some(_) => return errors,
        };
        errors.push(field::forbidden(path.child(name), wrong));
    }
    errors
}

fn unchanged(
    new: &Value,
    spec: &Value,
    before: &Value,
    old_class: Option<&str>,
    errors: &mut Vec<FieldError>,
) {
    let (mut after, mut earlier) = (spec.clone(), before.clone());
    if text(before, "volumeName").is_empty() {
        remove(&mut after, "volumeName");
        remove(&mut earlier, "volumeName");
    }
    // A claim without a class may be given one.
    let class = present(spec, "storageClassName").and_then(Value::as_str);
    if present(before, "storageClassName").is_none()
        && class.is_some_and(|class| old_class.is_none_or(|old| old == class))
    {
        remove(&mut after, "storageClassName");
        remove(&mut earlier, "storageClassName");
    }
    let phase = new.get("status").map(|status| text(status, "phase")).unwrap_or_default();
    if phase == "Bound" {
        for spec in [&mut after, &mut earlier] {
            if let Some(requests) = spec.pointer_mut("/resources/requests") {
                remove(requests, "storage");
            }
        }
    }
    remove(&mut after, "volumeAttributesClassName");
    remove(&mut earlier, "volumeAttributesClassName");
    // An empty class is not a missing one.
    let empty_class = |spec: &Value| present(spec, "storageClassName").is_some_and(|class| class == "");
    if !same(Some(&after), Some(&earlier)) || empty_class(&after) != empty_class(&earlier) {
        let lines = super::pod_update::differences(Some(&after), Some(&earlier), "spec");
        errors.push(field::forbidden(
            "spec",
            format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{lines}\n"
            ),
        ));
    }
}

/// A claim shrinks no further than what is there already.
fn size(spec: &Value, before: &Value, old: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let size =
        |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<Quantity>().ok());
    let (Some(after), Some(earlier)) = (size(requested(spec)), size(requested(before))) else { return };
    let there = size(old.pointer("/status/capacity/storage")).unwrap_or(Quantity::ZERO);
    if after < earlier && after <= there {
        errors.push(field::forbidden(
            path.child("resources").child("requests").child("storage"),
            "field can not be less than status.capacity",
        ));
    }
}

/// Everything wrong with a claim's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    let Some(status) = present(new, "status") else { return errors };
    for name in ["capacity", "allocatedResources"] {
        resources::validate_list(status, name, &path, &mut errors);
    }
    errors
}
