//! Keeps a component that repeats itself from flooding the API with Events: equal ones become one with a count, many
//! similar ones are combined, and one source may not say too much about one object (client-go's `EventCorrelator`). Pure:
//! takes time as an argument, never sends anything. Its memory is bounded.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// How many different events, groups and objects are remembered; the least recently used go first.
const REMEMBERED: usize = 4096;
/// More than this many different messages with one reason about one object within [`SIMILAR_WINDOW`] are combined.
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// An object may have this many events at once and then one more every [`SPAM_REFILL`].
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL: Duration = Duration::from_secs(300);
const COMBINED_PREFIX: &str = "(combined from similar events): ";

/// What identifies an event apart from when it happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventIdentity {
    /// Kind, namespace, name and uid of the object, in any fixed form.
    pub object: String,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// The reason in CamelCase.
    pub reason: String,
    /// The action, empty for events in the older style.
    pub action: String,
    /// The text.
    pub message: String,
}

/// What to do with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Correlated {
    /// Send it as a new object, with this message.
    New {
        /// The text to show, which says so if it stands for similar events.
        message: String,
    },
    /// Update the event object sent before.
    Repeat {
        /// The handle given to [`EventCorrelator::sent`].
        object_name: String,
        /// How often it has happened in all.
        count: i32,
        /// The text to show.
        message: String,
    },
    /// The first one like it has not been stored yet, or there were too many: say nothing.
    Drop,
}

struct Sent {
    object_name: Option<String>,
    count: i32,
}

struct Bucket {
    tokens: f64,
    at: Duration,
}

struct Similar {
    messages: Vec<String>,
    last: Duration,
}

/// Remembers what was said lately.
pub struct EventCorrelator {
    sent: Recent<EventIdentity, Sent>,
    similar: Recent<(String, &'static str, String), Similar>,
    buckets: Recent<String, Bucket>,
}

impl Default for EventCorrelator {
    fn default() -> Self {
        Self {
            sent: Recent::new(REMEMBERED),
            similar: Recent::new(REMEMBERED),
            buckets: Recent::new(REMEMBERED),
        }
    }
}

impl EventCorrelator {
    /// Decides about one event. `Correlated::New` expects [`EventCorrelator::sent`] or [`EventCorrelator::failed`] with the same
    /// identity (its message as returned) afterwards.
    pub fn correlate(&mut self, mut event: EventIdentity, now: Duration) -> (EventIdentity, Correlated) {
        let group = (event.object.clone(), event.kind, event.reason.clone());
        let similar = self.similar.entry(group, || Similar { messages: Vec::new(), last: now });
        if now.saturating_sub(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if !similar.messages.contains(&event.message) {
            if similar.messages.len() < SIMILAR_LIMIT {
                similar.messages.push(event.message.clone());
            } else {
                // All further ones share one object whose text is that of the latest.
                let message = format!("{COMBINED_PREFIX}{}", event.message);
                event.message = COMBINED_PREFIX.to_owned();
                return self.count(event, message, now);
            }
        }
        let message = event.message.clone();
        self.count(event, message, now)
    }

    fn count(&mut self, event: EventIdentity, message: String, now: Duration) -> (EventIdentity, Correlated) {
        if !self.take_token(&event.object, now) {
            return (event, Correlated::Drop);
        }
        if let Some(sent) = self.sent.get(&event) {
            sent.count = sent.count.saturating_add(1);
            let decision = match &sent.object_name {
                Some(object_name) => {
                    Correlated::Repeat { object_name: object_name.clone(), count: sent.count, message }
                }
                None => Correlated::Drop,
            };
            return (event, decision);
        }
        self.sent.entry(event.clone(), || Sent { object_name: None, count: 1 });
        (event, Correlated::New { message })
    }

    /// Takes note of the name under which a new event was stored.
    pub fn sent(&mut self, event: &EventIdentity, object_name: String) {
        if let Some(sent) = self.sent.get(event) {
            sent.object_name = Some(object_name);
        }
    }

    /// Takes note that an event could not be stored, or that its object is gone: the next one like it is new.
    pub fn failed(&mut self, event: &EventIdentity) {
        self.sent.remove(event);
    }

    fn take_token(&mut self, object: &str, now: Duration) -> bool {
        let bucket = self.buckets.entry(object.to_owned(), || Bucket { tokens: SPAM_BURST, at: now });
        let refill = now.saturating_sub(bucket.at).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refill).min(SPAM_BURST);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

/// A map that forgets the least recently used entry when full.
struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0, capacity }
    }

