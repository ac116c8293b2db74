//! `etcdserverpb.KV`: reads from the store behind a ReadIndex, writes through the log.

use std::sync::Arc;

use coracle_proto::etcdserverpb as pb;
use etcd_lite_core::{Request as Command, Response as Answer, check};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{Context, status};
use crate::member::{Member, ProposeError};

pub(crate) struct KvService<M>(pub(crate) Arc<Context<M>>);

impl<M: Member> KvService<M> {
    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        if request.encoded_len() > self.0.config.request_bytes_max {
            return Err(status::of_propose(ProposeError::TooLarge));
        }
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<Answer, Status> {
        self.0.member.propose(command).await.map(|proposed| proposed.response).map_err(status::of_propose)
    }

    async fn wait_until_current(&self) -> Result<(), Status> {
        self.0.member.read_index().await.map_err(status::of_propose)
    }
}

#[tonic::async_trait]
impl<M: Member> pb::kv_server::Kv for KvService<M> {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let request = request.into_inner();
        check::range(&request).map_err(status::of_store)?;
        if !request.serializable {
            self.wait_until_current().await?;
        }
        let mut response = self.0.member.store().read().range(&request).map_err(status::of_store)?;
        self.0.fill(&mut response.header);
        self.0.metrics.ranges.inc();
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let request = request.into_inner();
        check::put(&request).map_err(status::of_store)?;
        self.check_size(&request)?;
        let Answer::Put(mut response) = self.propose(Command::Put(request)).await? else {
            return Err(status::unexpected());
        };
        self.0.fill(&mut response.header);
        self.0.metrics.puts.inc();
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let request = request.into_inner();
        check::delete_range(&request).map_err(status::of_store)?;
        self.check_size(&request)?;
        let Answer::DeleteRange(mut response) = self.propose(Command::DeleteRange(request)).await? else {
            return Err(status::unexpected());
        };
        self.0.fill(&mut response.header);
        self.0.metrics.deletes.inc();
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let request = request.into_inner();
        check::txn(&request, self.0.config.txn_ops_max).map_err(status::of_store)?;
        let mut response = if check::txn_is_read_only(&request) {
            if !check::txn_is_serializable(&request) {
                self.wait_until_current().await?;
            }
            self.0.member.store().read().read_txn(&request).map_err(status::of_store)?
        } else {
            self.check_size(&request)?;
            let Answer::Txn(response) = self.propose(Command::Txn(request)).await? else {
                return Err(status::unexpected());
            };
            response
        };
        self.0.fill(&mut response.header);
        self.0.metrics.txns.inc();
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let Answer::Compact(mut response) = self.propose(Command::Compact(request.into_inner())).await?
        else {
            return Err(status::unexpected());
        };
        self.0.fill(&mut response.header);
        Ok(Response::new(response))
    }
}
