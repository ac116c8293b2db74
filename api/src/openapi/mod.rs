//! The OpenAPI documents that `kubectl explain`, client validation and code generators read.
//!
//! Made on request and not kept. Serving them, with their index and hashes, is the server's matter.

mod custom;
mod paths;
mod schemas;

use serde_json::{Map, Value, json};

use crate::resource::Served;

/// Which of the two document formats is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Swagger 2.0, one document for everything.
    V2,
    /// OpenAPI 3.0, one document a group and version.
    V3,
}

impl Format {
    /// A reference to a named schema.
    fn reference(self, type_name: &str) -> Value {
        match self {
            Format::V2 => json!({"$ref": format!("#/definitions/{type_name}")}),
            Format::V3 => json!({"$ref": format!("#/components/schemas/{type_name}")}),
        }
    }
}

/// The OpenAPI v3 document of one group and version, with its paths and the schemas that they use. `release` is the
/// Kubernetes version that `info.version` names. A group that has no resource gives a document without paths.
pub fn v3_document(served: &Served, group: &str, version: &str, release: &str) -> Value {
    let rows = || served.rows().filter(|row| row.group == group && row.version == version);
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for row in rows() {
        schemas::add_resource(row, Format::V3, &mut schemas);
        paths::add_resource(row, Format::V3, &mut paths);
    }
    if !paths.is_empty() {
        schemas::add_meta(served, Format::V3, &mut schemas);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// The OpenAPI v2 document of all groups. `release` as in [`v3_document`].
pub fn v2_document(served: &Served, release: &str) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for row in served.rows() {
        schemas::add_resource(row, Format::V2, &mut schemas);
        paths::add_resource(row, Format::V2, &mut paths);
    }
    schemas::add_meta(served, Format::V2, &mut schemas);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths,
        "definitions": schemas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.insert(reference.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    fn assert_references_resolve(document: &Value, prefix: &str, schemas: &Value) {
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let name =
                reference.strip_prefix(prefix).unwrap_or_else(|| panic!("{reference} starts with {prefix}"));
            assert!(schemas.get(name).is_some(), "{reference} is in the document");
        }
    }

    #[test]
    fn every_reference_of_every_document_resolves() {
        for (group, version) in crate::resource::groups() {
            let document = v3_document(&Served::default(), group, version, "v1.35.0");
            assert_references_resolve(&document, "#/components/schemas/", &document["components"]["schemas"]);
        }
        let document = v2_document(&Served::default(), "v1.35.0");
        assert_references_resolve(&document, "#/definitions/", &document["definitions"]);
    }

    #[test]
    fn schemas_carry_merge_facts_and_kinds() {
        let document = v3_document(&Served::default(), "apps", "v1", "v1.35.0");
        let schemas = &document["components"]["schemas"];
        let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-list-type"], "map");
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(
            schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"]["x-kubernetes-patch-strategy"],
            "merge,retainKeys"
        );
        assert_eq!(
            schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["tolerations"]["x-kubernetes-list-type"],
            "atomic"
        );
        assert_eq!(
            schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"],
            "atomic"
        );
        assert_eq!(
            schemas["io.k8s.api.apps.v1.DeploymentList"]["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "DeploymentList"}])
        );
        let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
        assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
        assert!(spec["description"].is_string());
        assert!(schemas["io.k8s.api.autoscaling.v1.Scale"].is_object());
    }

    #[test]
    fn operations_name_their_kind_and_take_field_validation() {
        let document = v3_document(&Served::default(), "apps", "v1", "v1.35.0");
        let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        let patch = &path["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun") && names.contains(&"force"));
        assert_eq!(path["get"]["operationId"], "readAppsV1NamespacedDeployment");
        assert!(
            document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["patch"]
                .is_object()
        );
        assert!(document["paths"]["/apis/apps/v1/deployments"]["get"].is_object());
        let core = v3_document(&Served::default(), "", "v1", "v1.35.0");
        assert_eq!(core["paths"]["/api/v1/nodes"]["post"]["operationId"], "createCoreV1Node");
    }

    #[test]
    fn operation_ids_are_unique() {
        let document = v2_document(&Served::default(), "v1.35.0");
        let mut seen = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for operation in item.as_object().expect("a path").values().filter(|value| value.is_object()) {
                let id = operation["operationId"].as_str().expect("an id").to_owned();
                assert!(seen.insert(id.clone()), "{id} of {path} is used twice");
            }
        }
    }
}
