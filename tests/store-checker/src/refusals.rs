//! Refusals for reasons that can have been true; compaction; leases.

use std::collections::HashMap;

use coracle_proto::etcdserverpb as pb;

use crate::history::{History, Operation, Outcome, Refusal, Request, Response, Time};
use crate::order::Floors;
use crate::replay::Replayed;
use crate::violation::{Rule, Violation};

/// What is known of one lease.
#[derive(Default)]
struct Lease {
    /// Grants: invoked, completed, seconds; unknown ones without completion.
    grants: Vec<(Time, Option<Time>, i64)>,
    /// Revocations that were asked for.
    revocations: Vec<(Time, Option<Time>)>,
    /// Renewals that were answered: invoked, completed, seconds.
    renewals: Vec<(Time, Time, i64)>,
}

pub(crate) fn check(history: &History, replayed: &Replayed, floors: &Floors) -> Result<(), Violation> {
    let compactions = Compactions::of(history);
    let leases = leases(history);
    for (number, operation) in history.operations.iter().enumerate() {
        let broken = match &operation.outcome {
            Outcome::Answered(_) => check_answered(operation, &compactions, &leases),
            Outcome::Refused(refusal) => {
                check_refused(operation, refusal, floors[number], replayed, &compactions, &leases)
            }
            Outcome::Failed | Outcome::Unknown => Ok(()),
        };
        broken.map_err(|violation| violation.by(history, number))?;
    }
    check_expirations(history, replayed, &leases)
}

/// Compactions by time. A refusal needs one that was asked for, a read must respect those that were answered.
struct Compactions {
    /// Asked for at, and the highest revision asked for until then.
    asked: Vec<(Time, i64)>,
    /// Answered at, and the highest revision answered until then.
    answered: Vec<(Time, i64)>,
}

impl Compactions {
    fn of(history: &History) -> Self {
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for operation in &history.operations {
            let Request::Compact(compact) = &operation.request else { continue };
            match &operation.outcome {
                Outcome::Answered(_) => {
                    asked.push((operation.invoked, compact.revision));
                    answered.push((operation.completed, compact.revision));
                }
                Outcome::Unknown => asked.push((operation.invoked, compact.revision)),
                _ => {}
            }
        }
        for list in [&mut asked, &mut answered] {
            list.sort_unstable();
            let mut highest = -1;
            for (_, revision) in list {
                highest = highest.max(*revision);
                *revision = highest;
            }
        }
        Self { asked, answered }
    }

    fn asked_until(&self, at: Time) -> i64 {
        highest(&self.asked, at)
    }

    fn answered_before(&self, at: Time) -> i64 {
        at.checked_sub(1).map_or(-1, |before| highest(&self.answered, before))
    }
}

fn highest(list: &[(Time, i64)], at: Time) -> i64 {
    let end = list.partition_point(|(time, _)| *time <= at);
    list[..end].last().map_or(-1, |(_, revision)| *revision)
}

fn leases(history: &History) -> HashMap<i64, Lease> {
    let mut leases: HashMap<i64, Lease> = HashMap::new();
    for operation in &history.operations {
        let &Operation { invoked, completed, .. } = operation;
        match (&operation.request, &operation.outcome) {
            (_, Outcome::Answered(Response::LeaseGrant(grant))) => {
                leases.entry(grant.id).or_default().grants.push((invoked, Some(completed), grant.ttl));
            }
            (Request::LeaseGrant(grant), Outcome::Unknown) => {
                leases.entry(grant.id).or_default().grants.push((invoked, None, grant.ttl));
            }
            (Request::LeaseRevoke(revoke), Outcome::Answered(_)) => {
                leases.entry(revoke.id).or_default().revocations.push((invoked, Some(completed)));
            }
            (Request::LeaseRevoke(revoke), Outcome::Unknown) => {
                leases.entry(revoke.id).or_default().revocations.push((invoked, None));
            }
            (_, Outcome::Answered(Response::LeaseKeepAlive(renewed))) if renewed.ttl > 0 => {
                leases.entry(renewed.id).or_default().renewals.push((invoked, completed, renewed.ttl));
            }
            _ => {}
        }
    }
    leases
}

