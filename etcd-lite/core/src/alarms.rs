//! Alarms: what a member has told the others is wrong with it, and what nobody may do meanwhile.
//!
//! Owns: the set of raised alarms, its answers, which commands an alarm refuses. Never here: when to raise one (the quota and the
//! corruption check know, outside the core).
//!
//! With NOSPACE whatever would take space is refused; reads, deletions, revocations and compaction, which give space back, go on. With
//! CORRUPT every change of keys and leases is refused: members that differ would differ more. As in etcd, reads from a member's own
//! state go on, so that its data can be saved.

use std::collections::BTreeSet;

use coracle_proto::etcdserverpb::alarm_request::AlarmAction;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType, TxnRequest};

use crate::Request;
use crate::apply::{Response, WriteBatch};
use crate::error::StoreError;
use crate::range::header;
use crate::records::{Record, RecordChange};
use crate::store::Store;

/// The raised alarms, by kind and member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    raised: BTreeSet<(i32, u64)>,
}

impl Alarms {
    /// Raised alarms of one kind, or of every kind for `None`, which is 0; by kind, then member.
    pub fn get(&self, kind: AlarmType) -> impl Iterator<Item = AlarmMember> {
        let wanted = i32::from(kind);
        self.raised
            .iter()
            .filter(move |(kind, _)| wanted == i32::from(AlarmType::None) || *kind == wanted)
            .map(|(kind, member_id)| AlarmMember { member_id: *member_id, alarm: *kind })
    }

    /// Whether any member has raised this kind.
    pub fn is_raised(&self, kind: AlarmType) -> bool {
        self.get(kind).next().is_some()
    }

    /// Whether this member has raised this kind.
    pub fn is_raised_by(&self, member_id: u64, kind: AlarmType) -> bool {
        self.raised.contains(&(kind.into(), member_id))
    }

    /// Takes in a saved alarm.
    pub(crate) fn load(&mut self, alarm: &AlarmMember) {
        self.raised.insert((alarm.alarm, alarm.member_id));
    }

    /// Why a command is refused now, if it is.
    fn refusal(&self, request: &Request) -> Option<StoreError> {
        if self.raised.is_empty() {
            return None;
        }
        let changes_keys = matches!(
            request,
            Request::Put(_)
                | Request::DeleteRange(_)
                | Request::Txn(_)
                | Request::Compact(_)
                | Request::LeaseGrant(_)
                | Request::LeaseRevoke(_)
                | Request::LeaseExpire(_)
        );
        if changes_keys && self.is_raised(AlarmType::Corrupt) {
            return Some(StoreError::Corrupt);
        }
        if space_needed_bytes(request) > 0 && self.is_raised(AlarmType::Nospace) {
            return Some(StoreError::NoSpace);
        }
        None
    }
}

/// What a put takes beside its key and value, and what a lease takes, as etcd reckons it.
const PUT_OVERHEAD_BYTES: u64 = 256;
const LEASE_BYTES: u64 = 64;

/// About how many bytes a request adds to the store at most; 0 for what adds none.
pub fn space_needed_bytes(request: &Request) -> u64 {
    let put = |key: &[u8], value: &[u8]| PUT_OVERHEAD_BYTES + (key.len() + value.len()) as u64;
    match request {
        Request::Put(request) => put(&request.key, &request.value),
        Request::Txn(request) => txn_bytes(request, &put),
        Request::LeaseGrant(_) => LEASE_BYTES,
        Request::OnBehalf(wrapped) => match wrapped.command.as_deref().and_then(|c| c.request.as_ref()) {
            // The wrapping goes round one request, never round another wrapping.
            None | Some(Request::OnBehalf(_)) => 0,
            Some(request) => space_needed_bytes(request),
        },
        _ => 0,
    }
}

/// One branch of a transaction runs; the larger one counts.
fn txn_bytes(request: &TxnRequest, put: &impl Fn(&[u8], &[u8]) -> u64) -> u64 {
    let op = |op: &Option<Op>| match op {
        Some(Op::RequestPut(request)) => put(&request.key, &request.value),
        Some(Op::RequestTxn(request)) => txn_bytes(request, put),
        _ => 0,
    };
    let branch = |ops: &[coracle_proto::etcdserverpb::RequestOp]| ops.iter().map(|o| op(&o.request)).sum();
    u64::max(branch(&request.success), branch(&request.failure))
}

impl Store {
    /// The raised alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Refuses a command for a raised alarm. Part of applying, so that all members decide alike.
    pub(crate) fn check_alarms(&self, request: &Request) -> Result<(), StoreError> {
        self.alarms.refusal(request).map_or(Ok(()), Err)
    }

    pub(crate) fn apply_alarm(
        &mut self,
        batch: &mut WriteBatch,
        request: &AlarmRequest,
    ) -> Result<Response, StoreError> {
        let answer =
            |alarms| Ok(Response::Alarm(AlarmResponse { header: header(self.meta.revision), alarms }));
        let member = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let key = (member.alarm, member.member_id);
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => answer(self.alarms.get(request.alarm()).collect()),
            // "No alarm" can neither be raised nor put out.
            Ok(_) if request.alarm == i32::from(AlarmType::None) => answer(Vec::new()),
            Ok(AlarmAction::Activate) => {
                if self.alarms.raised.insert(key) {
                    batch.changes.push(RecordChange::Set(Record::Alarm(member)));
                }
                answer(vec![member])
            }
            Ok(AlarmAction::Deactivate) => {
                if !self.alarms.raised.remove(&key) {
                    return answer(Vec::new());
                }
                batch.changes.push(RecordChange::Delete(Record::Alarm(member).key()));
                answer(vec![member])
            }
            Err(_) => Err(StoreError::UnknownCommand),
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_proto::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RequestOp,
    };

