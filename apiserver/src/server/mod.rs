//! HTTPS: accepts connections, hands requests to the pipeline, and on shutdown stops taking new work, ends watches and lets the rest finish.

pub mod app;
mod arriving;
pub mod body;
pub mod closing;
mod connection;
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
mod sending;
pub mod tls;
mod understand;
mod write_options;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::Connection;
use crate::options::Options;
use app::App;
use connection::Allowance;
use tls::ServingTls;

/// Connections at a time; more wait in the system's backlog.
const CONNECTIONS_MAX: usize = 16 * 1024;
/// Connections that may wait there.
const BACKLOG: u32 = 1024;
/// Requests of one connection that may be in work at a time, unless the flag says otherwise.
const HTTP2_STREAMS_MAX: u32 = 1000;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may be without a request, as upstream.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// How long the head of a request may take to arrive, as upstream, unless requests are to be done sooner.
const HEAD_MAX: Duration = Duration::from_secs(32);
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
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let identity = Arc::new(Connection::new(Some(peer), chain));
    let allowance = Allowance {
        streams_max: match app.options.http2_max_streams_per_connection {
            0 => HTTP2_STREAMS_MAX,
            limit => limit,
        },
        idle_max: IDLE_MAX,
        head_max: HEAD_MAX.min(app.options.request_timeout.get()),
    };
    let answer = move |request| pipeline::serve(Arc::clone(&app), Arc::clone(&identity), request);
    if let Err(error) = connection::serve(stream, is_http2, allowance, stop, answer).await {
        tracing::debug!(error, %peer, "connection ended with an error");
    }
}
