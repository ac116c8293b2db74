//! The client port: etcd's gRPC services and plain HTTP paths over one [`Member`].
//!
//! Owns: request checks, headers, error codes, the watch machinery. Never here: Raft, files, listeners, TLS; whoever owns the listener serves
//! each connection with [`serve_connection`] and a clone of [`ClientService`].

mod auth;
mod caller;
mod cluster;
mod connection;
mod huffman;
mod kv;
mod lease;
mod lenient_authority;
mod maintenance;
mod range_server;
mod snapshot_stream;
mod state_reads;
mod status;
mod watch;
mod watch_codec;
mod watch_hub;
mod watch_stream;

#[cfg(test)]
pub(crate) mod test_member;
#[cfg(test)]
mod tests;

pub use connection::serve_connection;
pub(crate) use state_reads::hash_kv;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use component_base::metrics::SharedRegistry;
use coracle_proto::etcdserverpb as pb;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::http_endpoints::HttpEndpoints;
use crate::member::Member;
use crate::metrics::RequestMetrics;
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
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            request_bytes_max: 3 * 1024 * 1024 / 2,
            txn_ops_max: etcd_lite_core::check::TXN_OPS_MAX,
            watch_progress_interval: Duration::from_secs(600),
            concurrent_streams_max: u32::MAX,
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

/// Everything that answers on the client port: gRPC by path, plain HTTP for the rest. Cheap to clone; one per connection.
pub struct ClientService<M: Member> {
    kv: pb::kv_server::KvServer<kv::KvService<M>>,
    range: range_server::RangeServer<M>,
    watch: watch::WatchServer<M>,
    lease: pb::lease_server::LeaseServer<lease::LeaseService<M>>,
    cluster: pb::cluster_server::ClusterServer<cluster::ClusterService<M>>,
    maintenance: pb::maintenance_server::MaintenanceServer<maintenance::MaintenanceService<M>>,
    auth: pb::auth_server::AuthServer<auth::AuthService<M>>,
    http: Arc<HttpEndpoints<M>>,
    concurrent_streams_max: u32,
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
            http: Arc::clone(&self.http),
            concurrent_streams_max: self.concurrent_streams_max,
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
        crate::metrics::register(&mut registry.lock(), Arc::clone(&member), Arc::clone(&metrics));
        let concurrent_streams_max = config.concurrent_streams_max;
        let decoding_max = config.request_bytes_max + GRPC_OVERHEAD_BYTES;
        let http = Arc::new(HttpEndpoints::new(Arc::clone(&member), Arc::clone(registry)));
        let context = Arc::new(Context { member, config, metrics });
        let kv = Arc::new(kv::KvService(Arc::clone(&context)));
        Self {
            range: range_server::RangeServer::new(Arc::clone(&kv), decoding_max),
            kv: pb::kv_server::KvServer::from_arc(kv).max_decoding_message_size(decoding_max),
            watch: watch::WatchServer::new(Arc::clone(&context), hub, decoding_max, shutdown.clone()),
            lease: pb::lease_server::LeaseServer::new(lease::LeaseService::new(
                Arc::clone(&context),
                shutdown,
            )),
            cluster: pb::cluster_server::ClusterServer::new(cluster::ClusterService(Arc::clone(&context))),
            maintenance: pb::maintenance_server::MaintenanceServer::new(maintenance::MaintenanceService(
                Arc::clone(&context),
            )),
            auth: pb::auth_server::AuthServer::new(auth::AuthService(context)),
            http,
            concurrent_streams_max,
            peer: None,
        }
    }

    /// For one connection, whose client has shown a certificate of this common name.
    pub fn with_peer(mut self, common_name: Option<String>) -> Self {
        self.peer = common_name.map(|name| caller::PeerCommonName(name.into()));
        self
    }

    pub(crate) fn concurrent_streams_max(&self) -> u32 {
        self.concurrent_streams_max
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
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
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
        if !is_grpc {
            let http = Arc::clone(&self.http);
            return Box::pin(
                async move { Ok(http.answer(request.method(), request.uri()).await.map(Body::new)) },
            );
        }
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            "etcdserverpb.KV" if request.uri().path() == range_server::PATH => {
                let server = self.range.clone();
                Box::pin(async move { Ok(server.serve(request).await) })
            }
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Watch" => self.watch.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Cluster" => self.cluster.clone().call(request),
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request),
            "etcdserverpb.Auth" => self.auth.clone().call(request),
            other => {
                let text = format!("unknown service {other}");
                Box::pin(async move { Ok(tonic::Status::unimplemented(text).into_http()) })
            }
        }
    }
}
