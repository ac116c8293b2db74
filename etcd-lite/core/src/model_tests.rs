//! The store against a naive model: the list of all writes ever made, replayed for every question.

use std::collections::BTreeMap;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::response_op::Response as OpResponse;
use coracle_proto::mvccpb::KeyValue;
use proptest::prelude::*;

use crate::{
    Applied, Command, KeyRange, Record, RecordChange, RecordKey, Request, Response, Store, StoreError, check,
};

/// A write as the model remembers it; no value is a deletion.
#[derive(Clone, Debug)]
struct Write {
    revision: i64,
    key: Bytes,
    value: Option<Bytes>,
    lease: i64,
}

#[derive(Default)]
struct Model {
    writes: Vec<Write>,
    revision: i64,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
}

impl Model {
    fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    /// All keys as they were after `revision`.
    fn at(&self, revision: i64) -> BTreeMap<Bytes, KeyValue> {
        self.after(self.writes.partition_point(|w| w.revision <= revision))
    }

    /// All keys as they were after so many writes.
    fn after(&self, count: usize) -> BTreeMap<Bytes, KeyValue> {
        let mut keys: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        for write in &self.writes[..count] {
            let Some(value) = &write.value else {
                keys.remove(&write.key);
                continue;
            };
            let before = keys.get(&write.key);
            let kv = KeyValue {
                key: write.key.clone(),
                create_revision: before.map_or(write.revision, |kv| kv.create_revision),
                mod_revision: write.revision,
                version: before.map_or(1, |kv| kv.version + 1),
                value: value.clone(),
                lease: write.lease,
            };
            keys.insert(write.key.clone(), kv);
        }
        keys
    }

    fn in_range(&self, key: &Bytes, range_end: &Bytes, revision: i64) -> Vec<KeyValue> {
        let range = KeyRange::new(key, range_end);
        self.at(revision).into_values().filter(|kv| range.contains(&kv.key)).collect()
    }

    fn readable(&self, revision: i64) -> Result<(), StoreError> {
        match revision {
            ..=0 => Ok(()),
            r if r > self.revision => Err(StoreError::FutureRevision),
            r if r < self.compacted => Err(StoreError::Compacted),
            _ => Ok(()),
        }
    }

