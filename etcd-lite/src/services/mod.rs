//! The client port: etcd's gRPC services and plain HTTP paths over one [`Member`].
//!
//! Owns: request checks, headers, error codes, the watch machinery. Never here: Raft, files, listeners, TLS; whoever owns the listener serves
//! each connection with [`serve_connection`] and a clone of [`ClientService`].

mod auth;
mod call_metrics;
mod caller;
mod cluster;
mod connection;
mod downgrade;
mod election;
mod gateway;
mod gateway_json;
mod health;
mod http2_frames;
mod huffman;
mod in_process;
mod kv;
mod learner;
mod lease;
mod lenient_authority;
mod lock;
mod maintenance;
mod ping_policy;
mod plain_http;
mod range_server;
mod reflection;
mod snapshot_stream;
mod state_reads;
mod status;
mod watch;
pub mod watch_by_hand;
mod watch_codec;
mod watch_hub;
mod watch_stream;

#[cfg(test)]
mod gateway_tests;
#[cfg(test)]
pub(crate) mod test_member;
#[cfg(test)]
mod tests;

pub use connection::serve_connection;
pub use plain_http::AccessConfig;
pub(crate) use state_reads::hash_kv;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use component_base::metrics::SharedRegistry;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::health::health_server::HealthServer;
use coracle_proto::v3electionpb::election_server::ElectionServer;
use coracle_proto::v3lockpb::lock_server::LockServer;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::http_endpoints::{HttpEndpoints, text};
use crate::member::Member;
use crate::metrics::{DiskMetrics, RequestMetrics};
use crate::slow_requests::SlowRequests;
use watch_hub::WatchHub;

/// What the services can be told by flags.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Largest request, in bytes (`--max-request-bytes`).
    pub request_bytes_max: usize,
    /// Operations in one branch of a transaction (`--max-txn-ops`).
    pub txn_ops_max: usize,
    /// Time between progress notifications to watchers that ask for them (`--experimental-watch-progress-notify-interval`).
    pub watch_progress_interval: Duration,
    /// Streams one connection may have open (`--max-concurrent-streams`).
    pub concurrent_streams_max: u32,
    /// Silence after which a client is asked whether it is there; zero for never (`--grpc-keepalive-interval`).
    pub keep_alive_interval: Duration,
    /// How long it may take to answer (`--grpc-keepalive-timeout`).
    pub keep_alive_timeout: Duration,
    /// How often a client may ask (`--grpc-keepalive-min-time`).
    pub keep_alive_min_time: Duration,
    /// Whether JSON is served beside gRPC (`--enable-grpc-gateway`).
    pub has_gateway: bool,
    /// Whether to measure how long calls take (`--metrics=extensive`).
    pub has_extensive_metrics: bool,
    /// What is logged as slow.
    pub slow_requests: SlowRequests,
    /// Told how long copies and checksums take.
    pub disk: DiskMetrics,
    /// Who is let in over plain HTTP.
    pub access: AccessConfig,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            request_bytes_max: 3 * 1024 * 1024 / 2,
            txn_ops_max: etcd_lite_core::check::TXN_OPS_MAX,
            watch_progress_interval: Duration::from_secs(600),
            concurrent_streams_max: u32::MAX,
            keep_alive_interval: Duration::from_secs(2 * 60 * 60),
            keep_alive_timeout: Duration::from_secs(20),
            keep_alive_min_time: Duration::from_secs(5),
            has_gateway: true,
            has_extensive_metrics: false,
            slow_requests: SlowRequests::default(),
            disk: DiskMetrics::default(),
            access: AccessConfig::default(),
        }
    }
}

/// What all services of one member share.
pub(crate) struct Context<M> {
    pub(crate) member: Arc<M>,
    pub(crate) config: ServiceConfig,
    pub(crate) metrics: Arc<RequestMetrics>,
}

impl<M: Member> Context<M> {
    /// Completes the header that the store began with its revision.
    pub(crate) fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        let status = self.member.status();
        let header = header.get_or_insert_default();
        header.cluster_id = status.cluster_id;
        header.member_id = status.member_id;
        header.raft_term = status.term;
    }

    /// A header with the store's current revision.
    pub(crate) fn header(&self) -> Option<pb::ResponseHeader> {
        let revision = self.member.store().read().revision();
        let mut header = Some(pb::ResponseHeader { revision, ..Default::default() });
        self.fill(&mut header);
        header
    }
}

