//! A priority level at work: its seats and queues behind a lock, and the requests that wait for it. Whatever way a request ends, its seats come back.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::access::{integer, present, text};
use coracle_api::meta;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::{Bounds, Share};
use super::queues::{Arrival, QueueSet, Queuing, Refusal, Running, Ticket};

/// Who is told that a waiting request may start.
type Waiter = oneshot::Sender<Running>;

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelSpec {
    /// Its name.
    pub name: String,
    /// Its uid; empty until it is known.
    pub uid: String,
    /// Its requests neither wait nor count.
    pub exempt: bool,
    /// Its share of the server.
    pub share: Share,
    /// How it queues.
    pub queuing: Queuing,
}

impl LevelSpec {
    /// Reads an object that has been validated.
    pub fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let exempt = text(spec, "type") == "Exempt";
        let part = present(spec, if exempt { "exempt" } else { "limited" }).unwrap_or(&none);
        let number = |of: &Value, field: &str, default: u32| {
            integer(of, field).and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
        };
        let response = present(part, "limitResponse").unwrap_or(&none);
        let queuing = present(response, "queuing").filter(|_| text(response, "type") == "Queue");
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            exempt,
            share: Share {
                shares: number(part, "nominalConcurrencyShares", if exempt { 0 } else { 30 }),
                lendable_percent: number(part, "lendablePercent", 0),
                borrowing_percent: integer(part, "borrowingLimitPercent")
                    .and_then(|percent| u32::try_from(percent).ok()),
            },
            queuing: queuing.map_or(Queuing { queues: 0, hand_size: 0, length_max: 0 }, |queuing| Queuing {
                queues: number(queuing, "queues", 64) as usize,
                hand_size: number(queuing, "handSize", 8) as usize,
                length_max: number(queuing, "queueLengthLimit", 50) as usize,
            }),
        }
    }
}

/// What has become of a level's requests so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
}

/// What changes of a level while it works.
pub(super) struct State {
    pub(super) queues: QueueSet<Waiter>,
    pub(super) bounds: Bounds,
    pub(super) smoothed: f64,
    pub(super) tally: Tally,
}

/// A priority level.
pub struct Level {
    pub(super) spec: LevelSpec,
    epoch: Instant,
    /// Shared with the level's earlier and later configurations.
    pub(super) state: Arc<Mutex<State>>,
}

impl Level {
    /// Of this configuration, without requests.
    pub(super) fn new(spec: LevelSpec, bounds: Bounds, epoch: Instant) -> Self {
        let queues = QueueSet::new(spec.queuing, bounds.nominal, epoch.elapsed());
        let state = State { queues, bounds, smoothed: 0.0, tally: Tally::default() };
        Self { spec, epoch, state: Arc::new(Mutex::new(state)) }
    }

    /// The same level with another configuration: its requests stay.
    pub(super) fn with(&self, spec: LevelSpec, bounds: Bounds) -> Self {
        let now = self.now();
        let mut state = self.state.lock();
        if spec.queuing != self.spec.queuing {
            state.queues.reconfigure(spec.queuing, now);
        }
        if state.bounds != bounds {
            state.bounds = bounds;
            state.queues.set_limit(bounds.nominal, now);
        }
        Self { spec, epoch: self.epoch, state: Arc::clone(&self.state) }
    }

    /// Time as the queues count it.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Starts whoever can start.
    pub(super) fn dispatch(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        while let Some((waiter, running)) = state.queues.next(now) {
            // Who has gone gives the seats to the next.
            if let Err(running) = waiter.send(running) {
                state.queues.finish(running, now);
            }
        }
    }

    /// Waits for seats, at most so long. `waits` is told when there is waiting to be done.
    pub(super) async fn enter(
        self: &Arc<Self>,
        hash: u64,
        seats: u32,
        patience: Duration,
        waits: impl FnOnce() -> prometheus_client::metrics::gauge::Gauge,
    ) -> Result<Occupied, Refusal> {
        let mut receiver = None;
        let arrival = self.state.lock().queues.arrive(hash, seats, self.now(), || {
            let (sender, kept) = oneshot::channel();
            receiver = Some(kept);
            sender
        });
        let ticket = match arrival {
            Arrival::Starts(running) => {
                self.state.lock().tally.dispatched += 1;
                return Ok(self.occupied(running));
            }
            Arrival::Refused(refusal) => {
                self.state.lock().tally.rejected += 1;
                return Err(refusal);
            }
            Arrival::Waits(ticket) => ticket,
        };
        let Some(receiver) = receiver else { return Err(Refusal::TimeOut) };
        let gauge = waits();
        gauge.inc();
        let mut place = Place { level: self, ticket, receiver, gauge, outcome: |tally| &mut tally.cancelled };
        // Seats may have become free in between.
        self.dispatch();
        match tokio::time::timeout(patience, &mut place.receiver).await {
            Ok(Ok(running)) => {
                place.outcome = |tally| &mut tally.dispatched;
                Ok(self.occupied(running))
            }
            Ok(Err(_)) | Err(_) => {
                place.outcome = |tally| &mut tally.timed_out;
                Err(Refusal::TimeOut)
            }
        }
    }

    fn occupied(self: &Arc<Self>, running: Running) -> Occupied {
        Occupied { level: Arc::clone(self), running }
    }
}

/// A place in a queue. Who leaves it gives up what has come in the meantime.
struct Place<'a> {
    level: &'a Arc<Level>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Running>,
    gauge: prometheus_client::metrics::gauge::Gauge,
    /// What it ends as; until something else is known, by the client's going away.
    outcome: fn(&mut Tally) -> &mut u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
        let gone = {
            let mut state = self.level.state.lock();
            *(self.outcome)(&mut state.tally) += 1;
            state.queues.give_up(self.ticket, self.level.now())
        };
        // Started while it was leaving: nobody has taken the seats.
        if gone.is_none()
            && let Ok(running) = self.receiver.try_recv()
        {
            drop(self.level.occupied(running));
        }
    }
}

/// Seats that are taken, until this is dropped.
pub(super) struct Occupied {
    level: Arc<Level>,
    running: Running,
}

impl Occupied {
    /// How many.
    pub(super) fn seats(&self) -> u32 {
        self.running.seats
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.level.state.lock().queues.finish(self.running, self.level.now());
        self.level.dispatch();
    }
}
