//! Discovery and OpenAPI v3 of the group: what clients read before they ask. Pure.

use serde_json::{Value, json};

use crate::answers::{GROUP, VERSION};

/// `/apis`, in the old form or the aggregated one.
pub fn groups(aggregated: bool) -> Value {
    if aggregated {
        return json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [{
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{"version": VERSION, "freshness": "Current", "resources": [
                aggregated_resource("nodes", "NodeMetrics", "Cluster"),
                aggregated_resource("pods", "PodMetrics", "Namespaced"),
            ]}],
        }]});
    }
    let mut group = group();
    if let Some(fields) = group.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
}

fn aggregated_resource(plural: &str, kind: &str, scope: &str) -> Value {
    json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": scope,
        "singularResource": "", "verbs": ["get", "list"]})
}

/// `/apis/metrics.k8s.io`.
pub fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `/apis/metrics.k8s.io/v1beta1`.
pub fn resources() -> Value {
    let one = |plural: &str, kind: &str, namespaced: bool| json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [one("nodes", "NodeMetrics", false), one("pods", "PodMetrics", true)]})
}

/// `/openapi/v3`.
pub fn schema_index() -> Value {
    let path = format!("apis/{GROUP}/{VERSION}");
    json!({"paths": {&path: {"serverRelativeURL": format!("/openapi/v3/{path}?hash=1")}}})
}

/// `/openapi/v3/apis/metrics.k8s.io/v1beta1`.
pub fn schema() -> Value {
    let quantities = json!({"type": "object", "additionalProperties": {"type": "string"},
        "description": "What is used, by resource: cpu in billionths of a core over the window, memory in bytes of the working set."});
    let kind = |name: &str, more: Value| {
        let mut properties = json!({
            "apiVersion": {"type": "string", "description": "The version of this form."},
            "kind": {"type": "string", "description": "The kind of this object."},
            "metadata": {"type": "object", "description": "Name, namespace and labels of what was measured."},
            "timestamp": {"type": "string", "format": "date-time", "description": "The end of the window."},
            "window": {"type": "string", "description": "How long was measured, ending at timestamp."},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            properties[key] = value.clone();
        }
        json!({"type": "object", "description": format!("{name}: what is used, measured over a window of time."),
            "required": ["timestamp", "window"], "properties": properties,
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": name}]})
    };
    let list = |item: &str| {
        json!({"type": "object", "required": ["items"], "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{}", schema_name(item))}}},
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": format!("{item}List")}]})
    };
    let node = kind("NodeMetrics", json!({"usage": quantities}));
    let containers = json!({"type": "array", "items": {"type": "object", "required": ["name", "usage"], "properties": {
        "name": {"type": "string", "description": "The container's name."}, "usage": quantities}}});
    let pod = kind("PodMetrics", json!({"containers": containers}));
    let root = format!("/apis/{GROUP}/{VERSION}");
    let read = |kind: &str, action: &str| {
        let item = kind.trim_end_matches("List");
        json!({"get": {"responses": {"200": {"description": "OK", "content": {"application/json": {
            "schema": {"$ref": format!("#/components/schemas/{}", schema_name(kind))}}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": item}}})
    };
    json!({
        "openapi": "3.0.0",
        "info": {"title": "metrics-server", "version": component_base::version::KUBERNETES},
        "paths": {
            format!("{root}/nodes"): read("NodeMetricsList", "list"),
            format!("{root}/nodes/{{name}}"): read("NodeMetrics", "get"),
            format!("{root}/pods"): read("PodMetricsList", "list"),
            format!("{root}/namespaces/{{namespace}}/pods"): read("PodMetricsList", "list"),
            format!("{root}/namespaces/{{namespace}}/pods/{{name}}"): read("PodMetrics", "get"),
        },
        "components": {"schemas": {
            schema_name("NodeMetrics"): node, schema_name("NodeMetricsList"): list("NodeMetrics"),
            schema_name("PodMetrics"): pod, schema_name("PodMetricsList"): list("PodMetrics"),
        }},
    })
}

fn schema_name(kind: &str) -> String {
    format!("io.k8s.metrics.pkg.apis.metrics.v1beta1.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_schema_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let (schema, mut found) = (schema(), Vec::new());
        references(&schema, &mut found);
        assert!(found.len() >= 5);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(schema.pointer(pointer).is_some(), "{reference}");
        }
    }
}
