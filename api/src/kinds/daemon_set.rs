//! DaemonSets.

use serde_json::{Map, Value, json};

use super::access::{default_text, default_to, present, same, set, struct_mut, text};
use super::replica_set::{counts, not_negative};
use super::stateful_set::collisions_only_grow;
use super::{int_or_percent, label_selector, object_meta, pod_spec_defaults, pod_template};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Holds how often the template changed, which older versions had as a field of the spec.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        if let Some(strategy) = struct_mut(spec, "updateStrategy") {
            default_text(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = struct_mut(strategy, "rollingUpdate")
            {
                default_to(rolling, "maxUnavailable", 1);
                default_to(rolling, "maxSurge", 0);
            }
        }
        default_to(spec, "revisionHistoryLimit", 10);
        pod_spec_defaults::default_template(spec);
    }
    if let Some(status) = struct_mut(object, "status") {
        for name in ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"]
        {
            default_to(status, name, 0);
        }
    }
}

/// What a new DaemonSet's status is.
pub fn initial_status() -> Value {
    json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
}

/// Counts the template's changes in the annotation that stands for them; clients cannot set it.
pub fn count_template(new: &mut Value, old: Option<&Value>) {
    let template = |object: &Value| crate::meta::get(object, &["spec", "template"]).cloned();
    let counted = |object: &Value| {
        let annotation = crate::meta::get(object, &["metadata", "annotations", TEMPLATE_GENERATION]);
        annotation.and_then(Value::as_str).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default()
    };
    let generation = match old {
        Some(old) if same(template(new).as_ref(), template(old).as_ref()) => counted(old),
        Some(old) => counted(old) + 1,
        None => counted(new).max(1),
    };
    if let Some(metadata) = struct_mut(new, "metadata") {
        default_to(metadata, "annotations", Map::new());
        if let Some(annotations) = metadata.get_mut("annotations") {
            set(annotations, TEMPLATE_GENERATION, generation.to_string());
        }
    }
}

/// Everything wrong with a new DaemonSet.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let at = path.child("selector");
    let selector = present(spec, "selector");
    if let Some(selector) = selector {
        label_selector::validate(selector, &at, errors);
    }
    let template = spec.get("template").unwrap_or(&none);
    pod_template::check_selected(selector, template, &path.child("template"), errors);
    if let Some(selector) = selector.filter(|selector| label_selector::is_empty(selector)) {
        errors.push(field::invalid(at, selector.clone(), "empty selector is invalid for daemonset"));
    }
    pod_template::validate_template(template, &path.child("template"), errors);
    pod_template::check_endless(template, "DaemonSet", &path.child("template"), errors);
    not_negative(spec, "minReadySeconds", &path, errors);
    update_strategy(spec.get("updateStrategy").unwrap_or(&none), &path.child("updateStrategy"), errors);
    not_negative(spec, "revisionHistoryLimit", &path, errors);
}

fn update_strategy(strategy: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (text(strategy, "type"), present(strategy, "rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(field::required(path.child("rollingUpdate"), "")),
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &path.child("rollingUpdate"), errors),
        _ => errors.push(field::not_supported(path, strategy.clone(), &["RollingUpdate", "OnDelete"])),
    }
}

fn rolling_update(rolling: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let fields = ["maxUnavailable", "maxSurge"];
    for check in [int_or_percent::validate, int_or_percent::validate_share] {
        for name in fields {
            if let Some(value) = rolling.get(name) {
                check(value, &path.child(name), errors);
            }
        }
    }
    let [unavailable, surge] = fields.map(|name| !int_or_percent::is_zero(rolling.get(name)));
    if unavailable && surge {
        let shown = rolling.get("maxSurge").cloned().unwrap_or(Value::Null);
        errors.push(field::invalid(
            path.child("maxSurge"),
            shown,
            "may not be set when maxUnavailable is non-zero",
        ));
    } else if !unavailable && !surge {
        errors.push(field::required(path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
    }
}

/// Everything wrong with a changed DaemonSet.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    super::replica_set::immutable_selector(new, old, &mut errors);
    spec(new, &mut errors);
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let none = Value::Null;
    let (status, before) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let names = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(status, &names, &FieldPath::new("status"), &mut errors);
    collisions_only_grow(status, before, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn a_set() -> Value {
        let mut object = json!({
            "metadata": {"name": "agent", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}
        });
        default(&mut object);
        object
    }

    #[test]
    fn defaults_are_those_that_clients_know() {
        let set = a_set();
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(set["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(texts(&validate(&set)), Vec::<String>::new());
    }

    #[test]
    fn changes_of_the_template_are_counted_whatever_clients_say() {
        let mut old = a_set();
        count_template(&mut old, None);
        assert_eq!(old["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let mut new = old.clone();
        new["metadata"]["annotations"] = json!({});
        count_template(&mut new, Some(&old));
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
        count_template(&mut new, Some(&old));
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }

    #[test]
    fn surge_and_unavailability_exclude_each_other() {
        let mut set = a_set();
        set["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": 0});
        assert_eq!(
            texts(&validate(&set)),
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
            ]
        );
        set["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 1, "maxSurge": "10%"});
        assert_eq!(
            texts(&validate(&set)),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero"
            ]
        );
        let old = a_set();
        let mut moved = a_set();
        moved["spec"]["selector"]["matchLabels"]["x"] = json!("y");
        moved["spec"]["template"]["metadata"]["labels"]["x"] = json!("y");
        assert_eq!(
            texts(&validate_update(&moved, &old)),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"agent\",\"x\":\"y\"}}: field is immutable"
            ]
        );
    }
}
