//! The loop: takes in what changed, decides for the next pod, sends the binding off, and goes on without waiting for it. Owns the
//! snapshot and the queue; one task changes them, so that nothing is locked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::event_recorder::{EventKind, EventRecorder};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Resource};
use scheduler_core::fit_error::FitError;
use scheduler_core::gangs::Gangs;
use scheduler_core::pod_info::{PodInfo, PodToSchedule};
use scheduler_core::preemption::Preemption;
use scheduler_core::profile::{Profile, scheduler_name};
use scheduler_core::queue::{Backoff, Popped, SchedulingQueue};
use scheduler_core::queue_events::ClusterEvent;
use scheduler_core::schedule::{Decision, Relief, Turn, next_start, schedule};
use scheduler_core::snapshot::Snapshot;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod changes;
mod reserved;

use crate::binding::{Binder, Bound};
use crate::informers::Informers;
use crate::metrics::{AttemptResult, SchedulerMetrics};
use crate::pod_status::{Nomination, StatusWriter};
use crate::preempting::{Executor, log_failure};
use crate::scheduling_loop::changes::Subscriptions;
use crate::scheduling_loop::reserved::{Reservations, Reserved};

/// Bindings on their way at the same time; the loop waits when there are more.
const BINDING_MAX: usize = 64;
/// Pods that room is being made for at the same time; the loop waits when there are more.
const PREEMPTING_MAX: usize = 16;
/// Pods that wait for volumes at the same time; the loop waits when there are more.
const WAITING_FOR_VOLUMES_MAX: usize = 256;
/// Changes and decisions in a row before other tasks get a turn.
const BATCH: usize = 32;
const FLUSH_PERIOD: Duration = Duration::from_secs(30);

/// Who decides for the pods of one scheduler name, and in whose name people are told.
pub struct Decider {
    /// The plugins.
    pub profile: Profile,
    /// Where events go.
    pub events: EventRecorder,
}

/// Everything the loop works on.
pub struct SchedulingLoop {
    client: Client,
    informers: Informers,
    metrics: SchedulerMetrics,
    deciders: HashMap<String, Decider>,
    binder: Binder,
    snapshot: Snapshot,
    queue: SchedulingQueue,
    started: Instant,
    turn: Turn,
    binding: usize,
    /// Pods whose claims have to get their volumes before they are bound.
    waiting_for_volumes: usize,
    preempting: usize,
    reservations: Reservations,
}

/// Where the loop hands things to and how it hears what became of them.
struct Outlets {
    status: StatusWriter,
    bound: mpsc::Sender<Bound>,
    room_made: mpsc::Sender<(Arc<PodInfo>, bool)>,
}