fn check_answered(
    operation: &Operation,
    compactions: &Compactions,
    leases: &HashMap<i64, Lease>,
) -> Result<(), Violation> {
    match &operation.request {
        Request::Range(range) if range.revision > 0 && !range.serializable => {
            let compacted = compactions.answered_before(operation.invoked);
            if range.revision < compacted {
                let what = format!("a read at a revision that was compacted at {compacted} was answered");
                return Err(Violation::new(Rule::CompactedIsGone, what).at(range.revision));
            }
            Ok(())
        }
        Request::Put(put) if put.lease != 0 => check_lease_of_put(operation, put, leases),
        _ => Ok(()),
    }
}

/// A put with a lease needs one: granted, and not revoked since.
fn check_lease_of_put(
    operation: &Operation,
    put: &pb::PutRequest,
    leases: &HashMap<i64, Lease>,
) -> Result<(), Violation> {
    let broken = |what: &str| {
        Err(Violation::new(Rule::LeasesLast, format!("a put with lease {} was accepted, {what}", put.lease)))
    };
    let Some(lease) = leases.get(&put.lease) else { return broken("which nobody ever granted") };
    if lease.grants.iter().all(|(invoked, _, _)| *invoked > operation.completed) {
        return broken("which was granted later");
    }
    let ended = lease.revocations.iter().filter_map(|(invoked, completed)| Some((*invoked, (*completed)?)));
    for (invoked, completed) in ended {
        let is_granted_again =
            lease.grants.iter().any(|(_, granted, _)| granted.is_none_or(|at| at > invoked));
        if completed < operation.invoked && !is_granted_again {
            return broken("which was revoked before");
        }
    }
    Ok(())
}

fn check_refused(
    operation: &Operation,
    refusal: &Refusal,
    floor: i64,
    replayed: &Replayed,
    compactions: &Compactions,
    leases: &HashMap<i64, Lease>,
) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new(Rule::RefusalHasReason, what));
    match (refusal, &operation.request) {
        (Refusal::Compacted, Request::Range(range)) => {
            let compacted = compactions.asked_until(operation.completed);
            if range.revision >= compacted {
                return broken(format!("nobody asked to compact further than {compacted}"));
            }
        }
        (Refusal::FutureRevision, Request::Range(range))
            if !range.serializable && range.revision <= floor =>
        {
            return broken(format!("revision {floor} was known before this began"));
        }
        (Refusal::KeyNotFound, Request::Put(put)) if !replayed.model.was_absent_since(&put.key, floor) => {
            return broken(format!("the key was there at revision {floor} and was never deleted since"));
        }
        (Refusal::LeaseNotFound, request) => {
            let id = match request {
                Request::Put(put) => put.lease,
                Request::LeaseRevoke(revoke) => revoke.id,
                _ => return Ok(()),
            };
            let Some(lease) = leases.get(&id) else { return Ok(()) };
            let is_live = |(invoked, completed, ttl): &(Time, Option<Time>, i64)| {
                completed.is_some_and(|at| at < operation.invoked)
                    && operation.completed < invoked + milliseconds(*ttl)
            };
            if lease.revocations.is_empty() && lease.grants.iter().any(is_live) {
                return broken(format!(
                    "lease {id} was granted, its time is not over, and nobody revoked it"
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

fn milliseconds(seconds: i64) -> Time {
    Time::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

/// Leases that ran out did so after their time.
fn check_expirations(
    history: &History,
    replayed: &Replayed,
    leases: &HashMap<i64, Lease>,
) -> Result<(), Violation> {
    for (revision, id) in &replayed.expirations {
        let Some(lease) = leases.get(id) else {
            let what = format!("lease {id}, which nobody granted, took its keys with it");
            return Err(Violation::new(Rule::LeasesLast, what).at(*revision));
        };
        let Some(seen) = replayed.events(history, *revision).first().and_then(|event| event.seen) else {
            continue;
        };
        let answered =
            lease.grants.iter().filter_map(|(invoked, completed, ttl)| Some((*invoked, (*completed)?, *ttl)));
        for (invoked, completed, ttl) in answered.chain(lease.renewals.iter().copied()) {
            let earliest = (invoked + milliseconds(ttl)).saturating_sub(history.lease_tolerance_ms);
            if completed < seen && seen < earliest {
                let what = format!(
                    "lease {id} of {ttl} s ended at {seen} ms although it was granted or renewed between {invoked} and {completed} ms"
                );
                return Err(Violation::new(Rule::LeasesLast, what).at(*revision));
            }
        }
    }
    Ok(())
}
