//! `etcdserverpb.Maintenance`: where the member stands, checksums and copies of its state, alarms, and who leads.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::AlarmType;
use coracle_proto::etcdserverpb::alarm_request::AlarmAction;
use etcd_lite_core::auth::on_behalf;
use etcd_lite_core::{Request as Command, Response as Answer};
use futures::stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Context, downgrade, snapshot_stream, state_reads, status};
use crate::backend_file::Content;
use crate::member::Member;

pub(crate) struct MaintenanceService<M>(pub(crate) Arc<Context<M>>);

#[tonic::async_trait]
impl<M: Member> pb::maintenance_server::Maintenance for MaintenanceService<M> {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.0.member.status();
        let mut errors = status.errors;
        if status.leader == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        let alarms: Vec<_> = self.0.member.store().read().alarms().get(AlarmType::None).collect();
        // As Go prints the message, with the space behind it.
        errors.extend(
            alarms.iter().map(|a| format!("memberID:{} alarm:{} ", a.member_id, a.alarm().as_str_name())),
        );
        Ok(Response::new(pb::StatusResponse {
            header: self.0.header(),
            version: component_base::version::ETCD.to_owned(),
            db_size: to_i64(status.db_size_bytes),
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: to_i64(status.db_size_in_use_bytes),
            is_learner: status.is_learner,
        }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.0.require_admin(&request).await?;
        let begun = Instant::now();
        let hash = state_reads::run(Arc::clone(&self.0), |context| {
            let members = context.member.members();
            Ok(Content::new(state_reads::copy(context.member.store()), &members).hash())
        })
        .await?;
        self.0.config.disk.hash.observe(begun.elapsed().as_secs_f64());
        Ok(Response::new(pb::HashResponse { header: self.0.header(), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.0.require_admin(&request).await?;
        let (revision, begun) = (request.into_inner().revision, Instant::now());
        let (hash, scope) = state_reads::run(Arc::clone(&self.0), move |context| {
            state_reads::hash_kv(context.member.store(), revision)
        })
        .await?;
        self.0.config.disk.hash_revision.observe(begun.elapsed().as_secs_f64());
        let compact_revision = scope.compacted_revision;
        Ok(Response::new(pb::HashKvResponse { header: self.0.header(), hash, compact_revision }))
    }

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        // Anyone may ask, but not with a token that is none.
        let caller = self.0.caller(&request).await?;
        let request = request.into_inner();
        let Ok(kind) = AlarmType::try_from(request.alarm) else {
            return Err(Status::invalid_argument("etcdserver: unknown alarm"));
        };
        let mut response = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                self.0.member.read_index().await.map_err(status::of_propose)?;
                let alarms = self.0.member.store().read().alarms().get(kind).collect();
                pb::AlarmResponse { header: self.0.header(), alarms }
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) => {
                let proposed = self
                    .0
                    .member
                    .propose(on_behalf(caller, Command::Alarm(request)))
                    .await
                    .map_err(status::of_propose)?;
                let Answer::Alarm(response) = proposed.response else { return Err(status::unexpected()) };
                response
            }
            Err(_) => return Err(Status::invalid_argument("etcdserver: unknown alarm action")),
        };
        self.0.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.0.require_admin(&request).await?;
        tracing::info!("starting defragment");
        self.0.member.defragment().await.map_err(status::of_propose)?;
        tracing::info!("finished defragment");
        // As upstream's, the answer has no header.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.0.require_admin(&request).await?;
        let pieces = snapshot_stream::start(Arc::clone(&self.0)).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        self.0.member.move_leader(target).await.map_err(status::of_propose)?;
        // As upstream's, without a header.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.0.require_admin(&request).await?;
        let request = request.into_inner();
        let cluster = self.0.member.store().read().cluster_version().map(str::to_owned);
        let version = downgrade::answer(request.action, &request.version, cluster.as_deref())?;
        Ok(Response::new(pb::DowngradeResponse { header: self.0.header(), version }))
    }
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
