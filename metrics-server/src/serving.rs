//! The HTTPS port: connections, who is at their other end, and paths to answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use component_base::health::Health;
use component_base::metrics::SharedRegistry;
use component_base::tls_protocols::TlsProtocols;
use component_base::{accept, admin};
use coracle_api::status::ApiError;
use coracle_client::config::host_name;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::PROGRAM;
use crate::access::{Access, Trust};
use crate::answers::{Answers, Selection, Target};
use crate::documents;
use crate::options::Options;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECTIONS_MAX: usize = 256;
const ALPN: &[u8] = b"http/1.1";
const AGGREGATED: &str = "as=APIGroupDiscoveryList";

/// The bound port with what is served on it.
pub struct Serving {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    access: Access,
    answers: Answers,
    health: Health,
    registry: SharedRegistry,
    protocols: TlsProtocols,
    certificate: Arc<dyn ResolvesServerCert>,
}

/// Binds the port.
///
/// # Errors
/// Files that do not load; an address in use, with the flag to change.
pub async fn bind(
    options: &Options,
    access: Access,
    answers: Answers,
    health: Health,
    registry: SharedRegistry,
) -> anyhow::Result<Serving> {
    let port = options.serving.port(PROGRAM, host_name(), options.secure_port)?;
    let (certificate, protocols) = (port.certificate()?, port.protocols().clone());
    let listener = port.listen().await?;
    let shared = Shared { access, answers, health, registry, protocols, certificate };
    Ok(Serving { listener, shared: Arc::new(shared) })
}

impl Serving {
    /// Serves until `stop` fires.
    pub async fn run(self, stop: CancellationToken) {
        let handle = move |stream| connection(stream, Arc::clone(&self.shared));
        accept::serve(self.listener, CONNECTIONS_MAX, stop, handle).await;
    }
}

impl Shared {
    /// For a new connection: whom to trust may have changed since the last one.
    fn acceptor(&self, trust: &Trust) -> Result<TlsAcceptor, rustls::Error> {
        let builder = self.protocols.builder()?;
        let builder = if trust.roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder(Arc::clone(&trust.roots)).allow_unauthenticated();
            let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config: ServerConfig = builder.with_cert_resolver(Arc::clone(&self.certificate));
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let acceptor = match shared.acceptor(&shared.access.trust()) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::warn!(%error, "cannot set up TLS for a connection");
            return;
        }
    };
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Arc<[CertificateDer<'static>]> =
        chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, chain) = (Arc::clone(&shared), Arc::clone(&chain));
        async move { Ok::<_, Infallible>(answer(&shared, &chain, &request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    shared: &Shared,
    chain: &[CertificateDer<'static>],
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let target = Target::of(path);
    let verb = verb(request.method(), target.as_ref(), query.watches);
    if let Err(error) = shared.access.check(chain, request.headers(), verb, path, target.as_ref()).await {
        return refusal(&error);
    }
    if let Some(target) = target {
        return match metrics(shared, &target, verb, &query) {
            Ok(object) => document(StatusCode::OK, &object),
            Err(error) => refusal(&error),
        };
    }
    if let Some(response) = admin::respond(request, &shared.health, &shared.registry) {
        return response;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refusal(&ApiError::method_not_allowed());
    }
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let aggregated = accept.contains(AGGREGATED);
    match path.trim_end_matches('/') {
        "/apis" => {
            let mut response = document(StatusCode::OK, &documents::groups(aggregated));
            if aggregated {
                let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            response
        }
        "/apis/metrics.k8s.io" => document(StatusCode::OK, &documents::group()),
        "/apis/metrics.k8s.io/v1beta1" => document(StatusCode::OK, &documents::resources()),
        "/openapi/v3" => document(StatusCode::OK, &documents::schema_index()),
        "/openapi/v3/apis/metrics.k8s.io/v1beta1" => document(StatusCode::OK, &documents::schema()),
        _ => refusal(&ApiError::path_not_found()),
    }
}

fn metrics(shared: &Shared, target: &Target, verb: &str, query: &Query) -> Result<Value, ApiError> {
    let now = Timestamp::now();
    match verb {
        "get" => shared.answers.get(target, now),
        "list" => Ok(shared.answers.list(target, &Selection::parse(&query.labels, &query.fields)?, now)),
        verb => Err(ApiError::method_not_supported(target.group_resource(), verb)),
    }
}

fn verb(method: &Method, target: Option<&Target>, watches: bool) -> &'static str {
    match (method, target) {
        (&Method::GET | &Method::HEAD, Some(target)) => target.verb(watches),
        (&Method::GET | &Method::HEAD, None) => "get",
        (&Method::POST, Some(_)) => "create",
        (&Method::POST, None) => "post",
        (&Method::PUT, Some(_)) => "update",
        (&Method::PUT, None) => "put",
        (&Method::DELETE, Some(target)) if target.name.is_empty() => "deletecollection",
        (&Method::DELETE, _) => "delete",
        (&Method::PATCH, _) => "patch",
        _ => "options",
    }
}

/// What of a query counts here.
#[derive(Debug, Default)]
struct Query {
    labels: String,
    fields: String,
    watches: bool,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "labelSelector" => query.labels = value.into_owned(),
                "fieldSelector" => query.fields = value.into_owned(),
                "watch" => query.watches = matches!(&*value, "1" | "true"),
                _ => {}
            }
        }
        query
    }
}

fn document(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refusal(error: &ApiError) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    document(status, &error.to_status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_upstreams_verbs() {
        let of = |method: Method, path: &str, query: &str| {
            let target = Target::of(&format!("/apis/metrics.k8s.io/v1beta1/{path}"));
            verb(&method, target.as_ref(), Query::parse(query).watches)
        };
        assert_eq!(of(Method::GET, "pods", "labelSelector=a%3Db"), "list");
        assert_eq!(of(Method::GET, "pods", "watch=true"), "watch");
        assert_eq!(of(Method::GET, "nodes/a", ""), "get");
        assert_eq!(of(Method::DELETE, "nodes", ""), "deletecollection");
        assert_eq!(of(Method::POST, "namespaces/n/pods", ""), "create");
        assert_eq!(verb(&Method::POST, None, false), "post");
        assert_eq!(Query::parse("labelSelector=a%3Db&fieldSelector=x").labels, "a=b");
    }
}
