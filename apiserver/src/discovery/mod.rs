//! Discovery: which groups, versions and resources there are, in the old form (one document a group and version) and the aggregated one. All of it
//! follows from the resource table and from what other API servers say they have; nothing here looks at objects.

mod aggregated;
mod groups;

use bytes::Bytes;
use coracle_api::resource::Served;
use coracle_api::status::ApiError;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use sha2::{Digest, Sha256};

use crate::aggregation::Aggregator;
use crate::options::Options;
use crate::server::body::{self, Response};
use crate::server::negotiate::{self, Offers};
use crate::server::respond::{self, Form};

/// Answers `/`, `/api`, `/apis` and what lies directly below them; `None` for every other path.
///
/// # Errors
/// 404 for a group or version that is not served, 406 when nothing the client accepts is.
pub fn handle<B>(
    options: &Options,
    served: &Served,
    aggregator: &Aggregator,
    request: &Request<B>,
) -> Option<Result<Response, ApiError>> {
    let path = request.uri().path();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        [""] | ["index.html"] => Some(groups::root_paths(&aggregator.groups())),
        ["api"] | ["apis"] => {
            let core = parts == ["api"];
            if let Some(version) = aggregated::wanted(accept_header(request.headers())) {
                return Some(Ok(aggregated_response(served, aggregator, request.headers(), core, version)));
            }
            let address = server_address(options, request);
            Some(if core {
                groups::core_versions(&address)
            } else {
                groups::group_list(&aggregator.groups())
            })
        }
        ["api", version] => groups::resource_list(served, "", version),
        ["apis", group] => groups::group(&aggregator.groups(), group),
        ["apis", group, version] => groups::resource_list(served, group, version),
        _ => return None,
    };
    Some(document.ok_or_else(ApiError::path_not_found).and_then(|document| {
        let accepted = negotiate::accept(accept_header(request.headers()), Offers::default())?;
        let mut response = respond::value(StatusCode::OK, &document, &Form { accepted, ..Form::PLAIN });
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }))
}

fn accept_header(headers: &HeaderMap) -> Option<&str> {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok())
}

/// Where clients outside the cluster find this server.
fn server_address<B>(options: &Options, request: &Request<B>) -> String {
    match options.external_address() {
        Some(address) => address,
        None => request
            .uri()
            .authority()
            .map(ToString::to_string)
            .or_else(|| request.headers().get(http::header::HOST)?.to_str().ok().map(str::to_owned))
            .unwrap_or_default(),
    }
}

fn aggregated_response(
    served: &Served,
    aggregator: &Aggregator,
    headers: &HeaderMap,
    core: bool,
    version: aggregated::Version,
) -> Response {
    let foreign = |group: &str, version: &str| aggregator.discovered(group, version);
    let document = aggregated::document(served, &aggregator.groups(), &foreign, core, version);
    let bytes = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let tag = entity_tag(&bytes);
    let mut response = if matches_tag(headers, &tag) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::bytes(StatusCode::OK, "application/json", bytes, body::accepts_gzip(headers))
    };
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(version.content_type()));
    out.append(VARY, HeaderValue::from_static("Accept"));
    out.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(ETAG, tag);
    }
    response
}

/// A document's hash in hexadecimal, upper case.
pub(crate) fn content_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The `ETag` of a document.
pub(crate) fn entity_tag(bytes: &[u8]) -> String {
    format!("\"{}\"", content_hash(bytes))
}

/// Whether the client has this version of the document already.
pub(crate) fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == tag || known.trim() == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_match_in_lists() {
        let mut headers = HeaderMap::new();
        let tag = entity_tag(b"x");
        assert!(!matches_tag(&headers, &tag));
        headers.insert(IF_NONE_MATCH, format!("\"a\", {tag}").parse().expect("header"));
        assert!(matches_tag(&headers, &tag) && !matches_tag(&headers, "\"b\""));
    }
}
