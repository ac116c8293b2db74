//! One function a verb between HTTP and the registry: reads the body, calls the registry, shapes the answer. Knows no kinds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::decode;
use coracle_api::status::{self, ApiError};
use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::app::App;
use super::body::{self, Response};
use super::negotiate::{self, Accepted, BodyFormat, Offers};
use super::pipeline::{Target, has_table};
use super::request_info::{Query, RequestInfo, UserInfo, Verb};
use super::respond::{self, Form};
use crate::discovery;
use crate::flowcontrol;
use crate::openapi;
use crate::protobuf;
use crate::registry::Written;
use crate::registry::decode::{Body, Complaints, check_kind, check_schema, expected_kind};
use crate::registry::delete::{DeleteOptions, Deleted};
use crate::registry::frame::Framing;
use crate::registry::list::ListOptions;
use crate::registry::meta;
use crate::registry::patch::{Patch, PatchType};
use crate::registry::selection::Selection;
use crate::registry::update::Change;
use crate::strategy;
use crate::subresource;

/// Answers a request that has been allowed.
///
/// # Errors
/// What the client is told.
pub async fn handle(
    app: Arc<App>,
    target: Target,
    user: UserInfo,
    request: Request<Incoming>,
    query: Query,
) -> Result<Response, ApiError> {
    match target {
        Target::Resource(info) => resource(app, *info, request).await,
        Target::Path => path(&app, &request, &query).await,
        Target::Remote(service) => app.aggregator.forward(&app, &service, &user, request).await,
    }
}

/// Paths that are no resources.
async fn path(app: &App, request: &Request<Incoming>, query: &Query) -> Result<Response, ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let served = app.registry.cache.served();
        if let Some(answer) = discovery::handle(&app.options, &served, &app.aggregator, request) {
            return answer;
        }
        if let Some(answer) = openapi::handle(&app.openapi, &served, &app.aggregator, request, query).await {
            return answer;
        }
    }
    if let Some(answer) = component_base::admin::respond(request, &app.health, &app.metrics) {
        let (parts, body) = answer.into_parts();
        let body =
            http_body_util::BodyExt::boxed_unsync(http_body_util::BodyExt::map_err(
                body,
                |never| match never {},
            ));
        return Ok(Response::from_parts(parts, body));
    }
    if let Some(text) = flowcontrol::dump(&app.flow_control, request.uri().path()) {
        return Ok(body::plain(StatusCode::OK, text));
    }
    let keys = &app.authenticator.token_keys;
    match request.uri().path() {
        "/.well-known/openid-configuration" => {
            let uri = match (&app.options.service_account_jwks_uri, app.options.external_address()) {
                (Some(uri), _) => uri.clone(),
                (None, Some(address)) => format!("https://{address}/openid/v1/jwks"),
                (None, None) => format!("{}/openid/v1/jwks", keys.issuer()),
            };
            Ok(respond::value(StatusCode::OK, &keys.openid_configuration(&uri), &Form::PLAIN))
        }
        "/openid/v1/jwks" => {
            let mut response = respond::value(StatusCode::OK, &keys.jwks(), &Form::PLAIN);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            Ok(response)
        }
        _ => Err(ApiError::path_not_found()),
    }
}

fn form(app: &App, info: &RequestInfo, headers: &HeaderMap) -> Result<Form, ApiError> {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let (api_version, kind) = expected_kind(info);
    let offers = Offers {
        tables: has_table(app, info.resource) && info.subresource.is_none(),
        protobuf: protobuf::has_form(&api_version, kind),
        watch: info.verb == Verb::Watch,
    };
    let accepted = negotiate::accept(header, offers)?;
    Ok(Form::new(accepted, &info.query, body::accepts_gzip(headers), app.printer))
}

/// Subresources that are another view of the same object, which the generic store serves.
fn is_generic(info: &RequestInfo) -> bool {
    matches!(
        info.subresource(),
        None | Some("approval" | "status" | "finalize" | "ephemeralcontainers" | "resize")
    )
}

