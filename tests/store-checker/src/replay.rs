//! Replays the history revision by revision: who wrote each, and was it written and answered as the model does it.

use std::collections::HashMap;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;

use crate::Summary;
use crate::history::{Event, History, Operation, Outcome, Request, Response, Time};
use crate::model::{Model, contains, plain};
use crate::order::{first_known, may_be_old};
use crate::silent::{Silent, Suspects};
use crate::violation::{Rule, Violation};

/// Where an operation took place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It wrote this revision.
    Wrote(i64),
    /// It took place while this was the newest revision.
    At(i64),
    /// It changed nothing, or nobody knows.
    Nowhere,
}

/// What replaying found out.
pub(crate) struct Replayed {
    /// Of each operation.
    pub(crate) places: Vec<Place>,
    /// At the end; it has all versions.
    pub(crate) model: Model,
    /// Where in the events each revision after the start begins; and the end.
    pub(crate) starts: Vec<usize>,
    /// Revisions written by leases that ran out.
    pub(crate) expirations: Vec<(i64, i64)>,
}

impl Replayed {
    /// The events of a revision.
    pub(crate) fn events<'a>(&self, history: &'a History, revision: i64) -> &'a [Event] {
        let at = (revision - history.start.revision - 1) as usize;
        &history.events[self.starts[at]..self.starts[at + 1]]
    }

    /// Operations that may still happen.
    pub(crate) fn pending(&self, history: &History) -> Vec<usize> {
        let is_open = |number: &usize| {
            history.operations[*number].outcome == Outcome::Unknown && self.places[*number] == Place::Nowhere
        };
        (0..history.operations.len()).filter(is_open).collect()
    }
}

pub(crate) fn replay(history: &History, summary: &mut Summary) -> Result<Replayed, Violation> {
    let begin = history.start.revision;
    let starts = revisions(begin, &history.events)?;
    let last = begin + starts.len() as i64 - 1;
    let first_known = first_known(history, last);
    let mut writers: HashMap<i64, usize> = HashMap::new();
    let mut readers: Vec<(i64, usize)> = Vec::new();
    let mut revokers: HashMap<i64, Vec<usize>> = HashMap::new();
    let mut unknown = Unknown::default();
    let mut failed: HashMap<(&Bytes, &Bytes), usize> = HashMap::new();
    for (number, operation) in history.operations.iter().enumerate() {
        match &operation.outcome {
            Outcome::Answered(response) => {
                summary.answered += 1;
                let revision = response.revision();
                if matches!(response, Response::LeaseKeepAlive(_)) {
                    continue;
                }
                if revision > last || revision < 1 {
                    let what = format!(
                        "an answer speaks of revision {revision}, but the history ends at {last}: what was acknowledged or shown is lost"
                    );
                    return Err(Violation::new(Rule::NothingIsLost, what).by(history, number).at(revision));
                }
                if revision < begin {
                    // A member that has only just joined; what it had then is not known here.
                    if may_be_old(&operation.request) {
                        continue;
                    }
                    let what = format!(
                        "an answer speaks of revision {revision}, but {begin} was there before it was asked"
                    );
                    return Err(Violation::new(Rule::RealTime, what).by(history, number).at(revision));
                }
                if matches!(response, Response::LeaseRevoke(_)) {
                    revokers.entry(revision).or_default().push(number);
                } else if !writes(response) {
                    readers.push((revision, number));
                } else if let Some(other) = writers.insert(revision, number) {
                    let what = format!("two operations were told that they wrote revision {revision}");
                    return Err(Violation::new(Rule::OneWriterEach, what)
                        .by(history, other)
                        .by(history, number)
                        .at(revision));
                }
            }
            Outcome::Unknown => {
                summary.unknown += 1;
                unknown.add(number, operation);
            }
            Outcome::Refused(_) | Outcome::Failed => {
                values(&operation.request, &mut |key, value| {
                    failed.insert((key, value), number);
                });
            }
        }
    }
    unknown.written_at = written_at(history);
    let mut silent = Silent::default();
    readers.sort_unstable();
    let mut readers = readers.into_iter().peekable();
    let mut replayed = Replayed {
        places: vec![Place::Nowhere; history.operations.len()],
        model: Model::at_start(&history.start),
        starts,
        expirations: Vec::new(),
    };
    for revision in begin..=last {
        if revision > begin {
            let events = replayed.events(history, revision);
            let before = first_known[(revision - begin) as usize];
            let told = writers.get(&revision).copied();
            match told.or_else(|| replayed.find_revoker(history, events, before, &mut revokers)) {
                Some(writer) => {
                    replayed.check_write(history, writer, revision, events)?;
                    replayed.places[writer] = Place::Wrote(revision);
                }
                None => {
                    let suspects = replayed.suspects(history, events, before, &unknown);
                    if !silent.settle(revision, suspects) {
                        return Err(from_nowhere(history, revision, events, &failed));
                    }
                }
            }
            replayed.model.write(events);
            summary.revisions += 1;
        }
        for revoker in revokers.remove(&revision).unwrap_or_default() {
            replayed.check_revoked(history, revoker, revision)?;
        }
        while let Some((_, reader)) = readers.next_if(|(at, _)| *at == revision) {
            replayed.check_read(history, reader)?;
            replayed.places[reader] = Place::At(revision);
        }
    }
    summary.unknown_written = silent.written.len();
    for (writer, revision) in silent.written {
        replayed.places[writer] = Place::Wrote(revision);
    }
    replayed.expirations = silent.expired.into_iter().collect();
    summary.expirations = replayed.expirations.len();
    Ok(replayed)
}