impl SchedulingLoop {
    /// Prepares the loop.
    pub fn new(
        client: Client,
        informers: Informers,
        deciders: HashMap<String, Decider>,
        binder: Binder,
        metrics: SchedulerMetrics,
        backoff: Backoff,
    ) -> anyhow::Result<Self> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
        let together = deciders.iter().filter(|(_, decider)| decider.profile.gangs);
        let gangs = Gangs::new(together.map(|(name, _)| name.clone()));
        Ok(Self {
            client,
            informers,
            metrics,
            deciders,
            binder,
            snapshot: Snapshot::default(),
            queue: SchedulingQueue::new(backoff, gangs),
            started: Instant::now(),
            turn: Turn { seed: u64::from_ne_bytes(seed), start: 0 },
            binding: 0,
            waiting_for_volumes: 0,
            preempting: 0,
            reservations: Reservations::default(),
        })
    }

    /// Schedules until `shutdown`; bindings under way are left to finish or to be seen by whoever comes next.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.informers.wait_synced() => {}
        }
        let mut changes = Subscriptions::start(&self.informers);
        let (bound_sender, mut bound) = mpsc::channel(BINDING_MAX);
        let (room_sender, mut room_made) = mpsc::channel(PREEMPTING_MAX);
        let outlets = Outlets {
            status: StatusWriter::start(self.client.clone(), shutdown.clone()),
            bound: bound_sender,
            room_made: room_sender,
        };
        let mut flush = tokio::time::interval(FLUSH_PERIOD);
        tracing::info!(profiles = ?self.deciders.keys().collect::<Vec<_>>(), "scheduling");
        loop {
            // What is known comes before the next decision.
            self.take_changes(&mut changes);
            while let Ok(result) = bound.try_recv() {
                self.after_binding(result);
            }
            while let Ok((pod, done)) = room_made.try_recv() {
                self.after_preempting(&pod, done);
            }
            self.expire_waiting(&outlets);
            self.bind_allowed(&outlets);
            let mut decided = 0;
            while decided < BATCH && self.has_room() {
                let Some(popped) = self.queue.pop(self.now()) else { break };
                self.attempt(popped, &outlets);
                decided += 1;
            }
            self.metrics.pending(self.queue.pending());
            if decided == BATCH {
                tokio::task::yield_now().await;
                if shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            let deadline = self.reservations.next_deadline();
            let ready = self.queue.next_ready().filter(|_| self.has_room());
            let wake = ready.into_iter().chain(deadline).min().map(|wake| self.started + wake);
            tokio::select! {
                () = shutdown.cancelled() => return,
                seen = changes.next() => self.take(&seen),
                Some((pod, done)) = room_made.recv() => self.after_preempting(&pod, done),
                Some(result) = bound.recv() => self.after_binding(result),
                () = tokio::time::sleep_until(wake.unwrap_or(self.started)), if wake.is_some() => {}
                _ = flush.tick() => self.queue.flush_unschedulable(self.now()),
            }
        }
    }

    /// Whether what a decision sets going can be set going now.
    fn has_room(&self) -> bool {
        self.binding < BINDING_MAX
            && self.waiting_for_volumes < WAITING_FOR_VOLUMES_MAX
            && self.preempting < PREEMPTING_MAX
    }

    /// Tells people about a pod, in the name of the scheduler that it asked for.
    fn tell(&self, pod: &Pod, kind: EventKind, reason: &str, action: &str, message: String) {
        if let Some(decider) = self.deciders.get(scheduler_name(pod)) {
            decider.events.record(pod.object_ref(&()), kind, reason, action, message);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn attempt(&mut self, popped: Popped, outlets: &Outlets) {
        let pod = &popped.pod;
        let Some(decider) = self.deciders.get(scheduler_name(&pod.info.pod)) else {
            self.queue.remove(&pod.info.uid);
            return;
        };
        let began = self.now();
        let decision = schedule(&decider.profile, pod, &self.snapshot, self.turn);
        let took = (self.now() - began).as_secs_f64();
        self.metrics.algorithm(took);
        self.turn.seed = self.turn.seed.wrapping_add(1);
        match decision {
            Decision::Assigned(assignment) => {
                self.turn.start = next_start(self.turn, assignment.evaluated, self.snapshot.node_count());
                self.reserve(Reserved { popped, assignment, began }, outlets);
                self.bind_allowed(outlets);
            }
            Decision::Unschedulable(error, relief) => {
                self.metrics.attempt(scheduler_name(&pod.info.pod), AttemptResult::Unschedulable, took);
                self.refused(pod, error, relief, outlets);
            }
            Decision::Failed(error) => self.failed(pod, error, took, outlets),
        }
    }

    /// An attempt came to nothing, and not for want of a node.
    fn failed(&mut self, pod: &PodToSchedule, error: String, took: f64, outlets: &Outlets) {
        self.metrics.attempt(scheduler_name(&pod.info.pod), AttemptResult::Error, took);
        outlets.status.not_scheduled(&pod.info.pod, "SchedulerError", &error, Nomination::Stands);
        self.tell(&pod.info.pod, EventKind::Warning, "FailedScheduling", "Scheduling", error);
        let now = self.now();
        self.queue.failed(&pod.info.uid, now);
    }

    fn refused(&mut self, pod: &PodToSchedule, error: FitError, relief: Relief, outlets: &Outlets) {
        let message = error.to_string();
        tracing::debug!(
            pod = format!("{}/{}", pod.info.namespace(), pod.info.name()),
            message,
            "unschedulable"
        );
        self.tell(&pod.info.pod, EventKind::Warning, "FailedScheduling", "Scheduling", message.clone());
        let now = self.now();
        let nomination = match &relief {
            Relief::None => Nomination::Stands,
            Relief::WithdrawNomination => Nomination::Withdrawn,
            Relief::Preempt(preemption) => Nomination::To(&preemption.node),
        };
        outlets.status.not_scheduled(&pod.info.pod, "Unschedulable", &message, nomination);
        match relief {
            Relief::None => self.queue.refused(&pod.info.uid, error.plugins, now),
            Relief::WithdrawNomination => {
                self.metrics.preemption(None);
                self.snapshot.nominations.remove(&pod.info.uid);
                self.queue.refused(&pod.info.uid, error.plugins, now);
            }
            Relief::Preempt(preemption) => {
                self.metrics.preemption(Some(preemption.victims.len()));
                self.queue.refused_making_room(&pod.info.uid, error.plugins, now);
                self.make_room(&pod.info, preemption, outlets);
            }
        }
    }

    /// Lets the pods that stand in the way go. Nothing waits for them here: their going wakes the pod.
    fn make_room(&mut self, pod: &Arc<PodInfo>, mut preemption: Preemption, outlets: &Outlets) {
        let now = self.now();
        preemption.victims.retain(|victim| !self.preempt_waiting(&victim.uid, outlets));
        self.snapshot.nominations.set(Arc::clone(pod), &preemption.node);
        for outranked in &preemption.outranked {
            self.snapshot.nominations.remove(&outranked.uid);
            self.queue.try_again(&outranked.uid, now);
        }
        let Some(decider) = self.deciders.get(scheduler_name(&pod.pod)) else { return };
        self.preempting += 1;
        let executor = Executor {
            client: self.client.clone(),
            events: decider.events.clone(),
            status: outlets.status.clone(),
        };
        let (pod, sender) = (Arc::clone(pod), outlets.room_made.clone());
        tokio::spawn(async move {
            let result = executor.run(Arc::clone(&pod), preemption).await;
            if let Err(error) = &result {
                log_failure(&pod, error);
            }
            // The loop has ended if this fails.
            let _ = sender.send((pod, result.is_ok())).await;
        });
    }

    fn after_preempting(&mut self, pod: &PodInfo, done: bool) {
        self.preempting -= 1;
        let now = self.now();
        self.queue.room_made(&pod.uid, done, now);
    }

    fn after_binding(&mut self, bound: Bound) {
        match bound.volumes.is_empty() {
            true => self.binding -= 1,
            false => self.waiting_for_volumes -= 1,
        }
        self.release_volumes(&bound.volumes);
        let now = self.now();
        let seconds = (now - bound.began).as_secs_f64();
        let pod = &bound.pod;
        let profile = scheduler_name(&pod.pod);
        let full_name = format!("{}/{}", pod.namespace(), pod.name());
        let Err(error) = bound.result else {
            self.metrics.attempt(profile, AttemptResult::Scheduled, seconds);
            self.metrics.scheduled(bound.attempts, (now.saturating_sub(bound.first_added)).as_secs_f64());
            self.queue.remove(&pod.uid);
            let message = format!("Successfully assigned {full_name} to {}", bound.node);
            self.tell(&pod.pod, EventKind::Normal, "Scheduled", "Binding", message);
            return;
        };
        self.metrics.attempt(profile, AttemptResult::Error, seconds);
        tracing::warn!(pod = full_name, node = &*bound.node, %error, "binding failed");
        // Its room is free again unless the informer says otherwise (a binding that came through without an answer).
        let confirmed =
            self.informers.pods.store().get_named(pod.namespace(), pod.name()).is_some_and(|seen| {
                seen.metadata.uid.as_deref() == Some(&*pod.uid)
                    && seen
                        .spec
                        .as_ref()
                        .is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()))
            });
        if confirmed {
            self.queue.remove(&pod.uid);
            return;
        }
        self.snapshot.remove_pod(&pod.uid);
        self.queue.gangs.release(pod);
        if error.is_pod_gone() {
            self.queue.remove(&pod.uid);
        } else {
            self.snapshot.nominations.refresh(pod, false);
            if let Some(message) = error.message() {
                self.tell(&pod.pod, EventKind::Warning, "FailedScheduling", "Scheduling", message);
            }
            self.queue.failed(&pod.uid, now);
        }
        self.queue.notify(ClusterEvent::PodRemoved, now);
    }
}