/// gRPC allows this much around a request of the largest size.
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Methods that have no path in the JSON gateway.
const OTHER_METHODS: [(&str, &str); 3] = [
    ("etcdserverpb.Maintenance", "HashKV"),
    ("grpc.health.v1.Health", "Check"),
    ("grpc.health.v1.Health", "Watch"),
];

/// What is answered on a connection of the client port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Served {
    /// gRPC and plain HTTP, told apart by what the client says.
    #[default]
    All,
    /// gRPC, because plain HTTP has `--listen-client-http-urls`.
    Grpc,
    /// Plain HTTP.
    Http,
}

/// Everything that answers on the client port: gRPC by path, plain HTTP for the rest. Cheap to clone; one per connection.
pub struct ClientService<M: Member> {
    kv: pb::kv_server::KvServer<kv::KvService<M>>,
    range: range_server::RangeServer<M>,
    watch: watch::WatchServer<M>,
    lease: pb::lease_server::LeaseServer<lease::LeaseService<M>>,
    cluster: pb::cluster_server::ClusterServer<cluster::ClusterService<M>>,
    maintenance: pb::maintenance_server::MaintenanceServer<maintenance::MaintenanceService<M>>,
    auth: pb::auth_server::AuthServer<auth::AuthService<M>>,
    lock: LockServer<lock::LockService<M>>,
    election: ElectionServer<election::ElectionService<M>>,
    health: HealthServer<health::HealthService>,
    http: Arc<HttpEndpoints<M>>,
    config: Arc<ServiceConfig>,
    calls: Arc<call_metrics::CallMetrics>,
    is_behind_tls: bool,
    served: Served,
    /// Whose connection this is, if a certificate says so.
    peer: Option<caller::PeerCommonName>,
}

impl<M: Member> Clone for ClientService<M> {
    fn clone(&self) -> Self {
        Self {
            kv: self.kv.clone(),
            range: self.range.clone(),
            watch: self.watch.clone(),
            lease: self.lease.clone(),
            cluster: self.cluster.clone(),
            maintenance: self.maintenance.clone(),
            auth: self.auth.clone(),
            lock: self.lock.clone(),
            election: self.election.clone(),
            health: self.health.clone(),
            http: Arc::clone(&self.http),
            config: Arc::clone(&self.config),
            calls: Arc::clone(&self.calls),
            is_behind_tls: self.is_behind_tls,
            served: self.served,
            peer: self.peer.clone(),
        }
    }
}

impl<M: Member> ClientService<M> {
    /// Builds the services, registers their metrics, and starts the task that feeds watchers; it ends with `shutdown`, as do open
    /// watch and keep-alive streams.
    pub fn start(
        member: Arc<M>,
        config: ServiceConfig,
        registry: &SharedRegistry,
        shutdown: CancellationToken,
    ) -> Self {
        let metrics = Arc::new(RequestMetrics::default());
        let hub =
            Arc::new(WatchHub::new(Arc::clone(&member), config.request_bytes_max, Arc::clone(&metrics)));
        tokio::spawn(Arc::clone(&hub).run(shutdown.clone()));
        crate::metrics::register(&mut registry.lock(), Arc::clone(&member));
        metrics.register(&mut registry.lock());
        let service_config = Arc::new(config.clone());
        let calls = call_metrics::CallMetrics::register(
            &mut registry.lock(),
            gateway::methods().chain(OTHER_METHODS),
            config.has_extensive_metrics,
            config.slow_requests.clone(),
        );
        let decoding_max = config.request_bytes_max + GRPC_OVERHEAD_BYTES;
        let http = Arc::new(HttpEndpoints::new(Arc::clone(&member), Arc::clone(registry)));
        let context = Arc::new(Context { member, config, metrics });
        let kv = Arc::new(kv::KvService(Arc::clone(&context)));
        let range = range_server::RangeServer::new(Arc::clone(&kv), decoding_max);
        let parts = in_process::InProcess {
            kv: pb::kv_server::KvServer::from_arc(kv).max_decoding_message_size(decoding_max),
            watch: watch::WatchServer::new(Arc::clone(&context), hub, decoding_max, shutdown.clone()),
            lease: pb::lease_server::LeaseServer::new(lease::LeaseService::new(
                Arc::clone(&context),
                shutdown.clone(),
            )),
        };
        Self {
            lock: LockServer::new(lock::LockService(parts.clone())).max_decoding_message_size(decoding_max),
            election: ElectionServer::new(election::ElectionService(parts.clone()))
                .max_decoding_message_size(decoding_max),
            health: HealthServer::new(health::HealthService::new(shutdown)),
            kv: parts.kv,
            watch: parts.watch,
            lease: parts.lease,
            cluster: pb::cluster_server::ClusterServer::new(cluster::ClusterService(Arc::clone(&context))),
            maintenance: pb::maintenance_server::MaintenanceServer::new(maintenance::MaintenanceService(
                Arc::clone(&context),
            )),
            auth: pb::auth_server::AuthServer::new(auth::AuthService(context)),
            http,
            config: service_config,
            calls: Arc::new(calls),
            is_behind_tls: false,
            served: Served::All,
            peer: None,
            range,
        }
    }

