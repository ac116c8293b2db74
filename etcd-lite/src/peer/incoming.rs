//! What other members send here: raft messages, snapshots, lease questions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use coracle_proto::peer::peer_server::{Peer, PeerServer};
use coracle_proto::peer::promote_answer::Outcome;
use coracle_proto::peer::{
    Ack, Envelope, HashKvAnswer, HashKvQuestion, LeaseId, LeaseTime, MemberId, MembersAnswer,
    MembersQuestion, PromoteAnswer, SnapshotPart,
};
use etcd_lite_core::StoreError;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Peers;
use crate::checkpoint::snapshot_file::SnapshotWriter;
use crate::lease_keeper::{LeaseKeeper, Led, NotLeader};
use crate::listener::{self, Accepted, Listening, ServerTls};
use crate::member::{Member, ProposeError};
use crate::raft::driver::Input;
use crate::services::hash_kv;

const MESSAGE_BYTES_MAX: usize = 512 << 20;

#[derive(Clone)]
struct Incoming {
    peers: Arc<Peers>,
    snapshot_dir: PathBuf,
}

/// Serves the peers on one listener until shutdown.
pub async fn serve(
    listening: Listening,
    tls: Option<ServerTls>,
    peers: Arc<Peers>,
    snapshot_dir: PathBuf,
    shutdown: CancellationToken,
) {
    let service =
        PeerServer::new(Incoming { peers, snapshot_dir }).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let end = shutdown.clone();
    let handle = move |accepted: Accepted| {
        let (service, end) = (TowerToHyperService::new(service.clone()), end.clone());
        async move {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_concurrent_streams(64);
            let result = tokio::select! {
                () = end.cancelled() => return,
                result = builder.serve_connection(TokioIo::new(accepted.stream), service) => result,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a peer's connection ended");
            }
        }
    };
    listener::serve(listening, tls, shutdown, handle).await;
}

impl Incoming {
    fn check(&self, cluster_id: u64) -> Result<(), Status> {
        if cluster_id == self.peers.cluster_id() {
            return Ok(());
        }
        Err(Status::failed_precondition("cluster ID mismatch"))
    }

