//! Good histories pass; histories that break one rule are caught by it.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::mvccpb;
use pb::request_op::Request as Op;

use crate::model::Model;
use crate::*;

fn bytes(text: impl AsRef<str>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref().as_bytes())
}

fn put(key: &str, value: &str) -> Request {
    Request::Put(pb::PutRequest { key: bytes(key), value: bytes(value), prev_kv: true, ..Default::default() })
}

fn delete(key: &str) -> Request {
    Request::DeleteRange(pb::DeleteRangeRequest { key: bytes(key), ..Default::default() })
}

fn get(key: &str) -> Request {
    Request::Range(pb::RangeRequest { key: bytes(key), ..Default::default() })
}

fn list() -> Request {
    Request::Range(pb::RangeRequest {
        key: bytes("a"),
        range_end: bytes("z"),
        limit: 5,
        ..Default::default()
    })
}

/// Writes a second value if the key has the first.
fn swap(key: &str, from: &str, to: &str) -> Request {
    let compare = pb::Compare {
        key: bytes(key),
        target: pb::compare::CompareTarget::Value.into(),
        target_union: Some(pb::compare::TargetUnion::Value(bytes(from))),
        ..Default::default()
    };
    let write = pb::PutRequest { key: bytes(key), value: bytes(to), ..Default::default() };
    let read = pb::RangeRequest { key: bytes(key), ..Default::default() };
    let op = |op| pb::RequestOp { request: Some(op) };
    Request::Txn(pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(write)), op(Op::RequestRange(read.clone()))],
        failure: vec![op(Op::RequestRange(read))],
    })
}

/// Writes down what a good store does, one operation after the other.
#[derive(Default)]
struct Recorder {
    model: Model,
    history: History,
    now: Time,
}

impl Recorder {
    fn does(&mut self, request: Request) -> usize {
        let outcome = match self.model.effect(&request) {
            Ok(effect) => {
                self.write(&effect.changes);
                Outcome::Answered(effect.response)
            }
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.record(request, outcome)
    }

    /// It happens, but the client is not told.
    fn loses(&mut self, request: Request, happens: bool) -> usize {
        if happens && let Ok(effect) = self.model.effect(&request) {
            self.write(&effect.changes);
        }
        self.record(request, Outcome::Unknown)
    }

    fn write(&mut self, changes: &[(mvccpb::KeyValue, bool)]) {
        if changes.is_empty() {
            return;
        }
        let event = |(kv, is_deletion): &(mvccpb::KeyValue, bool)| Event {
            kv: kv.clone(),
            is_deletion: *is_deletion,
            seen: None,
        };
        let events: Vec<Event> = changes.iter().map(event).collect();
        self.model.write(&events);
        self.history.events.extend(events);
    }

    fn record(&mut self, request: Request, outcome: Outcome) -> usize {
        self.now += 10;
        self.history.operations.push(Operation {
            client: 1,
            member: 1,
            invoked: self.now - 9,
            completed: self.now,
            request,
            outcome,
        });
        self.history.operations.len() - 1
    }

    /// Everything as a watcher would get it, one response a revision.
    fn watch(&mut self, create: pb::WatchCreateRequest) -> usize {
        let header = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
        let start = create.start_revision;
        let created =
            pb::WatchResponse { header: header(self.model.revision()), created: true, ..Default::default() };
        let mut revisions: BTreeMap<i64, Vec<mvccpb::Event>> = BTreeMap::new();
        for event in self.history.events.iter().filter(|event| event.kv.mod_revision >= start) {
            let kind = if event.is_deletion {
                mvccpb::event::EventType::Delete
            } else {
                mvccpb::event::EventType::Put
            };
            let prev_kv = self.model.at(&event.kv.key, event.kv.mod_revision - 1).cloned();
            revisions.entry(event.kv.mod_revision).or_default().push(mvccpb::Event {
                r#type: kind.into(),
                kv: Some(event.kv.clone()),
                prev_kv: prev_kv.filter(|_| create.prev_kv),
            });
        }
        let mut responses = vec![(self.now, created)];
        for (revision, events) in revisions {
            responses.push((
                self.now,
                pb::WatchResponse { header: header(revision), events, ..Default::default() },
            ));
        }
        let complete_through = Some(self.model.revision());
        self.history.watches.push(Watch { client: 2, member: 1, create, responses, complete_through });
        self.history.watches.len() - 1
    }
}

fn everything() -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: bytes("\0"),
        range_end: bytes("\0"),
        start_revision: 2,
        prev_kv: true,
        ..Default::default()
    }
}