    fn range(&self, r: &pb::RangeRequest, current: i64) -> pb::RangeResponse {
        let mut kvs =
            self.in_range(&r.key, &r.range_end, if r.revision <= 0 { i64::MAX } else { r.revision });
        let mut response = pb::RangeResponse { count: kvs.len() as i64, ..Default::default() };
        response.header = Some(pb::ResponseHeader { revision: current, ..Default::default() });
        if r.count_only {
            return response;
        }
        let between = |n: i64, low: i64, high: i64| (low == 0 || low <= n) && (high == 0 || n <= high);
        kvs.retain(|kv| between(kv.mod_revision, r.min_mod_revision, r.max_mod_revision));
        kvs.retain(|kv| between(kv.create_revision, r.min_create_revision, r.max_create_revision));
        let by_target = |a: &KeyValue, b: &KeyValue| match r.sort_target() {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match r.sort_order() {
            SortOrder::None => {}
            SortOrder::Ascend => kvs.sort_by(by_target),
            SortOrder::Descend => kvs.sort_by(|a, b| by_target(b, a)),
        }
        if r.limit > 0 && kvs.len() > r.limit as usize {
            kvs.truncate(r.limit as usize);
            response.more = true;
        }
        if r.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response.kvs = kvs;
        response
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), StoreError> {
        let exists = self.at(i64::MAX).contains_key(&put.key);
        if (put.ignore_value || put.ignore_lease) && !exists {
            return Err(StoreError::KeyNotFound);
        }
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        Ok(())
    }

    fn put(&mut self, main: i64, put: &pb::PutRequest) -> pb::PutResponse {
        let before = self.at(i64::MAX).remove(&put.key);
        let mut write =
            Write { revision: main, key: put.key.clone(), value: Some(put.value.clone()), lease: put.lease };
        if let Some(before) = &before {
            if put.ignore_value {
                write.value = Some(before.value.clone());
            }
            if put.ignore_lease {
                write.lease = before.lease;
            }
        }
        self.writes.push(write);
        pb::PutResponse { header: header(main), prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, main: i64, delete: &pb::DeleteRangeRequest, wrote: bool) -> pb::DeleteRangeResponse {
        let gone = self.in_range(&delete.key, &delete.range_end, i64::MAX);
        for kv in &gone {
            self.writes.push(Write { revision: main, key: kv.key.clone(), value: None, lease: 0 });
        }
        let revision = if wrote || !gone.is_empty() { main } else { main - 1 };
        pb::DeleteRangeResponse {
            header: header(revision),
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let found = self.in_range(&compare.key, &compare.range_end, i64::MAX);
        if found.is_empty() {
            return compare.target() != CompareTarget::Value && holds_for(compare, &KeyValue::default());
        }
        found.iter().all(|kv| holds_for(compare, kv))
    }

    fn txn(&mut self, txn: &pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        for op in branch {
            if let Some(Op::RequestPut(put)) = &op.request {
                self.check_put(put)?;
            }
        }
        for op in branch {
            if let Some(Op::RequestRange(range)) = &op.request {
                self.readable(range.revision)?;
            }
        }
        let (main, before) = (self.revision + 1, self.writes.len());
        let mut responses = Vec::new();
        for op in branch {
            let wrote = self.writes.len() > before;
            let response = match op.request.as_ref().expect("generated") {
                Op::RequestRange(range) => {
                    OpResponse::ResponseRange(self.range(range, if wrote { main } else { main - 1 }))
                }
                Op::RequestPut(put) => OpResponse::ResponsePut(self.put(main, put)),
                Op::RequestDeleteRange(delete) => {
                    OpResponse::ResponseDeleteRange(self.delete(main, delete, wrote))
                }
                Op::RequestTxn(_) => unreachable!("not generated"),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        self.revision = if self.writes.len() > before { main } else { main - 1 };
        Ok(pb::TxnResponse { header: header(self.revision), succeeded, responses })
    }

    fn apply(&mut self, request: &Request) -> Result<Response, StoreError> {
        let (main, before) = (self.revision + 1, self.writes.len());
        let response = match request {
            Request::Put(put) => {
                if put.lease != 0 && !self.leases.contains_key(&put.lease) {
                    return Err(StoreError::LeaseNotFound);
                }
                self.check_put(put)?;
                Response::Put(self.put(main, put))
            }
            Request::DeleteRange(delete) => Response::DeleteRange(self.delete(main, delete, false)),
            Request::Txn(txn) => return self.txn(txn).map(Response::Txn),
            Request::Compact(compact) => {
                if compact.revision <= self.compacted {
                    return Err(StoreError::Compacted);
                }
                if compact.revision > self.revision {
                    return Err(StoreError::FutureRevision);
                }
                self.compacted = compact.revision;
                Response::Compact(pb::CompactionResponse { header: header(self.revision) })
            }
            Request::LeaseGrant(grant) => {
                if self.leases.contains_key(&grant.id) {
                    return Err(StoreError::LeaseExists);
                }
                self.leases.insert(grant.id, grant.ttl);
                let &pb::LeaseGrantRequest { id, ttl } = grant;
                Response::LeaseGrant(pb::LeaseGrantResponse {
                    header: header(self.revision),
                    id,
                    ttl,
                    error: String::new(),
                })
            }
            Request::LeaseRevoke(revoke) => {
                self.leases.remove(&revoke.id).ok_or(StoreError::LeaseNotFound)?;
                for kv in self.at(i64::MAX).into_values().filter(|kv| kv.lease == revoke.id) {
                    self.writes.push(Write { revision: main, key: kv.key, value: None, lease: 0 });
                }
                let revision = if self.writes.len() > before { main } else { main - 1 };
                Response::LeaseRevoke(pb::LeaseRevokeResponse { header: header(revision) })
            }
            _ => unreachable!("not generated"),
        };
        if self.writes.len() > before {
            self.revision = main;
        }
        Ok(response)
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn holds_for(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let ordering = match compare.target_union.as_ref().expect("generated") {
        TargetUnion::Version(n) => kv.version.cmp(n),
        TargetUnion::CreateRevision(n) => kv.create_revision.cmp(n),
        TargetUnion::ModRevision(n) => kv.mod_revision.cmp(n),
        TargetUnion::Lease(n) => kv.lease.cmp(n),
        TargetUnion::Value(value) => kv.value.cmp(value),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

// ---- what is generated

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "b", "ba", "bb", "c", "\u{0}"]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "", "b", "bb", "c", "d", "\u{0}"]).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "x", "y", "z"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![0, 0, 1, 2])
}

/// A revision near what such a short history has: also before it and in the future.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..24_i64]
}

prop_compose! {
    fn put()(key in key(), value in value(), lease in lease(), prev_kv in any::<bool>(), ignore in 0..8_u8) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (ignore == 0, ignore == 1);
        pb::PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        }
    }
}

prop_compose! {
    fn range()(
        key in key(), range_end in range_end(), limit in 0..4_i64, revision in revision(), order in 0..3, target in 0..5,
        flags in 0..6_u8, bounds in prop::array::uniform4(prop_oneof![4 => Just(0_i64), 1 => 1..12_i64]),
    ) -> pb::RangeRequest {
        pb::RangeRequest {
            key,
            range_end,
            limit,
            revision,
            // A target without an order sorts only what the limit let through; that has a test of its own.
            sort_order: order,
            sort_target: if order == 0 { 0 } else { target },
            serializable: false,
            keys_only: flags == 0,
            count_only: flags == 1,
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
        }
    }
}

prop_compose! {
    fn delete()(key in key(), range_end in range_end(), prev_kv in any::<bool>()) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key, range_end, prev_kv }
    }
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    (key(), range_end(), 0..4, 0..5_u8, 0..6_i64, value()).prop_map(
        |(key, range_end, result, target, n, value)| {
            let (target, union) = match target {
                0 => (CompareTarget::Version, TargetUnion::Version(n)),
                1 => (CompareTarget::Create, TargetUnion::CreateRevision(n)),
                2 => (CompareTarget::Mod, TargetUnion::ModRevision(n)),
                3 => (CompareTarget::Value, TargetUnion::Value(value)),
                _ => (CompareTarget::Lease, TargetUnion::Lease(n % 3)),
            };
            pb::Compare { result, target: target.into(), key, target_union: Some(union), range_end }
        },
    )
}

