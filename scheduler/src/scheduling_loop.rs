//! The loop: takes in what changed, decides for the next pod, sends the binding off, and goes on without waiting for it. Owns the
//! snapshot and the queue; one task changes them, so that nothing is locked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::config::{api_code, describe, is_not_found};
use coracle_client::event_recorder::{EventKind, EventRecorder};
use coracle_client::informer::{Change, Subscription};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Client, Resource};
use scheduler_core::fit_error::FitError;
use scheduler_core::pod_info::{PodInfo, PodToSchedule};
use scheduler_core::preemption::Preemption;
use scheduler_core::profile::{DEFAULT_SCHEDULER_NAME, Profile};
use scheduler_core::queue::{Popped, SchedulingQueue};
use scheduler_core::queue_events::{ClusterEvent, node_events};
use scheduler_core::schedule::{Decision, Relief, Turn, next_start, schedule};
use scheduler_core::snapshot::Snapshot;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::binding::{Bound, bind};
use crate::configuration::Settings;
use crate::informers::Informers;
use crate::metrics::{AttemptResult, SchedulerMetrics};
use crate::pod_status::{Nomination, StatusWriter};
use crate::preempting::{Executor, log_failure};

/// Bindings on their way at the same time; the loop waits when there are more.
const BINDING_MAX: usize = 64;
/// Pods that room is being made for at the same time; the loop waits when there are more.
const PREEMPTING_MAX: usize = 16;
/// Changes and decisions in a row before other tasks get a turn.
const BATCH: usize = 32;
/// Rounds of taking in changes before decisions are made again.
const ROUNDS_MAX: usize = 16;
const FLUSH_PERIOD: Duration = Duration::from_secs(30);

/// Everything the loop works on.
pub struct SchedulingLoop {
    client: Client,
    informers: Informers,
    events: EventRecorder,
    metrics: SchedulerMetrics,
    profiles: HashMap<String, Profile>,
    snapshot: Snapshot,
    queue: SchedulingQueue,
    started: Instant,
    turn: Turn,
    binding: usize,
    preempting: usize,
}

/// Where the loop hands things to and how it hears what became of them.
struct Outlets {
    status: StatusWriter,
    bound: mpsc::Sender<Bound>,
    room_made: mpsc::Sender<(Arc<PodInfo>, bool)>,
}

struct Subscriptions {
    pods: Subscription<Pod>,
    nodes: Subscription<Node>,
    services: Subscription<Service>,
    replica_sets: Subscription<ReplicaSet>,
    namespaces: Subscription<Namespace>,
    budgets: Subscription<PodDisruptionBudget>,
}

impl SchedulingLoop {
    /// Prepares the loop.
    pub fn new(
        client: Client,
        informers: Informers,
        events: EventRecorder,
        metrics: SchedulerMetrics,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let profiles =
            settings.profiles()?.into_iter().map(|profile| (profile.scheduler_name.clone(), profile));
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
        Ok(Self {
            client,
            informers,
            events,
            metrics,
            profiles: profiles.collect(),
            snapshot: Snapshot::default(),
            queue: SchedulingQueue::new(settings.backoff),
            started: Instant::now(),
            turn: Turn { seed: u64::from_ne_bytes(seed), start: 0 },
            binding: 0,
            preempting: 0,
        })
    }