/// Some of everything, all good.
fn good() -> Recorder {
    let mut recorder = Recorder::default();
    let pair = |a: &str, b: &str| {
        let op = |key: &str, value: &str| pb::RequestOp {
            request: Some(Op::RequestPut(pb::PutRequest {
                key: bytes(key),
                value: bytes(value),
                ..Default::default()
            })),
        };
        Request::Txn(pb::TxnRequest { success: vec![op("p", a), op("q", b)], ..Default::default() })
    };
    recorder.does(put("a", "1"));
    recorder.does(get("a"));
    recorder.does(put("b", "2"));
    recorder.does(swap("a", "1", "3"));
    recorder.does(swap("a", "1", "4"));
    recorder.loses(put("c", "5"), true);
    recorder.loses(put("c", "6"), false);
    recorder.loses(delete("b"), true);
    recorder.does(list());
    recorder.does(delete("x"));
    recorder.does(delete("a"));
    recorder.does(pair("7", "8"));
    recorder.does(pair("9", "10"));
    recorder.does(list());
    recorder.watch(everything());
    recorder
}

fn rule(history: &History) -> Rule {
    match check(history) {
        Ok(_) => panic!("nothing was found"),
        Err(violation) => violation.rule,
    }
}

fn answer(history: &mut History, operation: usize) -> &mut Response {
    match &mut history.operations[operation].outcome {
        Outcome::Answered(response) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_history_passes_and_lost_answers_are_found() {
    let summary = check(&good().history).expect("good");
    assert_eq!((summary.answered, summary.unknown, summary.unknown_written), (11, 3, 2));
    assert_eq!((summary.revisions, summary.expirations), (8, 0));
    assert_eq!(summary.watched, good().history.events.len());
}

#[test]
fn what_may_still_happen_may_happen_in_the_next_part() {
    let mut recorder = good();
    let (_, pending) = check_part(&recorder.history).expect("good");
    assert_eq!(pending, [6], "the put of 6 to c has not happened");
    let begin = recorder.model.revision();
    let late = recorder.history.operations[6].request.clone();
    recorder.loses(late, true);
    let mut next = History::default();
    let everything =
        pb::RangeRequest { key: bytes("\0"), range_end: bytes("\0"), revision: begin, ..Default::default() };
    if let Ok(Response::Range(range)) =
        recorder.model.effect(&Request::Range(everything)).map(|effect| effect.response)
    {
        next.start = Start { revision: begin, kvs: range.kvs };
    }
    next.events = recorder.history.events.split_off(recorder.history.events.len() - 1);
    assert_eq!(rule(&next), Rule::NothingFromNowhere);
    next.operations.push(recorder.history.operations[6].clone());
    assert_eq!(check(&next).expect("it was asked for earlier").unknown_written, 1);
}

#[test]
fn who_can_be_told_by_a_value_elsewhere_is_not_taken_for_the_writer_here() {
    let mut recorder = Recorder::default();
    recorder.does(put("c", "1"));
    let op = |op| pb::RequestOp { request: Some(op) };
    let Request::Txn(mut late) = swap("a", "go", "told") else { unreachable!("a transaction") };
    late.failure =
        vec![op(Op::RequestDeleteRange(pb::DeleteRangeRequest { key: bytes("c"), ..Default::default() }))];
    let late = Request::Txn(late);
    recorder.loses(late.clone(), false);
    recorder.loses(delete("c"), true);
    recorder.does(put("a", "go"));
    let effect = recorder.model.effect(&late).expect("possible");
    recorder.write(&effect.changes);
    assert_eq!(check(&recorder.history).expect("each deletion and write has its writer").unknown_written, 2);
}

#[test]
fn of_two_deletions_that_look_alike_the_wider_is_left_for_what_only_it_deletes() {
    let range = |key: &str, end: &str| {
        Request::DeleteRange(pb::DeleteRangeRequest {
            key: bytes(key),
            range_end: bytes(end),
            ..Default::default()
        })
    };
    let mut recorder = Recorder::default();
    recorder.does(put("c", "1"));
    // It is asked for first and happens last.
    recorder.loses(range("a", "z"), false);
    recorder.loses(range("b", "z"), true);
    recorder.does(put("a", "2"));
    let effect = recorder.model.effect(&range("a", "z")).expect("possible");
    recorder.write(&effect.changes);
    assert_eq!(check(&recorder.history).expect("each deletion has its writer").unknown_written, 2);
}

#[test]
fn a_lost_acknowledged_write_is_caught() {
    let mut recorder = good();
    recorder.history.watches.clear();
    let last = recorder.model.revision();
    recorder.history.events.retain(|event| event.kv.mod_revision < last);
    assert_eq!(rule(&recorder.history), Rule::NothingIsLost);
}

#[test]
fn a_gap_in_the_revisions_is_caught() {
    let mut recorder = good();
    recorder.history.events.remove(1);
    assert_eq!(rule(&recorder.history), Rule::RevisionsFollow);
}

#[test]
fn a_write_that_happens_twice_is_caught() {
    let mut recorder = good();
    let again = recorder.model.effect(&put("a", "1")).expect("possible");
    recorder.write(&again.changes);
    assert_eq!(rule(&recorder.history), Rule::NothingFromNowhere);
}

#[test]
fn a_revision_given_to_two_writers_is_caught() {
    let mut recorder = good();
    let operation = recorder.history.operations[0].clone();
    recorder.history.operations.push(operation);
    assert_eq!(rule(&recorder.history), Rule::OneWriterEach);
}

#[test]
fn a_write_that_failed_for_certain_and_happened_is_caught() {
    let mut recorder = good();
    let lost = recorder.loses(put("d", "11"), true);
    recorder.history.operations[lost].outcome = Outcome::Failed;
    assert_eq!(rule(&recorder.history), Rule::FailedIsFailed);
}

#[test]
fn a_transaction_that_took_the_wrong_branch_is_caught() {
    let mut recorder = good();
    let wrong = pb::PutRequest { key: bytes("p"), value: bytes("12"), ..Default::default() };
    let effect = recorder.model.effect(&Request::Put(wrong)).expect("possible");
    recorder.write(&effect.changes);
    let revision = recorder.model.revision();
    let response = pb::TxnResponse {
        header: Some(pb::ResponseHeader { revision, ..Default::default() }),
        succeeded: true,
        responses: vec![
            pb::ResponseOp {
                response: Some(pb::response_op::Response::ResponsePut(pb::PutResponse::default())),
            };
            2
        ],
    };
    recorder.record(swap("p", "not so", "12"), Outcome::Answered(Response::Txn(response)));
    assert_eq!(rule(&recorder.history), Rule::WritesAsModel);
}

/// The end of a good history, from a revision on.
fn tail(begin: i64) -> History {
    let Recorder { mut history, .. } = good();
    let early: Vec<Event> = history.events.extract_if(.., |event| event.kv.mod_revision <= begin).collect();
    let mut model = Model::default();
    for revision in early.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
        model.write(revision);
    }
    let everything = pb::RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() };
    let Ok(Response::Range(range)) = model.effect(&Request::Range(everything)).map(|effect| effect.response)
    else {
        panic!("a range");
    };
    history.start = Start { revision: begin, kvs: range.kvs };
    history.operations.retain(|op| match &op.outcome {
        Outcome::Answered(response) => response.revision() > begin,
        _ => true,
    });
    history.watches[0].create.start_revision = begin + 1;
    history.watches[0].responses.retain(|(_, response)| {
        response.created
            || response.events.iter().any(|e| e.kv.as_ref().is_some_and(|kv| kv.mod_revision > begin))
    });
    history
}

