//! One of the two stores: a server process of its own and the connections to it.

use std::time::Duration;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use coracle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::normal::{self, Answer, Refusal, Reply};
use super::operation::{Operation, STREAMS};
use super::watches::WatchStream;
use crate::store::{Program, Server, free_ports};

/// Longest time for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Answers may be as large as a store makes them.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Long enough that the shortest lease there is (one and a half of it) is revoked before it runs out.
const ELECTION_TIMEOUT_FLAG: &str = "--election-timeout=3000";

/// A store with clients. Its process ends and its files go when it is dropped.
pub struct ComparedServer {
    kv: KvClient<Channel>,
    leases: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    watch: WatchClient<Channel>,
    /// [`STREAMS`] for operations and one more for the chronicle.
    pub(crate) streams: Vec<WatchStream>,
    _server: Server,
    _data: tempfile::TempDir,
}

impl ComparedServer {
    /// Starts an empty store and opens its watch streams.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(program: Program) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let [port] = free_ports();
        let peer = format!("http://127.0.0.1:{port}");
        let flags = ["--unsafe-no-fsync".to_owned(), ELECTION_TIMEOUT_FLAG.to_owned()];
        let server = Server::start_with(program, "m", data.path(), &peer, &format!("m={peer}"), &flags);
        server.wait_healthy();
        let endpoint = Endpoint::from_shared(server.client.clone()).expect("a URL");
        let channel = endpoint.connect().await.expect("the store is healthy");
        let mut this = Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            leases: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watch: WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            streams: Vec::new(),
            _server: server,
            _data: data,
        };
        for _ in 0..=STREAMS {
            let stream = WatchStream::open(this.watch.clone());
            this.streams.push(stream);
        }
        this
    }

    /// Asks; an answer that does not come in time is one too.
    pub async fn answer(&mut self, operation: &Operation) -> Answer {
        match tokio::time::timeout(ANSWER_WITHIN, self.ask(operation)).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(Refusal { code: "none".to_owned(), message: format!("no answer in {ANSWER_WITHIN:?}") })
            }
        }
    }

    async fn ask(&mut self, operation: &Operation) -> Answer {
        match operation {
            Operation::Range(request) => {
                reply(self.kv.range(request.clone()).await, |r| normal::range(r, request), Reply::Range)
            }
            Operation::Put(request) => {
                reply(self.kv.put(request.clone()).await, |r| normal::header(&mut r.header), Reply::Put)
            }
            Operation::DeleteRange(request) => {
                let response = self.kv.delete_range(request.clone()).await;
                reply(response, |r| normal::header(&mut r.header), Reply::DeleteRange)
            }
            Operation::Txn(request) => {
                reply(self.kv.txn(request.clone()).await, |r| normal::txn(r, request), Reply::Txn)
            }
            Operation::Compact(request) => {
                reply(self.kv.compact(*request).await, |r| normal::header(&mut r.header), Reply::Compact)
            }
            Operation::LeaseGrant(request) => self.grant(*request).await,
            Operation::BriefLease(request) => self.brief_lease(*request).await,
            Operation::LeaseRevoke(request) => self.revoke(*request).await,
            Operation::LeaseKeepAlive(request) => self.keep_alive(*request).await,
            Operation::LeaseTimeToLive(request) => self.time_to_live(*request).await,
            Operation::LeaseLeases => {
                let response = self.leases.lease_leases(pb::LeaseLeasesRequest {}).await;
                reply(response, |r| normal::header(&mut r.header), Reply::LeaseLeases)
            }
            Operation::HashKv(request) => {
                let response = self.maintenance.hash_kv(*request).await;
                reply(response, |r| normal::header(&mut r.header), Reply::HashKv)
            }
            Operation::Status => {
                reply(self.maintenance.status(pb::StatusRequest {}).await, normal::status, Reply::Status)
            }
            Operation::Watch { stream, request } => {
                self.streams[*stream].ask(request).await.map(Reply::Watch)
            }
            Operation::Reopen { stream } => {
                self.streams[*stream] = WatchStream::open(self.watch.clone());
                Ok(Reply::Watch(Vec::new()))
            }
        }
    }

    async fn grant(&mut self, request: pb::LeaseGrantRequest) -> Answer {
        reply(self.leases.lease_grant(request).await, |r| normal::header(&mut r.header), Reply::LeaseGrant)
    }

    async fn revoke(&mut self, request: pb::LeaseRevokeRequest) -> Answer {
        reply(self.leases.lease_revoke(request).await, |r| normal::header(&mut r.header), Reply::LeaseRevoke)
    }

    async fn time_to_live(&mut self, request: pb::LeaseTimeToLiveRequest) -> Answer {
        reply(self.leases.lease_time_to_live(request).await, normal::time_to_live, Reply::LeaseTimeToLive)
    }

    async fn keep_alive(&mut self, request: pb::LeaseKeepAliveRequest) -> Answer {
        let mut responses = self.leases.lease_keep_alive(tokio_stream::once(request)).await?.into_inner();
        let mut response = responses.message().await?;
        if let Some(response) = &mut response {
            normal::header(&mut response.header);
        }
        Ok(Reply::LeaseKeepAlive(response))
    }

    async fn brief_lease(&mut self, request: pb::LeaseGrantRequest) -> Answer {
        let mut granted = self.grant(request).await;
        let id = match &granted {
            Ok(Reply::LeaseGrant(response)) => response.id,
            _ => request.id,
        };
        let mut renewed = self.keep_alive(pb::LeaseKeepAliveRequest { id }).await;
        let mut left = self.time_to_live(pb::LeaseTimeToLiveRequest { id, keys: true }).await;
        let revoked = self.revoke(pb::LeaseRevokeRequest { id }).await;
        if request.id == 0 {
            // The store's choice.
            for answer in [&mut granted, &mut renewed, &mut left] {
                match answer {
                    Ok(Reply::LeaseGrant(response)) => response.id = i64::from(response.id > 0),
                    Ok(Reply::LeaseKeepAlive(Some(response))) => response.id = i64::from(response.id == id),
                    Ok(Reply::LeaseTimeToLive(response)) => response.id = i64::from(response.id == id),
                    _ => {}
                }
            }
        }
        Ok(Reply::Several(vec![granted, renewed, left, revoked]))
    }
}

fn reply<R>(
    response: Result<Response<R>, Status>,
    plain: impl FnOnce(&mut R),
    wrap: impl FnOnce(R) -> Reply,
) -> Answer {
    let mut response = response?.into_inner();
    plain(&mut response);
    Ok(wrap(response))
}
