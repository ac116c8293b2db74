//! ReplicationControllers.

use serde_json::{Map, Value, json};

use super::access::{default_to, map, present, set, struct_mut};
use super::replica_set::not_negative;
use super::{object_meta, pod_spec_defaults, pod_template};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults: what the template's pods are labelled with is selected, and labels the controller itself.
pub fn default(object: &mut Value) {
    let labels = crate::meta::get(object, &["spec", "template", "metadata", "labels"])
        .filter(|labels| labels.is_object())
        .cloned();
    if let Some(spec) = struct_mut(object, "spec") {
        if let Some(labels) = &labels
            && map(spec, "selector").is_none_or(Map::is_empty)
        {
            set(spec, "selector", labels.clone());
        }
        default_to(spec, "replicas", 1);
        if present(spec, "template").is_some() {
            pod_spec_defaults::default_template(spec);
        }
    }
    if let Some(labels) = labels
        && crate::meta::labels(object).is_none_or(Map::is_empty)
        && let Some(metadata) = struct_mut(object, "metadata")
    {
        set(metadata, "labels", labels);
    }
    if let Some(status) = struct_mut(object, "status") {
        default_to(status, "replicas", 0);
    }
}

/// Everything wrong with a new ReplicationController.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    not_negative(spec, "minReadySeconds", &path, errors);
    let selector = map(spec, "selector").filter(|selector| !selector.is_empty());
    if selector.is_none() {
        errors.push(field::required(path.child("selector"), ""));
    }
    not_negative(spec, "replicas", &path, errors);
    let at = path.child("template");
    let Some(template) = present(spec, "template") else {
        errors.push(field::required(at, ""));
        return;
    };
    if let Some(selector) = selector {
        let selector = json!({"matchLabels": selector});
        pod_template::check_selected(Some(&selector), template, &at, errors);
    }
    pod_template::validate_template(template, &at, errors);
    pod_template::check_endless(template, "ReplicationController", &at, errors);
}

/// Everything wrong with a changed ReplicationController.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        default(&mut object);
        assert_eq!(object["spec"]["selector"], json!({"app": "web"}));
        assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(texts(&validate(&object)), Vec::<String>::new());
        object["spec"]["selector"]["app"] = json!("db");
        assert_eq!(
            texts(&validate(&object)),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
            ]
        );
    }

    #[test]
    fn selector_and_template_are_required() {
        let mut object =
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": -1}});
        default(&mut object);
        assert_eq!(
            texts(&validate(&object)),
            [
                "spec.selector: Required value",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template: Required value"
            ]
        );
    }
}
