//! ComponentStatus: whether the components beside this server are well, asked when somebody wants to know. Nothing is stored.

use std::time::Duration;

use bytes::Bytes;
use coracle_api::status::ApiError;
use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use crate::extension::Endpoint;
use crate::extension::client::Clients;
use crate::extension::tls::Trust;
use crate::registry::selection::Selection;
use crate::server::app::App;
use crate::server::body::Response;
use crate::server::negotiate::Shape;
use crate::server::request_info::RequestInfo;
use crate::server::respond::{self, Form};

const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";
/// The components at this server's own host, at the ports that they have by default: as upstream, nobody says where else they could be.
const COMPONENTS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];
const STORE: &str = "etcd-0";
/// How long a component may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a component answered, or why there is no answer.
struct Health {
    is_well: bool,
    message: String,
    error: String,
}

/// Reads one, or lists those that are selected.
///
/// # Errors
/// There is no such component; selectors that cannot be understood.
pub async fn handle(app: &App, info: &RequestInfo, form: &Form) -> Result<Response, ApiError> {
    info.warnings.add(DEPRECATED);
    let names = COMPONENTS.iter().map(|(name, _)| *name).chain([STORE]);
    if let Some(wanted) = info.name.as_deref() {
        let missing = || ApiError::new(500, "", format!("Component not found: {wanted}"));
        let name = names.into_iter().find(|name| *name == wanted).ok_or_else(missing)?;
        let object = status(name, &health(app, name).await);
        let json = serde_json::to_vec(&object).map_err(ApiError::internal)?;
        return respond::object(StatusCode::OK, info.resource, Bytes::from(json), form);
    }
    let selection = Selection::from_query(info.resource, None, None, &info.query)?;
    let wanted = names.filter(|name| selection.matches_bare(name));
    let objects = join_all(wanted.map(async |name| status(name, &health(app, name).await))).await;
    Ok(respond::value(StatusCode::OK, &list(info, objects, form), form))
}

/// A list in the shape that was asked for. Nothing of it has a version.
fn list(info: &RequestInfo, objects: Vec<Value>, form: &Form) -> Value {
    let (kind, api_version, items) = match (form.accepted.shape, form.printer) {
        (Shape::Table(_), Some(printer)) => {
            let mut table = printer(info.resource, &objects, form.table);
            table["metadata"] = json!({});
            return table;
        }
        (Shape::Metadata(version), _) => {
            let api_version = format!("meta.k8s.io/{version}");
            let bare = |object: &Value| json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": object["metadata"]});
            let items = objects.iter().map(bare).collect();
            ("PartialObjectMetadataList".to_owned(), api_version.clone(), items)
        }
        _ => (info.resource.list_kind(), info.resource.api_version(), objects),
    };
    json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items})
}

/// The object that says so. Pure.
fn status(name: &str, health: &Health) -> Value {
    let mut condition = json!({"type": "Healthy", "status": if health.is_well { "True" } else { "False" }});
    for (field, text) in [("message", &health.message), ("error", &health.error)] {
        if !text.is_empty() {
            condition[field] = text.as_str().into();
        }
    }
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

async fn health(app: &App, name: &str) -> Health {
    let port = COMPONENTS.iter().find(|(component, _)| *component == name).map(|(_, port)| *port);
    match port {
        Some(port) => match ask(app, port).await {
            Ok(message) => Health { is_well: true, message, error: String::new() },
            Err(message) => Health { is_well: false, message, error: String::new() },
        },
        None => match tokio::time::timeout(PATIENCE, app.registry.storage.current_revision()).await {
            Ok(Ok(_)) => Health { is_well: true, message: "ok".to_owned(), error: String::new() },
            Ok(Err(error)) => Health { is_well: false, message: String::new(), error: error.to_string() },
            Err(_) => {
                let error = "context deadline exceeded".to_owned();
                Health { is_well: false, message: String::new(), error }
            }
        },
    }
}

/// What the component answers. Its certificate is its own affair: it shows nothing that is kept from anyone.
async fn ask(app: &App, port: u16) -> Result<String, String> {
    let endpoint = Endpoint::of_url(&format!("https://127.0.0.1:{port}/healthz"), Trust::Anyone)?;
    let answer = Clients::new(std::sync::Arc::clone(&app.registry), None).get(&endpoint, PATIENCE).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_says_what_was_answered_or_why_nothing_was() {
        let health = |is_well, message: &str, error: &str| Health {
            is_well,
            message: message.to_owned(),
            error: error.to_owned(),
        };
        let conditions = |health: Health| status("scheduler", &health)["conditions"].clone();
        assert_eq!(
            conditions(health(true, "ok", "")),
            json!([{"type": "Healthy", "status": "True", "message": "ok"}])
        );
        assert_eq!(
            conditions(health(false, "", "no store")),
            json!([{"type": "Healthy", "status": "False", "error": "no store"}])
        );
    }
}
