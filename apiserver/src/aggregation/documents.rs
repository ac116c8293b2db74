//! What other API servers say they have: their part of discovery, and where their schemas are. Asked for as the aggregator itself, kept until they are
//! asked again.

use std::sync::Arc;

use coracle_api::kinds::access::{items, text};
use http::header::ACCEPT;
use http::{Request, StatusCode};
use serde_json::{Map, Value, json};

use super::availability::PATIENCE;
use super::{Aggregator, Service, proxy};
use crate::extension::Endpoint;
use crate::extension::client::read;
use crate::extension::tls::Trust;
use crate::server::body;
use crate::server::request_info::UserInfo;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What one server says of one group and version.
#[derive(Debug, PartialEq)]
pub(super) struct Documents {
    /// The entry of the version in aggregated discovery.
    pub(super) discovery: Value,
    /// The entry of the version in the index of OpenAPI v3.
    pub(super) schema: Option<Value>,
}

/// Who the aggregator is to other servers: somebody who may see everything.
fn aggregator() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".into(),
        groups: vec!["system:masters".into()],
        ..UserInfo::default()
    }
}

impl Aggregator {
    async fn get(
        &self,
        endpoint: &Endpoint,
        path: &str,
        accept: &str,
    ) -> Result<(StatusCode, Value), String> {
        let mut request = Request::get(path)
            .header(ACCEPT, accept)
            .body(body::empty())
            .map_err(|error| error.to_string())?;
        proxy::name_user(request.headers_mut(), &aggregator());
        let url = format!("https://{}{path}", endpoint.authority);
        let asked = async {
            let answer = self
                .clients
                .send(endpoint, request)
                .await
                .map_err(|error| format!("Get {url:?}: {error}"))?;
            let status = answer.status();
            let bytes = read(answer.into_body()).await?;
            Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("Get {url:?}: context deadline exceeded")),
        }
    }

    /// Whether the server answers for its group and version. Whose certificate it has does not matter here.
    pub(super) async fn ask(&self, service: &Service) -> Result<(), String> {
        let Some(remote) = &service.remote else { return Ok(()) };
        let mut endpoint = remote.endpoint.clone()?;
        endpoint.trust = Trust::Anyone;
        let path = format!("/apis/{}/{}", service.group, service.version);
        let url = format!("https://{}{path}", endpoint.authority);
        match self.get(&endpoint, &path, "application/json").await {
            Ok((status, _)) if status.is_success() => Ok(()),
            Ok((status, _)) => Err(format!(
                "failing or missing response from {url}: bad status from {url}: {}",
                status.as_u16()
            )),
            Err(error) => Err(format!("failing or missing response from {url}: {error}")),
        }
    }

    /// Reads what the server has; what was read before stays if it cannot be.
    pub(super) async fn learn(&self, service: &Service) {
        let Some(Ok(endpoint)) = service.remote.as_ref().map(|remote| &remote.endpoint) else { return };
        let discovery = match self.get(endpoint, "/apis", AGGREGATED).await {
            Ok((StatusCode::OK, list)) => version_of(&list, service),
            _ => None,
        };
        let discovery = match discovery {
            Some(discovery) => Some(discovery),
            None => {
                let path = format!("/apis/{}/{}", service.group, service.version);
                match self.get(endpoint, &path, "application/json").await {
                    Ok((StatusCode::OK, list)) => Some(from_plain(&list, service)),
                    Ok((status, _)) => {
                        tracing::info!(service = service.name, %status, "no discovery document");
                        None
                    }
                    Err(error) => {
                        tracing::info!(service = service.name, error, "no discovery document");
                        None
                    }
                }
            }
        };
        let Some(discovery) = discovery else { return };
        let schema = match self.get(endpoint, "/openapi/v3", "application/json").await {
            Ok((StatusCode::OK, index)) => {
                let key = format!("apis/{}/{}", service.group, service.version);
                index["paths"].get(&key).cloned()
            }
            _ => None,
        };
        let documents = Arc::new(Documents { discovery, schema });
        self.documents.lock().insert(service.name.clone(), documents);
    }

    /// Drops what was read of servers that are no longer asked.
    pub(super) fn forget_all_but(&self, services: &[&Value]) {
        let known = |name: &String| services.iter().any(|one| coracle_api::meta::name(one) == name);
        self.documents.lock().retain(|name, _| known(name));
    }
}

/// The version's entry in an aggregated document.
fn version_of(list: &Value, service: &Service) -> Option<Value> {
    if text(list, "kind") != "APIGroupDiscoveryList" {
        return None;
    }
    let group = items(list, "items").iter().find(|group| coracle_api::meta::name(group) == service.group)?;
    let version = items(group, "versions").iter().find(|one| text(one, "version") == service.version)?;
    let mut version = version.clone();
    version["freshness"] = "Current".into();
    Some(version)
}

/// The version's entry, made of the old document of one group and version.
fn from_plain(list: &Value, service: &Service) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    let kind = |entry: &Value| {
        let or = |field: &str, own: &str| match text(entry, field) {
            "" => own.to_owned(),
            other => other.to_owned(),
        };
        json!({"group": or("group", &service.group), "version": or("version", &service.version), "kind": text(entry, "kind")})
    };
    let all = items(list, "resources");
    for entry in all.iter().filter(|entry| !text(entry, "name").contains('/')) {
        let name = text(entry, "name");
        let mut resource = Map::new();
        resource.insert("resource".into(), name.into());
        resource.insert("responseKind".into(), kind(entry));
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        resource.insert("scope".into(), scope.into());
        resource.insert("singularResource".into(), text(entry, "singularName").into());
        for field in ["verbs", "shortNames", "categories"] {
            if !items(entry, field).is_empty() {
                resource.insert(field.into(), entry[field].clone());
            }
        }
        let parts: Vec<Value> = all
            .iter()
            .filter_map(|part| {
                let (of, subresource) = text(part, "name").split_once('/')?;
                (of == name).then(|| {
                    json!({"subresource": subresource, "responseKind": kind(part), "verbs": part["verbs"]})
                })
            })
            .collect();
        if !parts.is_empty() {
            resource.insert("subresources".into(), parts.into());
        }
        resources.push(Value::Object(resource));
    }
    json!({"version": service.version, "resources": resources, "freshness": "Current"})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service::of(&json!({"metadata": {"name": "v1.g"}, "spec": {"group": "g", "version": "v1"}}))
    }

    #[test]
    fn both_forms_of_discovery_give_the_same_entry() {
        let plain = json!({"kind": "APIResourceList", "groupVersion": "g/v1", "resources": [
            {"name": "fish", "singularName": "fish", "namespaced": true, "kind": "Fish", "verbs": ["get"], "shortNames": ["f"]},
            {"name": "fish/status", "singularName": "", "namespaced": true, "kind": "Fish", "verbs": ["update"]}]});
        let entry = from_plain(&plain, &service());
        let resource = &entry["resources"][0];
        assert_eq!(
            (&resource["resource"], &resource["scope"], &resource["responseKind"]["group"]),
            (&json!("fish"), &json!("Namespaced"), &json!("g"))
        );
        assert_eq!(resource["subresources"][0]["subresource"], "status");
        let list = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": "g"}, "versions": [entry.clone()]}]});
        assert_eq!(version_of(&list, &service()), Some(entry));
        assert_eq!(version_of(&json!({"kind": "APIGroupList"}), &service()), None);
    }
}
