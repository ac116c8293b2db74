//! A container's log, streamed from the node's kubelet; as messages of a WebSocket if the client wants one.

use bytes::Bytes;
use coracle_api::field;
use coracle_api::meta::get;
use coracle_api::status::{ApiError, GroupKind};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, BodyStream, Empty, StreamBody};
use hyper::body::Incoming;
use serde_json::Value;

use super::{container, kubelet, socket};
use crate::server::app::App;
use crate::server::body::{self, Body, Response};
use crate::server::request_info::{Query, RequestInfo};

const OPTIONS: GroupKind<'_> = GroupKind { group: "", kind: "PodLogOptions" };
/// Options that are flags.
const FLAGS: &[&str] = &["follow", "previous", "timestamps"];
/// Options that are passed on as they are.
const TEXTS: &[&str] = &["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];

/// Answers with the log.
///
/// # Errors
/// 404, 400 for the container, 422 for options, and the kubelet's refusals.
pub async fn handle(app: &App, info: &RequestInfo, client: Request<Incoming>) -> Result<Response, ApiError> {
    let query = kubelet_query(&info.query, info.name())?;
    let pod = app.registry.read(info.resource, info.namespace(), info.name()).await?;
    let asked = info.query.get("container").unwrap_or_default();
    let container = container::choose(&pod, info.name(), asked)?;
    let node = get(&pod, &["spec", "nodeName"]).and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        // Nothing has run yet.
        return deliver(app, client, body::empty());
    }
    let location = kubelet::locate(&app.registry, node).await?;
    let mut uri = format!("/containerLogs/{}/{}/{container}", info.namespace(), info.name());
    if !query.is_empty() {
        uri.push('?');
        uri.push_str(&query);
    }
    let request = Request::get(uri).body(Empty::<Bytes>::new()).map_err(ApiError::internal)?;
    let response = kubelet::send(&app.options, &location, request).await?;
    if !response.status().is_success() {
        return Err(kubelet::refusal(response).await);
    }
    deliver(app, client, response.into_body().map_err(Into::into).boxed_unsync())
}

/// Gives the client its log. It ends with the server; a body that breaks off is passed on as one.
fn deliver(app: &App, client: Request<Incoming>, body: Body) -> Result<Response, ApiError> {
    let stop = app.draining.clone();
    if socket::is_wanted(client.headers()) {
        return socket::answer(client, body.into_data_stream(), stop);
    }
    let frames = futures::StreamExt::take_until(BodyStream::new(body), stop.cancelled_owned());
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The kubelet's query of the client's. Pure.
///
/// # Errors
/// 400 for a number that is none, 422 for options that cannot be.
fn kubelet_query(query: &Query, pod: &str) -> Result<String, ApiError> {
    let mut errors = Vec::new();
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { continue };
        let number: i64 = text.parse().map_err(|_| {
            let text = field::go_quote(text);
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text}: invalid syntax"))
        })?;
        if number < least && !(name == "sinceSeconds" && query.get("sinceTime").is_some()) {
            let detail =
                if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(field::invalid(name, number, detail));
        }
    }
    if query.get("sinceTime").is_some() && query.get("sinceSeconds").is_some() {
        errors.push(field::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(OPTIONS, pod, errors));
    }
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    for name in FLAGS.iter().filter(|name| query.flag(name)) {
        out.append_pair(name, "true");
    }
    for name in TEXTS {
        if let Some(value) = query.get(name) {
            out.append_pair(name, value);
        }
    }
    Ok(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_kubelet() {
        let query = Query::parse(Some(
            "follow=true&container=a&tailLines=5&sinceTime=2026-01-02T03:04:05Z&previous=false",
        ));
        assert_eq!(
            kubelet_query(&query, "p").expect("good"),
            "follow=true&sinceTime=2026-01-02T03%3A04%3A05Z&tailLines=5"
        );
        for (bad, text) in [
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", "at most one of `sinceTime` or `sinceSeconds`"),
        ] {
            let refusal = kubelet_query(&Query::parse(Some(bad)), "p").expect_err(bad);
            assert!(refusal.to_string().contains(text), "{bad}: {refusal}");
        }
    }
}
