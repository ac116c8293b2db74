//! Starts a member with everything around it, and ends it in order.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use component_base::tls::{self, ServerTls};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::auto_compactor;
use crate::options::{ClusterState, Options, plain};
use crate::peer::{self, Peers};
use crate::quota::Quota;
use crate::raft_member::{MemberConfig, RaftMember};
use crate::services::{ClientService, ServiceConfig, serve_connection};
use crate::tokens::Tokens;

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Runs until `shutdown` fires.
///
/// # Errors
/// What keeps the member from starting, with the next step.
pub async fn run(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let cluster = options.cluster()?;
    let retention = options.operations.retention()?;
    let client_tls = server_tls(
        &options.urls.listen_client_urls,
        ("--cert-file", options.security.cert_file.as_deref()),
        ("--key-file", options.security.key_file.as_deref()),
        options.security.trusted_ca_file.as_deref(),
        options.security.client_cert_auth,
    )?;
    let peer_server_tls = server_tls(
        &options.urls.listen_peer_urls,
        ("--peer-cert-file", options.security.peer_cert_file.as_deref()),
        ("--peer-key-file", options.security.peer_key_file.as_deref()),
        options.security.peer_trusted_ca_file.as_deref(),
        options.security.peer_client_cert_auth,
    )?;
    let peer_client_tls = match (
        &options.security.peer_trusted_ca_file,
        &options.security.peer_cert_file,
        &options.security.peer_key_file,
    ) {
        (Some(ca), Some(cert), Some(key)) => Some(tls::client_config(Some(ca), Some((cert, key)), &["h2"])?),
        _ => None,
    };
    let tokens = Arc::new(Tokens::new(&options.auth, options.security.client_cert_auth)?);
    // All ports before any state is touched: a second copy of a member must not get to the log.
    let client_listeners = bind_all("--listen-client-urls", &options.urls.listen_client_urls).await?;
    let peer_listeners = bind_all("--listen-peer-urls", &options.urls.listen_peer_urls).await?;
    let metrics_listeners = bind_all("--listen-metrics-urls", &options.urls.listen_metrics_urls).await?;

    let data_dir = options.data_dir();
    std::fs::create_dir_all(data_dir.join("member")).with_context(|| {
        format!("cannot create --data-dir {}; choose a writable directory", data_dir.display())
    })?;
    let peers =
        Peers::new(cluster.cluster_id, cluster.id, &cluster.members, peer_client_tls, shutdown.clone())?;
    let config = MemberConfig {
        data_dir: data_dir.clone(),
        cluster_id: cluster.cluster_id,
        id: cluster.id,
        members: cluster.members,
        heartbeat: Duration::from_millis(options.tuning.heartbeat_interval),
        election: Duration::from_millis(options.tuning.election_timeout),
        snapshot_count: options.tuning.snapshot_count,
        request_bytes_max: options.tuning.max_request_bytes,
        quota: Arc::new(Quota::new(options.operations.quota_backend_bytes)),
        wal_dir: options.operations.wal_dir.clone(),
        unsafe_no_fsync: options.operations.unsafe_no_fsync,
        is_rejoining: options.clustering.initial_cluster_state == ClusterState::Existing,
        tokens,
    };
    let starting = Arc::clone(&peers);
    let member = tokio::task::spawn_blocking(move || RaftMember::start(config, starting)).await??;
    tracing::info!(
        name = options.name,
        id = format!("{:x}", cluster.id),
        cluster = format!("{:x}", cluster.cluster_id),
        "member is started"
    );
    let snapshot_dir = data_dir.join("member/snap");
    for listener in peer_listeners {
        tokio::spawn(peer::serve(
            listener.socket,
            listener.secure.then(|| peer_server_tls.clone()).flatten(),
            Arc::clone(&peers),
            snapshot_dir.clone(),
            shutdown.clone(),
        ));
    }

    let service_config = ServiceConfig {
        request_bytes_max: options.tuning.max_request_bytes,
        txn_ops_max: options.tuning.max_txn_ops,
        watch_progress_interval: options.tuning.watch_progress_notify_interval.get(),
        concurrent_streams_max: options.tuning.max_concurrent_streams,
    };
    let registry = component_base::metrics::registry();
    member.quota().register(&mut registry.lock());
    let service = ClientService::start(Arc::clone(&member), service_config, &registry, shutdown.clone());
    tokio::spawn(Arc::clone(&member.leases).run(Arc::clone(&member), shutdown.clone()));
    tokio::spawn(member.quota().run(Arc::clone(&member), shutdown.clone()));
    if let Some(retention) = retention {
        tokio::spawn(auto_compactor::run(Arc::clone(&member), retention, shutdown.clone()));
    }
    tokio::spawn(Arc::clone(&member).publish(options.urls.advertise_client_urls.iter().map(plain).collect()));
    for listener in metrics_listeners {
        tokio::spawn(serve_metrics(
            listener.socket,
            listener.secure.then(|| client_tls.clone()).flatten(),
            service.clone(),
            shutdown.clone(),
        ));
    }
    let mut serving = tokio::task::JoinSet::new();
    for listener in client_listeners {
        let acceptor = listener.secure.then(|| client_tls.clone().map(TlsAcceptor::from)).flatten();
        serving.spawn(serve_clients(listener.socket, acceptor, service.clone(), shutdown.clone()));
    }
    shutdown.cancelled().await;
    while serving.join_next().await.is_some() {}
    tokio::task::spawn_blocking(move || member.stop()).await?;
    Ok(())
}