fn branch() -> impl Strategy<Value = Vec<pb::RequestOp>> {
    let op = prop_oneof![
        range().prop_map(Op::RequestRange),
        put().prop_map(Op::RequestPut),
        put().prop_map(Op::RequestPut),
        delete().prop_map(Op::RequestDeleteRange),
    ];
    prop::collection::vec(op.prop_map(|request| pb::RequestOp { request: Some(request) }), 0..4)
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    (prop::collection::vec(compare(), 0..3), branch(), branch())
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
        .prop_filter("writes a key twice", |txn| check::txn(txn, 128).is_ok())
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => put().prop_map(Request::Put),
        2 => delete().prop_map(Request::DeleteRange),
        4 => txn().prop_map(Request::Txn),
        1 => (0..20_i64, any::<bool>())
            .prop_map(|(revision, physical)| Request::Compact(pb::CompactionRequest { revision, physical })),
        1 => (1..3_i64).prop_map(|id| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 10 })),
        1 => (1..3_i64).prop_map(|id| Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
    ]
}

// ---- what is compared

/// Sorting by anything but the key leaves the order of equals open.
fn comparable(mut response: pb::RangeResponse, request: &pb::RangeRequest) -> pb::RangeResponse {
    if request.sort_target() != SortTarget::Key {
        if response.more {
            // Which of several equals the limit cut off is open as well.
            let field = |kv: &KeyValue| match request.sort_target() {
                SortTarget::Version => kv.version,
                SortTarget::Create => kv.create_revision,
                _ => kv.mod_revision,
            };
            for kv in &mut response.kvs {
                let value =
                    if request.sort_target() == SortTarget::Value { kv.value.clone() } else { Bytes::new() };
                *kv = KeyValue { value, mod_revision: field(kv), ..KeyValue::default() };
                if request.sort_target() == SortTarget::Value {
                    kv.mod_revision = 0;
                }
            }
        }
        response.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    }
    response
}

fn comparable_response(response: Response, request: &Request) -> Response {
    let (Response::Txn(mut response), Request::Txn(request)) = (response.clone(), request) else {
        return response;
    };
    let branch = if response.succeeded { &request.success } else { &request.failure };
    for (op, answer) in branch.iter().zip(&mut response.responses) {
        if let (Some(Op::RequestRange(request)), Some(OpResponse::ResponseRange(range))) =
            (&op.request, &mut answer.response)
        {
            *range = comparable(std::mem::take(range), request);
        }
    }
    Response::Txn(response)
}

fn change_records(records: &mut BTreeMap<RecordKey, Record>, applied: &Applied) {
    for change in &applied.changes {
        match change {
            RecordChange::Set(record) => {
                records.insert(record.key(), record.clone());
            }
            RecordChange::Delete(key) => {
                records.remove(key);
            }
        }
    }
}

fn load(records: &BTreeMap<RecordKey, Record>) -> Store {
    Store::load(records.iter().map(|(key, record)| (key, Bytes::from(record.value())))).expect("loads")
}

