//! Pods that have a node in the snapshot and not yet in the API: those that wait for the rest of their group, those that are to be bound next,
//! and what is given back when it comes to nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use component_base::duration::GoDuration;
use scheduler_core::fit_error::FitError;
use scheduler_core::framework::Rejection;
use scheduler_core::gangs::{self, Permit};
use scheduler_core::plugins::volume_binding::VolumeStep;
use scheduler_core::profile::scheduler_name;
use scheduler_core::queue::Popped;
use scheduler_core::queue_events::ClusterEvent;
use scheduler_core::schedule::{Assignment, Relief};

use super::{Outlets, SchedulingLoop};
use crate::binding::Bound;
use crate::metrics::AttemptResult;

/// A pod whose room is taken.
pub(super) struct Reserved {
    pub(super) popped: Popped,
    pub(super) assignment: Assignment,
    /// When the attempt began, since the loop's start.
    pub(super) began: Duration,
}

/// A pod that waits for others.
struct Waiting {
    reserved: Reserved,
    since: Duration,
    deadline: Duration,
}

/// All of them.
#[derive(Default)]
pub(super) struct Reservations {
    waiting: HashMap<Arc<str>, Waiting>,
    /// Allowed, and not yet sent off.
    pub(super) allowed: VecDeque<Reserved>,
}

impl Reservations {
    /// When the first of those that wait has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.waiting.values().map(|waiting| waiting.deadline).min()
    }
}

impl SchedulingLoop {
    /// Takes the node's room for a pod, and lets it go on, alone or with others, or wait.
    pub(super) fn reserve(&mut self, reserved: Reserved, outlets: &Outlets) {
        let Reserved { popped, assignment, .. } = &reserved;
        let info = Arc::clone(&popped.pod.info);
        self.snapshot.place(Arc::clone(&info), &assignment.node);
        for step in &assignment.volumes {
            if let VolumeStep::Bind(volume, claim) = step {
                let metadata = &claim.metadata;
                let key = (
                    metadata.namespace.clone().unwrap_or_default(),
                    metadata.name.clone().unwrap_or_default(),
                );
                self.snapshot.volumes.promise(volume.metadata.name.as_deref().unwrap_or_default(), key);
            }
        }
        let now = self.now();
        match self.queue.gangs.permit(&info, now) {
            Permit::Allow(others) => {
                self.reservations.allowed.push_back(reserved);
                for uid in others {
                    if let Some(waiting) = self.reservations.waiting.remove(&uid) {
                        self.reservations.allowed.push_back(waiting.reserved);
                    }
                }
            }
            Permit::Wait(deadline) => {
                self.queue.hurry_others(&info, now);
                let waiting = Waiting { reserved, since: now, deadline };
                self.reservations.waiting.insert(Arc::clone(&info.uid), waiting);
            }
            Permit::Refuse(error) => {
                let took = (now - reserved.began).as_secs_f64();
                self.release(&reserved);
                self.failed(&reserved.popped.pod, error, took, outlets);
            }
        }
    }

    /// Sends off bindings that are allowed, as many as there is room for.
    pub(super) fn bind_allowed(&mut self, outlets: &Outlets) {
        while self.has_room() {
            let Some(reserved) = self.reservations.allowed.pop_front() else { return };
            self.bind(reserved, outlets);
        }
    }

    fn bind(&mut self, reserved: Reserved, outlets: &Outlets) {
        let Reserved { popped, assignment, began } = reserved;
        match assignment.volumes.is_empty() {
            true => self.binding += 1,
            false => self.waiting_for_volumes += 1,
        }
        let binder = self.binder.clone();
        let (sender, info) = (outlets.bound.clone(), Arc::clone(&popped.pod.info));
        tokio::spawn(async move {
            let result = binder.bind(&info, &assignment.node, &assignment.volumes).await;
            let bound = Bound {
                pod: info,
                node: assignment.node,
                volumes: assignment.volumes,
                result,
                began,
                first_added: popped.first_added,
                attempts: popped.attempts,
            };
            // The loop has ended if this fails; the binding stands all the same.
            let _ = sender.send(bound).await;
        });
    }

    /// Takes the room back from pods that have waited for their group in vain.
    pub(super) fn expire_waiting(&mut self, outlets: &Outlets) {
        let now = self.now();
        let over = self.reservations.waiting.iter().filter(|(_, waiting)| waiting.deadline <= now);
        let over: Vec<_> = over.map(|(uid, _)| Arc::clone(uid)).collect();
        for uid in over {
            if let Some(waiting) = self.reservations.waiting.remove(&uid) {
                let waited = GoDuration::from(waiting.deadline.saturating_sub(waiting.since));
                let reason =
                    format!("rejected due to timeout after waiting {waited} at plugin {}", gangs::NAME);
                self.turn_away(waiting.reserved, reason, outlets);
            }
        }
    }

    /// Takes the room back from a pod that waits, since another needs it. False if it does not wait: it has to be deleted to make room.
    pub(super) fn preempt_waiting(&mut self, uid: &str, outlets: &Outlets) -> bool {
        let Some(waiting) = self.reservations.waiting.remove(uid) else { return false };
        self.turn_away(waiting.reserved, "preempted".to_owned(), outlets);
        true
    }

    /// The pod is no longer where it was to go, and looks for a node again when its group changes.
    fn turn_away(&mut self, reserved: Reserved, reason: String, outlets: &Outlets) {
        self.release(&reserved);
        let pod = Arc::clone(&reserved.popped.pod);
        let error = FitError {
            node_count: 1,
            rejected: vec![(reserved.assignment.node, Rejection::unresolvable(gangs::NAME, reason))],
            plugins: BTreeSet::from([gangs::NAME]),
            ..FitError::default()
        };
        let took = (self.now() - reserved.began).as_secs_f64();
        self.metrics.attempt(scheduler_name(&pod.info.pod), AttemptResult::Unschedulable, took);
        self.refused(&pod, error, Relief::None, outlets);
    }

    /// Forgets a pod that is gone, or that another has bound, while it waited; its room is the caller's.
    pub(super) fn forget_reserved(&mut self, uid: &str) {
        if let Some(waiting) = self.reservations.waiting.remove(uid) {
            self.release_volumes(&waiting.reserved.assignment.volumes);
        }
    }

    /// Gives back what was taken for a pod that is not bound.
    fn release(&mut self, reserved: &Reserved) {
        let info = &reserved.popped.pod.info;
        self.release_volumes(&reserved.assignment.volumes);
        self.snapshot.remove_pod(&info.uid);
        self.queue.gangs.release(info);
        let now = self.now();
        self.queue.notify(ClusterEvent::PodRemoved, now);
    }

    pub(super) fn release_volumes(&mut self, steps: &[VolumeStep]) {
        for step in steps {
            if let VolumeStep::Bind(volume, _) = step {
                self.snapshot.volumes.release(volume.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }
}