struct Listener {
    socket: TcpListener,
    secure: bool,
}

async fn bind_all(flag: &str, urls: &[Url]) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for url in urls {
        let address = address(url).with_context(|| format!("{flag}={url}"))?;
        let socket = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address} ({flag}); end what uses the port (`ss -tlnp`) or choose another"
            )
        })?;
        listeners.push(Listener { socket, secure: url.scheme() == "https" });
    }
    Ok(listeners)
}

fn address(url: &Url) -> anyhow::Result<SocketAddr> {
    let host = url.host_str().context("no host in the URL")?.trim_matches(['[', ']']);
    let port = url.port_or_known_default().context("no port in the URL")?;
    // `localhost` comes first as IPv6 on some machines; etcd listens on IPv4.
    let mut all: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first().copied().with_context(|| format!("{host} has no address"))
}

fn server_tls(
    urls: &[Url],
    cert: (&str, Option<&Path>),
    key: (&str, Option<&Path>),
    ca: Option<&Path>,
    require_client_cert: bool,
) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    if let Some(url) = urls.iter().find(|url| !matches!(url.scheme(), "http" | "https")) {
        bail!("{url}: the scheme has to be http or https");
    }
    if !urls.iter().any(|url| url.scheme() == "https") {
        return Ok(None);
    }
    let (Some(cert_file), Some(key_file)) = (cert.1, key.1) else {
        bail!("https URLs need {} and {}", cert.0, key.0);
    };
    let config = tls::server_config(&ServerTls {
        cert: cert_file.to_owned(),
        key: key_file.to_owned(),
        client_ca: ca.filter(|_| require_client_cert).map(Path::to_owned),
        require_client_cert,
        alpn: &["h2", "http/1.1"],
    })?;
    Ok(Some(config))
}

async fn accept(listener: &TcpListener, shutdown: &CancellationToken) -> Option<TcpStream> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Fails for a connection that is gone already.
                    let _ = stream.set_nodelay(true);
                    return Some(stream);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn serve_clients(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    service: ClientService<RaftMember>,
    shutdown: CancellationToken,
) {
    let mut connections = tokio::task::JoinSet::new();
    while let Some(stream) = accept(&listener, &shutdown).await {
        let (acceptor, service, shutdown) = (acceptor.clone(), service.clone(), shutdown.clone());
        connections.spawn(async move {
            match acceptor {
                None => serve_connection(stream, service, shutdown).await,
                Some(acceptor) => {
                    match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let service = service.with_peer(peer_common_name(stream.get_ref().1));
                            serve_connection(stream, service, shutdown).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "a client's TLS handshake failed"),
                        Err(_) => {}
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
    // Each connection ends by itself, within its own deadline.
    while connections.join_next().await.is_some() {}
}

/// The common name of the certificate a client has shown, which the handshake has verified.
fn peer_common_name(connection: &rustls::ServerConnection) -> Option<String> {
    let certificate = connection.peer_certificates()?.first()?;
    Some(tls::subject(certificate).ok()?.common_name)
}

async fn serve_metrics(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: ClientService<RaftMember>,
    shutdown: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let endpoints = service.http_endpoints();
    while let Some(stream) = accept(&listener, &shutdown).await {
        let (acceptor, endpoints) = (acceptor.clone(), Arc::clone(&endpoints));
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let endpoints = Arc::clone(&endpoints);
                async move {
                    let response: http::Response<Full<bytes::Bytes>> =
                        endpoints.answer(request.method(), request.uri()).await;
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            // A scraper that goes away is no matter.
            let _ = match acceptor {
                None => builder.serve_connection(TokioIo::new(stream), answer).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => builder.serve_connection(TokioIo::new(stream), answer).await,
                    Err(_) => return,
                },
            };
        });
    }
}
