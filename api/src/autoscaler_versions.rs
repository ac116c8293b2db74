//! HorizontalPodAutoscalers in their two versions: objects are stored as `autoscaling/v2`; `autoscaling/v1` has the CPU target in a field of its own
//! and everything else that it has no fields for in annotations, as upstream writes them.
//!
//! Only converts. What an autoscaler has to contain is [`crate::kinds`]' matter.

use serde_json::{Map, Value, json};

use crate::kinds::access::{integer, items, present, remove, set, struct_mut, text};
use crate::meta::get;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// The share of CPU that is aimed at when nothing is said.
pub const DEFAULT_CPU_UTILIZATION: i64 = 80;

/// A field's name in `v1`, and where it stands in `v2`.
type Moved = (&'static str, &'static [&'static str]);

/// How the sources of metrics are written, by their field.
const SOURCES: &[(&str, &[Moved])] = &[
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

/// The same for what was last measured.
const STATUSES: &[(&str, &[Moved])] = &[
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

/// A `v2` autoscaler as a `v1` one.
pub fn to_v1(mut object: Value) -> Value {
    drop_annotations(&mut object);
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        let metrics = remove(spec, "metrics").unwrap_or(Value::Null);
        let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
        let cpu = metrics.iter().find(|metric| is_cpu(metric));
        let share = |metric: &Value| get(metric, &["resource", "target", "averageUtilization"]).cloned();
        if let Some(utilization) = cpu.and_then(share) {
            set(spec, "targetCPUUtilizationPercentage", utilization);
        }
        let others = metrics.iter().filter(|metric| !(is_cpu(metric) && share(metric).is_some()));
        let others: Vec<Value> = others.map(|metric| to_old_form(metric, SOURCES)).collect();
        if !others.is_empty() {
            annotations.push((METRICS, others.into()));
        }
        if let Some(behavior) = remove(spec, "behavior").filter(|behavior| !behavior.is_null()) {
            annotations.push((BEHAVIOR, with_names(behavior, str::to_ascii_uppercase)));
        }
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        let metrics = remove(status, "currentMetrics").unwrap_or(Value::Null);
        let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
        let share = |metric: &Value| get(metric, &["resource", "current", "averageUtilization"]).cloned();
        if let Some(utilization) =
            metrics.iter().filter(|metric| is_cpu(metric)).filter_map(share).next_back()
        {
            set(status, "currentCPUUtilizationPercentage", utilization);
        }
        if !metrics.is_empty() {
            let metrics: Vec<Value> = metrics.iter().map(|metric| to_old_form(metric, STATUSES)).collect();
            annotations.push((CURRENT_METRICS, metrics.into()));
        }
        if let Some(conditions) = remove(status, "conditions").filter(|list| !list.is_null()) {
            annotations.push((CONDITIONS, conditions));
        }
        // Always written.
        for name in ["currentReplicas", "desiredReplicas"] {
            let count = integer(status, name).unwrap_or_default();
            set(status, name, count);
        }
    }
    for (name, value) in annotations {
        if let Some(annotations) =
            struct_mut(&mut object, "metadata").and_then(|metadata| struct_mut(metadata, "annotations"))
        {
            set(annotations, name, value.to_string());
        }
    }
    set(&mut object, "apiVersion", "autoscaling/v1");
    object
}

/// A `v1` autoscaler as a `v2` one. Annotations that cannot be read say nothing.
pub fn to_v2(mut object: Value) -> Value {
    let annotation = |name: &str| -> Option<Value> {
        let text = get(&object, &["metadata", "annotations", name])?.as_str()?;
        serde_json::from_str(text).ok()
    };
    let listed = |name: &str, fields: &[(&str, &[Moved])]| {
        let list = annotation(name)?;
        let list = list.as_array()?.iter().map(|metric| to_new_form(metric, fields));
        Some(list.collect::<Vec<Value>>())
    };
    let (sources, statuses) = (listed(METRICS, SOURCES), listed(CURRENT_METRICS, STATUSES));
    let (behavior, conditions) = (annotation(BEHAVIOR), annotation(CONDITIONS));
    drop_annotations(&mut object);
    if let Some(spec) = struct_mut(&mut object, "spec") {
        let mut metrics = sources.unwrap_or_default();
        let share = remove(spec, "targetCPUUtilizationPercentage").and_then(|share| share.as_i64());
        // What `v1` left to the controller is said in `v2`.
        let default = metrics.is_empty().then_some(DEFAULT_CPU_UTILIZATION);
        if let Some(share) = share.or(default) {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": share}}}));
        }
        set(spec, "metrics", metrics);
        if let Some(behavior) = behavior {
            set(spec, "behavior", with_names(behavior, str::to_ascii_lowercase));
        }
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        let share = remove(status, "currentCPUUtilizationPercentage").filter(|share| !share.is_null());
        let measured = share.map(|share| {
            vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": share}}})]
        });
        // The annotation knows more than the field.
        set(status, "currentMetrics", statuses.or(measured).map_or(Value::Null, Value::Array));
        if let Some(conditions) = conditions {
            set(status, "conditions", conditions);
        }
    }
    set(&mut object, "apiVersion", "autoscaling/v2");
    object
}

/// Takes out the annotations that only stand for fields of the other version.
pub fn drop_annotations(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    let before = annotations.len();
    annotations.retain(|name, _| ![METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].contains(&name.as_str()));
    if annotations.is_empty() && before > 0 {
        remove(metadata, "annotations");
    }
}

fn is_cpu(metric: &Value) -> bool {
    text(metric, "type") == "Resource"
        && metric.get("resource").is_some_and(|resource| text(resource, "name") == "cpu")
}

fn to_old_form(metric: &Value, fields: &[(&str, &[Moved])]) -> Value {
    let mut old = json!({"type": text(metric, "type")});
    for (source, moved) in fields {
        let Some(from) = present(metric, source) else { continue };
        let to: Map<String, Value> = moved
            .iter()
            .filter_map(|(name, path)| Some(((*name).to_owned(), get(from, path)?.clone())))
            .collect();
        set(&mut old, source, to);
    }
    old
}

fn to_new_form(metric: &Value, fields: &[(&str, &[Moved])]) -> Value {
    let mut new = json!({"type": text(metric, "type")});
    for (source, moved) in fields {
        let Some(from) = present(metric, source) else { continue };
        let mut to = json!({});
        for (name, path) in *moved {
            let Some(value) = present(from, name) else { continue };
            match path {
                [only] => set(&mut to, only, value.clone()),
                [outer, inner] => {
                    if let Some(outer) = struct_mut(&mut to, outer) {
                        set(outer, inner, value.clone());
                    }
                }
                _ => {}
            }
        }
        if let Some(target) = to.get_mut("target") {
            let kinds =
                [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
            if let Some((_, kind)) = kinds.iter().find(|(field, _)| present(target, field).is_some()) {
                set(target, "type", *kind);
            }
        }
        set(&mut new, source, to);
    }
    new
}

/// The annotation for behavior has the names of Go's fields: with a capital.
fn with_names(value: Value, first: fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let (head, tail) = name.split_at(name.len().min(1));
                (format!("{}{tail}", first(head)), with_names(value, first))
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(|item| with_names(item, first)).collect(),
        other => other,
    }
}

/// Whether an autoscaler looks at anything but CPU.
pub fn has_metric_of(object: &Value, kinds: &[&str]) -> bool {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    items(spec, "metrics").iter().any(|metric| kinds.contains(&text(metric, "type")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_v2() -> Value {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "annotations": {"a": "b"}},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [
                {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "main"}, "metric": {"name": "hits"},
                    "target": {"type": "Value", "value": "2k"}}},
                {"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "1"}}},
                    "target": {"type": "AverageValue", "averageValue": "30"}}},
                {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 60}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}],
                "behavior": {"scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}], "selectPolicy": "Min"}}},
            "status": {"currentReplicas": 2, "desiredReplicas": 3, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}]}})
    }

    #[test]
    fn v1_shows_cpu_and_keeps_the_rest_in_annotations() {
        let v1 = to_v1(a_v2());
        assert_eq!(v1["apiVersion"], "autoscaling/v1");
        assert_eq!(
            v1["spec"],
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
                "targetCPUUtilizationPercentage": 70})
        );
        assert_eq!(
            v1["status"],
            json!({"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 50})
        );
        let annotation = |name: &str| -> Value {
            let text = v1["metadata"]["annotations"][name].as_str().expect("an annotation");
            serde_json::from_str(text).expect("JSON")
        };
        assert_eq!(
            annotation(METRICS)[0],
            json!({"type": "Object", "object": {"target": {"kind": "Ingress", "name": "main"}, "metricName": "hits", "targetValue": "2k"}})
        );
        assert_eq!(annotation(BEHAVIOR)["ScaleDown"]["Policies"][0]["PeriodSeconds"], 60);
        assert_eq!(annotation(CURRENT_METRICS)[0]["resource"]["currentAverageValue"], "100m");
    }

    #[test]
    fn there_and_back_is_the_same_object() {
        assert_eq!(to_v2(to_v1(a_v2())), a_v2());
    }

    #[test]
    fn without_any_metric_the_default_is_said() {
        let v1 =
            json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "web"}, "spec": {"maxReplicas": 3}});
        let v2 = to_v2(v1);
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(to_v1(v2)["spec"]["targetCPUUtilizationPercentage"], 80);
    }
}