#[test]
fn a_history_may_begin_with_what_is_there() {
    for begin in 2..8 {
        let history = tail(begin);
        let summary = check(&history).unwrap_or_else(|violation| panic!("from {begin}: {violation}"));
        assert_eq!(summary.revisions as i64, 9 - begin);
        assert_eq!(summary.watched, history.events.len());
    }
}

#[test]
fn what_is_there_at_the_beginning_counts() {
    let mut forgotten = tail(4);
    forgotten.start.kvs.retain(|kv| kv.key != "a");
    assert!(check(&forgotten).is_err(), "the deletion of a key that was not there");
    let mut old = tail(4);
    let answer = Response::Range(pb::RangeResponse {
        header: Some(pb::ResponseHeader { revision: 3, ..Default::default() }),
        ..Default::default()
    });
    old.operations.push(Operation {
        client: 1,
        member: 1,
        invoked: 1,
        completed: 2,
        request: get("nothing"),
        outcome: Outcome::Answered(answer),
    });
    assert_eq!(rule(&old), Rule::RealTime);
    let mut gap = tail(4);
    gap.start.revision = 3;
    assert_eq!(rule(&gap), Rule::RevisionsFollow);
}

#[test]
fn a_wrong_answer_is_caught() {
    let mut recorder = good();
    match answer(&mut recorder.history, 8) {
        Response::Range(range) => range.more = !range.more,
        other => panic!("{other:?}"),
    }
    assert_eq!(rule(&recorder.history), Rule::AnswersAsModel);
}

