//! HTTPS: accepts connections, hands requests to the pipeline, and on shutdown stops taking new work, ends watches and lets the rest finish.

pub mod app;
pub mod body;
pub mod closing;
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
mod self_signed;
pub mod tls;
mod understand;
mod write_options;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use component_base::gathered_writes::GatheredWrites;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::Connection;
use crate::options::Options;
use app::App;
use closing::LastOfConnection;
use tls::ServingTls;

/// Connections at a time; more wait in the system's backlog.
const CONNECTIONS_MAX: usize = 16 * 1024;
/// Connections that may wait there.
const BACKLOG: u32 = 1024;
/// Requests of one connection that may be in work at a time, unless the flag says otherwise.
const HTTP2_STREAMS_MAX: u32 = 1000;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long requests in work may go on after watches have been told to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Listens where the flags say.
///
/// # Errors
/// A text naming the flags.
pub fn listen(options: &Options) -> Result<TcpListener, String> {
    let address = SocketAddr::new(options.bind_address, options.secure_port);
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if options.permit_port_sharing {
            socket.set_reuseport(true)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error: std::io::Error| {
        format!("cannot listen on {address} (--bind-address, --secure-port): {error}")
    })
}

/// Serves until `stop` fires, then drains. Watches end when the app's `draining` fires, which the caller sees to.
pub async fn run(listener: TcpListener, tls: ServingTls, app: Arc<App>, stop: CancellationToken) {
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
        let (acceptor, app, stop) = (TlsAcceptor::from(tls.current()), Arc::clone(&app), stop.clone());
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
    let streams_max = match app.options.http2_max_streams_per_connection {
        0 => HTTP2_STREAMS_MAX,
        limit => limit,
    };
    let ending = CancellationToken::new();
    let last = ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = pipeline::serve(Arc::clone(&app), Arc::clone(&identity), request);
        let last = last.clone();
        async move {
            let mut response = answered.await;
            if response.extensions_mut().remove::<LastOfConnection>().is_some() {
                if is_http2 {
                    last.cancel();
                } else {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(120));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = ending.cancelled() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %peer, "connection ended with an error");
    }
}
