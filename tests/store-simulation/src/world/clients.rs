//! Clients ask, members propose or read, answers go back; whatever takes too long stays unknown.

use std::sync::atomic::Ordering;

use coracle_proto::etcdserverpb as pb;
use etcd_lite::member::ProposeError;
use etcd_lite::raft::driver::Input;
use etcd_lite_core::{Command, Request as Proposal, Response as Answer, check};
use prost::Message as _;
use store_checker::{Operation, Outcome, Refusal, Request, Response};
use store_clients::random::mix;

use super::happening::Happening;
use super::{Checked, World};
use crate::member::{Running, instant};
use crate::plan::CLIENTS_UNTIL;

/// A client gives up after so many milliseconds.
const CLIENT_TIMEOUT_MS: u64 = 3_000;
/// After that a member does not propose what waits for a leader.
const DEADLINE_MS: u64 = 7_000;
/// The client that asks at the end whether all is well.
const LAST_CLIENT: u64 = 99;

impl World {
    pub(super) fn ask(&mut self, number: usize) {
        if self.now > CLIENTS_UNTIL {
            return;
        }
        let members = self.plan.members;
        let client = &mut self.clients[number];
        if client.left == 0 || client.current.is_some() {
            return;
        }
        client.left -= 1;
        let (request, member) = (client.next_request(), client.choose(members));
        // Renewing is the leader's business, and clients find it in the end.
        let member = match &request {
            Request::LeaseKeepAlive(_) => {
                let leaders = (1..)
                    .zip(&self.slots)
                    .filter(|(_, s)| s.running.as_ref().is_some_and(Running::is_leader));
                let leaders: Vec<u64> = leaders.map(|(id, _)| id).collect();
                if leaders.contains(&member) { member } else { leaders.first().copied().unwrap_or(member) }
            }
            _ => member,
        };
        let operation = self.begin(self.clients[number].number, member, request);
        self.clients[number].current = Some(operation);
    }

    pub(super) fn begin(&mut self, client: u64, member: u64, request: Request) -> usize {
        let operation = self.history.operations.len();
        self.history.operations.push(Operation {
            client,
            member,
            invoked: self.now,
            completed: self.now,
            request,
            outcome: Outcome::Unknown,
        });
        self.is_done.push(false);
        self.stats.operations += 1;
        let arrival = self.now + self.network.below(4);
        self.at(arrival, Happening::Request { member, operation });
        let late = self.now + CLIENT_TIMEOUT_MS;
        self.at(late, Happening::GiveUp { operation });
        operation
    }

    /// A request reaches a member.
    pub(super) fn request(&mut self, member: u64, operation: usize) -> Checked {
        if self.is_done[operation] {
            return Ok(());
        }
        let rate = self.slot(member).rate;
        let now = self.now;
        let Some(running) = self.running(member) else {
            self.answer(operation, Outcome::Failed);
            return Ok(());
        };
        running.clock.store(now * rate / 1000, Ordering::Relaxed);
        let whose = operation as u64;
        let proposal = match self.history.operations[operation].request.clone() {
            Request::Range(range) if range.serializable => {
                let outcome = self.read(member, operation);
                self.answer(operation, outcome);
                return Ok(());
            }
            Request::Range(_) => return self.read_index(member, operation),
            Request::Txn(txn) if check::txn_is_read_only(&txn) => {
                if check::txn_is_serializable(&txn) {
                    let outcome = self.read(member, operation);
                    self.answer(operation, outcome);
                    return Ok(());
                }
                return self.read_index(member, operation);
            }
            Request::LeaseKeepAlive(keep) => {
                let Some(running) = self.running(member) else { return Ok(()) };
                let Ok(led) = running.leases.keep_alive(keep.id) else {
                    self.answer(operation, Outcome::Failed);
                    return Ok(());
                };
                running.renewals.insert(operation, led);
                return self.read_index(member, operation);
            }
            Request::Put(put) => Proposal::Put(put),
            Request::DeleteRange(delete) => Proposal::DeleteRange(delete),
            Request::Txn(txn) => Proposal::Txn(txn),
            Request::Compact(compact) => Proposal::Compact(compact),
            Request::LeaseGrant(grant) => Proposal::LeaseGrant(grant),
            Request::LeaseRevoke(revoke) => Proposal::LeaseRevoke(revoke),
        };
        self.propose(member, proposal, whose);
        Ok(())
    }

    pub(super) fn read_index(&mut self, member: u64, operation: usize) -> Checked {
        let Some(running) = self.running(member) else { return Ok(()) };
        let view = *running.view.lock();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let known = view.is_alone.then_some(view.commit);
        running.reads.push((receiver, known, operation as u64));
        if view.is_alone {
            return self.after_apply(member);
        }
        self.input(member, Input::ReadIndex(sender));
        Ok(())
    }