    use super::*;
    use crate::{Command, RecordKey};

    struct Machine {
        store: Store,
        index: u64,
    }

    impl Machine {
        fn apply(&mut self, request: Request) -> Result<Response, StoreError> {
            self.index += 1;
            self.store.apply(self.index, 1, &Command { id: self.index, request: Some(request) }).response
        }

        fn alarm(&mut self, action: AlarmAction, member_id: u64, kind: AlarmType) -> Vec<AlarmMember> {
            let request = AlarmRequest { action: action.into(), member_id, alarm: kind.into() };
            let Ok(Response::Alarm(response)) = self.apply(Request::Alarm(request)) else {
                panic!("an alarm's answer");
            };
            response.alarms
        }
    }

    fn put(key: &'static str) -> Request {
        Request::Put(PutRequest { key: key.into(), value: "v".into(), ..Default::default() })
    }

    fn txn(op: Op) -> Request {
        let op = RequestOp { request: Some(op) };
        Request::Txn(TxnRequest { success: vec![op], ..Default::default() })
    }

    fn delete() -> Request {
        Request::DeleteRange(DeleteRangeRequest { key: "a".into(), ..Default::default() })
    }

    fn machine() -> Machine {
        let mut machine = Machine { store: Store::new(), index: 0 };
        machine.apply(put("a")).expect("put");
        machine
    }

    #[test]
    fn without_space_what_takes_some_is_refused_and_what_gives_some_back_goes_on() {
        let mut machine = machine();
        machine.alarm(AlarmAction::Activate, 7, AlarmType::Nospace);
        let before = machine.store.revision();
        let Request::Put(inner) = put("b") else { unreachable!() };
        let nested = TxnRequest {
            failure: vec![RequestOp { request: Some(Op::RequestPut(inner.clone())) }],
            ..Default::default()
        };
        for request in [
            put("b"),
            txn(Op::RequestPut(inner)),
            txn(Op::RequestTxn(nested)),
            Request::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 10 }),
        ] {
            assert_eq!(machine.apply(request), Err(StoreError::NoSpace));
        }
        assert_eq!(machine.store.revision(), before);
        machine.apply(delete()).expect("delete");
        machine.apply(txn(Op::RequestDeleteRange(DeleteRangeRequest::default()))).expect("txn");
        let compact = CompactionRequest { revision: 2, physical: true };
        machine.apply(Request::Compact(compact)).expect("compact");
        machine.alarm(AlarmAction::Deactivate, 7, AlarmType::Nospace);
        machine.apply(put("b")).expect("put");
    }

    #[test]
    fn a_corrupt_cluster_changes_no_more() {
        let mut machine = machine();
        machine.alarm(AlarmAction::Activate, 7, AlarmType::Corrupt);
        machine.alarm(AlarmAction::Activate, 7, AlarmType::Nospace);
        for request in [
            put("b"),
            delete(),
            txn(Op::RequestDeleteRange(DeleteRangeRequest::default())),
            Request::Compact(CompactionRequest { revision: 1, physical: false }),
            Request::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 10 }),
        ] {
            assert_eq!(machine.apply(request), Err(StoreError::Corrupt));
        }
    }

    #[test]
    fn alarms_are_answered_as_etcd_answers_them() {
        let mut machine = machine();
        let raised = |member_id, kind: AlarmType| AlarmMember { member_id, alarm: kind.into() };
        for _ in 0..2 {
            let answer = machine.alarm(AlarmAction::Activate, 7, AlarmType::Nospace);
            assert_eq!(answer, [raised(7, AlarmType::Nospace)]);
        }
        machine.alarm(AlarmAction::Activate, 3, AlarmType::Corrupt);
        assert_eq!(machine.alarm(AlarmAction::Activate, 9, AlarmType::None), []);
        assert_eq!(
            machine.alarm(AlarmAction::Get, 0, AlarmType::None),
            [raised(7, AlarmType::Nospace), raised(3, AlarmType::Corrupt)]
        );
        assert_eq!(machine.alarm(AlarmAction::Get, 0, AlarmType::Corrupt), [raised(3, AlarmType::Corrupt)]);
        assert_eq!(machine.alarm(AlarmAction::Deactivate, 3, AlarmType::Nospace), []);
        assert_eq!(
            machine.alarm(AlarmAction::Deactivate, 7, AlarmType::Nospace),
            [raised(7, AlarmType::Nospace)]
        );
        assert_eq!(machine.alarm(AlarmAction::Deactivate, 7, AlarmType::Nospace), []);
        machine.alarm(AlarmAction::Deactivate, 3, AlarmType::Corrupt);
        machine.apply(put("b")).expect("put");
    }

    #[test]
    fn alarms_are_saved_and_sent_with_the_state() {
        let mut machine = machine();
        machine.alarm(AlarmAction::Activate, u64::MAX, AlarmType::Corrupt);
        machine.alarm(AlarmAction::Activate, 1, AlarmType::Nospace);
        let records: Vec<(RecordKey, bytes::Bytes)> =
            machine.store.records().map(|record| (record.key(), record.value().into())).collect();
        let loaded = Store::load(records).expect("loads");
        assert_eq!(loaded.alarms(), machine.store.alarms());
        assert_eq!(loaded.hash_all(), machine.store.hash_all());
        machine.alarm(AlarmAction::Deactivate, 1, AlarmType::Nospace);
        assert_ne!(loaded.hash_all(), machine.store.hash_all());
    }
}