/// Where each revision after `begin` begins, without gap.
fn revisions(begin: i64, events: &[Event]) -> Result<Vec<usize>, Violation> {
    let mut starts = Vec::new();
    let mut current = begin;
    for (at, event) in events.iter().enumerate() {
        let revision = event.kv.mod_revision;
        if revision == current + 1 {
            starts.push(at);
            current = revision;
        } else if revision != current || current == begin {
            let what = format!("revision {revision} follows on {current}");
            return Err(Violation::new(Rule::RevisionsFollow, what).at(revision));
        }
    }
    starts.push(events.len());
    Ok(starts)
}

/// Whether an answer says that something was written.
fn writes(response: &Response) -> bool {
    fn txn_writes(txn: &pb::TxnResponse) -> bool {
        txn.responses.iter().any(|op| match &op.response {
            Some(OpResponse::ResponsePut(_)) => true,
            Some(OpResponse::ResponseDeleteRange(r)) => r.deleted > 0,
            Some(OpResponse::ResponseTxn(nested)) => txn_writes(nested),
            _ => false,
        })
    }
    match response {
        Response::Put(_) => true,
        Response::DeleteRange(r) => r.deleted > 0,
        Response::Txn(txn) => txn_writes(txn),
        _ => false,
    }
}

/// Visits the keys and values that a request may put.
fn values<'a>(request: &'a Request, visit: &mut impl FnMut(&'a Bytes, &'a Bytes)) {
    fn of_txn<'a>(txn: &'a pb::TxnRequest, visit: &mut impl FnMut(&'a Bytes, &'a Bytes)) {
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Op::RequestPut(put)) if !put.value.is_empty() => visit(&put.key, &put.value),
                Some(Op::RequestTxn(nested)) => of_txn(nested, visit),
                _ => {}
            }
        }
    }
    match request {
        Request::Put(put) if !put.value.is_empty() => visit(&put.key, &put.value),
        Request::Txn(txn) => of_txn(txn, visit),
        _ => {}
    }
}

/// Visits the ranges that a request may delete.
fn deleted_ranges<'a>(request: &'a Request, visit: &mut impl FnMut(&'a Bytes, &'a Bytes)) {
    fn of_txn<'a>(txn: &'a pb::TxnRequest, visit: &mut impl FnMut(&'a Bytes, &'a Bytes)) {
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Op::RequestDeleteRange(delete)) => visit(&delete.key, &delete.range_end),
                Some(Op::RequestTxn(nested)) => of_txn(nested, visit),
                _ => {}
            }
        }
    }
    match request {
        Request::DeleteRange(delete) => visit(&delete.key, &delete.range_end),
        Request::Txn(txn) => of_txn(txn, visit),
        _ => {}
    }
}