    /// Schedules until `shutdown`; bindings under way are left to finish or to be seen by whoever comes next.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.informers.wait_synced() => {}
        }
        let mut changes = Subscriptions {
            pods: self.informers.pods.subscribe(),
            nodes: self.informers.nodes.subscribe(),
            services: self.informers.services.subscribe(),
            replica_sets: self.informers.replica_sets.subscribe(),
            namespaces: self.informers.namespaces.subscribe(),
            budgets: self.informers.budgets.subscribe(),
        };
        let (bound_sender, mut bound) = mpsc::channel(BINDING_MAX);
        let (room_sender, mut room_made) = mpsc::channel(PREEMPTING_MAX);
        let outlets = Outlets {
            status: StatusWriter::start(self.client.clone(), shutdown.clone()),
            bound: bound_sender,
            room_made: room_sender,
        };
        let mut flush = tokio::time::interval(FLUSH_PERIOD);
        tracing::info!(profiles = ?self.profiles.keys().collect::<Vec<_>>(), "scheduling");
        loop {
            // What is known comes before the next decision, nodes and selectors before pods. Bounded, so that a flood of changes does not keep decisions from being made.
            for _ in 0..ROUNDS_MAX {
                if self.take_changes(&mut changes) == 0 {
                    break;
                }
            }
            while let Ok(result) = bound.try_recv() {
                self.after_binding(result);
            }
            while let Ok((pod, done)) = room_made.try_recv() {
                self.after_preempting(&pod, done);
            }
            let mut decided = 0;
            while decided < BATCH && self.binding < BINDING_MAX && self.preempting < PREEMPTING_MAX {
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
            let ready = self.queue.next_ready().map(|ready| self.started + ready);
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = changes.nodes.next() => self.node_changed(&change),
                change = changes.services.next() => self.service_changed(&change),
                change = changes.replica_sets.next() => self.replica_set_changed(&change),
                change = changes.namespaces.next() => self.namespace_changed(&change),
                change = changes.budgets.next() => self.budget_changed(&change),
                change = changes.pods.next() => self.pod_changed(&change),
                Some((pod, done)) = room_made.recv() => self.after_preempting(&pod, done),
                Some(result) = bound.recv() => self.after_binding(result),
                () = tokio::time::sleep_until(ready.unwrap_or(self.started)), if ready.is_some() => {}
                _ = flush.tick() => self.queue.flush_unschedulable(self.now()),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take_changes(&mut self, changes: &mut Subscriptions) -> usize {
        let mut taken = 0;
        while let Some(change) = changes.nodes.try_next() {
            self.node_changed(&change);
            taken += 1;
        }
        while let Some(change) = changes.services.try_next() {
            self.service_changed(&change);
            taken += 1;
        }
        while let Some(change) = changes.replica_sets.try_next() {
            self.replica_set_changed(&change);
            taken += 1;
        }
        while let Some(change) = changes.namespaces.try_next() {
            self.namespace_changed(&change);
            taken += 1;
        }
        while let Some(change) = changes.budgets.try_next() {
            self.budget_changed(&change);
            taken += 1;
        }
        for _ in 0..BATCH {
            let Some(change) = changes.pods.try_next() else { break };
            self.pod_changed(&change);
            taken += 1;
        }
        taken
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let now = self.now();
        match change {
            Change::Applied { old, new } => {
                let known = self.snapshot.node(new.metadata.name.as_deref().unwrap_or_default()).is_some();
                self.snapshot.set_node(Arc::clone(new));
                let events = match old {
                    Some(old) if known => node_events(old, new),
                    _ => vec![ClusterEvent::NodeAdded],
                };
                for event in events {
                    self.queue.notify(event, now);
                }
            }
            Change::Deleted(node) => {
                self.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                self.queue.notify(ClusterEvent::NodeDeleted, now);
            }
        }
    }

    fn service_changed(&mut self, change: &Change<Service>) {
        let key = change.key();
        let spec = change.object().spec.as_ref();
        match spec.and_then(|spec| spec.selector.clone()).filter(|_| !change.is_deleted()) {
            Some(selector) => self.snapshot.selectors.set_service(&key.namespace, &key.name, selector),
            None => self.snapshot.selectors.remove_service(&key.namespace, &key.name),
        }
    }

    fn replica_set_changed(&mut self, change: &Change<ReplicaSet>) {
        let key = change.key();
        match change.object().spec.as_ref().filter(|_| !change.is_deleted()) {
            Some(spec) => self.snapshot.selectors.set_owner(
                "ReplicaSet",
                &key.namespace,
                &key.name,
                spec.selector.clone(),
            ),
            None => self.snapshot.selectors.remove_owner("ReplicaSet", &key.namespace, &key.name),
        }
    }

    fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        match change {
            Change::Applied { new, .. } => {
                self.snapshot.set_namespace(name, new.metadata.labels.clone().unwrap_or_default());
            }
            Change::Deleted(_) => self.snapshot.remove_namespace(name),
        }
    }

    fn budget_changed(&mut self, change: &Change<PodDisruptionBudget>) {
        match change {
            Change::Applied { new, .. } => self.snapshot.budgets.set(new),
            Change::Deleted(budget) => self.snapshot.budgets.remove(budget),
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(old) = change.old()
            && old.metadata.uid != pod.metadata.uid
        {
            // Deleted and made again under the same name between two looks.
            self.pod_gone(old.metadata.uid.as_deref().unwrap_or_default());
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if change.is_deleted() || matches!(phase, Some("Succeeded" | "Failed")) {
            return self.pod_gone(uid);
        }
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty()) {
            Some(node) => self.pod_on_node(change, uid, node),
            None => self.pod_waiting(change, uid),
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.snapshot.nominations.remove(uid);
        if self.snapshot.remove_pod(uid) {
            let now = self.now();
            self.queue.notify(ClusterEvent::PodRemoved, now);
        }
    }

    fn pod_on_node(&mut self, change: &Change<Pod>, uid: &str, node: &str) {
        self.queue.remove(uid);
        let pod = change.object();
        let there = self.snapshot.node_of(uid).is_some_and(|there| **there == *node);
        let same = |old: &Arc<Pod>| {
            old.metadata.labels == pod.metadata.labels
                && old.metadata.deletion_timestamp == pod.metadata.deletion_timestamp
                && old.spec == pod.spec
                && old.status.as_ref().map(|status| &status.start_time)
                    == pod.status.as_ref().map(|status| &status.start_time)
        };
        if there && change.old().is_some_and(same) {
            return;
        }
        self.snapshot.place(Arc::new(PodInfo::new(Arc::clone(pod))), node);
        let had_node = |old: &Arc<Pod>| old.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let relabelled = |old: &Arc<Pod>| old.metadata.labels != pod.metadata.labels;
        if !change.old().is_some_and(|old| had_node(old) && !relabelled(old)) {
            let now = self.now();
            self.queue.notify(ClusterEvent::PodPlaced, now);
        }
    }

    fn pod_waiting(&mut self, change: &Change<Pod>, uid: &str) {
        let pod = change.object();
        if self.snapshot.node_of(uid).is_some() {
            // Assumed: its binding is on the way and this version is older.
            return;
        }
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        let ours = self.profiles.contains_key(name.unwrap_or(DEFAULT_SCHEDULER_NAME));
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(uid);
            self.snapshot.nominations.remove(uid);
            return;
        }
        let now = self.now();
        let pod = PodToSchedule::new(Arc::clone(pod));
        let nominated_before = |old: &Arc<Pod>| {
            old.status.as_ref().is_some_and(|status| {
                status.nominated_node_name.as_deref().is_some_and(|name| !name.is_empty())
            })
        };
        self.snapshot.nominations.refresh(&pod.info, change.old().is_some_and(nominated_before));
        self.queue.set(Arc::new(pod), now);
    }

    fn attempt(&mut self, popped: Popped, outlets: &Outlets) {
        let pod = &popped.pod;
        let name = pod.spec().scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER_NAME.to_owned());
        let Some(profile) = self.profiles.get(&name) else {
            self.queue.remove(&pod.info.uid);
            return;
        };
        let began = self.now();
        let decision = schedule(profile, pod, &self.snapshot, self.turn);
        let took = (self.now() - began).as_secs_f64();
        self.metrics.algorithm(took);
        self.turn.seed = self.turn.seed.wrapping_add(1);
        match decision {
            Decision::Assigned(assignment) => {
                self.turn.start = next_start(self.turn, assignment.evaluated, self.snapshot.node_count());
                self.snapshot.place(Arc::clone(&pod.info), &assignment.node);
                self.binding += 1;
                let (client, sender, info) =
                    (self.client.clone(), outlets.bound.clone(), Arc::clone(&pod.info));
                tokio::spawn(async move {
                    let result = bind(&client, &info, &assignment.node).await;
                    let bound = Bound {
                        pod: info,
                        node: assignment.node,
                        result,
                        began,
                        first_added: popped.first_added,
                        attempts: popped.attempts,
                    };
                    // The loop has ended if this fails; the binding stands all the same.
                    let _ = sender.send(bound).await;
                });
            }
            Decision::Unschedulable(error, relief) => {
                self.metrics.attempt(&name, AttemptResult::Unschedulable, took);
                self.refused(pod, error, relief, outlets);
            }
        }
    }

    fn refused(&mut self, pod: &PodToSchedule, error: FitError, relief: Relief, outlets: &Outlets) {
        let message = error.to_string();
        tracing::debug!(
            pod = format!("{}/{}", pod.info.namespace(), pod.info.name()),
            message,
            "unschedulable"
        );
        self.events.record(
            pod.info.pod.object_ref(&()),
            EventKind::Warning,
            "FailedScheduling",
            "Scheduling",
            message.as_str(),
        );
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
    fn make_room(&mut self, pod: &Arc<PodInfo>, preemption: Preemption, outlets: &Outlets) {
        let now = self.now();
        self.snapshot.nominations.set(Arc::clone(pod), &preemption.node);
        for outranked in &preemption.outranked {
            self.snapshot.nominations.remove(&outranked.uid);
            self.queue.try_again(&outranked.uid, now);
        }
        self.preempting += 1;
        let executor = Executor {
            client: self.client.clone(),
            events: self.events.clone(),
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
        self.binding -= 1;
        let now = self.now();
        let seconds = (now - bound.began).as_secs_f64();
        let pod = &bound.pod;
        let profile = pod.pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        let profile = profile.unwrap_or(DEFAULT_SCHEDULER_NAME);
        let full_name = format!("{}/{}", pod.namespace(), pod.name());
        let Err(error) = bound.result else {
            self.metrics.attempt(profile, AttemptResult::Scheduled, seconds);
            self.metrics.scheduled(bound.attempts, (now.saturating_sub(bound.first_added)).as_secs_f64());
            self.queue.remove(&pod.uid);
            let message = format!("Successfully assigned {full_name} to {}", bound.node);
            self.events.record(pod.pod.object_ref(&()), EventKind::Normal, "Scheduled", "Binding", message);
            return;
        };
        self.metrics.attempt(profile, AttemptResult::Error, seconds);
        tracing::warn!(pod = full_name, node = &*bound.node, error = describe(&error), "binding failed");
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
        if is_not_found(&error) {
            self.queue.remove(&pod.uid);
        } else {
            self.snapshot.nominations.refresh(pod, false);
            if api_code(&error).is_some() {
                let message = format!("binding rejected: {}", describe(&error));
                self.events.record(
                    pod.pod.object_ref(&()),
                    EventKind::Warning,
                    "FailedScheduling",
                    "Scheduling",
                    message,
                );
            }
            self.queue.failed(&pod.uid, now);
        }
        self.queue.notify(ClusterEvent::PodRemoved, now);
    }
}
