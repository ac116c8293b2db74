//! Serves the OpenAPI documents: made once, at the first request, kept compressed. What they say is `coracle_api::openapi`'s matter.

mod binary;

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use component_base::version::KUBERNETES;
use coracle_api::openapi;
use coracle_api::resource::Served;
use coracle_api::status::ApiError;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::aggregation::Aggregator;
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

/// The documents of what was served when they were asked for, made at the first request.
#[derive(Default)]
pub struct Documents(Mutex<Option<Arc<Made>>>);

struct Made {
    served: Arc<Served>,
    v2: OnceLock<Document>,
    v2_binary: OnceLock<Document>,
    /// By the path of their group and version.
    v3: OnceLock<Vec<(String, Arc<Document>)>>,
}

impl Documents {
    /// The documents of what is served now; older ones are dropped.
    fn of(&self, served: &Arc<Served>) -> Arc<Made> {
        let mut made = self.0.lock();
        match &*made {
            Some(made) if Arc::ptr_eq(&made.served, served) => Arc::clone(made),
            _ => Arc::clone(made.insert(Arc::new(Made {
                served: Arc::clone(served),
                v2: OnceLock::new(),
                v2_binary: OnceLock::new(),
                v3: OnceLock::new(),
            }))),
        }
    }
}

/// The documents of the groups without custom resources, which never change.
static BUILT_IN: OnceLock<Vec<(String, Arc<Document>)>> = OnceLock::new();

fn v3_of(served: &Served, wanted: impl Fn(&str) -> bool) -> Vec<(String, Arc<Document>)> {
    let mut documents = Vec::new();
    for (group, versions) in served.groups().into_iter().filter(|(group, _)| wanted(group)) {
        for version in versions {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let document = Document::of(&openapi::v3_document(served, group, version, KUBERNETES));
            documents.push((path, Arc::new(document)));
        }
    }
    documents
}

impl Made {
    fn v2(&self) -> &Document {
        self.v2.get_or_init(|| Document::of(&openapi::v2_document(&self.served, KUBERNETES)))
    }

    fn v2_binary(&self) -> &Document {
        let make = || binary::document(&openapi::v2_document(&self.served, KUBERNETES));
        self.v2_binary.get_or_init(|| Document::of_bytes(&make()))
    }

    fn v3(&self) -> &[(String, Arc<Document>)] {
        self.v3.get_or_init(|| {
            let mut documents = BUILT_IN.get_or_init(|| v3_of(&Served::default(), |_| true)).clone();
            let custom = |group: &str| self.served.custom().iter().any(|row| row.group == group);
            for (path, document) in v3_of(&self.served, custom) {
                documents.retain(|(other, _)| *other != path);
                documents.push((path, document));
            }
            let groups = self.served.groups();
            documents.retain(|(path, _)| {
                let (group, version) = path.rsplit_once('/').unwrap_or_default();
                let group = group.strip_prefix("apis/").unwrap_or_default();
                groups.iter().any(|(name, versions)| *name == group && versions.contains(&version))
            });
            documents
        })
    }
}

/// Answers `/openapi/v2` and `/openapi/v3/...`; `None` for every other path.
///
/// # Errors
/// 404 for a group or version that is not served, 406 for clients that take no JSON.
pub async fn handle<B>(
    documents: &Documents,
    served: &Arc<Served>,
    aggregator: &Aggregator,
    request: &Request<B>,
    query: &Query,
) -> Option<Result<Response, ApiError>> {
    let path = request.uri().path().strip_prefix("/openapi/")?.trim_end_matches('/').to_owned();
    let headers = request.headers();
    let made = documents.of(served);
    if path == "v2" && !takes_json(headers) && accepts(headers, V2_BINARY_TYPE) {
        // The first request makes the document, which takes a moment.
        let binary = Arc::clone(&made);
        let ready = tokio::task::spawn_blocking(move || binary.v2_binary().hash.is_empty()).await;
        return Some(match ready {
            Ok(_) => {
                let mut response = document(made.v2_binary(), headers);
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
    let making = Arc::clone(&made);
    let ready =
        tokio::task::spawn_blocking(
            move || {
                if all { making.v3().is_empty() } else { making.v2().hash.is_empty() }
            },
        );
    if ready.await.is_err() {
        return Some(Err(ApiError::internal("the OpenAPI documents could not be made")));
    }
    let answer = match path.as_str() {
        "v2" => document(made.v2(), headers),
        "v3" => document(&index(&made, aggregator.schemas()), headers),
        _ => {
            let wanted = path.strip_prefix("v3/").unwrap_or_default();
            let Some((_, found)) = made.v3().iter().find(|(path, _)| path == wanted) else {
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

/// The index of all documents; `foreign` are those of other servers, which answer for them themselves.
fn index(made: &Made, foreign: Vec<(String, Value)>) -> Document {
    let mut paths: Map<String, Value> = made
        .v3()
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    paths.extend(foreign);
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
