//! The way through the server to the ports of pods, Services and nodes: what comes to `.../proxy/PATH` goes on to who is behind the name, with its method,
//! headers, query and body; what comes back is streamed. Only links that would leave the proxy are changed, see [`links`].

mod links;
mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_api::status::ApiError;
use futures::{StreamExt, stream as streams};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::links::Links;
use self::target::Target;
use super::kubelet;
use crate::extension::tls::Trust;
use crate::server::app::App;
use crate::server::body::{self, Body, BoxError, Response};
use crate::server::relay::{self, Upgrade};
use crate::server::request_info::RequestInfo;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// The largest page whose links are changed; a larger one passes as it is.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Passes the request on.
///
/// # Errors
/// 400 and 404 for the name, 503 when nobody answers there.
pub async fn handle(
    app: &App,
    info: &RequestInfo,
    mut request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let own_path = request.uri().path().to_owned();
    let path = onward_path(&info.rest, &own_path);
    let kind = info.subresource.map_or("", |part| part.kind);
    let mut options = json!({"kind": kind, "apiVersion": "v1", "path": path});
    app.registry.admit(info, &mut options).await?;
    let target = target::locate(&app.registry, info).await?;
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if path.is_empty() && reads && !request.headers().contains_key(UPGRADE) {
        // Links on the page that comes are relative to it.
        return moved(&format!("{own_path}/{query}"));
    }
    let prefix = own_path.strip_suffix(path.as_str()).unwrap_or(&own_path).to_owned();
    let asked_host = authority(&request);
    let upgrade = Upgrade::of(&mut request);
    let is_head = request.method() == Method::HEAD;
    let (mut head, incoming) = request.into_parts();
    let onward = if path.is_empty() { "/" } else { path.as_str() };
    head.uri = format!("{onward}{query}").parse().map_err(ApiError::internal)?;
    head.version = Version::HTTP_11;
    onward_headers(&mut head.headers, &own_path, &asked_host, upgrade.as_ref());
    let onward = Request::from_parts(head, incoming.map_err(Into::into).boxed_unsync());
    let mut answer = send(app, &target, onward).await?;
    if let Some(joined) = upgrade.and_then(|upgrade| upgrade.joined(&mut answer, app.draining.clone())) {
        return Ok(joined);
    }
    let (mut head, incoming) = relay::take_back(answer);
    // What another site may do here is for this server to say.
    let cross: Vec<HeaderName> = head.headers.keys().filter(|name| is_cross_origin(name)).cloned().collect();
    for name in cross {
        head.headers.remove(name);
    }
    let host = target.location().authority();
    let links = Links { prefix: prefix.trim_end_matches('/'), hosts: [&host, &asked_host] };
    if let Some(location) = head.headers.get(LOCATION).and_then(|location| location.to_str().ok())
        && let Ok(changed) = HeaderValue::from_str(&links.url(location))
    {
        head.headers.insert(LOCATION, changed);
        return Ok(Response::from_parts(head, pass(incoming)));
    }
    if is_head || !is_page(&head.headers) {
        return Ok(Response::from_parts(head, pass(incoming)));
    }
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, page(incoming, &links).await?))
}

/// What follows `proxy` in the path, with the slash that it begins with and the one that it may end with. Pure.
fn onward_path(rest: &str, own_path: &str) -> String {
    let ends = own_path.ends_with('/');
    match (rest.is_empty(), ends) {
        (true, false) => String::new(),
        (true, true) => "/".to_owned(),
        (false, _) => format!("/{rest}{}", if ends && !rest.ends_with('/') { "/" } else { "" }),
    }
}

fn moved(to: &str) -> Result<Response, ApiError> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(to).map_err(ApiError::internal)?);
    Ok(response)
}

/// The host that the client has asked.
fn authority(request: &Request<Incoming>) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| Some(request.uri().authority()?.as_str())).unwrap_or_default().to_owned()
}

