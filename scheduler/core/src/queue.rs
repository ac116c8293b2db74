//! Which pod is next. Owns the three places a pod can wait in (active, backing off, unschedulable) and the moves between them:
//!
//! ```text
//! add ------------------> active --pop--> in flight --bound--> gone
//!                           ^                | refused        | failed
//!    backoff over           |                v                v
//! backing off --------------+         unschedulable ----> backing off
//!      ^ an event that may help, or 5 minutes |
//!      +--------------------------------------+   (straight to active if the backoff is over)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::scheduling::v1alpha1::Workload;

use crate::gangs::{self, Gangs};
use crate::plugins::{priority_sort, scheduling_gates};
use crate::pod_info::{PodInfo, PodToSchedule};
use crate::queue_events::{ClusterEvent, may_help};

/// A pod that no event has woken for this long is tried again all the same.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// How long a pod waits after a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure; it doubles with each further one.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    fn after(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(30);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }
}

type ActiveKey = (priority_sort::Place, u64);

#[derive(Clone, Debug)]
enum Place {
    Active(ActiveKey),
    Backoff((Duration, u64)),
    Unschedulable { since: Duration, plugins: BTreeSet<&'static str> },
    Gated,
    InFlight,
}

struct Entry {
    pod: Arc<PodToSchedule>,
    place: Place,
    attempts: u32,
    first_added: Duration,
    failed_at: Duration,
    /// While room is being made for it, whether an event came that may help.
    making_room: Option<bool>,
}

/// A pod whose turn it is.
#[derive(Clone, Debug)]
pub struct Popped {
    /// The pod.
    pub pod: Arc<PodToSchedule>,
    /// How often it has been tried, this time included.
    pub attempts: u32,
    /// When it was first added.
    pub first_added: Duration,
}

/// How many pods wait where (`scheduler_pending_pods`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Ready to be tried.
    pub active: usize,
    /// Waiting for their backoff.
    pub backoff: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Held by scheduling gates, or until enough pods of their group are there.
    pub gated: usize,
}

/// The pods that wait for a node.
#[derive(Default)]
pub struct SchedulingQueue {
    backoff: Backoff,
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeMap<ActiveKey, Arc<str>>,
    backing_off: BTreeMap<(Duration, u64), Arc<str>>,
    unschedulable: HashSet<Arc<str>>,
    gated: usize,
    next_order: u64,
    /// Which pods are scheduled together.
    pub gangs: Gangs,
}

impl SchedulingQueue {
    /// An empty queue.
    pub fn new(backoff: Backoff, gangs: Gangs) -> Self {
        Self { backoff, gangs, ..Self::default() }
    }

    /// Adds a pod, or takes over a new version of one that waits. A change of its spec or labels may help it, so it is
    /// tried again; a mere change of status moves nothing.
    pub fn set(&mut self, pod: Arc<PodToSchedule>, now: Duration) {
        let uid = Arc::clone(&pod.info.uid);
        let Some(entry) = self.entries.get_mut(&uid) else {
            let entry = Entry {
                pod,
                place: Place::InFlight,
                attempts: 0,
                first_added: now,
                failed_at: Duration::ZERO,
                making_room: None,
            };
            let info = Arc::clone(&entry.pod.info);
            self.entries.insert(Arc::clone(&uid), entry);
            self.join(&info, false, now);
            return self.activate(&uid, now);
        };
        let (before, after) = (&entry.pod.info.pod, &pod.info.pod);
        let changed = before.spec != after.spec || before.metadata.labels != after.metadata.labels;
        entry.pod = pod;
        if let Some(missed) = entry.making_room.as_mut() {
            *missed |= changed;
        } else if changed && !matches!(entry.place, Place::InFlight) {
            let place = entry.place.clone();
            self.leave(&uid, &place);
            self.wake(&uid, now);
        }
    }

