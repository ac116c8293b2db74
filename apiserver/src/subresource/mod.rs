//! What is neither a stored object nor another view of one: actions on objects (bind, evict, scale, tokens), reviews that are answered and forgotten,
//! and streams to kubelets.

pub mod access_review;
pub mod binding;
pub mod component_status;
pub mod conditions;
pub mod container;
pub mod eviction;
pub mod identity_review;
pub mod kubelet;
pub mod log;
mod proxy;
pub mod scale;
mod socket;
pub mod stream;
pub mod token;

use std::sync::Arc;

use coracle_api::resource::{Resource, lookup};
use coracle_api::status::ApiError;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::server::app::App;
use crate::server::body::Response;
use crate::server::handlers::body_object;
use crate::server::request_info::{RequestInfo, Verb};
use crate::server::respond::{self, Form};

/// Answers a request for a virtual resource or a subresource that the generic store does not serve.
///
/// # Errors
/// What the client is told; 501 for what is known and not served.
pub async fn handle(
    app: Arc<App>,
    info: RequestInfo,
    request: Request<Incoming>,
    form: &Form,
) -> Result<Response, ApiError> {
    let created = |mut value: Value| {
        if !value["metadata"].is_object() {
            value["metadata"] = json!({});
        }
        Ok(respond::value(StatusCode::CREATED, &value, form))
    };
    match (info.resource.plural, info.subresource()) {
        ("pods", Some("log")) => log::handle(&app, &info, request).await,
        (_, Some("proxy")) => proxy::handle(&app, &info, request).await,
        ("pods", Some("exec" | "attach" | "portforward")) => stream::handle(&app, &info, request).await,
        ("pods", Some("binding")) | ("bindings", None) => {
            let body = admitted(&app, &info, request).await?;
            created(binding::bind(&app.registry, &info, body).await?)
        }
        ("pods", Some("eviction")) => {
            let body = admitted(&app, &info, request).await?;
            created(eviction::evict(&app.registry, &info, &body).await?)
        }
        ("serviceaccounts", Some("token")) => {
            let body = body_object(&info, request).await?;
            created(token::issue(&app, &info, body).await?)
        }
        (_, Some("scale")) => {
            let scale = match info.verb {
                Verb::Get => scale::read(&app.registry, &info).await?,
                Verb::Update => {
                    let body = body_object(&info, request).await?;
                    scale::replace(&app.registry, &info, body).await?
                }
                _ => scale::patch(&app.registry, &info, request).await?,
            };
            Ok(respond::value(StatusCode::OK, &scale, form))
        }
        ("componentstatuses", None) => component_status::handle(&app, &info, form).await,
        ("tokenreviews", None) => {
            let body = admitted(&app, &info, request).await?;
            created(identity_review::token_review(&app, body).await?)
        }
        ("selfsubjectreviews", None) => {
            created(identity_review::self_review(&info.user, admitted(&app, &info, request).await?))
        }
        ("subjectaccessreviews" | "selfsubjectaccessreviews" | "localsubjectaccessreviews", None) => {
            let body = admitted(&app, &info, request).await?;
            created(access_review::review(&app.authorizer, &info, body).await?)
        }
        ("selfsubjectrulesreviews", None) => {
            let body = admitted(&app, &info, request).await?;
            created(access_review::rules(&app.authorizer, &info.user, body)?)
        }
        (plural, subresource) => Err(ApiError::not_implemented(format!(
            "{plural} {} is not implemented by Coracle yet",
            subresource.unwrap_or_default()
        ))),
    }
}

/// The body, as admission lets it pass.
async fn admitted(app: &App, info: &RequestInfo, request: Request<Incoming>) -> Result<Value, ApiError> {
    let mut body = body_object(info, request).await?;
    app.registry.admit(info, &mut body).await?;
    Ok(body)
}

/// A resource of the core group that other subresources need.
fn core(plural: &str) -> Result<&'static Resource, ApiError> {
    lookup("", "v1", plural).ok_or_else(|| ApiError::internal(format!("{plural} are not served")))
}

/// What an action that made nothing new answers.
fn done() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