fn onward_headers(headers: &mut HeaderMap, own_path: &str, host: &str, upgrade: Option<&Upgrade>) {
    relay::pass_on(headers, upgrade);
    // Who the client is was for this server alone. Pages have to come as text, so that their links can be changed.
    headers.remove(AUTHORIZATION);
    headers.remove(ACCEPT_ENCODING);
    for (name, value) in [(HOST, host), (FORWARDED_URI, own_path)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

fn is_cross_origin(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "access-control-allow-credentials"
            | "access-control-allow-headers"
            | "access-control-allow-methods"
            | "access-control-allow-origin"
    )
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim() == "text/html"
        && !headers.contains_key("content-encoding")
}

fn pass(incoming: Incoming) -> Body {
    incoming.map_err(Into::into).boxed_unsync()
}

/// The page with its links changed.
async fn page(incoming: Incoming, links: &Links<'_>) -> Result<Body, ApiError> {
    let mut frames = BodyStream::new(incoming);
    let mut text = BytesMut::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > PAGE_BYTES_MAX {
            let rest = frames.map(|frame| frame.map_err(BoxError::from));
            let begun = streams::iter([Ok::<_, BoxError>(Frame::data(text.freeze()))]);
            return Ok(StreamBody::new(begun.chain(rest)).boxed_unsync());
        }
    }
    Ok(body::full(Bytes::from(links.page(&text))))
}

fn unreachable(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::service_unavailable(format!("error trying to reach service: {error}"))
}

async fn send(
    app: &App,
    target: &Target,
    request: Request<Body>,
) -> Result<http::Response<Incoming>, ApiError> {
    let (at, tls) = match target {
        Target::Kubelet(location) => return kubelet::send(&app.options, location, request).await,
        Target::Port { at, tls } => (at, *tls),
    };
    let dial = format!("dial tcp {}", at.authority());
    let connect = TcpStream::connect((at.host.as_str(), at.port));
    let stream = match tokio::time::timeout(CONNECT_DEADLINE, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Err(unreachable(&format_args!("{dial}: connect: connection refused")));
        }
        Ok(Err(error)) => return Err(unreachable(&format_args!("{dial}: {error}"))),
        Err(_) => return Err(unreachable(&format_args!("{dial}: i/o timeout"))),
    };
    let _ = stream.set_nodelay(true);
    if !tls {
        return exchange(stream, request).await;
    }
    // As upstream: whom the address belongs to is not checked.
    let config = Trust::Anyone.client(None).map_err(ApiError::internal)?;
    let name = ServerName::try_from(at.host.clone()).map_err(ApiError::internal)?;
    let connect = TlsConnector::from(Arc::clone(&config)).connect(name, stream);
    match tokio::time::timeout(CONNECT_DEADLINE, connect).await {
        Ok(Ok(stream)) => exchange(stream, request).await,
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(unreachable(&"net/http: TLS handshake timeout")),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<http::Response<Incoming>, ApiError> {
    let mut sender = relay::speak(stream).await.map_err(|error| unreachable(&error))?;
    sender.send_request(request).await.map_err(|error| unreachable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_behind_the_proxy_keeps_its_slashes() {
        for (rest, own, expected) in [
            ("", "/api/v1/nodes/n/proxy", ""),
            ("", "/api/v1/nodes/n/proxy/", "/"),
            ("a/b", "/api/v1/nodes/n/proxy/a/b", "/a/b"),
            ("a/b", "/api/v1/nodes/n/proxy/a/b/", "/a/b/"),
        ] {
            assert_eq!(onward_path(rest, own), expected, "{own}");
        }
    }

    #[test]
    fn credentials_and_encodings_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("accept-encoding", "gzip"),
            ("connection", "upgrade"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        onward_headers(&mut headers, "/own", "server:6443", None);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host", "x-forwarded-uri"]);
        assert_eq!(headers[HOST], "server:6443");
    }
}
