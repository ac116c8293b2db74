//! Real time: what completed before something else began comes before it.

use crate::history::{History, Outcome, Request, Time};
use crate::replay::{Place, Replayed};
use crate::violation::{Rule, Violation};

/// For each operation the highest revision known to anybody when it was invoked.
pub(crate) type Floors = Vec<i64>;

/// Something that was known at a time: a revision, and by which operation.
#[derive(Clone, Copy)]
struct Known {
    at: Time,
    revision: i64,
    operation: Option<usize>,
}

/// For each revision from the start's to `last` when it was known to anybody that it, or a later one, was there.
pub(crate) fn first_known(history: &History, last: i64) -> Vec<Time> {
    let start = history.start.revision;
    let mut first = vec![Time::MAX; usize::try_from(last - start).unwrap_or(0) + 1];
    let mut note = |revision: i64, at: Time| {
        let place = usize::try_from(revision - start).ok();
        if let Some(known) = place.and_then(|place| first.get_mut(place)) {
            *known = at.min(*known);
        }
    };
    for operation in &history.operations {
        if let Outcome::Answered(response) = &operation.outcome {
            note(response.revision(), operation.completed);
        }
    }
    for (at, response) in history.watches.iter().flat_map(|watch| &watch.responses) {
        note(response.header.as_ref().map_or(0, |header| header.revision).min(last), *at);
    }
    for event in &history.events {
        note(event.kv.mod_revision, event.seen.unwrap_or(Time::MAX));
    }
    for place in (1..first.len()).rev() {
        first[place - 1] = first[place - 1].min(first[place]);
    }
    first
}

pub(crate) fn check(history: &History, replayed: &Replayed) -> Result<Floors, Violation> {
    let mut known: Vec<Known> = Vec::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let revision = match (&operation.outcome, replayed.places[number]) {
            (Outcome::Answered(_), Place::Wrote(revision) | Place::At(revision)) => revision,
            _ => continue,
        };
        known.push(Known { at: operation.completed, revision, operation: Some(number) });
    }
    for watch in &history.watches {
        for (at, response) in &watch.responses {
            let header = response.header.as_ref().map_or(0, |header| header.revision);
            let revision =
                response.events.last().and_then(|e| e.kv.as_ref()).map_or(header, |kv| kv.mod_revision);
            known.push(Known { at: *at, revision, operation: None });
        }
    }
    for event in &history.events {
        if let Some(at) = event.seen {
            known.push(Known { at, revision: event.kv.mod_revision, operation: None });
        }
    }
    known.sort_by_key(|known| known.at);
    let mut invoked: Vec<usize> = (0..history.operations.len()).collect();
    invoked.sort_by_key(|number| history.operations[*number].invoked);

    let begin = history.start.revision;
    let mut floors = vec![begin; history.operations.len()];
    let mut known = known.into_iter().peekable();
    let mut floor = Known { at: 0, revision: begin, operation: None };
    for number in invoked {
        let operation = &history.operations[number];
        while let Some(next) = known.next_if(|known| known.at < operation.invoked) {
            if next.revision > floor.revision {
                floor = next;
            }
        }
        floors[number] = floor.revision;
        let (is_broken, rule, what) = match replayed.places[number] {
            Place::Wrote(revision) => (
                revision <= floor.revision,
                Rule::NotFromFuture,
                format!(
                    "revision {} was there at {} ms, before the operation that wrote {revision} began",
                    floor.revision, floor.at
                ),
            ),
            Place::At(revision) if !may_be_old(&operation.request) => (
                revision < floor.revision,
                Rule::RealTime,
                format!(
                    "an operation took place at revision {revision}, but revision {} was known at {} ms, before it began",
                    floor.revision, floor.at
                ),
            ),
            _ => continue,
        };
        if is_broken {
            let violation = Violation::new(rule, what).at(floor.revision);
            let violation = match floor.operation {
                Some(before) => violation.by(history, before),
                None => violation,
            };
            return Err(violation.by(history, number));
        }
    }
    Ok(floors)
}

/// Whether a request is content with the past.
pub(crate) fn may_be_old(request: &Request) -> bool {
    use coracle_proto::etcdserverpb::request_op::Request as Op;
    fn all_serializable(txn: &coracle_proto::etcdserverpb::TxnRequest) -> bool {
        txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
            Some(Op::RequestRange(range)) => range.serializable,
            Some(Op::RequestTxn(nested)) => all_serializable(nested),
            _ => false,
        })
    }
    match request {
        Request::Range(range) => range.serializable,
        Request::Txn(txn) => all_serializable(txn),
        _ => false,
    }
}
