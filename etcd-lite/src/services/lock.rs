//! `v3lockpb.Lock`: a lock is a key under the lock's name with the holder's lease; the oldest key holds it, the others wait for those before
//! them to go.

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::range_request::SortOrder;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::in_process::{
    Caller, InProcess, created_at, first_by_creation, key_of_lease, key_prefix, key_read, operation,
};
use super::status;
use crate::member::Member;

pub(crate) struct LockService<M: Member>(pub(crate) InProcess<M>);

#[tonic::async_trait]
impl<M: Member> coracle_proto::v3lockpb::lock_server::Lock for LockService<M> {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let caller = Caller::of(&self.0, &request);
        let request = request.into_inner();
        // A client that goes away drops this call. What it began is finished or taken back all the same.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let acquiring = tokio::spawn(acquire(caller, request, gone));
        acquiring.await.map_err(|_| status::unexpected())?.map(Response::new)
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let caller = Caller::of(&self.0, &request);
        let deleted = caller.delete(request.into_inner().key).await?;
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}

async fn acquire<M: Member>(
    caller: Caller<M>,
    request: LockRequest,
    gone: CancellationToken,
) -> Result<LockResponse, Status> {
    let lease = caller.session_lease(request.lease).await?;
    let prefix = key_prefix(&request.name);
    let key = key_of_lease(&prefix, lease);
    let put = pb::PutRequest { key: key.clone(), lease, ..Default::default() };
    let own = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let owner = operation(Op::RequestRange(first_by_creation(&prefix, SortOrder::Ascend)));
    let placed = caller
        .txn(pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![operation(Op::RequestPut(put)), owner.clone()],
            failure: vec![operation(Op::RequestRange(own.clone())), owner],
        })
        .await?;
    let revision = match key_read(&placed, 0) {
        Some(kv) => kv.create_revision,
        None => placed.header.map_or(0, |header| header.revision),
    };
    if key_read(&placed, 1).is_none_or(|owner| owner.create_revision == revision) {
        return Ok(LockResponse { header: placed.header, key });
    }
    let waited = async {
        caller.wait_until_deleted(&prefix, revision - 1).await?;
        caller.range(own).await
    };
    let waited = tokio::select! {
        waited = waited => waited,
        () = gone.cancelled() => Err(Status::cancelled("context canceled")),
    };
    match waited {
        Ok(own) if own.kvs.is_empty() => Err(Status::unknown("mutex: session is expired")),
        Ok(own) => Ok(LockResponse { header: own.header, key }),
        Err(status) => {
            // If this fails too the key goes with its lease.
            let _ = caller.delete(key).await;
            Err(status)
        }
    }
}
