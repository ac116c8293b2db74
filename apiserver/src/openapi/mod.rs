//! Serves the OpenAPI documents: made once, at the first request, kept compressed. What they say is `coracle_api::openapi`'s matter.

mod binary;

use std::io::{Read, Write};
use std::sync::OnceLock;

use bytes::Bytes;
use component_base::version::KUBERNETES;
use coracle_api::status::ApiError;
use coracle_api::{openapi, resource};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use serde_json::{Map, Value, json};

use crate::discovery::{content_hash, matches_tag};
use crate::server::body::{self, Response};
use crate::server::request_info::Query;

/// One document, ready to be sent.
struct Document {
    /// Of the uncompressed bytes.
    hash: String,
    compressed: Bytes,
}

impl Document {
    fn of(value: &Value) -> Self {
        Self::of_bytes(&serde_json::to_vec(value).unwrap_or_default())
    }

    fn of_bytes(plain: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory cannot fail.
        let _ = encoder.write_all(plain);
        Self { hash: content_hash(plain), compressed: encoder.finish().unwrap_or_default().into() }
    }

    fn plain(&self) -> Bytes {
        let mut plain = Vec::new();
        // What was compressed here unpacks.
        let _ = GzDecoder::new(&*self.compressed).read_to_end(&mut plain);
        plain.into()
    }
}

static V2: OnceLock<Document> = OnceLock::new();
static V2_BINARY: OnceLock<Document> = OnceLock::new();
static V3: OnceLock<Vec<(String, Document)>> = OnceLock::new();

fn v2() -> &'static Document {
    V2.get_or_init(|| Document::of(&openapi::v2_document(KUBERNETES)))
}

fn v2_binary() -> &'static Document {
    V2_BINARY.get_or_init(|| Document::of_bytes(&binary::document(&openapi::v2_document(KUBERNETES))))
}

/// The v3 documents by the path of their group and version.
fn v3() -> &'static [(String, Document)] {
    V3.get_or_init(|| {
        resource::groups()
            .into_iter()
            .map(|(group, version)| {
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                (path, Document::of(&openapi::v3_document(group, version, KUBERNETES)))
            })
            .collect()
    })
}

/// Answers `/openapi/v2` and `/openapi/v3/...`; `None` for every other path.
///
/// # Errors
/// 404 for a group or version that is not served, 406 for clients that take no JSON.
pub async fn handle<B>(request: &Request<B>, query: &Query) -> Option<Result<Response, ApiError>> {
    let path = request.uri().path().strip_prefix("/openapi/")?.trim_end_matches('/').to_owned();
    let headers = request.headers();
    if path == "v2" && !takes_json(headers) && accepts(headers, V2_BINARY_TYPE) {
        // The first request makes the document, which takes a moment.
        return Some(match tokio::task::spawn_blocking(v2_binary).await {
            Ok(made) => {
                let mut response = document(made, headers);
                let content_type = HeaderValue::from_static(V2_BINARY_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                Ok(response)
            }
            Err(_) => Err(ApiError::internal("the OpenAPI document could not be made")),
        });
    }
    if !takes_json(headers) {
        return Some(Err(ApiError::not_acceptable(&["application/json"])));
    }
    // The first request makes the documents, which takes a moment.
    let all = path != "v2";
    let made = tokio::task::spawn_blocking(move || if all { v3().is_empty() } else { v2().hash.is_empty() });
    if made.await.is_err() {
        return Some(Err(ApiError::internal("the OpenAPI documents could not be made")));
    }
    let answer = match path.as_str() {
        "v2" => document(v2(), headers),
        "v3" => document(&index(), headers),
        _ => {
            let wanted = path.strip_prefix("v3/").unwrap_or_default();
            let Some((_, found)) = v3().iter().find(|(path, _)| path == wanted) else {
                return Some(Err(ApiError::path_not_found()));
            };
            match query.get("hash") {
                Some(hash) if hash == found.hash => {
                    let mut response = document(found, headers);
                    let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
                    response.headers_mut().insert(CACHE_CONTROL, forever);
                    response
                }
                Some(_) => moved(wanted, found),
                None => document(found, headers),
            }
        }
    };
    Some(Ok(answer))
}

fn index() -> Document {
    let paths: Map<String, Value> = v3()
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    Document::of(&json!({"paths": paths}))
}

const V2_BINARY_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Whether a media type is named; an `@` in it counts as a dot, as older clients write it.
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header
        .split(',')
        .any(|clause| clause.split(';').next().unwrap_or_default().trim().replace('@', ".") == wanted)
}

fn takes_json(headers: &HeaderMap) -> bool {
    let Some(header) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return true };
    header.split(',').any(|clause| {
        let media_type = clause.split(';').next().unwrap_or_default().trim();
        matches!(media_type, "" | "*/*" | "application/*" | "application/json")
    })
}

fn document(document: &Document, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", document.hash);
    let gzip = body::accepts_gzip(headers);
    let mut response = if matches_tag(headers, &tag) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let bytes = if gzip { document.compressed.clone() } else { document.plain() };
        let mut response = Response::new(body::full(bytes));
        if gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    out.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(ETAG, tag);
    }
    response
}

/// The document has changed since the client read the index.
fn moved(path: &str, document: &Document) -> Response {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={}", document.hash)) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_as_they_were_and_only_for_json() {
        let kept = Document::of(&json!({"a": 1}));
        assert_eq!(kept.plain(), Bytes::from_static(b"{\"a\":1}"));
        let mut headers = HeaderMap::new();
        assert!(takes_json(&headers));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
        );
        assert!(!takes_json(&headers));
    }
}
