//! `v3electionpb.Election`: candidates are keys under the election's name with the candidate's lease; the oldest leads, the others wait for those
//! before them to go.

use std::pin::Pin;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::range_request::SortOrder;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::mvccpb::KeyValue;
use coracle_proto::mvccpb::event::EventType;
use coracle_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use futures::stream::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::in_process::{
    Caller, InProcess, created_at, end_of_prefix, first_by_creation, key_of_lease, key_prefix, key_read,
    operation,
};
use super::status;
use crate::member::Member;

/// Leaders waiting for an observer's connection.
const OBSERVED_MAX: usize = 16;

pub(crate) struct ElectionService<M: Member>(pub(crate) InProcess<M>);

fn leader_of(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl<M: Member> coracle_proto::v3electionpb::election_server::Election for ElectionService<M> {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let caller = Caller::of(&self.0, &request);
        let request = request.into_inner();
        // A client that goes away drops this call. What it began is finished or taken back all the same.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let campaigning = tokio::spawn(campaign(caller, request, gone));
        campaigning.await.map_err(|_| status::unexpected())?.map(Response::new)
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let caller = Caller::of(&self.0, &request);
        let request = request.into_inner();
        let leader = leader_of(request.leader)?;
        let lease = caller.session_lease(leader.lease).await?;
        let header = proclaim(&caller, leader.key, leader.rev, lease, request.value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let caller = Caller::of(&self.0, &request);
        let prefix = key_prefix(&request.into_inner().name);
        let found = caller.range(first_by_creation(&prefix, SortOrder::Ascend)).await?;
        let Some(kv) = found.kvs.into_iter().next() else {
            return Err(Status::unknown("election: no leader"));
        };
        Ok(Response::new(LeaderResponse { header: found.header, kv: Some(kv) }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let caller = Caller::of(&self.0, &request);
        let prefix = key_prefix(&request.into_inner().name);
        let (leaders, receiver) = mpsc::channel(OBSERVED_MAX);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = observe(&caller, prefix, &leaders) => ended,
                () = leaders.closed() => return,
            };
            if ended.is_err() {
                // Fails for an observer that has gone.
                let _ = leaders.send(Err(Status::unknown("election: observe closed early"))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let caller = Caller::of(&self.0, &request);
        let leader = leader_of(request.into_inner().leader)?;
        let header = resign(&caller, leader.key, leader.rev).await?;
        Ok(Response::new(ResignResponse { header }))
    }
}

async fn campaign<M: Member>(
    caller: Caller<M>,
    request: CampaignRequest,
    gone: CancellationToken,
) -> Result<CampaignResponse, Status> {
    let lease = caller.session_lease(request.lease).await?;
    let prefix = key_prefix(&request.name);
    let key = key_of_lease(&prefix, lease);
    let put = pb::PutRequest { key: key.clone(), value: request.value.clone(), lease, ..Default::default() };
    let own = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let placed = caller
        .txn(pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![operation(Op::RequestPut(put))],
            failure: vec![operation(Op::RequestRange(own))],
        })
        .await?;
    let existing = key_read(&placed, 0);
    let rev = existing.map_or(placed.header.map_or(0, |header| header.revision), |kv| kv.create_revision);
    let waited = async {
        if existing.is_some_and(|kv| kv.value != request.value) {
            proclaim(&caller, key.clone(), rev, lease, request.value.clone()).await?;
        }
        caller.wait_until_deleted(&prefix, rev - 1).await
    };
    let waited = tokio::select! {
        waited = waited => waited,
        () = gone.cancelled() => Err(Status::cancelled("context canceled")),
    };
    if let Err(status) = waited {
        // If this fails too the key goes with its lease.
        let _ = resign(&caller, key, rev).await;
        return Err(status);
    }
    let leader = LeaderKey { name: request.name, key, rev, lease };
    Ok(CampaignResponse { header: placed.header, leader: Some(leader) })
}

async fn proclaim<M: Member>(
    caller: &Caller<M>,
    key: Bytes,
    rev: i64,
    lease: i64,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let compare = vec![created_at(&key, rev)];
    let put = pb::PutRequest { key, value, lease, ..Default::default() };
    let success = vec![operation(Op::RequestPut(put))];
    let done = caller.txn(pb::TxnRequest { compare, success, failure: Vec::new() }).await?;
    if !done.succeeded {
        return Err(Status::unknown("election: not leader"));
    }
    Ok(done.header)
}

async fn resign<M: Member>(
    caller: &Caller<M>,
    key: Bytes,
    rev: i64,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let compare = vec![created_at(&key, rev)];
    let delete = pb::DeleteRangeRequest { key, ..Default::default() };
    let success = vec![operation(Op::RequestDeleteRange(delete))];
    Ok(caller.txn(pb::TxnRequest { compare, success, failure: Vec::new() }).await?.header)
}

/// Whoever listened has gone, or the watch has.
struct Ended;

impl From<Status> for Ended {
    fn from(_: Status) -> Self {
        Self
    }
}

async fn observe<M: Member>(
    caller: &Caller<M>,
    prefix: Bytes,
    leaders: &mpsc::Sender<Result<LeaderResponse, Status>>,
) -> Result<(), Ended> {
    let send = async |header: Option<pb::ResponseHeader>, kv: KeyValue| {
        leaders.send(Ok(LeaderResponse { header, kv: Some(kv) })).await.map_err(|_| Ended)
    };
    loop {
        let found = caller.range(first_by_creation(&prefix, SortOrder::Ascend)).await?;
        let mut header = found.header;
        let kv = match found.kvs.into_iter().next() {
            Some(kv) => kv,
            None => {
                let candidates = pb::WatchCreateRequest {
                    key: prefix.clone(),
                    range_end: end_of_prefix(&prefix),
                    start_revision: header.map_or(0, |header| header.revision),
                    ..Default::default()
                };
                let mut candidates = caller.watch(candidates).await?;
                loop {
                    let response = candidates.next().await?;
                    let put = response.events.into_iter().find(|event| event.r#type() == EventType::Put);
                    if let Some(kv) = put.and_then(|event| event.kv) {
                        header =
                            response.header.map(|h| pb::ResponseHeader { revision: kv.mod_revision, ..h });
                        break kv;
                    }
                }
            }
        };
        let create = pb::WatchCreateRequest {
            key: kv.key.clone(),
            start_revision: header.map_or(0, |header| header.revision) + 1,
            ..Default::default()
        };
        send(header, kv).await?;
        let mut changes = caller.watch(create).await?;
        'same_leader: loop {
            let response = changes.next().await?;
            for event in response.events {
                if event.r#type() == EventType::Delete {
                    break 'same_leader;
                }
                let Some(kv) = event.kv else { continue };
                let header = response.header.map(|h| pb::ResponseHeader { revision: kv.mod_revision, ..h });
                send(header, kv).await?;
            }
        }
    }
}