    pub(super) fn propose(&mut self, member: u64, request: Proposal, whose: u64) {
        let deadline = instant(self.now + DEADLINE_MS);
        let Some(running) = self.running(member) else { return };
        let id = running.unique_id();
        let data = Command { id, request: Some(request) }.encode_to_vec().into();
        let receiver = running.waiters.wait(id);
        running.proposals.push((id, receiver, whose));
        self.input(member, Input::Propose { id, data, deadline });
    }

    /// Reads a member's store, or what it said of a lease, as it is.
    pub(super) fn read(&mut self, member: u64, operation: usize) -> Outcome {
        let Some(running) = self.slots[member as usize - 1].running.as_mut() else { return Outcome::Unknown };
        if let Some(led) = running.renewals.remove(&operation) {
            if !running.leases.leads_in(led.term) {
                return Outcome::Failed;
            }
            let Request::LeaseKeepAlive(keep) = &self.history.operations[operation].request else {
                return Outcome::Unknown;
            };
            let response =
                pb::LeaseKeepAliveResponse { id: keep.id, ttl: led.says.unwrap_or(0), ..Default::default() };
            return Outcome::Answered(Response::LeaseKeepAlive(response));
        }
        let store = running.store.read();
        let answer = match &self.history.operations[operation].request {
            Request::Range(range) => store.range(range).map(|found| Response::Range(found.to_response())),
            Request::Txn(txn) => store.read_txn(txn).map(Response::Txn),
            _ => return Outcome::Unknown,
        };
        match answer {
            Ok(response) => Outcome::Answered(response),
            Err(error) => Outcome::Refused(Refusal::of_text(&error.to_string())),
        }
    }

    /// An answer is on its way to the client.
    pub(super) fn answer(&mut self, operation: usize, outcome: Outcome) {
        if self.is_done[operation] {
            return;
        }
        let at = self.now + self.network.below(4);
        self.at(at, Happening::Answered { operation, outcome: Box::new(outcome) });
    }

    pub(super) fn done(&mut self, operation: usize, outcome: Outcome) {
        if std::mem::replace(&mut self.is_done[operation], true) {
            return;
        }
        let now = self.now;
        let record = &mut self.history.operations[operation];
        record.completed = now;
        record.outcome = outcome;
        told!(self, "operation {operation} done: {:?}", self.history.operations[operation]);
        let record = &self.history.operations[operation];
        self.trace = mix(self.trace ^ operation as u64 ^ mark(&record.outcome));
        let client = record.client;
        if client == LAST_CLIENT {
            self.has_recovered |= matches!(record.outcome, Outcome::Answered(_));
            return;
        }
        let client = client as usize - 1;
        if let Some(asking) = self.clients.get_mut(client) {
            if let Outcome::Answered(response) = &record.outcome {
                asking.answered(response);
            }
            asking.current = None;
            let at = now + 1 + asking.pause();
            self.at(at, Happening::Ask { client });
        }
    }

    /// After all faults the store has to take writes again, soon.
    pub(super) fn last_write(&mut self, attempt: u64) {
        if self.has_recovered || attempt > 6 {
            return;
        }
        let member = 1 + attempt % self.plan.members;
        let put = pb::PutRequest {
            key: "last".into(),
            value: format!("last-{attempt}").into(),
            ..Default::default()
        };
        self.begin(LAST_CLIENT, member, Request::Put(put));
        let again = self.now + 700;
        self.at(again, Happening::LastWrite { attempt: attempt + 1 });
    }
}

fn mark(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Answered(response) => 1 << 32 | response.revision().unsigned_abs(),
        Outcome::Refused(_) => 2 << 32,
        Outcome::Failed => 3 << 32,
        Outcome::Unknown => 4 << 32,
    }
}

pub(super) fn outcome_of(answer: Result<Answer, ProposeError>) -> Outcome {
    let response = match answer {
        Ok(Answer::Put(r)) => Response::Put(r),
        Ok(Answer::DeleteRange(r)) => Response::DeleteRange(r),
        Ok(Answer::Txn(r)) => Response::Txn(r),
        Ok(Answer::Compact(r)) => Response::Compact(r),
        Ok(Answer::LeaseGrant(r)) => Response::LeaseGrant(r),
        Ok(Answer::LeaseRevoke(r)) => Response::LeaseRevoke(r),
        Err(ProposeError::Store(error)) => return Outcome::Refused(Refusal::of_text(&error.to_string())),
        Ok(_) | Err(_) => return Outcome::Unknown,
    };
    Outcome::Answered(response)
}
