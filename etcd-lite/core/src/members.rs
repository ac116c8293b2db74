//! Who the members of the cluster are, and were: changed by committed commands only, so that all members agree at every log index.
//!
//! The consensus core keeps a copy at the commit index and derives from it who votes; the store has the one at its applied index. Both apply
//! the same commands, so both come to the same answers. Never here: connections, whether a member is alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_proto::store::{MemberAdd, MemberAttributes, MemberRecord, MembersBegin};

use crate::Request;
use crate::error::StoreError;

/// The members by id, with those that were removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    by_id: BTreeMap<u64, Arc<MemberRecord>>,
}

/// A member's part in elections and majorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffrage {
    /// Counts.
    Voter,
    /// Gets the log, does not count.
    Learner,
    /// No member.
    None,
}

impl Members {
    /// From saved or sent records, removed members among them.
    pub fn from_records(records: impl IntoIterator<Item = MemberRecord>) -> Self {
        Self { by_id: records.into_iter().map(|record| (record.id, Arc::new(record))).collect() }
    }

    /// All records, of removed members too, by id.
    pub fn records(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.by_id.values()
    }

    pub(crate) fn load(&mut self, record: Arc<MemberRecord>) {
        self.by_id.insert(record.id, record);
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The members there are, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.by_id.values().filter(|member| !member.is_removed)
    }

    /// One member.
    pub fn get(&self, id: u64) -> Option<&Arc<MemberRecord>> {
        self.by_id.get(&id).filter(|member| !member.is_removed)
    }

