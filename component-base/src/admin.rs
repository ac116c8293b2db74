//! The small HTTP server every component has for `/metrics`, `/healthz`, `/livez`, `/readyz` and `/version`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::health::{Endpoint, Health};
use crate::metrics::{self, SharedRegistry};
use crate::version;

/// Scrapers and probes are few; anything beyond this is turned away by the backlog.
const CONNECTIONS_MAX: usize = 128;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Answers one administrative request, or `None` when the path is not one of these endpoints. For servers that carry the
/// endpoints beside their own.
pub fn respond<B>(
    request: &Request<B>,
    health: &Health,
    registry: &SharedRegistry,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if let Some((endpoint, single)) = Endpoint::parse(path) {
        let report = health.report(endpoint, single, request.uri().query())?;
        let status = if report.healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        return Some(text(status, "text/plain; charset=utf-8", report.body));
    }
    match path {
        "/metrics" => {
            let body = metrics::encode(&registry.lock());
            Some(text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body))
        }
        "/version" => {
            let body = serde_json::to_string_pretty(&version::kubernetes_info()).unwrap_or_default();
            Some(text(StatusCode::OK, "application/json", body))
        }
        _ => None,
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// Serves until `shutdown` fires.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    health: Health,
    registry: SharedRegistry,
    shutdown: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let handle = move |stream| connection(stream, acceptor.clone(), health.clone(), Arc::clone(&registry));
    accept::serve(listener, CONNECTIONS_MAX, shutdown, handle).await;
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    health: Health,
    registry: SharedRegistry,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &health, &registry).unwrap_or_else(|| {
            text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".into())
        });
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_DEADLINE);
    builder.http2().timer(TokioTimer::new());
    let result = match acceptor {
        None => builder.serve_connection(TokioIo::new(stream), service).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => builder.serve_connection(TokioIo::new(stream), service).await,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake timed out"),
        },
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_answer_and_other_paths_are_left_to_the_caller() {
        let (health, registry) = (Health::new(), metrics::registry());
        health.add_live("broken", || Err("why".into()));
        let ask = |path: &str| respond(&Request::get(path).body(()).expect("request"), &health, &registry);
        assert_eq!(ask("/livez").expect("livez").status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(ask("/livez?exclude=broken").expect("livez").status(), StatusCode::OK);
        assert_eq!(ask("/metrics").expect("metrics").status(), StatusCode::OK);
        assert!(ask("/apis").is_none());
    }
}