    fn get(&mut self, key: &K) -> Option<&mut V> {
        let (value, used) = self.entries.get_mut(key)?;
        self.uses += 1;
        if let Some(key) = self.by_use.remove(used) {
            self.by_use.insert(self.uses, key);
        }
        *used = self.uses;
        Some(value)
    }

    fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= self.capacity
                && let Some((_, oldest)) = self.by_use.pop_first()
            {
                self.entries.remove(&oldest);
            }
            self.uses += 1;
            self.by_use.insert(self.uses, key.clone());
            let uses = self.uses;
            return &mut self.entries.entry(key).or_insert((make(), uses)).0;
        }
        self.uses += 1;
        let uses = self.uses;
        let entry = self.entries.entry(key.clone()).or_insert_with(|| (make(), uses));
        self.by_use.remove(&entry.1);
        entry.1 = uses;
        self.by_use.insert(uses, key);
        &mut entry.0
    }

    fn remove(&mut self, key: &K) {
        if let Some((_, used)) = self.entries.remove(key) {
            self.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(object: &str, message: &str) -> EventIdentity {
        EventIdentity {
            object: object.into(),
            kind: "Warning",
            reason: "Failed".into(),
            action: String::new(),
            message: message.into(),
        }
    }

    #[test]
    fn a_repeated_event_is_counted_on_the_first_object() {
        let mut correlator = EventCorrelator::default();
        let (identity, first) = correlator.correlate(event("pod", "no"), Duration::ZERO);
        assert!(matches!(first, Correlated::New { .. }));
        assert_eq!(
            correlator.correlate(event("pod", "no"), Duration::ZERO).1,
            Correlated::Drop,
            "not stored yet"
        );
        correlator.sent(&identity, "pod.1".into());
        let repeat = correlator.correlate(event("pod", "no"), Duration::ZERO).1;
        assert_eq!(
            repeat,
            Correlated::Repeat { object_name: "pod.1".into(), count: 3, message: "no".into() }
        );
        correlator.failed(&identity);
        assert!(matches!(correlator.correlate(event("pod", "no"), Duration::ZERO).1, Correlated::New { .. }));
    }

    #[test]
    fn many_similar_events_are_combined() {
        let mut correlator = EventCorrelator::default();
        for n in 0..10 {
            let decision = correlator.correlate(event("pod", &format!("m{n}")), Duration::ZERO).1;
            assert_eq!(decision, Correlated::New { message: format!("m{n}") });
        }
        let (identity, decision) = correlator.correlate(event("pod", "m10"), Duration::ZERO);
        assert_eq!(decision, Correlated::New { message: "(combined from similar events): m10".into() });
        correlator.sent(&identity, "combined".into());
        let decision = correlator.correlate(event("pod", "m11"), Duration::ZERO).1;
        assert!(matches!(decision, Correlated::Repeat { count: 2, .. }), "{decision:?}");
    }

    #[test]
    fn one_object_cannot_spam_and_recovers_slowly() {
        let mut correlator = EventCorrelator::default();
        let mut taken = 0;
        for _ in 0..100 {
            let (identity, decision) = correlator.correlate(event("pod", "x"), Duration::ZERO);
            match decision {
                Correlated::New { .. } => {
                    correlator.sent(&identity, "x".into());
                    taken += 1;
                }
                Correlated::Repeat { .. } => taken += 1,
                Correlated::Drop => {}
            }
        }
        assert_eq!(taken, 25);
        assert!(!matches!(correlator.correlate(event("pod", "x"), SPAM_REFILL).1, Correlated::Drop));
        assert!(matches!(correlator.correlate(event("pod", "x"), SPAM_REFILL).1, Correlated::Drop));
        assert!(!matches!(correlator.correlate(event("other", "x"), SPAM_REFILL).1, Correlated::Drop));
    }

    #[test]
    fn memory_stays_bounded() {
        let mut recent = Recent::new(3);
        for n in 0..10 {
            *recent.entry(n, || 0) += 1;
            *recent.entry(0, || 0) += 1;
        }
        assert_eq!(recent.entries.len(), 3);
        assert_eq!(recent.by_use.len(), 3);
        assert!(recent.get(&0).is_some(), "what is used often stays");
    }
}