fn all_history(
    store: &Store,
    range: &KeyRange,
    start: i64,
    scan_max: usize,
) -> Result<Vec<crate::Event>, StoreError> {
    let (mut events, mut next) = (Vec::new(), start);
    while next <= store.revision() {
        let history = store.history(range, next, scan_max, usize::MAX)?;
        assert!(history.through >= next, "history makes progress");
        events.extend(history.events);
        next = history.through + 1;
    }
    Ok(events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_store_answers_as_a_replay_of_all_writes(
        requests in prop::collection::vec(request(), 1..30),
        restart_at in 0..30_usize,
        reads in prop::collection::vec(range(), 1..12),
        watches in prop::collection::vec((key(), range_end(), 1..20_i64, 1..4_usize), 1..6),
    ) {
        let (mut store, mut model) = (Store::new(), Model::new());
        let mut restarted = Store::new();
        let mut records: BTreeMap<RecordKey, Record> = BTreeMap::new();
        for (index, request) in requests.iter().enumerate() {
            let before = model.writes.len();
            let expected = model.apply(request);
            let command = Command { id: 0, request: Some(request.clone()) };
            let applied = store.apply(index as u64 + 1, 1, &command);
            change_records(&mut records, &applied);
            prop_assert_eq!(&restarted.apply(index as u64 + 1, 1, &command).changes, &applied.changes);
            if index == restart_at {
                restarted = load(&records);
            }
            let answer = applied.response.map(|r| comparable_response(r, request));
            prop_assert_eq!(answer, expected.map(|r| comparable_response(r, request)));
            prop_assert_eq!(applied.revision, model.revision);
            let told: Vec<(Bytes, bool)> =
                applied.events.iter().map(|e| (Bytes::copy_from_slice(e.version.key()), e.version.tombstone)).collect();
            let written: Vec<(Bytes, bool)> =
                model.writes[before..].iter().map(|w| (w.key.clone(), w.value.is_none())).collect();
            prop_assert_eq!(told, written);
            for event in applied.events.iter() {
                let previous = event.previous.as_ref().map(|v| v.to_key_value());
                let begins = event.version.create_revision == event.version.revision.main;
                let expected = model.after(before).remove(event.version.key()).filter(|_| !begins);
                prop_assert_eq!(previous, expected);
            }
        }
        prop_assert_eq!(store.compacted_revision(), model.compacted);
        prop_assert_eq!(store.key_count(), model.at(i64::MAX).len());

        for (id, lease) in store.leases() {
            let attached: Vec<Bytes> =
                model.at(i64::MAX).into_values().filter(|kv| kv.lease == id).map(|kv| kv.key).collect();
            prop_assert_eq!(lease.keys.iter().cloned().collect::<Vec<_>>(), attached);
        }

        // What was saved change by change is what the store would save now, and loads as the same store.
        let loaded = load(&records);
        let saved: Vec<Record> = records.into_values().collect();
        prop_assert_eq!(&saved, &store.records().collect::<Vec<_>>());
        prop_assert_eq!(loaded.records().collect::<Vec<_>>(), saved);
        prop_assert_eq!(loaded.hash_all(), store.hash_all());
        prop_assert_eq!(loaded.size_bytes(), store.size_bytes());
        prop_assert_eq!(loaded.key_count(), store.key_count());

        let everything = KeyRange::new(&Bytes::from_static(&[0]), &Bytes::from_static(&[0]));
        let kept_from = store.compacted_revision().max(1);
        prop_assert_eq!(
            all_history(&loaded, &everything, kept_from, usize::MAX),
            all_history(&store, &everything, kept_from, usize::MAX)
        );

        for store in [&store, &loaded, &restarted] {
            for read in &reads {
                let expected = model.readable(read.revision).map(|()| model.range(read, model.revision));
                let answer = store.range(read).map(|found| found.to_response());
                prop_assert_eq!(
                    answer.map(|r| comparable(r, read)),
                    expected.map(|r| comparable(r, read)),
                    "{:?}", read
                );
            }
            for (key, end, start, scan_max) in &watches {
                let range = KeyRange::new(key, end);
                let expected: Vec<(i64, Bytes, Option<Bytes>)> = model.writes.iter()
                    .filter(|w| w.revision >= *start && range.contains(&w.key))
                    .map(|w| (w.revision, w.key.clone(), w.value.clone()))
                    .collect();
                match all_history(store, &range, *start, *scan_max) {
                    Ok(events) => {
                        let events: Vec<_> = events.iter()
                            .map(|e| {
                                let value = (!e.version.tombstone).then(|| Bytes::copy_from_slice(e.version.value()));
                                (e.version.revision.main, Bytes::copy_from_slice(e.version.key()), value)
                            })
                            .collect();
                        prop_assert_eq!(events, expected);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, StoreError::Compacted);
                        prop_assert!(*start < model.compacted);
                    }
                }
            }
        }
    }
}

