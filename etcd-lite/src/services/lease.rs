//! `etcdserverpb.Lease`: grant and revoke through the log, renewal and remaining time from the leader's timers.

use std::pin::Pin;
use std::sync::Arc;

use coracle_proto::etcdserverpb as pb;
use etcd_lite_core::auth::on_behalf;
use etcd_lite_core::{Caller, Request as Command, Response as Answer, StoreError, check};
use futures::stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, status};
use crate::member::{Member, ProposeError};

pub(crate) struct LeaseService<M> {
    context: Arc<Context<M>>,
    shutdown: CancellationToken,
}

impl<M: Member> LeaseService<M> {
    pub(crate) fn new(context: Arc<Context<M>>, shutdown: CancellationToken) -> Self {
        Self { context, shutdown }
    }

    async fn propose(&self, caller: Option<Caller>, command: Command) -> Result<Answer, Status> {
        self.context
            .member
            .propose(on_behalf(caller, command))
            .await
            .map(|proposed| proposed.response)
            .map_err(status::of_propose)
    }
}

async fn keep_alive<M: Member>(
    context: &Context<M>,
    request: Result<pb::LeaseKeepAliveRequest, Status>,
) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let id = request?.id;
    // The revision is that of before the renewal.
    let header = context.header();
    let ttl = context.member.lease_keep_alive(id).await.map_err(status::of_propose)?;
    context.metrics.lease_renewals.inc();
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl: ttl.unwrap_or(0) })
}

#[tonic::async_trait]
impl<M: Member> pb::lease_server::Lease for LeaseService<M> {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        status::require_leader(&*self.context.member, request.metadata())?;
        let caller = self.context.caller(&request).await?;
        let mut grant = request.into_inner();
        if grant.ttl > check::LEASE_TTL_SECONDS_MAX {
            return Err(status::of_store(StoreError::LeaseTtlTooLarge));
        }
        grant.ttl = grant.ttl.max(self.context.member.lease_ttl_seconds_min());
        let id_is_chosen_here = grant.id == 0;
        let mut answer;
        loop {
            if id_is_chosen_here {
                grant.id = (self.context.member.unique_id() & i64::MAX as u64).max(1) as i64;
            }
            answer = self.context.member.propose(on_behalf(caller.clone(), Command::LeaseGrant(grant))).await;
            let is_taken = matches!(answer, Err(ProposeError::Store(StoreError::LeaseExists)));
            if !(id_is_chosen_here && is_taken) {
                break;
            }
        }
        let Answer::LeaseGrant(mut response) = answer.map_err(status::of_propose)?.response else {
            return Err(status::unexpected());
        };
        self.context.fill(&mut response.header);
        self.context.metrics.lease_grants.inc();
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        status::require_leader(&*self.context.member, request.metadata())?;
        let caller = self.context.caller(&request).await?;
        let Answer::LeaseRevoke(mut response) =
            self.propose(caller, Command::LeaseRevoke(request.into_inner())).await?
        else {
            return Err(status::unexpected());
        };
        self.context.fill(&mut response.header);
        self.context.metrics.lease_revokes.inc();
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        status::require_leader(&*self.context.member, request.metadata())?;
        let context = Arc::clone(&self.context);
        let requests = request.into_inner().take_until(self.shutdown.clone().cancelled_owned());
        let responses = requests.then(move |request| {
            let context = Arc::clone(&context);
            async move { keep_alive(&context, request).await }
        });
        // The first error is the last answer.
        let responses = responses.scan(false, |has_failed, response| {
            let ended = *has_failed;
            *has_failed = response.is_err();
            std::future::ready((!ended).then_some(response))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        status::require_leader(&*self.context.member, request.metadata())?;
        let pb::LeaseTimeToLiveRequest { id, keys: with_keys } = *request.get_ref();
        self.context.member.read_index().await.map_err(status::of_propose)?;
        let caller = if with_keys { self.context.caller(&request).await? } else { None };
        if with_keys {
            let store = self.context.member.store().read();
            store.check_lease_keys_readable(caller.as_ref(), id).map_err(status::of_store)?;
        }
        let left = self.context.member.lease_time_to_live(id).await.map_err(status::of_propose)?;
        let header = self.context.header();
        let Some(left) = left else {
            return Ok(Response::new(pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            }));
        };
        let keys = if with_keys {
            let store = self.context.member.store().read();
            store.check_lease_keys_readable(caller.as_ref(), id).map_err(status::of_store)?;
            store.lease(id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header,
            id,
            ttl: left.remaining_seconds,
            granted_ttl: left.granted_seconds,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        status::require_leader(&*self.context.member, request.metadata())?;
        self.context.member.read_index().await.map_err(status::of_propose)?;
        let mut ids: Vec<i64> = self.context.member.store().read().leases().map(|(id, _)| id).collect();
        self.context.member.sort_leases_by_end(&mut ids);
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.context.header(), leases }))
    }
}
