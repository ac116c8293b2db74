//! The kubelet's own API on 10250 (TLS) and the local health check on 10248.
//!
//! Never here: what a pod is to do; this only shows, and passes streams on.

mod access;
mod log_stream;
mod pod_logs;
mod routes;
mod running;
mod stats;
mod streaming;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use component_base::metrics::{self, SharedRegistry};
use component_base::tls::{ServerTls, server_config_with};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Context;
use crate::pods::manager::Manager;
use access::{Access, Peer};

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECTIONS_MAX: usize = 1024;

/// A response body, whole or streamed.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// The bound port.
pub struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    /// The port, also when 0 was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Binds the server's port.
///
/// # Errors
/// Names the address when it is in use.
pub async fn bind(config: &Config) -> anyhow::Result<Listener> {
    let address = (config.address.as_str(), config.port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {}:{}; stop what uses it or set --address and --port",
            config.address, config.port
        )
    })?;
    let port = listener.local_addr()?.port();
    Ok(Listener { listener, port })
}

/// What requests are answered from.
pub struct Shared {
    context: Arc<Context>,
    manager: Arc<Manager>,
    access: Access,
    registry: SharedRegistry,
    running_pods: Gauge,
    /// The configuration as `/configz` shows it.
    shown: serde_json::Value,
    /// Whether logs, exec and the like are served.
    debugging: bool,
}

/// Serves until shutdown.
///
/// # Errors
/// Certificates that do not load, or the health check's port in use.
pub async fn serve(
    listener: Listener,
    config: &Config,
    context: Arc<Context>,
    manager: Arc<Manager>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (cert, key) = match &config.serving {
        Some(pair) => pair.clone(),
        None => self_made(config, &context)?,
    };
    let files = ServerTls {
        cert,
        key,
        client_ca: config.client_ca.clone(),
        require_client_cert: false,
        alpn: &["http/1.1"],
    };
    let tls = server_config_with(&files, &config.tls)?;
    let registry = metrics::registry();
    let running_pods = Gauge::default();
    registry.lock().register(
        "kubelet_running_pods",
        "Number of pods that have a running pod sandbox",
        running_pods.clone(),
    );
    config.gates.register(&mut registry.lock());
    let access = Access::new(context.client.clone(), context.settings.node_name.clone(), config);
    let shared = Arc::new(Shared {
        context,
        manager,
        access,
        registry,
        running_pods,
        shown: config.shown.clone(),
        debugging: config.debugging,
    });
    if let Some((address, port)) = &config.healthz {
        let healthz = TcpListener::bind((address.as_str(), *port)).await.with_context(|| {
            format!("cannot listen on {address}:{port} for health checks; set --healthz-port")
        })?;
        tokio::spawn(accept(healthz, None, Arc::clone(&shared), stop.clone()));
    }
    if config.enable_server {
        accept(listener.listener, Some(TlsAcceptor::from(tls)), shared, stop).await;
    } else {
        // The port is closed; the node goes on.
        drop(listener);
        stop.cancelled().await;
    }
    Ok(())
}

/// A certificate of our own for a server that was given none, as upstream makes one.
fn self_made(config: &Config, context: &Context) -> anyhow::Result<(std::path::PathBuf, std::path::PathBuf)> {
    let (cert, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    std::fs::create_dir_all(&config.cert_dir)?;
    let mut names = vec![context.settings.node_name.clone(), "localhost".to_owned()];
    names.extend(context.node_ips.iter().cloned());
    let made = rcgen::generate_simple_self_signed(names)?;
    write_private(&key, made.signing_key.serialize_pem().as_bytes())?;
    std::fs::write(&cert, made.cert.pem())?;
    Ok((cert, key))
}

fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// Accepts connections; without TLS only the health check is answered.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let handle = move |stream| connection(stream, tls.clone(), Arc::clone(&shared));
    component_base::accept::serve(listener, CONNECTIONS_MAX, stop, handle).await;
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            async move { Ok::<Response<Body>, Infallible>(routes::local(&shared, &request)) }
        });
        run(TokioIo::new(stream), service).await;
        return;
    };
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Arc::new(certificate.and_then(Peer::from_certificate));
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, peer) = (Arc::clone(&shared), Arc::clone(&peer));
        async move {
            Ok::<Response<Body>, Infallible>(routes::answer(&shared, peer.as_ref().as_ref(), request).await)
        }
    });
    run(TokioIo::new(stream), service).await;
}

async fn run<I, S>(io: I, service: S)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(io, service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