    /// What this member's lease timers say, if it leads.
    async fn as_leader<T>(
        &self,
        ask: impl FnOnce(&LeaseKeeper) -> Result<Led<T>, NotLeader>,
    ) -> Result<Option<T>, Status> {
        let Some(member) = self.peers.member() else { return Ok(None) };
        member.as_leader(ask).await.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Writes a snapshot to disk and gives the message that announces it.
    async fn take_snapshot(self, mut parts: Streaming<SnapshotPart>) -> Result<Message, Status> {
        let failed = |error: std::io::Error| Status::internal(format!("cannot keep the snapshot: {error}"));
        let begun = Instant::now();
        let mut open: Option<(SnapshotWriter, Message)> = None;
        while let Some(part) = parts.message().await? {
            if let Some(head) = part.head {
                self.check(head.cluster_id)?;
                let writer =
                    SnapshotWriter::create(&self.snapshot_dir, head.index, head.term).map_err(failed)?;
                open = Some((writer, decode(&head.message)?));
            }
            let (writer, _) =
                open.as_mut().ok_or_else(|| Status::invalid_argument("records before the head"))?;
            for record in &part.records {
                writer.record(&record.key, &record.value).map_err(failed)?;
            }
        }
        let (writer, message) = open.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        let synced = writer.finish().map_err(failed)?;
        if let Some(member) = self.peers.member() {
            member.disk_metrics.received_fsync.observe(synced.as_secs_f64());
            member.disk_metrics.received_save.observe(begun.elapsed().as_secs_f64());
        }
        Ok(message)
    }
}

fn decode(bytes: &[u8]) -> Result<Message, Status> {
    Message::parse_from_bytes(bytes)
        .map_err(|error| Status::invalid_argument(format!("not a raft message: {error}")))
}

#[tonic::async_trait]
impl Peer for Incoming {
    async fn stream(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Ack>, Status> {
        let mut envelopes = request.into_inner();
        while let Some(envelope) = envelopes.message().await? {
            self.check(envelope.cluster_id)?;
            if self.peers.has_left(envelope.from) {
                return Ok(Response::new(Ack { is_removed: true }));
            }
            self.peers.meet(envelope.from, &envelope.peer_urls);
            self.peers.received(envelope.from, envelope.messages.iter().map(bytes::Bytes::len).sum());
            for message in &envelope.messages {
                let message = decode(message)?;
                if message.get_msg_type() == MessageType::MsgHeartbeatResponse {
                    self.peers.heartbeat_answered(envelope.from);
                }
                self.peers.input(Input::Step(Box::new(message)));
            }
        }
        Ok(Response::new(Ack::default()))
    }

    async fn install(&self, request: Request<Streaming<SnapshotPart>>) -> Result<Response<Ack>, Status> {
        let incoming = self.clone();
        let taken = self.peers.elsewhere().spawn(incoming.take_snapshot(request.into_inner()));
        let message = taken.await.map_err(|_| Status::internal("cannot keep the snapshot"))??;
        self.peers.input_surely(Input::Step(Box::new(message))).await;
        Ok(Response::new(Ack::default()))
    }

    async fn renew_lease(&self, request: Request<LeaseId>) -> Result<Response<LeaseTime>, Status> {
        let LeaseId { cluster_id, id } = request.into_inner();
        self.check(cluster_id)?;
        let renewed = self.as_leader(|leases| leases.keep_alive(id)).await?;
        Ok(Response::new(match renewed {
            None => LeaseTime::default(),
            Some(None) => LeaseTime { leads: true, ..LeaseTime::default() },
            Some(Some(seconds)) => {
                LeaseTime { leads: true, found: true, granted_seconds: seconds, remaining_seconds: seconds }
            }
        }))
    }

    async fn hash_kv(&self, request: Request<HashKvQuestion>) -> Result<Response<HashKvAnswer>, Status> {
        let HashKvQuestion { cluster_id, revision } = request.into_inner();
        self.check(cluster_id)?;
        let store = self.peers.store().ok_or_else(|| Status::unavailable("this member is just starting"))?;
        let store = Arc::clone(store);
        let answer = tokio::task::spawn_blocking(move || {
            let (hash, scope) = hash_kv(&store, revision)?;
            Ok(HashKvAnswer {
                hash,
                revision: scope.revision,
                compacted_revision: scope.compacted_revision,
                current_revision: store.read().revision(),
            })
        });
        let answer = answer.await.map_err(|error| Status::internal(error.to_string()))?;
        answer.map(Response::new)
    }

    async fn time_to_live(&self, request: Request<LeaseId>) -> Result<Response<LeaseTime>, Status> {
        let LeaseId { cluster_id, id } = request.into_inner();
        self.check(cluster_id)?;
        let time = self.as_leader(|leases| leases.time_to_live(id)).await?;
        Ok(Response::new(match time {
            None => LeaseTime::default(),
            Some(None) => LeaseTime { leads: true, ..LeaseTime::default() },
            Some(Some(time)) => LeaseTime {
                leads: true,
                found: true,
                granted_seconds: time.granted_seconds,
                remaining_seconds: time.remaining_seconds,
            },
        }))
    }

    async fn members(&self, _: Request<MembersQuestion>) -> Result<Response<MembersAnswer>, Status> {
        let member = self.peers.member().ok_or_else(|| Status::unavailable("etcdserver: server stopped"))?;
        let members =
            member.store().read().members().records().map(|member| member.as_ref().clone()).collect();
        Ok(Response::new(MembersAnswer { cluster_id: self.peers.cluster_id(), members }))
    }

    async fn promote(&self, request: Request<MemberId>) -> Result<Response<PromoteAnswer>, Status> {
        let MemberId { cluster_id, id } = request.into_inner();
        self.check(cluster_id)?;
        let answer = |outcome: Outcome| PromoteAnswer { outcome: outcome.into(), members: Vec::new() };
        let Some(member) = self.peers.member() else { return Ok(Response::new(answer(Outcome::NotLeader))) };
        Ok(Response::new(match member.promote_as_leader(id).await {
            Ok(members) => PromoteAnswer { members, ..answer(Outcome::Promoted) },
            Err(ProposeError::NotLeader) => answer(Outcome::NotLeader),
            Err(ProposeError::LearnerNotReady) => answer(Outcome::LearnerNotReady),
            Err(ProposeError::Store(StoreError::MemberNotFound)) => answer(Outcome::MemberNotFound),
            Err(ProposeError::Store(StoreError::MemberNotLearner)) => answer(Outcome::MemberNotLearner),
            Err(ProposeError::Store(StoreError::NotEnoughStartedMembers)) => {
                answer(Outcome::NotEnoughStartedMembers)
            }
            Err(_) => answer(Outcome::Unknown),
        }))
    }
}