    /// For one connection, whose client has shown a certificate of this common name.
    pub fn with_peer(mut self, common_name: Option<String>) -> Self {
        self.peer = common_name.map(|name| caller::PeerCommonName(name.into()));
        self
    }

    /// For connections with TLS.
    pub fn behind_tls(mut self) -> Self {
        self.is_behind_tls = true;
        self
    }

    /// For connections on which not everything is answered.
    pub fn serving(mut self, served: Served) -> Self {
        self.served = served;
        self
    }

    pub(crate) fn served(&self) -> Served {
        self.served
    }

    pub(crate) fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Bytes of JSON that a request may take: a message of twice the largest size in base64, so that one a little too large is
    /// refused by its service, in the same words as over gRPC.
    fn gateway_body_bytes_max(&self) -> usize {
        (self.config.request_bytes_max + GRPC_OVERHEAD_BYTES) / 3 * 8
    }

    /// The plain HTTP paths alone, for `--listen-metrics-urls`.
    pub fn http_endpoints(&self) -> Arc<HttpEndpoints<M>> {
        Arc::clone(&self.http)
    }
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<M, B> hyper::service::Service<http::Request<B>> for ClientService<M>
where
    M: Member,
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, mut request: http::Request<B>) -> ResponseFuture {
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && self.served == Served::Http {
            return refuse(http::StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if !is_grpc && self.served == Served::Grpc {
            return refuse(http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid gRPC request content-type\n");
        }
        if is_grpc {
            // Not for JSON: as in etcd, who comes that way needs a token.
            if let Some(peer) = &self.peer {
                request.extensions_mut().insert(peer.clone());
            }
            return self.grpc(request);
        }
        let answer = plain_http::answer(self.clone(), request.map(Body::new));
        Box::pin(async move { Ok(answer.await) })
    }
}

fn refuse(status: http::StatusCode, why: &str) -> ResponseFuture {
    let refusal = text(status, why.to_owned()).map(Body::new);
    Box::pin(async move { Ok(refusal) })
}

impl<M: Member> ClientService<M> {
    /// Answers a gRPC request.
    fn grpc<B>(&self, request: http::Request<B>) -> ResponseFuture
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let Some(call) = self.calls.begin(request.uri().path(), request.headers()) else {
            return self.dispatch(request.map(Body::new));
        };
        let answer = self.dispatch(request.map(|body| call.request(body)));
        Box::pin(async move { answer.await.map(|response| call.response(response)) })
    }

    fn dispatch<B>(&self, request: http::Request<B>) -> ResponseFuture
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        if let Some(refusal) = learner::refusal(self.http.member(), request.uri().path()) {
            return Box::pin(async move { Ok(refusal.into_http()) });
        }
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        let answer: ResponseFuture = match service {
            "etcdserverpb.KV" if request.uri().path() == range_server::PATH => {
                let server = self.range.clone();
                Box::pin(async move { Ok(server.serve(request).await) })
            }
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Watch" => return self.watch.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Cluster" => self.cluster.clone().call(request),
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request),
            "etcdserverpb.Auth" => self.auth.clone().call(request),
            "v3lockpb.Lock" => self.lock.clone().call(request),
            "v3electionpb.Election" => self.election.clone().call(request),
            "grpc.health.v1.Health" => self.health.clone().call(request),
            other => {
                let service = other.to_owned();
                let request = request.map(Body::new);
                Box::pin(async move { Ok(reflection::answer(&service, request).await) })
            }
        };
        Box::pin(async move { answer.await.map(status::refused_for_size) })
    }
}
