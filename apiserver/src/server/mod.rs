//! HTTPS: accepts connections, hands requests to the pipeline, and on shutdown stops taking new work, ends watches and lets the rest finish.

pub mod app;
pub mod body;
pub mod cors;
pub mod handlers;
pub mod limits;
pub mod metrics;
pub mod negotiate;
pub mod pipeline;
mod recording;
pub mod relay;
pub mod request_info;
pub mod respond;
mod understand;
mod write_options;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use component_base::gathered_writes::GatheredWrites;
use component_base::tls::{self, ServerTls};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::certificate::AnyClient;
use crate::authn::{Authenticator, Connection};
use crate::options::Options;
use app::App;

/// Connections at a time; more wait in the system's backlog.
const CONNECTIONS_MAX: usize = 16 * 1024;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long requests in work may go on after watches have been told to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// The TLS side: the serving certificate follows its files, client certificates are asked for and judged later.
///
/// # Errors
/// A text naming the flag.
pub fn tls_config(options: &Options, authenticator: &Authenticator) -> Result<Arc<ServerConfig>, String> {
    let (Some(cert), Some(key)) = (&options.tls_cert_file, &options.tls_private_key_file) else {
        return Err("--tls-cert-file and --tls-private-key-file must be specified".to_owned());
    };
    let serving = tls::server_config(&ServerTls {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: None,
        require_client_cert: false,
        alpn: &["h2", "http/1.1"],
    })
    .map_err(|error| format!("--tls-cert-file, --tls-private-key-file: {error}"))?;
    let verifier = Arc::new(AnyClient::new(&authenticator.authorities()));
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&serving.cert_resolver));
    config.alpn_protocols = serving.alpn_protocols.clone();
    Ok(Arc::new(config))
}

/// Serves until `stop` fires, then drains. Watches end when the app's `draining` fires, which the caller sees to.
pub async fn run(listener: TcpListener, config: Arc<ServerConfig>, app: Arc<App>, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(config);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => match place {
                Ok(place) => place,
                Err(_) => break,
            },
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a connection reset while queued.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (acceptor, app, stop) = (acceptor.clone(), Arc::clone(&app), stop.clone());
        connections.spawn(async move {
            let _place = place;
            connection(stream, peer, acceptor, app, stop).await;
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_DEADLINE, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections did not finish in time and are cut");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    app: Arc<App>,
    stop: CancellationToken,
) {
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, %peer, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake timed out"),
    };
    let chain = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| chain.iter().map(|cert| cert.clone().into_owned()).collect())
        .unwrap_or_default();
    // Not for HTTP/1.1, whose connections may be upgraded to streams that flush once and then wait.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = if is_http2 { Either::Left(GatheredWrites::new(stream)) } else { Either::Right(stream) };
    let identity = Arc::new(Connection::new(Some(peer), chain));
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = pipeline::serve(Arc::clone(&app), Arc::clone(&identity), request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(120));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %peer, "connection ended with an error");
    }
}
