//! `etcdserverpb.KV`: reads from the store behind a ReadIndex, writes through the log.

use std::sync::Arc;
use std::time::Instant;

use coracle_proto::etcdserverpb as pb;
use etcd_lite_core::auth::on_behalf;
use etcd_lite_core::{Caller, Request as Command, Response as Answer, check};
use prost::Message;
use tonic::{Request, Response, Status};

use super::range_server::RangeAnswer;
use super::{Context, learner, status};
use crate::member::{Member, ProposeError};
use crate::request_text;

/// What an entry of etcd's log has besides a request: the request's tag, and a header with an id of 64 bits. Its limit is for all of that.
const ENTRY_BYTES: usize = 1 + 14;

pub(crate) struct KvService<M>(pub(crate) Arc<Context<M>>);

impl<M: Member> KvService<M> {
    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        let bytes = request.encoded_len();
        if bytes + prost::length_delimiter_len(bytes) + ENTRY_BYTES > self.0.config.request_bytes_max {
            return Err(status::of_propose(ProposeError::TooLarge));
        }
        Ok(())
    }

    async fn propose(&self, caller: Option<Caller>, command: Command) -> Result<Answer, Status> {
        self.0
            .member
            .propose(on_behalf(caller, command))
            .await
            .map(|proposed| proposed.response)
            .map_err(status::of_propose)
    }

    /// Reads a range; the header is complete.
    pub(crate) async fn read(&self, request: Request<pb::RangeRequest>) -> Result<RangeAnswer, Status> {
        let begun = Instant::now();
        status::require_leader(&*self.0.member, request.metadata())?;
        let range = request.get_ref();
        check::range(range).map_err(status::of_store)?;
        learner::check_range(&*self.0.member, range.serializable)?;
        if !range.serializable {
            self.wait_until_current().await?;
        }
        let caller = self.0.caller(&request).await?;
        let found = {
            let store = self.0.member.store().read();
            let permitted = store.auth().check_read(caller.as_ref(), &range.key, &range.range_end);
            permitted.and_then(|()| store.range(range)).map_err(status::of_store)?
        };
        let mut header = Some(pb::ResponseHeader { revision: found.revision, ..Default::default() });
        self.0.fill(&mut header);
        self.0.metrics.ranges.inc();
        let found_count = || format!("range_response_count:{}", found.versions.len());
        let text = || request_text::of_range(request.get_ref());
        self.0.config.slow_requests.applied(begun.elapsed(), "read-only range ", text, found_count);
        Ok(RangeAnswer { header, found })
    }

    async fn wait_until_current(&self) -> Result<(), Status> {
        self.0.member.read_index().await.map_err(status::of_propose)
    }
}

#[tonic::async_trait]
impl<M: Member> pb::kv_server::Kv for KvService<M> {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        self.read(request).await.map(|answer| Response::new(answer.into_response()))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let caller = self.0.caller(&request).await?;
        let request = request.into_inner();
        check::put(&request).map_err(status::of_store)?;
        self.check_size(&request)?;
        let Answer::Put(mut response) = self.propose(caller, Command::Put(request)).await? else {
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
        let caller = self.0.caller(&request).await?;
        let request = request.into_inner();
        check::delete_range(&request).map_err(status::of_store)?;
        self.check_size(&request)?;
        let Answer::DeleteRange(mut response) = self.propose(caller, Command::DeleteRange(request)).await?
        else {
            return Err(status::unexpected());
        };
        self.0.fill(&mut response.header);
        self.0.metrics.deletes.inc();
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        status::require_leader(&*self.0.member, request.metadata())?;
        let begun = Instant::now();
        let txn = request.get_ref();
        check::txn(txn, self.0.config.txn_ops_max).map_err(status::of_store)?;
        let mut response = if check::txn_is_read_only(txn) {
            if !check::txn_is_serializable(txn) {
                self.wait_until_current().await?;
            }
            let caller = self.0.caller(&request).await?;
            let response = {
                let store = self.0.member.store().read();
                let permitted = store.check_txn_permitted(caller.as_ref(), txn);
                permitted.and_then(|()| store.read_txn(txn)).map_err(status::of_store)?
            };
            let count = || format!("response_count:{}", response.responses.len());
            let text = || request_text::of_txn(txn);
            self.0.config.slow_requests.applied(begun.elapsed(), "read-only txn ", text, count);
            response
        } else {
            self.check_size(txn)?;
            let caller = self.0.caller(&request).await?;
            let Answer::Txn(response) = self.propose(caller, Command::Txn(request.into_inner())).await?
            else {
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
        let caller = self.0.caller(&request).await?;
        let Answer::Compact(mut response) =
            self.propose(caller, Command::Compact(request.into_inner())).await?
        else {
            return Err(status::unexpected());
        };
        self.0.fill(&mut response.header);
        Ok(Response::new(response))
    }
}
