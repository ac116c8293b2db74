//! Starts a member with everything around it, and ends it in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::http_endpoints::HttpEndpoints;
use crate::listener::{self, Accepted, Stream, bind_all};
use crate::options::{MetricsLevel, Options, plain};
use crate::peer::{self, Peers};
use crate::quota::Quota;
use crate::raft_member::{MemberConfig, RaftMember, RemovedMember};
use crate::services::{AccessConfig, ClientService, Served, ServiceConfig, serve_connection};
use crate::slow_requests::SlowRequests;
use crate::tls_options::MemberTls;
use crate::tokens::Tokens;
use crate::{auto_compactor, corruption};

/// Runs until `shutdown` fires.
///
/// # Errors
/// What keeps the member from starting, with the next step.
pub async fn run(options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let retention = options.operations.retention()?;
    let tls = MemberTls::new(&options)?;
    let tokens = Arc::new(Tokens::new(&options.auth, options.security.client_cert_auth)?);
    // All ports before any state is touched: a second copy of a member must not get to the log.
    let (urls, reuse_port) = (&options.urls, options.urls.socket_reuse_port);
    let client_listeners = bind_all("--listen-client-urls", &urls.listen_client_urls, reuse_port).await?;
    let http_listeners =
        bind_all("--listen-client-http-urls", &urls.listen_client_http_urls, reuse_port).await?;
    let metrics_listeners = bind_all("--listen-metrics-urls", &urls.listen_metrics_urls, reuse_port).await?;

    let data_dir = options.data_dir();
    let wal_dir = options.operations.wal_dir.clone().unwrap_or_else(|| data_dir.join("member/wal"));
    let beginning = bootstrap::begin(
        &wal_dir,
        options.clustering.initial_cluster_state,
        || options.cluster(),
        tls.towards_peers.as_ref(),
    )
    .await?;
    // Not before the others were asked: members that begin together would all connect to each other and wait for answers.
    let peer_listeners = bind_all("--listen-peer-urls", &urls.listen_peer_urls, reuse_port).await?;
    std::fs::create_dir_all(data_dir.join("member")).with_context(|| {
        format!("cannot create --data-dir {}; choose a writable directory", data_dir.display())
    })?;
    let (cluster_id, id) = (beginning.cluster_id, beginning.id);
    let own_peer_urls: Vec<String> = options.urls.initial_advertise_peer_urls.iter().map(plain).collect();
    // A thread of its own for consensus and the connections between members, see `raft::driver`.
    let consensus = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of consensus")?;
    let peers = Peers::new(
        cluster_id,
        id,
        own_peer_urls.clone(),
        tls.towards_peers.clone(),
        consensus.handle().clone(),
        shutdown.clone(),
    );
    let slow_requests = SlowRequests::new(
        options.operations.experimental_warning_apply_duration.get(),
        options.operations.experimental_warning_unary_request_duration.get(),
    );
    let config = MemberConfig {
        data_dir: data_dir.clone(),
        beginning,
        name: options.name.clone(),
        peer_urls: own_peer_urls,
        heartbeat: Duration::from_millis(options.tuning.heartbeat_interval),
        election: Duration::from_millis(options.tuning.election_timeout),
        pre_vote: options.tuning.pre_vote,
        stands_early: options.tuning.initial_election_tick_advance,
        snapshot_count: options.tuning.snapshot_count,
        request_bytes_max: options.tuning.max_request_bytes,
        quota: Arc::new(Quota::new(options.operations.quota_backend_bytes)),
        wal_dir: options.operations.wal_dir.clone(),
        unsafe_no_fsync: options.operations.unsafe_no_fsync,
        tokens,
        learners_max: options.clustering.experimental_max_learners,
        strict_reconfig_check: options.clustering.strict_reconfig_check,
        force_new_cluster: options.clustering.force_new_cluster,
        slow_requests: slow_requests.clone(),
    };
    let (starting, among_members) = (Arc::clone(&peers), consensus.handle().clone());
    let member =
        match tokio::task::spawn_blocking(move || RaftMember::start(config, starting, consensus)).await? {
            Ok(member) => member,
            // As etcd: this is an end, not a failure to be repeated.
            Err(error) if error.is::<RemovedMember>() => {
                tracing::error!(%error, "this member has ended");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
    tracing::info!(
        name = options.name,
        id = format!("{id:x}"),
        cluster = format!("{cluster_id:x}"),
        "member is started"
    );
    let snapshot_dir = data_dir.join("member/snap");
    for listening in peer_listeners {
        among_members.spawn(peer::serve(
            listening,
            tls.peers.clone(),
            Arc::clone(&peers),
            snapshot_dir.clone(),
            shutdown.clone(),
        ));
    }

    if options.tuning.checks_corruption_at_start() {
        corruption::check_at_start(&member, &peers).await?;
    }
    for (compared, interval) in options.operations.comparisons() {
        let (member, peers) = (Arc::clone(&member), Arc::clone(&peers));
        tokio::spawn(corruption::run(member, peers, compared, interval, shutdown.clone()));
    }

    let service_config = ServiceConfig {
        request_bytes_max: options.tuning.max_request_bytes,
        txn_ops_max: options.tuning.max_txn_ops,
        watch_progress_interval: options.tuning.watch_progress_notify_interval.get(),
        concurrent_streams_max: options.tuning.max_concurrent_streams,
        keep_alive_interval: options.serving.grpc_keepalive_interval.get(),
        keep_alive_timeout: options.serving.grpc_keepalive_timeout.get(),
        keep_alive_min_time: options.serving.grpc_keepalive_min_time.get(),
        has_gateway: options.serving.enable_grpc_gateway,
        has_extensive_metrics: options.serving.metrics == MetricsLevel::Extensive,
        slow_requests,
        disk: member.disk_metrics.clone(),
        access: AccessConfig {
            origins: options.serving.cors.clone(),
            hosts: options.serving.host_whitelist.clone(),
        },
    };
    let registry = component_base::metrics::registry();
    member.register(&mut registry.lock());
    let service = ClientService::start(Arc::clone(&member), service_config, &registry, shutdown.clone());
    tokio::spawn(Arc::clone(&member.leases).run(Arc::clone(&member), shutdown.clone()));
    tokio::spawn(member.quota().run(Arc::clone(&member), shutdown.clone()));
    if let Some(retention) = retention {
        tokio::spawn(auto_compactor::run(Arc::clone(&member), retention, shutdown.clone()));
    }
    let publish = Arc::clone(&member).publish(options.urls.advertise_client_urls.iter().map(plain).collect());
    tokio::spawn(async move {
        publish.await;
        tracing::info!("ready to serve client requests");
    });
    for listening in metrics_listeners {
        let endpoints = service.http_endpoints();
        let answer = move |accepted| answer_metrics(accepted, Arc::clone(&endpoints));
        tokio::spawn(listener::serve(listening, tls.clients.clone(), shutdown.clone(), answer));
    }
    let mut serving = tokio::task::JoinSet::new();
    let client_serves = if http_listeners.is_empty() { Served::All } else { Served::Grpc };
    let client_listeners = client_listeners.into_iter().map(|listening| (listening, client_serves));
    let http_listeners = http_listeners.into_iter().map(|listening| (listening, Served::Http));
    for (listening, served) in client_listeners.chain(http_listeners) {
        let (service, end) = (service.clone().serving(served), shutdown.clone());
        if listening.takes_tls {
            tracing::info!(address = listening.address, "serving client traffic securely");
        }
        if listening.takes_plain {
            tracing::info!(
                address = listening.address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        let answer = move |accepted: Accepted| {
            let service = match accepted.common_name() {
                None => service.clone(),
                name => service.clone().with_peer(name),
            };
            let service = match &accepted.stream {
                Stream::TlsTcp(_) | Stream::TlsUnix(_) => service.behind_tls(),
                Stream::Tcp(_) | Stream::Unix(_) => service,
            };
            serve_connection(accepted.stream, service, end.clone())
        };
        serving.spawn(listener::serve(listening, tls.clients.clone(), shutdown.clone(), answer));
    }
    shutdown.cancelled().await;
    while serving.join_next().await.is_some() {}
    tokio::task::spawn_blocking(move || member.stop()).await?;
    Ok(())
}

async fn answer_metrics(accepted: Accepted, endpoints: Arc<HttpEndpoints<RaftMember>>) {
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
    let _ = builder.serve_connection(TokioIo::new(accepted.stream), answer).await;
}