async fn resource(
    app: Arc<App>,
    info: RequestInfo,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let verb = info.verb.as_str();
    let verbs = info.subresource.map_or(info.resource.verbs, |subresource| subresource.verbs);
    if !verbs.contains(&verb) {
        // A route that is not there for built-in kinds; custom resources have one handler, which says more.
        return Err(match info.resource.custom {
            Some(_) => ApiError::method_not_supported(info.resource.group_resource(), verb),
            None => ApiError::method_not_allowed(),
        });
    }
    if !is_generic(&info) || !info.resource.is_stored() {
        let streams = matches!(info.subresource(), Some("log" | "exec" | "attach" | "portforward" | "proxy"));
        // What streams are in does not depend on `Accept`.
        let form = if streams { Form::PLAIN } else { form(&app, &info, request.headers())? };
        return subresource::handle(app, info, request, &form).await;
    }
    let form = form(&app, &info, request.headers())?;
    match info.verb {
        Verb::Get => get(&app, &info, &form).await,
        Verb::List => list(&app, &info, &form).await,
        Verb::Watch => watch(&app, info, &form).await,
        Verb::Create => create(&app, &info, request, &form).await,
        Verb::Update => update(&app, &info, request, &form).await,
        Verb::Patch => patch(&app, &info, request, &form).await,
        Verb::Delete => delete(&app, &info, request, &form).await,
        Verb::DeleteCollection => delete_collection(&app, &info, request, &form).await,
    }
}

async fn get(app: &App, info: &RequestInfo, form: &Form) -> Result<Response, ApiError> {
    let version = info.query.get("resourceVersion").unwrap_or_default();
    let json = app.registry.get(info.resource, info.namespace(), info.name(), version).await?;
    respond::object(StatusCode::OK, info.resource, json, form)
}

fn selection(info: &RequestInfo) -> Result<Selection, ApiError> {
    Selection::from_query(info.resource, info.namespace.as_deref(), info.name.as_deref(), &info.query)
}

async fn list(app: &App, info: &RequestInfo, form: &Form) -> Result<Response, ApiError> {
    let options = ListOptions::from_query(&info.query, false)?;
    let mut page = app.registry.list(info.resource, &selection(info)?, &options).await?;
    page.objects = app.registry.shown(info.resource, page.objects).await?;
    if form.accepted == Accepted::PLAIN && !form.pretty {
        return respond::list(info.resource, page, form);
    }
    // Every object may have to be encoded first, which must not keep others from being served.
    let (resource, form) = (info.resource, *form);
    tokio::task::spawn_blocking(move || respond::list(resource, page, &form))
        .await
        .map_err(ApiError::internal)?
}

async fn watch(app: &App, info: RequestInfo, form: &Form) -> Result<Response, ApiError> {
    let options = ListOptions::from_query(&info.query, true)?;
    let lifetime = match options.timeout_seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None => default_lifetime(app.options.min_request_timeout),
    };
    let frames = respond::frames(info.resource, form);
    let framing = frames.framing;
    let selection = selection(&info)?;
    let started =
        app.registry.watch(info.resource, selection, &options, frames, lifetime, app.draining.clone()).await;
    let watch = match started {
        Ok(watch) => watch,
        // As upstream: a version that is too old is told by an event, which makes clients list anew.
        Err(error) if error.code() == StatusCode::GONE => {
            return Ok(watch_response(framing, futures::stream::iter([framing.error(&error)])));
        }
        Err(error) => return Err(error),
    };
    let guard = app.requests.watcher(info.resource.group, info.resource.version, info.resource.plural);
    let lines = watch.into_stream().map(move |line| {
        // The guard lives in the stream.
        let _ = &guard;
        line
    });
    Ok(watch_response(framing, lines))
}

fn watch_response(framing: Framing, frames: impl futures::Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Response::new(body::streaming(frames));
    let content_type = match framing {
        Framing::Json => "application/json",
        Framing::Protobuf => negotiate::WATCH_MEDIA_TYPE,
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Between once and twice the minimum, so that watches begun together do not all come back together.
fn default_lifetime(min_seconds: u64) -> Duration {
    let mut random = [0_u8; 2];
    // Without random bytes all watches last the minimum.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    Duration::from_secs(min_seconds).mul_f64(1.0 + share)
}

/// The body as an object of the expected kind, unknown fields dealt with.
///
/// # Errors
/// 400, 413 and 415 for bodies that are no such object.
pub(crate) async fn body_object(info: &RequestInfo, request: Request<Incoming>) -> Result<Value, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = negotiate::body_format(content_type)?;
    let bytes = body::read(request.into_body()).await?;
    let (api_version, kind) = expected_kind(info);
    let (mut object, duplicates) = decode_bytes(&bytes, format, &api_version, kind)?;
    check_kind(&mut object, &api_version, kind)?;
    let body = match format {
        BodyFormat::Json => Body::Json(&bytes),
        BodyFormat::Yaml => Body::Yaml,
        BodyFormat::Protobuf => Body::Other,
    };
    check_schema(info, info.resource, &mut object, Complaints { duplicates: &duplicates, body })?;
    info.audit.request_object(&object);
    Ok(object)
}

/// The body and complaints about it. Protobuf that does not name its kind is of the expected one.
fn decode_bytes(
    bytes: &Bytes,
    format: BodyFormat,
    api_version: &str,
    kind: &str,
) -> Result<(Value, Vec<String>), ApiError> {
    let unrecognized = |error: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("the object provided is unrecognized (couldn't be decoded): {error}"))
    };
    let decoded = match format {
        BodyFormat::Json => decode::json(bytes),
        BodyFormat::Yaml => decode::yaml(bytes),
        BodyFormat::Protobuf => {
            let object = protobuf::decode(bytes, api_version, kind).map_err(|error| unrecognized(&error))?;
            return Ok((object, Vec::new()));
        }
    };
    let decoded = decoded.map_err(|error| unrecognized(&error))?;
    Ok((decoded.value, decoded.duplicates))
}