/// The revisions of operations that can be told by a value that only they may have put. The first counts: later ones may keep it.
fn written_at(history: &History) -> HashMap<usize, i64> {
    let mut only: HashMap<(&Bytes, &Bytes), Option<usize>> = HashMap::new();
    for (number, operation) in history.operations.iter().enumerate() {
        values(&operation.request, &mut |key, value| {
            let known = only.entry((key, value)).or_insert(Some(number));
            if *known != Some(number) {
                *known = None;
            }
        });
    }
    let mut revisions = HashMap::new();
    for event in history.events.iter().filter(|event| !event.is_deletion) {
        if let Some(Some(number)) = only.get(&(&event.kv.key, &event.kv.value)) {
            revisions.entry(*number).or_insert(event.kv.mod_revision);
        }
    }
    revisions
}

/// Operations whose outcome nobody knows, by what they may have written.
#[derive(Default)]
struct Unknown<'a> {
    by_value: HashMap<(&'a Bytes, &'a Bytes), Vec<usize>>,
    /// Those that delete one key.
    by_key: HashMap<&'a Bytes, Vec<usize>>,
    /// Those that may delete many, or go by keys not named in them.
    others: Vec<usize>,
    /// Where a value is that nobody else can have put: what they wrote is there and nowhere else.
    written_at: HashMap<usize, i64>,
}

impl<'a> Unknown<'a> {
    fn add(&mut self, number: usize, operation: &'a Operation) {
        values(&operation.request, &mut |key, value| {
            self.by_value.entry((key, value)).or_default().push(number);
        });
        let mut deletes_many = matches!(operation.request, Request::LeaseRevoke(_));
        deleted_ranges(&operation.request, &mut |key, range_end| {
            if range_end.is_empty() {
                self.by_key.entry(key).or_default().push(number);
            } else {
                deletes_many = true;
            }
        });
        // A put that keeps the value has none to be told by.
        deletes_many |= matches!(&operation.request, Request::Put(put) if put.value.is_empty());
        if let Request::Txn(txn) = &operation.request {
            deletes_many |= txn.success.iter().chain(&txn.failure).any(|op| {
                matches!(&op.request, Some(Op::RequestPut(put)) if put.value.is_empty())
                    || matches!(&op.request, Some(Op::RequestTxn(_)))
            });
        }
        if deletes_many {
            self.others.push(number);
        }
    }

    fn of(&self, event: &Event) -> Vec<usize> {
        let by_value = self.by_value.get(&(&event.kv.key, &event.kv.value));
        let by_key = if event.is_deletion { self.by_key.get(&event.kv.key) } else { None };
        by_value.into_iter().chain(by_key).chain([&self.others]).flatten().copied().collect()
    }
}

impl Replayed {
    fn fits(&self, history: &History, number: usize, events: &[Event], there_at: Time) -> bool {
        let operation = &history.operations[number];
        operation.invoked <= there_at
            && self
                .model
                .effect(&operation.request)
                .is_ok_and(|effect| !effect.changes.is_empty() && is_same(&effect.changes, events))
    }

    /// Who was told that a lease is revoked, and may have written this revision by it.
    fn find_revoker(
        &self,
        history: &History,
        events: &[Event],
        there_at: Time,
        revokers: &mut HashMap<i64, Vec<usize>>,
    ) -> Option<usize> {
        let of_revision = revokers.get_mut(&(self.model.revision() + 1))?;
        let at = of_revision.iter().position(|number| self.fits(history, *number, events, there_at))?;
        Some(of_revision.remove(at))
    }

    /// Who of those who were told nothing can have written a revision that was there at a time.
    fn suspects(
        &self,
        history: &History,
        events: &[Event],
        there_at: Time,
        unknown: &Unknown<'_>,
    ) -> Suspects {
        let revision = self.model.revision() + 1;
        let may_be_here = |number: &usize| unknown.written_at.get(number).is_none_or(|at| *at == revision);
        let candidates = events.first().map(|event| unknown.of(event)).unwrap_or_default().into_iter();
        let mut operations: Vec<usize> = candidates
            .filter(|number| may_be_here(number) && self.fits(history, *number, events, there_at))
            .collect();
        // Of operations that are alike in what they write the earliest leaves the others the most room.
        operations.sort_by_key(|number| history.operations[*number].invoked);
        operations.dedup();
        let lease = events.first().and_then(|event| self.model.newest(&event.kv.key)).map(|kv| kv.lease);
        let lease = lease.filter(|id| *id != 0 && is_same(&self.model.revocation(*id), events));
        Suspects { operations, lease }
    }

