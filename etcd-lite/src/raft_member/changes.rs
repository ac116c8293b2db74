//! Changing who the members are and who leads, as a client asks for it: the checks that keep a majority alive, and what only the leader can do.

use std::time::{Duration, Instant};

use coracle_proto::peer::PromoteAnswer;
use coracle_proto::peer::promote_answer::Outcome;
use coracle_proto::store::MemberPromote;
use etcd_lite_core::{MemberRecord, Request, Response, StoreError, Suffrage};
use tokio::sync::oneshot;

use super::RaftMember;
use crate::member::{Member, ProposeError};
use crate::raft::driver::Input;

/// A member counts as healthy when it has been connected for so long, as in etcd.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// Between two questions for a leader.
const RETRY: Duration = Duration::from_millis(50);

impl RaftMember {
    pub(super) async fn change_members_checked(
        &self,
        request: Request,
    ) -> Result<Vec<MemberRecord>, ProposeError> {
        match request {
            Request::MemberPromote(MemberPromote { id }) => self.promote(id).await,
            Request::MemberAdd(mut add) => {
                add.learners_max = self.config.learners_max;
                self.check_addition(add.member.as_ref().is_some_and(|member| member.is_learner))?;
                self.propose_change(Request::MemberAdd(add)).await
            }
            Request::MemberRemove(remove) => {
                self.check_removal(remove.id)?;
                self.propose_change(Request::MemberRemove(remove)).await
            }
            other => self.propose_change(other).await,
        }
    }

    async fn propose_change(&self, request: Request) -> Result<Vec<MemberRecord>, ProposeError> {
        match self.propose(request).await?.response {
            Response::Members(members) => Ok(members),
            _ => Err(ProposeError::Store(StoreError::UnknownCommand)),
        }
    }

    /// `--strict-reconfig-check` for another member.
    fn check_addition(&self, is_learner: bool) -> Result<(), ProposeError> {
        if !self.config.strict_reconfig_check {
            return Ok(());
        }
        let (is_ready, voters) = {
            let store = self.store.read();
            (store.members().is_ready_to_add(), store.members().voters())
        };
        if !is_learner && !is_ready {
            return Err(StoreError::NotEnoughStartedMembers.into());
        }
        if self.healthy(&voters) < voters.len() {
            return Err(ProposeError::UnhealthyCluster);
        }
        Ok(())
    }

    /// `--strict-reconfig-check` for a member less.
    fn check_removal(&self, id: u64) -> Result<(), ProposeError> {
        if !self.config.strict_reconfig_check {
            return Ok(());
        }
        let (is_ready, voters) = {
            let store = self.store.read();
            if store.members().suffrage(id) == Suffrage::Learner {
                return Ok(());
            }
            (store.members().is_ready_to_remove(id), store.members().voters())
        };
        if !is_ready {
            return Err(StoreError::NotEnoughStartedMembers.into());
        }
        // A member that is down costs nothing.
        if id != self.config.beginning.id && self.peers.connected_since(id).is_none() {
            return Ok(());
        }
        let majority_without = 1 + voters.len().saturating_sub(1) / 2;
        if self.healthy(&voters) < majority_without + 1 {
            return Err(ProposeError::UnhealthyCluster);
        }
        Ok(())
    }

    /// How many of these members have been connected for a while, this one included.
    fn healthy(&self, voters: &[u64]) -> usize {
        let is_healthy = |id: &&u64| {
            **id == self.config.beginning.id
                || self.peers.connected_since(**id).is_some_and(|since| since.elapsed() > HEALTHY_AFTER)
        };
        voters.iter().filter(is_healthy).count()
    }

    async fn promote(&self, id: u64) -> Result<Vec<MemberRecord>, ProposeError> {
        let deadline = Instant::now() + self.deadline();
        loop {
            match self.promote_as_leader(id).await {
                Err(ProposeError::NotLeader) => {}
                result => return result,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProposeError::Timeout);
            }
            let leader = self.view.lock().leader;
            if leader != 0
                && leader != self.config.beginning.id
                && let Ok(PromoteAnswer { outcome, members }) = self.peers.promote(leader, id, left).await
            {
                match Outcome::try_from(outcome).unwrap_or(Outcome::Unknown) {
                    Outcome::Promoted => return Ok(members),
                    Outcome::LearnerNotReady => return Err(ProposeError::LearnerNotReady),
                    Outcome::MemberNotFound => return Err(StoreError::MemberNotFound.into()),
                    Outcome::MemberNotLearner => return Err(StoreError::MemberNotLearner.into()),
                    Outcome::NotEnoughStartedMembers => {
                        return Err(StoreError::NotEnoughStartedMembers.into());
                    }
                    Outcome::NotLeader | Outcome::Unknown => {}
                }
            }
            tokio::time::sleep(RETRY.min(left)).await;
        }
    }

    /// Promotes a learner that has caught up, if this member leads. On behalf of any member.
    ///
    /// # Errors
    /// `NotLeader`; `LearnerNotReady`; as [`Member::change_members`].
    pub async fn promote_as_leader(&self, id: u64) -> Result<Vec<MemberRecord>, ProposeError> {
        let (sender, answer) = oneshot::channel();
        self.enqueue(Input::IsLearnerReady(id, sender))?;
        let is_ready =
            tokio::time::timeout(self.deadline(), answer).await.map_err(|_| ProposeError::Timeout)?;
        match is_ready.map_err(|_| ProposeError::Stopped)? {
            None => return Err(ProposeError::NotLeader),
            Some(false) => return Err(ProposeError::LearnerNotReady),
            Some(true) => {}
        }
        if self.config.strict_reconfig_check && !self.store.read().members().is_ready_to_promote() {
            return Err(StoreError::NotEnoughStartedMembers.into());
        }
        let members = self.propose_change(Request::MemberPromote(MemberPromote { id })).await?;
        self.consensus_metrics.promotions.inc();
        Ok(members)
    }

    pub(super) async fn move_leader_to(&self, to: u64) -> Result<(), ProposeError> {
        let own = self.config.beginning.id;
        if self.view.lock().leader != own {
            return Err(ProposeError::NotLeader);
        }
        if self.store.read().members().suffrage(to) != Suffrage::Voter {
            return Err(ProposeError::BadLeaderTransferee);
        }
        self.enqueue(Input::TransferLeader(to))?;
        let mut leader = self.leader.clone();
        match tokio::time::timeout(self.deadline(), leader.wait_for(|leader| *leader == to)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::LeaderTransferTimeout),
        }
    }
}