    /// Whether there was such a member and it was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.by_id.get(&id).is_some_and(|member| member.is_removed)
    }

    /// What a member counts for.
    pub fn suffrage(&self, id: u64) -> Suffrage {
        match self.get(id) {
            Some(member) if member.is_learner => Suffrage::Learner,
            Some(_) => Suffrage::Voter,
            None => Suffrage::None,
        }
    }

    /// Ids of those who vote, ascending.
    pub fn voters(&self) -> Vec<u64> {
        self.voting().map(|member| member.id).collect()
    }

    /// Ids of those who do not vote yet, ascending.
    pub fn learners(&self) -> Vec<u64> {
        self.iter().filter(|member| member.is_learner).map(|member| member.id).collect()
    }

    fn voting(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.iter().filter(|member| !member.is_learner)
    }

    /// Whether a command changes who the members are or where.
    pub fn is_change(request: &Request) -> bool {
        matches!(
            request,
            Request::MembersBegin(_)
                | Request::MemberAdd(_)
                | Request::MemberRemove(_)
                | Request::MemberUpdate(_)
                | Request::MemberPromote(_)
                | Request::MembersReduce(_)
        )
    }

    /// Applies such a command; gives the records that are different now. A refused one changes nothing.
    ///
    /// # Errors
    /// `MemberNotFound`, `MemberExists`, `PeerUrlExists`, `MemberNotLearner`, `TooManyLearners`, with etcd's meaning;
    /// `NotEnoughStartedMembers` for removing the last voter; `UnknownCommand` for other commands.
    pub fn apply(&mut self, request: &Request) -> Result<Vec<Arc<MemberRecord>>, StoreError> {
        let changed = match request {
            Request::MembersBegin(MembersBegin { members }) => {
                // A log has one such entry, its first.
                if !self.is_empty() {
                    return Err(StoreError::MemberExists);
                }
                members.clone()
            }
            Request::MemberAdd(add) => vec![self.added(add)?],
            Request::MemberRemove(remove) => {
                let member = self.get(remove.id).ok_or(StoreError::MemberNotFound)?;
                if self.voters() == [remove.id] {
                    return Err(StoreError::NotEnoughStartedMembers);
                }
                vec![removed(member)]
            }
            Request::MemberUpdate(update) => {
                let member = self.get(update.id).ok_or(StoreError::MemberNotFound)?;
                self.check_urls(&update.peer_urls, update.id)?;
                vec![MemberRecord { peer_urls: update.peer_urls.clone(), ..MemberRecord::clone(member) }]
            }
            Request::MemberPromote(promote) => {
                let member = self.get(promote.id).ok_or(StoreError::MemberNotFound)?;
                if !member.is_learner {
                    return Err(StoreError::MemberNotLearner);
                }
                vec![MemberRecord { is_learner: false, ..MemberRecord::clone(member) }]
            }
            Request::MembersReduce(reduce) => {
                let survivor = reduce.survivor.as_ref().ok_or(StoreError::MemberNotFound)?;
                let survivor = MemberRecord { is_learner: false, is_removed: false, ..survivor.clone() };
                let others = self.iter().filter(|member| member.id != survivor.id);
                // First the one that stays: there is no moment without a voter.
                std::iter::once(survivor.clone()).chain(others.map(|member| removed(member))).collect()
            }
            _ => return Err(StoreError::UnknownCommand),
        };
        let changed: Vec<Arc<MemberRecord>> = changed.into_iter().map(Arc::new).collect();
        for record in &changed {
            self.by_id.insert(record.id, Arc::clone(record));
        }
        Ok(changed)
    }

    fn added(&self, add: &MemberAdd) -> Result<MemberRecord, StoreError> {
        let member = add.member.as_ref().ok_or(StoreError::MemberNotFound)?;
        if self.is_removed(member.id) {
            return Err(StoreError::MemberNotFound);
        }
        if self.get(member.id).is_some() {
            return Err(StoreError::MemberExists);
        }
        self.check_urls(&member.peer_urls, member.id)?;
        if member.is_learner && self.learners().len() >= add.learners_max as usize {
            return Err(StoreError::TooManyLearners);
        }
        Ok(member.clone())
    }

    /// Whether no other member than `id` has one of these URLs.
    fn check_urls(&self, urls: &[String], id: u64) -> Result<(), StoreError> {
        let mut taken = self.iter().filter(|member| member.id != id).flat_map(|member| &member.peer_urls);
        if taken.any(|url| urls.contains(url)) { Err(StoreError::PeerUrlExists) } else { Ok(()) }
    }

    /// Takes over what a member published about itself.
    pub(crate) fn set_attributes(
        &mut self,
        attributes: &MemberAttributes,
    ) -> Result<Arc<MemberRecord>, StoreError> {
        let member = self.get(attributes.member_id).ok_or(StoreError::MemberNotFound)?;
        let member = Arc::new(MemberRecord {
            name: attributes.name.clone(),
            client_urls: attributes.client_urls.clone(),
            ..MemberRecord::clone(member)
        });
        self.by_id.insert(member.id, Arc::clone(&member));
        Ok(member)
    }

    /// Whether enough members have started for a majority once another voter, which has not started, is added. One member that has
    /// started may always be joined by a second.
    pub fn is_ready_to_add(&self) -> bool {
        let (voters, started) = (self.voting().count() + 1, self.started(None));
        (started == 1 && voters == 2) || started > voters / 2
    }

    /// Whether enough members have started for a majority once a learner, which has, votes.
    pub fn is_ready_to_promote(&self) -> bool {
        let voters = self.voting().count() + 1;
        self.started(None) + 1 > voters / 2
    }

    /// Whether enough of the other members have started for a majority of them.
    pub fn is_ready_to_remove(&self, id: u64) -> bool {
        let voters = self.voting().filter(|member| member.id != id).count();
        self.started(Some(id)) > voters / 2
    }

    /// Voters that have published their name, which they do when they start.
    fn started(&self, without: Option<u64>) -> usize {
        self.voting().filter(|member| Some(member.id) != without && !member.name.is_empty()).count()
    }
}

/// What is kept of a member that is none any more.
fn removed(member: &MemberRecord) -> MemberRecord {
    MemberRecord { id: member.id, is_removed: true, ..MemberRecord::default() }
}

#[cfg(test)]
mod tests {
    use coracle_proto::store::{MemberPromote, MemberRemove, MemberUpdate, MembersReduce};

    use super::*;

    fn member(id: u64) -> MemberRecord {
        MemberRecord { id, peer_urls: vec![format!("http://{id}")], ..MemberRecord::default() }
    }