#[test]
fn a_stale_read_is_caught_unless_it_may_be_stale() {
    let mut recorder = good();
    let stale = recorder.history.operations[1].outcome.clone();
    let read = recorder.record(get("a"), stale);
    assert_eq!(rule(&recorder.history), Rule::RealTime);
    if let Request::Range(range) = &mut recorder.history.operations[read].request {
        range.serializable = true;
    }
    check(&recorder.history).expect("a serializable read may show the past");
}

#[test]
fn what_was_shown_by_a_watch_must_be_shown_by_a_later_read() {
    let mut recorder = Recorder::default();
    recorder.does(put("a", "1"));
    let read = recorder.model.effect(&get("a")).expect("possible").response;
    recorder.loses(put("a", "2"), true);
    recorder.watch(everything());
    recorder.record(get("a"), Outcome::Answered(read));
    assert_eq!(rule(&recorder.history), Rule::RealTime);
}

#[test]
fn a_write_seen_before_it_was_asked_for_is_caught() {
    let mut recorder = good();
    let last = recorder.history.operations.len() - 2;
    recorder.history.operations[last].invoked = recorder.now + 5;
    recorder.history.operations[last].completed = recorder.now + 6;
    assert_eq!(rule(&recorder.history), Rule::NotFromFuture);
}

#[test]
fn refusals_need_a_reason() {
    let refused = |request: Request, refusal: Refusal| {
        let mut recorder = good();
        recorder.record(request, Outcome::Refused(refusal));
        check(&recorder.history)
    };
    let at = |revision| Request::Range(pb::RangeRequest { key: bytes("a"), revision, ..Default::default() });
    let keep = |key: &str| {
        Request::Put(pb::PutRequest { key: bytes(key), ignore_value: true, ..Default::default() })
    };
    assert!(refused(at(3), Refusal::Compacted).is_err(), "nothing was compacted");
    assert!(refused(at(3), Refusal::FutureRevision).is_err());
    assert!(refused(at(300), Refusal::FutureRevision).is_ok());
    assert!(refused(keep("p"), Refusal::KeyNotFound).is_err());
    assert!(refused(keep("nowhere"), Refusal::KeyNotFound).is_ok());
    let mut recorder = good();
    recorder.does(Request::Compact(pb::CompactionRequest { revision: 5, physical: false }));
    recorder.record(at(4), Outcome::Refused(Refusal::Compacted));
    check(&recorder.history).expect("compacted");
    let read = recorder.model.effect(&at(4)).expect("possible").response;
    recorder.record(at(4), Outcome::Answered(read));
    assert_eq!(rule(&recorder.history), Rule::CompactedIsGone);
}

/// A lease of ten seconds granted at about 10 ms, with one key, that runs out at a time.
fn expiring(seen: Time) -> Recorder {
    let mut recorder = Recorder::default();
    recorder.does(Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 10 }));
    recorder.does(Request::Put(pb::PutRequest {
        key: bytes("l"),
        value: bytes("1"),
        lease: 7,
        ..Default::default()
    }));
    let changes = recorder.model.revocation(7);
    recorder.write(&changes);
    recorder.history.events[1].seen = Some(seen);
    recorder
}

#[test]
fn leases_end_after_their_time_only() {
    assert_eq!(check(&expiring(10_001).history).expect("in time").expirations, 1);
    assert_eq!(rule(&expiring(9_000).history), Rule::LeasesLast);
    let mut renewed = expiring(15_000);
    let renewal = pb::LeaseKeepAliveResponse { id: 7, ttl: 10, ..Default::default() };
    renewed.now = 8_000;
    renewed.record(
        Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 7 }),
        Outcome::Answered(Response::LeaseKeepAlive(renewal)),
    );
    assert_eq!(rule(&renewed.history), Rule::LeasesLast);
    let mut revoked = Recorder::default();
    revoked.does(Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 10 }));
    revoked.does(Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 }));
    check(&revoked.history).expect("good");
    revoked.does(Request::Put(pb::PutRequest {
        key: bytes("l"),
        value: bytes("1"),
        lease: 7,
        ..Default::default()
    }));
    assert_eq!(rule(&revoked.history), Rule::LeasesLast);
}

/// What is found when the responses of a watch of everything are changed.
fn watched(change: impl FnOnce(&mut Vec<(Time, pb::WatchResponse)>)) -> Rule {
    let mut recorder = good();
    change(&mut recorder.history.watches[0].responses);
    rule(&recorder.history)
}

#[test]
fn a_missing_event_is_caught_in_the_middle_and_at_the_end() {
    assert_eq!(watched(|responses| drop(responses.remove(3))), Rule::WatchReliable);
    assert_eq!(watched(|responses| drop(responses.pop())), Rule::WatchReliable);
}