    fn check_write(
        &self,
        history: &History,
        writer: usize,
        revision: i64,
        events: &[Event],
    ) -> Result<(), Violation> {
        let operation = &history.operations[writer];
        let effect = self.model.effect(&operation.request).map_err(|refusal| {
            let what = format!("the model refuses this at revision {}: {refusal:?}", revision - 1);
            Violation::new(Rule::AnswersAsModel, what).by(history, writer).at(revision)
        })?;
        if !is_same(&effect.changes, events) {
            let written: Vec<_> = events.iter().map(|e| (&e.kv, e.is_deletion)).collect();
            let what =
                format!("revision {revision} has {written:?}, the model writes {:?} there", effect.changes);
            return Err(Violation::new(Rule::WritesAsModel, what).by(history, writer).at(revision));
        }
        self.check_answer(history, writer, &effect.response)
    }

    fn check_read(&self, history: &History, reader: usize) -> Result<(), Violation> {
        let operation = &history.operations[reader];
        let effect = match self.model.effect(&operation.request) {
            Ok(effect) => effect,
            Err(refusal) => {
                let what =
                    format!("the model refuses this at revision {}: {refusal:?}", self.model.revision());
                return Err(Violation::new(Rule::AnswersAsModel, what).by(history, reader));
            }
        };
        if let Request::Compact(_) | Request::LeaseGrant(_) | Request::LeaseRevoke(_) = operation.request {
            return Ok(());
        }
        self.check_answer(history, reader, &effect.response)
    }

    fn check_answer(&self, history: &History, number: usize, expected: &Response) -> Result<(), Violation> {
        let Outcome::Answered(response) = &history.operations[number].outcome else { return Ok(()) };
        let answered = plain(response);
        if answered == *expected {
            return Ok(());
        }
        let what = format!("the model answers {expected:?}");
        Err(Violation::new(Rule::AnswersAsModel, what).by(history, number).at(response.revision()))
    }

    /// After the revocation of a lease no key has it.
    fn check_revoked(&self, history: &History, revoker: usize, revision: i64) -> Result<(), Violation> {
        let Request::LeaseRevoke(revoke) = &history.operations[revoker].request else { return Ok(()) };
        let left = self.model.keys_of_lease(revoke.id);
        if left.is_empty() {
            return Ok(());
        }
        let what = format!("lease {} is revoked at revision {revision} but keys {left:?} stay", revoke.id);
        Err(Violation::new(Rule::WritesAsModel, what).by(history, revoker).at(revision))
    }
}

/// A revision that nobody can have written.
fn from_nowhere(
    history: &History,
    revision: i64,
    events: &[Event],
    failed: &HashMap<(&Bytes, &Bytes), usize>,
) -> Violation {
    let of_failed = events.iter().find_map(|e| failed.get(&(&e.kv.key, &e.kv.value)));
    if let Some(number) = of_failed {
        let what = format!("revision {revision} was written by an operation that failed for certain");
        return Violation::new(Rule::FailedIsFailed, what).by(history, *number).at(revision);
    }
    let written: Vec<_> = events.iter().map(|e| (&e.kv, e.is_deletion)).collect();
    let what =
        format!("revision {revision} was written by nobody, or by somebody for the second time: {written:?}");
    let mut violation = Violation::new(Rule::NothingFromNowhere, what).at(revision);
    let wrote = |number: &usize| {
        let mut found = false;
        values(&history.operations[*number].request, &mut |key, value| {
            found |= events.iter().any(|e| e.kv.key == *key && e.kv.value == *value);
        });
        found
    };
    if let Some(number) = (0..history.operations.len()).find(wrote) {
        violation = violation.by(history, number);
    }
    violation
}

/// Whether changes are those of the history.
fn is_same(changes: &[(coracle_proto::mvccpb::KeyValue, bool)], events: &[Event]) -> bool {
    changes.len() == events.len()
        && changes.iter().zip(events).all(|((kv, is_deletion), event)| {
            *is_deletion == event.is_deletion
                && if *is_deletion {
                    kv.key == event.kv.key && kv.mod_revision == event.kv.mod_revision
                } else {
                    *kv == event.kv
                }
        })
}

/// Whether a range as the API gives it has a key.
pub(crate) fn in_range(create: &pb::WatchCreateRequest, key: &[u8]) -> bool {
    // No key means the lowest there is.
    let start: &[u8] = if create.key.is_empty() { &[0] } else { &create.key };
    contains(start, &create.range_end, key)
}
