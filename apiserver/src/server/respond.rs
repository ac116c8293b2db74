//! Turns objects, lists and errors into answers in the form that was settled on.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, Items, ListBody, Response};
use super::negotiate::{Accepted, Format, Shape};
use super::request_info::Query;
use crate::cache::object::CachedObject;
use crate::protobuf;
use crate::registry::frame::{Frames, Framing, Transform};
use crate::registry::list::Page;
use crate::registry::served_json;
use crate::strategy;

/// What a table shows of each object beside its cells (query parameter `includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// How a table is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// What rows carry.
    pub include: IncludeObject,
    /// `v1` or `v1beta1` of meta.k8s.io.
    pub version: &'static str,
}

/// Makes a `Table` of objects of a resource, without list metadata.
pub type TablePrinter = fn(&'static Resource, &[Value], TableOptions) -> Value;

/// Everything that shapes an answer.
#[derive(Clone, Copy)]
pub struct Form {
    /// What was settled on.
    pub accepted: Accepted,
    /// Indent JSON.
    pub pretty: bool,
    /// The client takes gzip.
    pub gzip: bool,
    /// How tables are made.
    pub table: TableOptions,
    /// Who makes tables.
    pub printer: Option<TablePrinter>,
}

impl Form {
    /// From what was accepted and the query.
    pub fn new(accepted: Accepted, query: &Query, gzip: bool, printer: Option<TablePrinter>) -> Self {
        let version = if let Shape::Table(version) = accepted.shape { version } else { "v1" };
        let include = match query.get("includeObject") {
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        };
        Self {
            accepted,
            pretty: query.flag("pretty"),
            gzip,
            table: TableOptions { include, version },
            printer,
        }
    }

    /// JSON as it is.
    pub const PLAIN: Self = Self {
        accepted: Accepted::PLAIN,
        pretty: false,
        gzip: false,
        table: TableOptions { include: IncludeObject::Metadata, version: "v1" },
        printer: None,
    };
}

fn parse(json: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(json).map_err(ApiError::internal)
}

/// An answer with these bytes.
pub fn bytes(status: StatusCode, content_type: &'static str, bytes: Bytes, gzip: bool) -> Response {
    let (body, compressed) = body::maybe_compressed(bytes, gzip);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if compressed {
        mark_compressed(&mut response);
    }
    response
}

fn mark_compressed(response: &mut Response) {
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// An answer with this value.
pub fn value(status: StatusCode, value: &Value, form: &Form) -> Response {
    match encoded(value, form) {
        Ok(encoded) => bytes(status, form.accepted.format.media_type(), Bytes::from(encoded), form.gzip),
        Err(failed) => error(&failed, form),
    }
}

fn encoded(value: &Value, form: &Form) -> Result<Vec<u8>, ApiError> {
    match form.accepted.format {
        Format::Yaml => serde_yaml_ng::to_string(value).map(String::into_bytes).map_err(ApiError::internal),
        Format::Protobuf => {
            protobuf::encode(value).map(|encoded| encoded.envelope).map_err(ApiError::internal)
        }
        Format::Json if form.pretty => serde_json::to_vec_pretty(value).map_err(ApiError::internal),
        Format::Json => {
            let mut json = serde_json::to_vec(value).map_err(ApiError::internal)?;
            json.push(b'\n');
            Ok(json)
        }
    }
}

/// An error, as a `Status` but for paths that lead nowhere. Who gets nothing of what it accepts is told so in JSON.
pub fn error(error: &ApiError, form: &Form) -> Response {
    if error.is_path_not_found() {
        let mut response = body::plain(StatusCode::NOT_FOUND, "404 page not found\n");
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        return response;
    }
    let form = if error.code() == StatusCode::NOT_ACCEPTABLE { &Form::PLAIN } else { form };
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(status, &error.to_status(), form);
    if let Some(seconds) = error.retry_after_seconds().filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// One object.
///
/// # Errors
/// The object cannot be turned into what was asked for.
pub fn object(
    status: StatusCode,
    resource: &'static Resource,
    json: Bytes,
    form: &Form,
) -> Result<Response, ApiError> {
    match (form.accepted.shape, form.printer) {
        (Shape::Table(_), Some(printer)) => {
            let object = parse(&json)?;
            let version = object["metadata"]["resourceVersion"].clone();
            let mut table = printer(resource, &[object], form.table);
            table["metadata"] = json!({"resourceVersion": version});
            Ok(value(status, &table, form))
        }
        (Shape::Metadata(version), _) => Ok(value(status, &metadata_only(&json, version)?, form)),
        _ if form.accepted.format == Format::Json && !form.pretty => {
            Ok(bytes(status, "application/json", json, form.gzip))
        }
        _ => Ok(value(status, &parse(&json)?, form)),
    }
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A page of a list.
///
/// # Errors
/// An object cannot be turned into what was asked for.
pub fn list(resource: &'static Resource, page: Page, form: &Form) -> Result<Response, ApiError> {
    let strategy = strategy::for_resource(resource);
    let metadata = list_metadata(&page);
    let parsed = || -> Result<Vec<Value>, ApiError> {
        page.objects.iter().map(|object| parse(&served_json(strategy, object)?)).collect()
    };
    match (form.accepted.shape, form.printer) {
        (Shape::Table(_), Some(printer)) => {
            let mut table = printer(resource, &parsed()?, form.table);
            table["metadata"] = metadata;
            return Ok(value(StatusCode::OK, &table, form));
        }
        (Shape::Metadata(version), _) => {
            let items = page
                .objects
                .iter()
                .map(|object| metadata_only(object.json_bytes(), version))
                .collect::<Result<Vec<_>, _>>()?;
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
                "items": items,
            });
            return Ok(value(StatusCode::OK, &list, form));
        }
        _ => {}
    }
    let (kind, api_version) = (resource.list_kind(), resource.api_version());
    let format = form.accepted.format;
    if format == Format::Yaml || form.pretty || strategy.stored_as().is_some() {
        let list = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": parsed()?});
        return Ok(value(StatusCode::OK, &list, form));
    }
    let list = if format == Format::Protobuf {
        protobuf_list(&kind, &api_version, &metadata, page.objects)?
    } else {
        let head =
            format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
        let tail = Bytes::from_static(b"]}\n");
        ListBody { head: head.into(), objects: page.objects, items: Items::Json, tail }
    };
    let (body, length) = list.into_body(form.gzip);
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    match length {
        Some(length) => {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => mark_compressed(&mut response),
    }
    Ok(response)
}

/// Encodes every object that is not encoded yet: a list says its length before its items.
fn protobuf_list(
    kind: &str,
    api_version: &str,
    metadata: &Value,
    objects: Vec<Arc<CachedObject>>,
) -> Result<ListBody, ApiError> {
    let mut length = 0;
    for object in &objects {
        length += protobuf::item_length(object.message().map_err(ApiError::internal)?.len());
    }
    let head = protobuf::list_opening(api_version, kind, metadata, length).map_err(ApiError::internal)?;
    Ok(ListBody { head, objects, items: Items::Protobuf, tail: Bytes::from_static(protobuf::ENVELOPE_END) })
}

/// What a watch makes of each event.
pub fn frames(resource: &'static Resource, form: &Form) -> Frames {
    let strategy = strategy::for_resource(resource);
    let framing = if form.accepted.format == Format::Protobuf { Framing::Protobuf } else { Framing::Json };
    let transform: Option<Transform> = match (form.accepted.shape, form.printer) {
        (Shape::Table(_), Some(printer)) => {
            let options = form.table;
            Some(Arc::new(move |object: &CachedObject| {
                let object = parse(&served_json(strategy, object)?)?;
                let version = object["metadata"]["resourceVersion"].clone();
                let mut table = printer(resource, &[object], options);
                table["metadata"] = json!({"resourceVersion": version});
                Ok(table)
            }))
        }
        (Shape::Metadata(version), _) => {
            Some(Arc::new(move |object: &CachedObject| metadata_only(object.json_bytes(), version)))
        }
        _ => None,
    };
    Frames { framing, transform }
}

/// An object cut down to its metadata.
fn metadata_only(json: &[u8], version: &str) -> Result<Value, ApiError> {
    #[derive(Deserialize)]
    struct Envelope {
        metadata: Value,
    }
    let Envelope { metadata } = serde_json::from_slice(json).map_err(ApiError::internal)?;
    Ok(json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
    }))
}

/// The value of a `Warning` header.
pub fn warning_header(text: &str) -> Option<HeaderValue> {
    let mut quoted = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    HeaderValue::from_str(&format!("299 - \"{quoted}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        let header = warning_header("unknown field \"spec.foo\"").expect("header");
        assert_eq!(header, "299 - \"unknown field \\\"spec.foo\\\"\"");
    }

    #[test]
    fn metadata_only_keeps_nothing_else() {
        let kept = metadata_only(br#"{"kind":"Pod","metadata":{"name":"a"},"spec":{}}"#, "v1").expect("JSON");
        assert_eq!(
            kept,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}})
        );
    }
}
