//! HorizontalPodAutoscalers, in the form of `autoscaling/v2`, in which they are stored.

use serde_json::{Value, json};

use super::access::{default_to, integer, items, present, struct_mut, text};
use super::replica_set::not_negative;
use super::{object_meta, resources};
use crate::autoscaler_versions::{self, DEFAULT_CPU_UTILIZATION};
use crate::field::{self, FieldError, FieldPath};
use crate::names;
use crate::quantity::Quantity;

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const NOT_GIVEN: &str = "must populate information for the given metric source";
const RAW_OR_SHARE: &str = "must set either a target raw value or a target utilization";
const RAW_AND_SHARE: &str = "may not set both a target raw value and a target utilization";

/// Types of metrics, and the fields that go with them, in the order in which they are looked at.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    autoscaler_versions::drop_annotations(object);
    if let Some(spec) = struct_mut(object, "spec") {
        default_to(spec, "minReplicas", 1);
        if items(spec, "metrics").is_empty() {
            super::access::set(
                spec,
                "metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": DEFAULT_CPU_UTILIZATION}}}]),
            );
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) {
            default_rules(
                behavior,
                "scaleUp",
                json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            );
            // How long to wait before scaling down is the controller's setting.
            default_rules(
                behavior,
                "scaleDown",
                json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            );
        }
    }
    if let Some(status) = struct_mut(object, "status") {
        default_to(status, "desiredReplicas", 0);
        default_to(status, "currentMetrics", Value::Null);
    }
}

fn default_rules(behavior: &mut Value, direction: &str, defaults: Value) {
    let Some(rules) = struct_mut(behavior, direction) else { return };
    for (name, value) in defaults.as_object().into_iter().flatten() {
        default_to(rules, name, value.clone());
    }
}

/// What a new autoscaler's status is.
pub fn initial_status() -> Value {
    json!({"desiredReplicas": 0, "currentMetrics": null})
}

/// Everything wrong with a new autoscaler.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    spec(object, 1, &mut errors);
    errors
}

fn spec(object: &Value, replicas_min: i64, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let (low, high) = (integer(spec, "minReplicas"), integer(spec, "maxReplicas").unwrap_or_default());
    if let Some(low) = low.filter(|low| *low < replicas_min) {
        errors.push(field::invalid(
            path.child("minReplicas"),
            low,
            format!("must be greater than or equal to {replicas_min}"),
        ));
    }
    let at = path.child("maxReplicas");
    if high < 1 {
        errors.push(field::invalid(&at, high, "must be greater than 0"));
    }
    if low.is_some_and(|low| high < low) {
        errors.push(field::invalid(at, high, "must be greater than or equal to `minReplicas`"));
    }
    reference(spec.get("scaleTargetRef").unwrap_or(&none), &path.child("scaleTargetRef"), errors);
    let at = path.child("metrics");
    for (index, metric) in items(spec, "metrics").iter().enumerate() {
        validate_metric(metric, &at.index(index), errors);
    }
    if low == Some(0) && !autoscaler_versions::has_metric_of(object, &["Object", "External"]) {
        errors.push(field::forbidden(
            at,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        ));
    }
    if let Some(behavior) = present(spec, "behavior") {
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(rules) = present(behavior, direction) {
                validate_rules(rules, &path.child("behavior").child(direction), errors);
            }
        }
    }
}

fn reference(reference: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for name in ["kind", "name"] {
        segment(reference, name, "", path, errors);
    }
}

/// A text that can be a part of a path.
fn segment(object: &Value, name: &str, missing: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (value, at) = (text(object, name), path.child(name));
    if value.is_empty() {
        errors.push(field::required(at, missing));
    } else {
        let problems = names::path_segment(value);
        errors.extend(problems.into_iter().map(|problem| field::invalid(&at, value, problem)));
    }
}

