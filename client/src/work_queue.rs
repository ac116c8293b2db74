//! Keys that wait to be handled: each at most once, never by two workers at a time, with delays and a growing delay after
//! failures (the rules of client-go's `workqueue`). [`WorkQueueCore`] decides and takes time as an argument; [`WorkQueue`]
//! is the thin shell that workers await. Neither knows what a key means.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::QueueMetrics;

/// Delay after the first failure of a key; it doubles with each further one.
pub const RETRY_FIRST: Duration = Duration::from_millis(5);
/// The longest delay after failures.
pub const RETRY_LONGEST: Duration = Duration::from_secs(1000);
/// More distinct keys than this are refused: far above any real cluster, low enough to fail before memory does.
pub const CAPACITY: usize = 1_000_000;

/// The delay before trying again after `failures` failures in a row (0 gives [`RETRY_FIRST`]).
pub fn retry_delay(failures: u32) -> Duration {
    let millis = (RETRY_FIRST.as_millis() as u64).saturating_mul(1u64 << failures.min(40));
    Duration::from_millis(millis).min(RETRY_LONGEST)
}

/// What became of an added key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It waits to be handled.
    Queued,
    /// It was waiting already, or is being handled and will be queued again afterwards.
    Merged,
    /// The queue is full or has been shut down; the key was not taken.
    Refused,
}

/// The queue's rules, without a clock: `now` is the time since any fixed point.
#[derive(Debug)]
pub struct WorkQueueCore<T> {
    queue: VecDeque<(T, Duration)>,
    /// Keys that wait or that must be handled again.
    dirty: HashSet<T>,
    processing: HashMap<T, Duration>,
    /// Keys to add later, by when (and by order of asking at the same moment).
    delayed: BTreeMap<(Duration, u64), T>,
    delayed_at: HashMap<T, (Duration, u64)>,
    failures: HashMap<T, u32>,
    next_order: u64,
    capacity: usize,
    closed: bool,
}

impl<T: Clone + Eq + Hash> WorkQueueCore<T> {
    /// An empty queue for at most `capacity` distinct keys.
    pub fn new(capacity: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashMap::new(),
            delayed: BTreeMap::new(),
            delayed_at: HashMap::new(),
            failures: HashMap::new(),
            next_order: 0,
            capacity,
            closed: false,
        }
    }

    /// Adds a key to be handled now.
    pub fn add(&mut self, key: T, now: Duration) -> Added {
        if self.closed {
            return Added::Refused;
        }
        if self.dirty.contains(&key) {
            return Added::Merged;
        }
        if self.dirty.len() >= self.capacity {
            return Added::Refused;
        }
        self.dirty.insert(key.clone());
        if self.processing.contains_key(&key) {
            return Added::Merged;
        }
        self.queue.push_back((key, now));
        Added::Queued
    }

    /// Adds a key once `delay` has passed. Of several delays for one key the shortest counts.
    pub fn add_after(&mut self, key: T, delay: Duration, now: Duration) -> Added {
        if self.closed {
            return Added::Refused;
        }
        if delay.is_zero() {
            return self.add(key, now);
        }
        let due = (now + delay, self.next_order);
        match self.delayed_at.get(&key).copied() {
            Some(earlier) if earlier.0 <= due.0 => return Added::Merged,
            Some(later) => {
                self.delayed.remove(&later);
            }
            None if self.delayed.len() >= self.capacity => return Added::Refused,
            None => {}
        }
        self.next_order += 1;
        self.delayed.insert(due, key.clone());
        self.delayed_at.insert(key, due);
        Added::Queued
    }

    /// Adds a key after a delay that grows with its failures, and counts one failure more.
    pub fn add_rate_limited(&mut self, key: T, now: Duration) -> Added {
        if self.closed {
            return Added::Refused;
        }
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = retry_delay(*failures);
        *failures = failures.saturating_add(1);
        self.add_after(key, delay, now)
    }

    /// Forgets a key's failures.
    pub fn forget(&mut self, key: &T) {
        self.failures.remove(key);
    }

    /// How often a key has failed since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// Hands out the next key and how long it waited. The caller owes a [`WorkQueueCore::done`].
    pub fn pop(&mut self, now: Duration) -> Option<(T, Duration)> {
        self.release_due(now);
        let (key, since) = self.queue.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone(), now);
        Some((key, now.saturating_sub(since)))
    }

    /// Ends the handling of a key and returns how long it took; if it was added meanwhile it waits again.
    pub fn done(&mut self, key: &T, now: Duration) -> Option<Duration> {
        let since = self.processing.remove(key)?;
        if self.dirty.contains(key) {
            self.queue.push_back((key.clone(), now));
        }
        Some(now.saturating_sub(since))
    }

    /// When the next delayed key becomes due.
    pub fn next_due(&self) -> Option<Duration> {
        self.delayed.keys().next().map(|(due, _)| *due)
    }

    /// How many keys wait to be handled now.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no key waits to be handled now.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes no more keys and drops those that only wait for their delay; what is queued may still be popped.
    pub fn close(&mut self) {
        self.closed = true;
        self.delayed.clear();
        self.delayed_at.clear();
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn release_due(&mut self, now: Duration) {
        while let Some(entry) = self.delayed.first_entry() {
            let (due, _) = *entry.key();
            if due > now {
                break;
            }
            let key = entry.remove();
            self.delayed_at.remove(&key);
            self.add(key, due);
        }
    }
}