    /// Forgets a pod: it is gone, or has its node. True if it was known.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some((uid, entry)) = self.entries.remove_entry(uid) else { return false };
        self.leave(&uid, &entry.place);
        true
    }

    /// Whether a pod is known.
    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// The next pod to try. It is in flight until [`SchedulingQueue::remove`], [`SchedulingQueue::refused`] or [`SchedulingQueue::failed`].
    pub fn pop(&mut self, now: Duration) -> Option<Popped> {
        self.flush(now);
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        Some(Popped { pod: Arc::clone(&entry.pod), attempts: entry.attempts, first_added: entry.first_added })
    }

    /// No node will do: the pod waits for an event that may change the mind of one of these plugins.
    pub fn refused(&mut self, uid: &str, plugins: BTreeSet<&'static str>, now: Duration) {
        if let Some((uid, entry)) = self.in_flight(uid) {
            entry.failed_at = now;
            entry.place = Place::Unschedulable { since: now, plugins };
            self.unschedulable.insert(uid);
        }
    }

    /// The same for a pod that others are being deleted for: it is not tried before [`SchedulingQueue::room_made`].
    pub fn refused_making_room(&mut self, uid: &str, plugins: BTreeSet<&'static str>, now: Duration) {
        self.refused(uid, plugins, now);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.making_room = Some(false);
        }
    }

    /// The deletions that a pod waited for have been asked for (or, if not `done`, that failed): an event that came meanwhile
    /// counts now, and after a failure the pod is tried again in any case.
    pub fn room_made(&mut self, uid: &str, done: bool, now: Duration) {
        let Some(missed) = self.entries.get_mut(uid).and_then(|entry| entry.making_room.take()) else {
            return;
        };
        if missed || !done {
            self.try_again(uid, now);
        }
    }

    /// Tries a pod again that waits for an event.
    pub fn try_again(&mut self, uid: &str, now: Duration) {
        if let Some(uid) = self.unschedulable.take(uid) {
            self.wake(&uid, now);
        }
    }

    /// Takes a pod into its group, if it has one; if the group grew, the others are looked at again.
    pub fn join(&mut self, pod: &PodInfo, has_node: bool, now: Duration) {
        if self.gangs.join(pod, has_node) {
            let others = self.gangs.others(pod);
            self.regroup(&others, now);
        }
    }

    /// Takes over a workload, for whose groups pods may wait.
    pub fn set_workload(&mut self, workload: &Workload, now: Duration) {
        self.gangs.set_workload(workload);
        let pods = self.gangs.pods_of(workload);
        self.regroup(&pods, now);
    }

    /// Something about the group of these pods changed: those that it kept from being tried are looked at again.
    fn regroup(&mut self, uids: &[Arc<str>], now: Duration) {
        for uid in uids {
            let Some(entry) = self.entries.get(uid) else { continue };
            let waits = match &entry.place {
                Place::Gated => self.blocked(&entry.pod).is_none(),
                Place::Unschedulable { plugins, .. } => plugins.contains(gangs::NAME),
                _ => false,
            };
            if waits && entry.making_room.is_none() {
                let place = entry.place.clone();
                self.leave(uid, &place);
                self.wake(uid, now);
            }
        }
    }

    /// Tries the others of a pod's group at once, whatever they wait for: it waits for them.
    pub fn hurry_others(&mut self, pod: &PodInfo, now: Duration) {
        for uid in &self.gangs.others(pod) {
            let Some(entry) = self.entries.get(uid) else { continue };
            if matches!(entry.place, Place::Backoff(_) | Place::Unschedulable { .. })
                && entry.making_room.is_none()
            {
                let place = entry.place.clone();
                self.leave(uid, &place);
                self.activate(uid, now);
            }
        }
    }

    /// Why a pod may not enter the queue, if it may not.
    fn blocked(&self, pod: &PodToSchedule) -> Option<String> {
        scheduling_gates::blocked(pod).or_else(|| self.gangs.blocked(&pod.info))
    }

    /// An attempt failed for a reason outside the pod (the API refused the binding): it is tried again after its backoff.
    pub fn failed(&mut self, uid: &str, now: Duration) {
        if let Some((uid, entry)) = self.in_flight(uid) {
            entry.failed_at = now;
            self.wake(&uid, now);
        }
    }

    /// Something happened: wakes the pods it may help. Returns how many.
    pub fn notify(&mut self, event: ClusterEvent, now: Duration) -> usize {
        let helped = |uid: &&Arc<str>| match self.entries.get(*uid).map(|entry| &entry.place) {
            // A pod that was refused because there was no node at all has no plugin to ask.
            Some(Place::Unschedulable { plugins, .. }) => {
                plugins.is_empty() || plugins.iter().any(|plugin| may_help(event, plugin))
            }
            _ => false,
        };
        let mut woken: Vec<_> = self.unschedulable.iter().filter(helped).cloned().collect();
        woken.retain(|uid| match self.entries.get_mut(uid).and_then(|entry| entry.making_room.as_mut()) {
            Some(missed) => {
                *missed = true;
                false
            }
            None => true,
        });
        for uid in &woken {
            self.unschedulable.remove(uid);
            self.wake(uid, now);
        }
        woken.len()
    }

    /// When a pod becomes ready by itself next; call [`SchedulingQueue::pop`] then.
    pub fn next_ready(&self) -> Option<Duration> {
        self.backing_off.keys().next().map(|(ready, _)| *ready)
    }

    /// Wakes pods that no event has woken for [`UNSCHEDULABLE_MAX`]. To be called every half minute or so.
    pub fn flush_unschedulable(&mut self, now: Duration) {
        let expired = |uid: &&Arc<str>| match self.entries.get(*uid).map(|entry| &entry.place) {
            Some(Place::Unschedulable { since, .. }) => {
                now.saturating_sub(*since) > UNSCHEDULABLE_MAX && self.entries[*uid].making_room.is_none()
            }
            _ => false,
        };
        let woken: Vec<_> = self.unschedulable.iter().filter(expired).cloned().collect();
        for uid in &woken {
            self.unschedulable.remove(uid);
            self.wake(uid, now);
        }
    }

    /// How many pods wait where.
    pub fn pending(&self) -> Pending {
        Pending {
            active: self.active.len(),
            backoff: self.backing_off.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated,
        }
    }

    fn in_flight(&mut self, uid: &str) -> Option<(Arc<str>, &mut Entry)> {
        let uid = Arc::clone(self.entries.get_key_value(uid)?.0);
        let entry = self.entries.get_mut(&uid)?;
        matches!(entry.place, Place::InFlight).then_some((uid, entry))
    }

    /// Moves a pod that is nowhere to active, or to backing off if its last failure is too recent.
    fn wake(&mut self, uid: &Arc<str>, now: Duration) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let ready = entry.failed_at + self.backoff.after(entry.attempts);
        if entry.attempts == 0 || ready <= now {
            return self.activate(uid, now);
        }
        let key = (ready, self.next_order);
        self.next_order += 1;
        entry.place = Place::Backoff(key);
        self.backing_off.insert(key, Arc::clone(uid));
    }

    fn activate(&mut self, uid: &Arc<str>, now: Duration) {
        let Some(entry) = self.entries.get(uid) else { return };
        let is_blocked = self.blocked(&entry.pod).is_some();
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if is_blocked {
            entry.place = Place::Gated;
            self.gated += 1;
            return;
        }
        let key = (priority_sort::place(&entry.pod.info, now), self.next_order);
        self.next_order += 1;
        entry.place = Place::Active(key);
        self.active.insert(key, Arc::clone(uid));
    }

    fn leave(&mut self, uid: &Arc<str>, place: &Place) {
        match place {
            Place::Active(key) => {
                self.active.remove(key);
            }
            Place::Backoff(key) => {
                self.backing_off.remove(key);
            }
            Place::Unschedulable { .. } => {
                self.unschedulable.remove(uid);
            }
            Place::Gated => self.gated -= 1,
            Place::InFlight => {}
        }
    }

    fn flush(&mut self, now: Duration) {
        while let Some(entry) = self.backing_off.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let uid = entry.remove();
            self.activate(&uid, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, pod_from};
    use serde_json::json;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queue_of(names: &[(&str, i32)]) -> SchedulingQueue {
        let mut queue = SchedulingQueue::default();
        for (name, priority) in names {
            let pod = pod_from(json!({"metadata": {"name": name}, "spec": {"priority": priority}}));
            queue.set(Arc::new(PodToSchedule::new(pod)), s(0));
        }
        queue
    }

    fn pop(queue: &mut SchedulingQueue, now: Duration) -> Option<String> {
        queue.pop(now).map(|popped| popped.pod.info.name().to_owned())
    }

    fn plugins(name: &'static str) -> BTreeSet<&'static str> {
        BTreeSet::from([name])
    }

    #[test]
    fn higher_priority_first_then_the_order_of_arrival() {
        let mut queue = queue_of(&[("first", 0), ("second", 0), ("urgent", 9)]);
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, s(0))).collect();
        assert_eq!(order, ["urgent", "first", "second"]);
    }

    #[test]
    fn a_refused_pod_waits_for_an_event_that_may_help_and_for_its_backoff() {
        let mut queue = queue_of(&[("p", 0)]);
        pop(&mut queue, s(0));
        queue.refused("uid-p", plugins("NodeResourcesFit"), s(0));
        assert_eq!(queue.notify(ClusterEvent::NodeTaints, s(0)), 0);
        assert_eq!(queue.pending(), Pending { unschedulable: 1, ..Pending::default() });
        assert_eq!(queue.notify(ClusterEvent::PodRemoved, s(0)), 1);
        assert_eq!(queue.next_ready(), Some(s(1)), "the first backoff is a second");
        assert_eq!(pop(&mut queue, Duration::from_millis(900)), None);
        assert_eq!(pop(&mut queue, s(1)).as_deref(), Some("p"));
        queue.refused("uid-p", plugins("NodeResourcesFit"), s(1));
        queue.notify(ClusterEvent::NodeAdded, s(2));
        assert_eq!(queue.next_ready(), Some(s(3)), "the second is two seconds");
    }

    #[test]
    fn an_event_after_the_backoff_makes_it_active_at_once_and_the_longest_backoff_is_ten_seconds() {
        let mut queue = queue_of(&[("p", 0)]);
        for attempt in 0..10 {
            let now = s(attempt * 100);
            assert_eq!(pop(&mut queue, now).as_deref(), Some("p"));
            queue.refused("uid-p", BTreeSet::new(), now);
            queue.notify(ClusterEvent::NodeAdded, now + s(10));
            assert_eq!(queue.pending().active, 1, "attempt {attempt}");
        }
    }

    #[test]
    fn a_pod_that_room_is_made_for_is_not_tried_before_that_is_done() {
        let mut queue = queue_of(&[("p", 0)]);
        for (event_meanwhile, done, tried) in [(false, true, false), (true, true, true), (false, false, true)]
        {
            queue.notify(ClusterEvent::NodeAdded, s(0));
            pop(&mut queue, s(100));
            queue.refused_making_room("uid-p", plugins("NodeResourcesFit"), s(0));
            if event_meanwhile {
                assert_eq!(queue.notify(ClusterEvent::PodRemoved, s(50)), 0);
            }
            assert_eq!(queue.pending().unschedulable, 1);
            queue.room_made("uid-p", done, s(50));
            assert_eq!(queue.pending().active, usize::from(tried), "{event_meanwhile} {done}");
            queue.room_made("uid-p", false, s(50));
            queue.notify(ClusterEvent::NodeAdded, s(50));
        }
    }

    #[test]
    fn a_failed_binding_backs_off_and_a_forgotten_pod_is_nowhere() {
        let mut queue = queue_of(&[("p", 0)]);
        pop(&mut queue, s(0));
        queue.failed("uid-p", s(0));
        assert_eq!(queue.pending().backoff, 1);
        assert!(queue.remove("uid-p"));
        assert_eq!(queue.pending(), Pending::default());
        queue.failed("uid-p", s(0));
        assert_eq!(queue.pending(), Pending::default());
    }

    #[test]
    fn a_change_of_status_moves_nothing_and_a_change_of_spec_wakes() {
        let mut queue = queue_of(&[("p", 0)]);
        pop(&mut queue, s(0));
        queue.refused("uid-p", plugins("NodeAffinity"), s(0));
        let with = |extra: serde_json::Value| {
            let mut fields = json!({"metadata": {"name": "p"}, "spec": {"priority": 0}});
            crate::testing::merge(&mut fields, extra);
            Arc::new(PodToSchedule::new(pod_from(fields)))
        };
        queue.set(with(json!({"status": {"phase": "Pending"}})), s(5));
        assert_eq!(queue.pending().unschedulable, 1);
        queue.set(with(json!({"spec": {"tolerations": [{"operator": "Exists"}]}})), s(5));
        assert_eq!(queue.pending().active, 1);
    }

    #[test]
    fn gates_hold_a_pod_until_they_are_gone() {
        let mut queue = SchedulingQueue::default();
        let gated =
            pod_from(json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "quota"}]}}));
        queue.set(Arc::new(PodToSchedule::new(gated)), s(0));
        assert_eq!(queue.pending(), Pending { gated: 1, ..Pending::default() });
        assert_eq!(pop(&mut queue, s(0)), None);
        queue.set(Arc::new(PodToSchedule::new(pod("p", "1"))), s(1));
        assert_eq!(pop(&mut queue, s(1)).as_deref(), Some("p"));
        assert_eq!(queue.pending(), Pending::default());
    }

    fn member(name: &str) -> Arc<PodToSchedule> {
        let fields =
            json!({"metadata": {"name": name}, "spec": {"workloadRef": {"name": "w", "podGroup": "g"}}});
        Arc::new(PodToSchedule::new(pod_from(fields)))
    }

    #[test]
    fn a_group_enters_when_enough_of_it_and_its_workload_are_there() {
        let mut queue =
            SchedulingQueue::new(Backoff::default(), Gangs::new(["default-scheduler".to_owned()]));
        queue.set(member("a"), s(0));
        queue.set(member("b"), s(0));
        assert_eq!(queue.pending(), Pending { gated: 2, ..Pending::default() });
        let workload = serde_json::from_value(json!({
            "metadata": {"name": "w", "namespace": "default"},
            "spec": {"podGroups": [{"name": "g", "policy": {"gang": {"minCount": 3}}}]},
        }))
        .expect("workload");
        queue.set_workload(&workload, s(1));
        assert_eq!(queue.pending().gated, 2, "a third is missing");
        queue.set(member("c"), s(2));
        assert_eq!(queue.pending(), Pending { active: 3, ..Pending::default() });
        let all: BTreeSet<_> = std::iter::from_fn(|| pop(&mut queue, s(2))).collect();
        assert_eq!(all.len(), 3);
        // One waits for the others, which have failed before.
        queue.refused("uid-a", plugins("NodeResourcesFit"), s(2));
        queue.failed("uid-b", s(2));
        queue.refused("uid-c", plugins(gangs::NAME), s(2));
        assert_eq!(queue.pending(), Pending { backoff: 1, unschedulable: 2, ..Pending::default() });
        queue.set(member("d"), s(2));
        assert_eq!(queue.pending().backoff, 2, "a new member wakes those that the group held");
        queue.hurry_others(&member("c").info, s(2));
        assert_eq!(queue.pending(), Pending { active: 3, backoff: 1, ..Pending::default() });
    }

    #[test]
    fn a_pod_that_no_event_woke_is_tried_again_after_five_minutes() {
        let mut queue = queue_of(&[("p", 0)]);
        pop(&mut queue, s(0));
        queue.refused("uid-p", plugins("NodeAffinity"), s(0));
        queue.flush_unschedulable(s(300));
        assert_eq!(queue.pending().unschedulable, 1);
        queue.flush_unschedulable(s(301));
        assert_eq!(pop(&mut queue, s(301)).as_deref(), Some("p"));
    }
}