fn validate_rules(rules: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("stabilizationWindowSeconds");
    match integer(rules, "stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => {
            errors.push(field::invalid(at, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => errors.push(field::invalid(
            at,
            seconds,
            format!("must be less than or equal to {WINDOW_SECONDS_MAX}"),
        )),
        _ => {}
    }
    let selects = ["Disabled", "Max", "Min"];
    if let Some(select) = present(rules, "selectPolicy").and_then(Value::as_str)
        && !selects.contains(&select)
    {
        errors.push(field::not_supported(path.child("selectPolicy"), select, &selects));
    }
    let at = path.child("policies");
    let policies = items(rules, "policies");
    if policies.is_empty() {
        errors.push(field::required(&at, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let at = at.index(index);
        if !matches!(text(policy, "type"), "Pods" | "Percent") {
            errors.push(field::not_supported(at.child("type"), text(policy, "type"), &["Percent", "Pods"]));
        }
        for name in ["value", "periodSeconds"] {
            let found = integer(policy, name).unwrap_or_default();
            if found <= 0 {
                errors.push(field::invalid(at.child(name), found, "must be greater than zero"));
            }
        }
        if let Some(period) = integer(policy, "periodSeconds").filter(|period| *period > PERIOD_SECONDS_MAX) {
            errors.push(field::invalid(
                at.child("periodSeconds"),
                period,
                format!("must be less than or equal to {PERIOD_SECONDS_MAX}"),
            ));
        }
    }
    if let Some(tolerance) = quantity(rules, "tolerance").filter(Quantity::is_negative) {
        errors.push(field::invalid(
            path.child("tolerance"),
            tolerance.to_string(),
            "must be greater than or equal to 0",
        ));
    }
}

fn quantity(object: &Value, name: &str) -> Option<Quantity> {
    resources::quantity(Some(object), name)
}

fn validate_metric(metric: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = text(metric, "type");
    let kinds: Vec<&str> = SOURCES.iter().map(|(kind, _)| *kind).collect();
    let at = path.child("type");
    if kind.is_empty() {
        errors.push(field::required(&at, "must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(known, _)| *known == kind).map(|(_, field)| *field);
    if expected.is_none() {
        errors.push(field::not_supported(&at, kind, &kinds));
    }
    let there: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| present(metric, field).is_some()).collect();
    if let Some(first) = there.first() {
        validate_source(first, &metric[*first], &path.child(first), errors);
    }
    match expected {
        Some(field) if !there.contains(&field) => {
            errors.push(field::required(path.child(field), NOT_GIVEN));
        }
        Some(_) => {}
        None => errors.push(field::not_supported(&at, kind, &kinds)),
    }
    if there.len() != 1 {
        for other in there.iter().filter(|field| Some(**field) != expected) {
            errors.push(field::forbidden(path.child(other), "must populate the given metric source only"));
        }
    }
}

fn validate_source(field_name: &str, source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let metric = source.get("metric").unwrap_or(&none);
    let target = source.get("target").unwrap_or(&none);
    match field_name {
        "object" => {
            let described = source.get("describedObject").unwrap_or(&none);
            reference(described, &path.child("describedObject"), errors);
            segment(metric, "name", "must specify a metric name", &path.child("metric"), errors);
        }
        "external" | "pods" => {
            segment(metric, "name", "must specify a metric name", &path.child("metric"), errors);
        }
        _ => {
            let (name, at) = (text(source, "name"), path.child("name"));
            if name.is_empty() {
                errors.push(field::required(at, "must specify a resource name"));
            } else if field_name == "containerResource" {
                resources::validate_name(name, &at, errors);
            }
        }
    }
    if field_name == "containerResource" {
        let (name, at) = (text(source, "container"), path.child("container"));
        if name.is_empty() {
            errors.push(field::required(at, "must specify a container"));
        } else {
            let problems = names::dns1123_label(name);
            errors.extend(problems.into_iter().map(|problem| field::invalid(&at, name, problem)));
        }
    }
    let at = path.child("target");
    validate_target(target, &at, errors);
    let has = |name: &str| present(target, name).is_some();
    let (value, average, share) = (has("value"), has("averageValue"), has("averageUtilization"));
    match field_name {
        "object" if !value && !average => errors.push(field::required(
            at.child("averageValue"),
            "must set either a target value or averageValue",
        )),
        "external" if !value && !average => errors.push(field::required(
            at.child("averageValue"),
            "must set either a target value for metric or a per-pod target",
        )),
        "external" if value && average => errors.push(field::forbidden(
            at.child("value"),
            "may not set both a target value for metric and a per-pod target",
        )),
        "pods" if !average => errors
            .push(field::required(at.child("averageValue"), "must specify a positive target averageValue")),
        "resource" | "containerResource" if !share && !average => {
            errors.push(field::required(at.child("averageUtilization"), RAW_OR_SHARE));
        }
        "resource" | "containerResource" if share && average => {
            errors.push(field::forbidden(at.child("averageValue"), RAW_AND_SHARE));
        }
        _ => {}
    }
}

fn validate_target(target: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (kind, at) = (text(target, "type"), path.child("type"));
    if kind.is_empty() {
        errors.push(field::required(&at, "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.push(field::invalid(at, kind, "must be either Utilization, Value, or AverageValue"));
    }
    for name in ["value", "averageValue"] {
        if quantity(target, name).is_some_and(|value| value.is_zero() || value.is_negative()) {
            errors.push(field::invalid(path.child(name), target[name].clone(), "must be positive"));
        }
    }
    if let Some(share) = integer(target, "averageUtilization").filter(|share| *share < 1) {
        errors.push(field::invalid(path.child("averageUtilization"), share, "must be greater than 0"));
    }
}

/// Everything wrong with a changed autoscaler.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    // Those that could scale to nothing before may go on.
    let low = crate::meta::get(old, &["spec", "minReplicas"]).and_then(Value::as_i64);
    spec(new, i64::from(low != Some(0)), &mut errors);
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    let none = Value::Null;
    for name in ["currentReplicas", "desiredReplicas"] {
        not_negative(new.get("status").unwrap_or(&none), name, &path, &mut errors);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn an_autoscaler() -> Value {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}});
        default(&mut object);
        object
    }

    #[test]
    fn defaults_are_those_that_clients_know() {
        let object = an_autoscaler();
        let spec = &object["spec"];
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(spec["behavior"]["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            spec["behavior"]["scaleDown"],
            json!({"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
        );
        assert_eq!(texts(&validate(&object)), Vec::<String>::new());
    }

    #[test]
    fn replicas_targets_and_metrics_are_checked() {
        let mut object = an_autoscaler();
        object["spec"]["minReplicas"] = json!(0);
        object["spec"]["maxReplicas"] = json!(0);
        object["spec"]["scaleTargetRef"] = json!({"kind": "a/b"});
        object["spec"]["metrics"] = json!([
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "Value", "value": "0"}}},
            {"type": "Resource", "external": {"metric": {"name": ""}, "target": {"type": "AverageValue", "averageValue": "1"}}},
            {"type": "Other"}]);
        assert_eq!(
            texts(&validate(&object)),
            [
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.scaleTargetRef.kind: Invalid value: \"a/b\": may not contain '/'",
                "spec.scaleTargetRef.name: Required value",
                "spec.metrics[0].pods.target.value: Invalid value: \"0\": must be positive",
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
                "spec.metrics[1].external.metric.name: Required value: must specify a metric name",
                "spec.metrics[1].resource: Required value: must populate information for the given metric source",
                "spec.metrics[2].type: Unsupported value: \"Other\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                "spec.metrics[2].type: Unsupported value: \"Other\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ]
        );
    }

    #[test]
    fn behavior_is_checked() {
        let mut object = an_autoscaler();
        object["spec"]["behavior"]["scaleUp"] = json!({"stabilizationWindowSeconds": 3601, "selectPolicy": "Most", "policies": [
            {"type": "Share", "value": 0, "periodSeconds": 1801}], "tolerance": "-1"});
        assert_eq!(
            texts(&validate(&object)),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Share\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
            ]
        );
    }
}