struct Shared<T> {
    core: Mutex<WorkQueueCore<T>>,
    ready: Notify,
    started: Instant,
    metrics: Option<QueueMetrics>,
}

/// The queue that workers await. Clones share it.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue, with metrics if it is to be seen.
    pub fn new(metrics: Option<QueueMetrics>) -> Self {
        let core = Mutex::new(WorkQueueCore::new(CAPACITY));
        Self { shared: Arc::new(Shared { core, ready: Notify::new(), started: Instant::now(), metrics }) }
    }

    /// Adds a key to be handled now.
    pub fn add(&self, key: T) -> Added {
        let added = self.shared.core.lock().add(key, self.now());
        self.after_add(added)
    }

    /// Adds a key once `delay` has passed.
    pub fn add_after(&self, key: T, delay: Duration) -> Added {
        let added = self.shared.core.lock().add_after(key, delay, self.now());
        self.after_add(added)
    }

    /// Adds a key after a delay that grows with its failures.
    pub fn add_rate_limited(&self, key: T) -> Added {
        if let Some(metrics) = &self.shared.metrics {
            metrics.retries.inc();
        }
        let added = self.shared.core.lock().add_rate_limited(key, self.now());
        self.after_add(added)
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &T) {
        self.shared.core.lock().forget(key);
    }

    /// How often a key has failed since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.core.lock().failures(key)
    }

    /// How many keys wait to be handled now.
    pub fn len(&self) -> usize {
        self.shared.core.lock().len()
    }

    /// Whether no key waits to be handled now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the next key; `None` once the queue is closed and empty. The caller owes a [`WorkQueue::done`].
    pub async fn get(&self) -> Option<T> {
        loop {
            let mut notified = std::pin::pin!(self.shared.ready.notified());
            notified.as_mut().enable();
            let due = {
                let mut core = self.shared.core.lock();
                if let Some((key, waited)) = core.pop(self.now()) {
                    let more = !core.is_empty();
                    drop(core);
                    if more {
                        self.shared.ready.notify_one();
                    }
                    self.observe_pop(waited);
                    return Some(key);
                }
                if core.is_closed() {
                    return None;
                }
                core.next_due()
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(self.shared.started + due) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Ends the handling of a key.
    pub fn done(&self, key: &T) {
        let (took, waiting) = {
            let mut core = self.shared.core.lock();
            (core.done(key, self.now()), core.len())
        };
        if let (Some(metrics), Some(took)) = (&self.shared.metrics, took) {
            metrics.work_duration.observe(took.as_secs_f64());
            metrics.depth.set(waiting as i64);
        }
        if waiting > 0 {
            self.shared.ready.notify_one();
        }
    }

    /// Takes no more keys; waiting workers get `None` once what is queued is handed out.
    pub fn close(&self) {
        self.shared.core.lock().close();
        self.shared.ready.notify_waiters();
    }

    fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    fn after_add(&self, added: Added) -> Added {
        match added {
            Added::Queued => {
                if let Some(metrics) = &self.shared.metrics {
                    metrics.adds.inc();
                    metrics.depth.set(self.shared.core.lock().len() as i64);
                }
                self.shared.ready.notify_one();
            }
            Added::Merged => {}
            Added::Refused => {
                let core = self.shared.core.lock();
                if !core.is_closed() {
                    tracing::error!(keys = core.len(), "work queue is full, a key was not taken");
                }
            }
        }
        added
    }

    fn observe_pop(&self, waited: Duration) {
        if let Some(metrics) = &self.shared.metrics {
            metrics.queue_duration.observe(waited.as_secs_f64());
            metrics.depth.set(self.shared.core.lock().len() as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_key_waits_once_and_is_handled_by_one_worker_at_a_time() {
        let mut queue = WorkQueueCore::new(10);
        assert_eq!(queue.add("a", ms(0)), Added::Queued);
        assert_eq!(queue.add("a", ms(0)), Added::Merged);
        assert_eq!(queue.pop(ms(3)), Some(("a", ms(3))));
        assert_eq!(queue.add("a", ms(4)), Added::Merged, "it is being handled");
        assert_eq!(queue.pop(ms(4)), None, "no second worker gets it");
        assert_eq!(queue.done(&"a", ms(5)), Some(ms(2)));
        assert_eq!(queue.pop(ms(5)), Some(("a", ms(0))), "the change during the handling is not lost");
    }

    #[test]
    fn delays_keep_the_shortest_and_come_out_in_time() {
        let mut queue = WorkQueueCore::new(10);
        queue.add_after("slow", ms(50), ms(0));
        queue.add_after("quick", ms(30), ms(0));
        queue.add_after("slow", ms(20), ms(0));
        queue.add_after("slow", ms(90), ms(0));
        assert_eq!(queue.next_due(), Some(ms(20)));
        assert_eq!(queue.pop(ms(19)), None);
        assert_eq!(queue.pop(ms(40)).map(|popped| popped.0), Some("slow"));
        assert_eq!(queue.pop(ms(40)).map(|popped| popped.0), Some("quick"));
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn failures_double_the_delay_up_to_the_limit_and_are_forgotten() {
        let delays: Vec<_> = (0..4).map(|failures| retry_delay(failures).as_millis()).collect();
        assert_eq!(delays, [5, 10, 20, 40]);
        assert_eq!(retry_delay(17), Duration::from_millis(655_360));
        assert_eq!(retry_delay(18), RETRY_LONGEST);
        assert_eq!(retry_delay(u32::MAX), RETRY_LONGEST);

        let mut queue = WorkQueueCore::new(10);
        queue.add_rate_limited("a", ms(0));
        assert_eq!(queue.pop(ms(5)).map(|popped| popped.0), Some("a"));
        queue.done(&"a", ms(5));
        queue.add_rate_limited("a", ms(5));
        assert_eq!(queue.next_due(), Some(ms(15)));
        assert_eq!(queue.failures(&"a"), 2);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[test]
    fn a_full_or_closed_queue_refuses() {
        let mut queue = WorkQueueCore::new(1);
        queue.add(1, ms(0));
        assert_eq!(queue.add(2, ms(0)), Added::Refused);
        queue.close();
        assert_eq!(queue.add(3, ms(0)), Added::Refused);
        assert_eq!(queue.pop(ms(0)), Some((1, ms(0))), "what was queued is still handed out");
    }

    proptest! {
        #[test]
        fn no_added_key_is_ever_lost(steps in prop::collection::vec((0u8..4, 0u8..5), 1..200)) {
            let mut queue = WorkQueueCore::new(100);
            let (mut owed, mut busy) = (HashSet::new(), Vec::new());
            for (at, (step, key)) in steps.into_iter().enumerate() {
                let now = ms(at as u64);
                match step {
                    0 => { queue.add(key, now); owed.insert(key); }
                    1 => { queue.add_after(key, ms(3), now); owed.insert(key); }
                    2 => if let Some((key, _)) = queue.pop(now) {
                        prop_assert!(!busy.contains(&key), "handed out twice");
                        owed.remove(&key);
                        busy.push(key);
                    },
                    _ => if let Some(key) = busy.pop() { queue.done(&key, now); },
                }
            }
            let end = ms(1_000);
            for key in busy { queue.done(&key, end); }
            while let Some((key, _)) = queue.pop(end) { owed.remove(&key); queue.done(&key, end); }
            prop_assert!(owed.is_empty(), "never handed out: {owed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn workers_wake_for_delayed_keys_and_end_when_closed() {
        let queue = WorkQueue::<&str>::default();
        queue.add_after("later", ms(100));
        let before = Instant::now();
        assert_eq!(queue.get().await, Some("later"));
        assert_eq!(before.elapsed(), ms(100));
        queue.done(&"later");
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.get().await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(waiting.await.expect("worker"), None);
    }
}
