//! `etcdserverpb.Cluster`: who the members are, and changing it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_proto::etcdserverpb as pb;
use coracle_proto::store::{MemberAdd, MemberPromote, MemberRecord, MemberRemove, MemberUpdate};
use etcd_lite_core::Request as Command;
use tonic::{Request, Response, Status};

use super::{Context, status};
use crate::member::{Member, MemberInfo};
use crate::member_ids::{member_id, proper_peer_urls};

pub(crate) struct ClusterService<M>(pub(crate) Arc<Context<M>>);

fn to_proto(member: MemberInfo) -> pb::Member {
    let MemberInfo { id, name, peer_urls, client_urls, is_learner } = member;
    pb::Member { id, name, peer_urls, client_urls, is_learner }
}

impl<M: Member> ClusterService<M> {
    /// As upstream's, this service's header tells no revision.
    fn header(&self) -> Option<pb::ResponseHeader> {
        let mut header = None;
        self.0.fill(&mut header);
        header
    }

    async fn change(&self, command: Command) -> Result<Vec<pb::Member>, Status> {
        let members = self.0.member.change_members(command).await.map_err(status::of_propose)?;
        Ok(members.into_iter().map(to_proto).collect())
    }
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
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.0.require_admin(&request).await?;
        let pb::MemberAddRequest { peer_urls, is_learner } = request.into_inner();
        let peer_urls = proper_peer_urls(&peer_urls)
            .ok_or_else(|| Status::invalid_argument("etcdserver: given member URLs are invalid"))?;
        // The id has the time in it, so that a member that was removed can be added again as another one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = member_id(&peer_urls, "", Some(now));
        let member = MemberRecord { id, peer_urls, is_learner, ..MemberRecord::default() };
        let added = to_proto(MemberInfo::from(&member));
        let members =
            self.change(Command::MemberAdd(MemberAdd { member: Some(member), learners_max: 0 })).await?;
        Ok(Response::new(pb::MemberAddResponse { header: self.header(), member: Some(added), members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.0.require_admin(&request).await?;
        let id = request.into_inner().id;
        let members = self.change(Command::MemberRemove(MemberRemove { id })).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.0.require_admin(&request).await?;
        let pb::MemberUpdateRequest { id, peer_urls } = request.into_inner();
        let members = self.change(Command::MemberUpdate(MemberUpdate { id, peer_urls })).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.0.require_admin(&request).await?;
        let id = request.into_inner().id;
        let members = self.change(Command::MemberPromote(MemberPromote { id })).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}