fn apply(store: &mut Store, request: Request) -> Applied {
    store.apply(store.applied_index() + 1, 1, &Command { id: 0, request: Some(request) })
}

fn put_request(key: &'static str, value: &'static str) -> Request {
    Request::Put(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() })
}

#[test]
fn a_sort_target_without_an_order_sorts_what_the_limit_let_through() {
    let mut store = Store::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
        apply(&mut store, put_request(key, value));
    }
    let request = pb::RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 2,
        sort_target: SortTarget::Value.into(),
        ..Default::default()
    };
    let keys: Vec<Bytes> =
        store.range(&request).expect("readable").to_response().kvs.into_iter().map(|kv| kv.key).collect();
    // Three are looked at, to know that there are more; so the lowest of those three comes first.
    assert_eq!(keys, ["c", "b"]);
}

#[test]
fn a_nested_transaction_is_decided_on_the_state_before_all_writes() {
    let mut store = Store::new();
    let exists = |key: &'static str| pb::Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Version.into(),
        key: key.into(),
        target_union: Some(TargetUnion::Version(0)),
        range_end: Bytes::new(),
    };
    let put = |key: &'static str| pb::RequestOp {
        request: Some(Op::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() })),
    };
    let nested =
        pb::TxnRequest { compare: vec![exists("a")], success: vec![put("yes")], failure: vec![put("no")] };
    let request = pb::TxnRequest {
        success: vec![put("a"), pb::RequestOp { request: Some(Op::RequestTxn(nested)) }],
        ..Default::default()
    };
    assert_eq!(check::txn(&request, 128), Ok(()));
    let applied = apply(&mut store, Request::Txn(request));
    assert_eq!(applied.revision, 2);
    let keys: Vec<&[u8]> = applied.events.iter().map(|e| e.version.key()).collect();
    assert_eq!(keys, [b"a".as_slice(), b"no"]);
    let subs: Vec<i64> = applied.events.iter().map(|e| e.version.revision.sub).collect();
    assert_eq!(subs, [0, 1]);
}

#[test]
fn a_refused_transaction_writes_nothing() {
    let mut store = Store::new();
    let put = |lease: i64| pb::RequestOp {
        request: Some(Op::RequestPut(pb::PutRequest {
            key: format!("k{lease}").into(),
            lease,
            ..Default::default()
        })),
    };
    let applied = apply(
        &mut store,
        Request::Txn(pb::TxnRequest { success: vec![put(0), put(5)], ..Default::default() }),
    );
    assert_eq!(applied.response, Err(StoreError::LeaseNotFound));
    assert_eq!((store.revision(), store.key_count(), store.applied_index()), (1, 0, 1));
    assert_eq!(applied.changes.len(), 1, "only the meta record");
}

#[test]
fn a_watch_from_the_compacted_revision_still_sees_the_deletion_at_it() {
    let mut store = Store::new();
    apply(&mut store, put_request("k", "v"));
    apply(&mut store, Request::DeleteRange(pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }));
    apply(&mut store, Request::Compact(pb::CompactionRequest { revision: 3, physical: false }));
    let range = KeyRange::new(&"k".into(), &Bytes::new());
    let history = store.history(&range, 3, 10, 1000).expect("not compacted");
    assert!(history.events.len() == 1 && history.events[0].version.tombstone);
    assert_eq!(store.history(&range, 2, 10, 1000).err(), Some(StoreError::Compacted));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let mut store = Store::new();
    apply(&mut store, put_request("k", "v"));
    let saved: Vec<(RecordKey, Bytes)> = store.records().map(|r| (r.key(), r.value().into())).collect();
    let without_meta = saved.iter().filter(|(key, _)| *key != RecordKey::meta()).cloned();
    assert!(matches!(Store::load(without_meta), Err(crate::LoadError::MissingMeta)));
    let backwards = saved.iter().rev().cloned();
    assert!(Store::load(backwards).is_err());
    let mut behind = saved.clone();
    behind[0].1 =
        Record::Meta(coracle_proto::store::StoreMeta { revision: 1, ..Default::default() }).value().into();
    assert!(matches!(Store::load(behind), Err(crate::LoadError::Inconsistent(_))));
    let mut torn = saved;
    torn[1].1 = torn[1].1.slice(..torn[1].1.len() - 1);
    assert!(matches!(Store::load(torn), Err(crate::LoadError::Undecodable { .. })));
}
