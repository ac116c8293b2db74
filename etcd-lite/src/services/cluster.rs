//! `etcdserverpb.Cluster`: who the members are. Changing them while running is not implemented yet.

use std::sync::Arc;

use coracle_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Context, status};
use crate::member::{Member, MemberInfo};

pub(crate) struct ClusterService<M>(pub(crate) Arc<Context<M>>);

fn not_implemented(what: &str) -> Status {
    Status::unimplemented(format!(
        "etcdserver: {what} is not implemented by Coracle yet; start a new cluster with the members wanted in --initial-cluster"
    ))
}

fn to_proto(member: MemberInfo) -> pb::Member {
    let MemberInfo { id, name, peer_urls, client_urls, is_learner } = member;
    pb::Member { id, name, peer_urls, client_urls, is_learner }
}

#[tonic::async_trait]
impl<M: Member> pb::cluster_server::Cluster for ClusterService<M> {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.member.read_index().await.map_err(status::of_propose)?;
        }
        let members = self.0.member.members().into_iter().map(to_proto).collect();
        // As upstream's, this service's header tells no revision.
        let mut header = None;
        self.0.fill(&mut header);
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.0.require_admin(&request).await?;
        Err(not_implemented("adding a member"))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.0.require_admin(&request).await?;
        Err(not_implemented("removing a member"))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.0.require_admin(&request).await?;
        Err(not_implemented("updating a member"))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.0.require_admin(&request).await?;
        Err(not_implemented("promoting a member"))
    }
}