fn written(info: &RequestInfo, written: Written, form: &Form) -> Result<Response, ApiError> {
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    respond::object(status, info.resource, written.json, form)
}

async fn create(
    app: &App,
    info: &RequestInfo,
    request: Request<Incoming>,
    form: &Form,
) -> Result<Response, ApiError> {
    let object = body_object(info, request).await?;
    written(info, app.registry.create(info, object).await?, form)
}

async fn update(
    app: &App,
    info: &RequestInfo,
    request: Request<Incoming>,
    form: &Form,
) -> Result<Response, ApiError> {
    let object = body_object(info, request).await?;
    meta::check_named(&object, info.name())?;
    written(info, app.registry.update(info, Change::Replace(object)).await?, form)
}

async fn patch(
    app: &App,
    info: &RequestInfo,
    request: Request<Incoming>,
    form: &Form,
) -> Result<Response, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let patch_type = PatchType::of(negotiate::media_type(content_type), info.resource)?;
    let bytes = body::read(request.into_body()).await?;
    info.audit.request_patch(&bytes);
    let patch = Patch::decode(info, patch_type, &bytes)?;
    written(info, app.registry.update(info, Change::Patch(&patch)).await?, form)
}

async fn delete_options(info: &RequestInfo, request: Request<Incoming>) -> Result<DeleteOptions, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = negotiate::body_format(content_type);
    let bytes = body::read(request.into_body()).await?;
    let options = if bytes.iter().all(u8::is_ascii_whitespace) {
        DeleteOptions::decode(None, &info.query)?
    } else {
        let (options, _) = decode_bytes(&bytes, format?, "meta.k8s.io/v1", "DeleteOptions")?;
        info.audit.request_object(&options);
        DeleteOptions::decode(Some(&options), &info.query)?
    };
    if options.propagation.is_none()
        && let Some(warning) = strategy::for_resource(info.resource).deletion_warning()
    {
        info.warnings.add(warning.to_owned());
    }
    Ok(options)
}

async fn delete(
    app: &App,
    info: &RequestInfo,
    request: Request<Incoming>,
    form: &Form,
) -> Result<Response, ApiError> {
    let options = delete_options(info, request).await?;
    let gone = match app.registry.delete(info, &options).await? {
        Deleted::Pending(object) => return respond::object(StatusCode::OK, info.resource, object.json, form),
        Deleted::Gone(object) => object,
    };
    if strategy::for_resource(info.resource).returns_deleted_object() {
        return respond::object(StatusCode::OK, info.resource, gone.json, form);
    }
    let status = status::success(info.resource.group_resource(), info.name(), &gone.uid()?);
    Ok(respond::value(StatusCode::OK, &status, form))
}

async fn delete_collection(
    app: &App,
    info: &RequestInfo,
    request: Request<Incoming>,
    form: &Form,
) -> Result<Response, ApiError> {
    let options = delete_options(info, request).await?;
    let list = ListOptions::from_query(&info.query, false)?;
    let (deleted, revision) =
        app.registry.delete_collection(info, &selection(info)?, &list, &options).await?;
    let items = deleted.iter().map(Written::value).collect::<Result<Vec<_>, _>>()?;
    let list = json!({
        "kind": info.resource.list_kind(),
        "apiVersion": info.resource.api_version(),
        "metadata": {"resourceVersion": revision.to_string()},
        "items": items,
    });
    Ok(respond::value(StatusCode::OK, &list, form))
}