    fn cluster(ids: &[u64]) -> Members {
        let mut members = Members::default();
        let begin = MembersBegin { members: ids.iter().map(|id| member(*id)).collect() };
        members.apply(&Request::MembersBegin(begin)).expect("begin");
        members
    }

    fn add(member: MemberRecord) -> Request {
        Request::MemberAdd(MemberAdd { member: Some(member), learners_max: 1 })
    }

    fn start(members: &mut Members, id: u64) {
        let attributes = MemberAttributes { member_id: id, name: id.to_string(), client_urls: Vec::new() };
        members.set_attributes(&attributes).expect("a member");
    }

    #[test]
    fn a_change_that_does_not_fit_is_refused_and_changes_nothing() {
        let mut members = cluster(&[1, 2, 3]);
        members.apply(&Request::MemberRemove(MemberRemove { id: 3 })).expect("remove");
        members.apply(&add(MemberRecord { is_learner: true, ..member(4) })).expect("a learner");
        let before = members.clone();
        let mut alone = cluster(&[1]);
        let remove = Request::MemberRemove(MemberRemove { id: 1 });
        assert_eq!(alone.apply(&remove), Err(StoreError::NotEnoughStartedMembers));
        let promote = |id| Request::MemberPromote(MemberPromote { id });
        let update = |id, url: &str| {
            Request::MemberUpdate(MemberUpdate { id, peer_urls: vec!["http://new".into(), url.into()] })
        };
        for (request, refusal) in [
            (add(MemberRecord { peer_urls: Vec::new(), ..member(2) }), StoreError::MemberExists),
            (add(MemberRecord { id: 9, ..member(2) }), StoreError::PeerUrlExists),
            (add(member(3)), StoreError::MemberNotFound),
            (add(MemberRecord { is_learner: true, ..member(5) }), StoreError::TooManyLearners),
            (Request::MemberRemove(MemberRemove { id: 3 }), StoreError::MemberNotFound),
            (promote(7), StoreError::MemberNotFound),
            (promote(1), StoreError::MemberNotLearner),
            (update(3, "x"), StoreError::MemberNotFound),
            (update(1, "http://2"), StoreError::PeerUrlExists),
            (Request::MembersBegin(MembersBegin::default()), StoreError::MemberExists),
        ] {
            assert_eq!(members.apply(&request), Err(refusal), "{request:?}");
        }
        assert_eq!(members, before);
        members.apply(&update(1, "http://1")).expect("its own URL");
        members.apply(&promote(4)).expect("promote");
        assert_eq!((members.voters(), members.learners()), (vec![1, 2, 4], vec![]));
        assert_eq!(members.suffrage(3), Suffrage::None);
        assert!(members.is_removed(3) && !members.is_removed(5));
        assert_eq!(
            Members::from_records(members.records().map(|record| MemberRecord::clone(record))),
            members
        );
    }

    #[test]
    fn one_member_goes_on_alone_even_if_it_was_a_learner() {
        let mut members = cluster(&[1, 2]);
        let learner = MemberRecord { is_learner: true, ..member(3) };
        members.apply(&add(learner.clone())).expect("a learner");
        members.apply(&Request::MembersReduce(MembersReduce { survivor: Some(learner) })).expect("reduce");
        assert_eq!((members.voters(), members.learners()), (vec![3], vec![]));
        assert!(members.is_removed(1) && members.is_removed(2));
    }

    #[test]
    fn a_majority_of_started_members_is_kept() {
        let mut members = cluster(&[1]);
        assert!(!members.is_ready_to_add());
        start(&mut members, 1);
        assert!(members.is_ready_to_add() && !members.is_ready_to_remove(1));
        members.apply(&add(member(2))).expect("add");
        // A third would make two absent ones of three.
        assert!(!members.is_ready_to_add());
        assert!(members.is_ready_to_remove(2) && !members.is_ready_to_remove(1));
        assert!(members.is_ready_to_promote());
        start(&mut members, 2);
        assert!(members.is_ready_to_add());
    }
}