#[test]
fn events_that_come_twice_or_in_another_order_are_caught() {
    assert_eq!(watched(|responses| responses.insert(3, responses[2].clone())), Rule::WatchUnique);
    assert_eq!(watched(|responses| responses.insert(5, responses[2].clone())), Rule::WatchOrdered);
    assert_eq!(
        watched(|responses| responses.last_mut().expect("some").1.events.reverse()),
        Rule::WatchOrdered
    );
}

#[test]
fn a_split_revision_is_caught_unless_marked() {
    let split = |responses: &mut Vec<(Time, pb::WatchResponse)>, fragment| {
        let (at, mut last) = responses.pop().expect("some");
        let rest = last.events.split_off(1);
        let tail = pb::WatchResponse { events: rest, ..last.clone() };
        last.fragment = fragment;
        responses.extend([(at, last), (at, tail)]);
    };
    assert_eq!(watched(|responses| split(responses, false)), Rule::WatchAtomic);
    let mut recorder = good();
    split(&mut recorder.history.watches[0].responses, true);
    check(&recorder.history).expect("fragments are fine");
}

#[test]
fn progress_ahead_of_events_is_caught() {
    let ahead = |responses: &mut Vec<(Time, pb::WatchResponse)>| {
        let header = responses[5].1.header;
        responses.insert(5, (responses[4].0, pb::WatchResponse { header, ..Default::default() }));
    };
    assert_eq!(watched(ahead), Rule::WatchBookmark);
    let mut recorder = good();
    let header = recorder.history.watches[0].responses[4].1.header;
    let at = recorder.now;
    recorder.history.watches[0].responses.insert(5, (at, pb::WatchResponse { header, ..Default::default() }));
    check(&recorder.history).expect("progress behind events is fine");
}

#[test]
fn wrong_values_and_values_before_are_caught() {
    let kv = |responses: &mut Vec<(Time, pb::WatchResponse)>| {
        if let Some(kv) = &mut responses[2].1.events[0].kv {
            kv.version += 1;
        }
    };
    assert_eq!(watched(kv), Rule::WatchAsWritten);
    let previous = |responses: &mut Vec<(Time, pb::WatchResponse)>| responses[3].1.events[0].prev_kv = None;
    assert_eq!(watched(previous), Rule::WatchPrevious);
}

#[test]
fn filters_and_ranges_are_respected() {
    let mut recorder = good();
    recorder.history.watches[0].create.filters = vec![pb::watch_create_request::FilterType::Nodelete.into()];
    assert!(check(&recorder.history).is_err());
    recorder.history.watches[0].create.filters.clear();
    recorder.history.watches[0].create.key = bytes("b");
    assert_eq!(rule(&recorder.history), Rule::WatchAsAsked);
}

#[test]
fn a_cancellation_needs_a_compaction_ahead_of_the_watcher() {
    let cancelled = |compact_revision, start_revision| {
        let mut recorder = good();
        recorder.does(Request::Compact(pb::CompactionRequest { revision: 5, physical: false }));
        let watch = &mut recorder.history.watches[0];
        watch.create.start_revision = start_revision;
        watch.responses.truncate(1);
        let canceled = pb::WatchResponse { canceled: true, compact_revision, ..Default::default() };
        watch.responses.push((recorder.now, canceled));
        check(&recorder.history)
    };
    assert!(cancelled(5, 2).is_ok());
    assert!(cancelled(4, 2).is_err());
    assert!(cancelled(5, 6).is_err());
}

#[test]
fn a_hundred_thousand_operations_take_seconds_at_most() {
    let mut recorder = Recorder::default();
    for number in 0..100_000_u32 {
        let key = format!("key-{}", number.wrapping_mul(2_654_435_761) % 1000);
        let value = number.to_string();
        match number % 10 {
            0..5 => recorder.does(put(&key, &value)),
            5 => recorder.does(delete(&key)),
            6 => recorder.loses(put(&key, &value), number % 20 == 6),
            7 => recorder.loses(delete(&key), number % 20 == 7),
            8 => recorder.does(list()),
            _ => recorder.does(get(&key)),
        };
    }
    for _ in 0..3 {
        recorder.watch(everything());
    }
    let start = Instant::now();
    let summary = check(&recorder.history).expect("good");
    assert_eq!(summary.answered + summary.unknown, 100_000);
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("checked in {seconds:.2} s");
    assert!(seconds < 20.0, "{seconds} s even for a debug build under load is too long");
}
