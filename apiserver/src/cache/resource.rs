//! The watch cache of one resource: every object's newest version in key order, and the recent events in a bounded ring from which all watchers
//! read with their own cursors. A watcher that the ring overtakes is cut off; nobody waits for it.

// Objects are ordered by their suffix, which never changes; what they find out lazily does not matter to the order.
#![allow(clippy::mutable_key_type)]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use coracle_api::resource::Resource;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::Notify;

use super::object::{CachedObject, EventType};
use crate::strategy::Strategy;

/// The ring holds up to this many bytes of events (beyond the smallest number of events asked for).
const RING_BYTES_MAX: usize = 8 << 20;
/// And up to this many events.
const RING_EVENTS_MAX: usize = 64 * 1024;

/// And so many that happened before the snapshot.
const RECALLED_MAX: u64 = 64 * 1024;

/// A change of one object.
pub struct CacheEvent {
    /// Store revision of the change.
    pub revision: i64,
    /// What happened.
    pub event_type: EventType,
    /// The new version; for a deletion the last version with the deletion's revision.
    pub object: Arc<CachedObject>,
    /// The version before.
    pub previous: Option<Arc<CachedObject>>,
}

/// Orders objects by their key.
struct Entry(Arc<CachedObject>);

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        &self.0.suffix
    }
}
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.suffix == other.0.suffix
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.suffix.cmp(&other.0.suffix)
    }
}

#[derive(Default)]
struct State {
    objects: BTreeSet<Entry>,
    ring: VecDeque<Arc<CacheEvent>>,
    /// Position of the ring's first event in the sequence of all events since start.
    first: u64,
    ring_bytes: usize,
    /// All events after this revision are in the ring.
    horizon: i64,
    /// Revision of the last event (or of the snapshot).
    last_change: i64,
    /// Bumped when the state was replaced as a whole: cursors of before are void.
    epoch: u64,
    since_waking_all: usize,
}

/// Which events a watcher wants to be woken for. Waking too often costs time, never correctness: watchers filter for themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WakeKey {
    /// Every event.
    All,
    /// Those of one namespace.
    Namespace(Box<str>),
    /// Those of one object.
    Object(Box<str>),
    /// Those of objects whose selectable field has (or had) this value.
    Field(&'static str, Box<str>),
}

#[derive(Default)]
struct Watchers {
    next_id: u64,
    by_key: HashMap<WakeKey, Vec<(u64, Arc<Notify>)>>,
    fields: HashMap<&'static str, usize>,
}

/// A watcher's place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
    epoch: u64,
}

/// The ring has gone past a cursor, or the revision asked for is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision that can be watched from.
    pub horizon: i64,
}

/// A consistent look at all objects.
pub struct Listing {
    /// In key order.
    pub objects: Vec<Arc<CachedObject>>,
    /// Revision of the newest change in this resource at that moment.
    pub last_change: i64,
    /// For a watch that goes on from here.
    pub cursor: Cursor,
}

impl Listing {
    /// The objects as JSON; those that cannot be read are left out.
    pub fn values(&self) -> Vec<Value> {
        self.objects.iter().filter_map(|object| object.value().ok()).collect()
    }
}

/// The watch cache of one stored resource.
pub struct ResourceCache {
    /// The stored form's row.
    pub resource: &'static Resource,
    /// What all its keys begin with.
    pub prefix: String,
    strategy: &'static dyn Strategy,
    events_min: usize,
    state: RwLock<State>,
    watchers: Mutex<Watchers>,
}

impl ResourceCache {
    /// Empty; filled by [`ResourceCache::replace`].
    pub fn new(
        resource: &'static Resource,
        prefix: String,
        strategy: &'static dyn Strategy,
        events_min: usize,
    ) -> Self {
        Self { resource, prefix, strategy, events_min, state: RwLock::default(), watchers: Mutex::default() }
    }

    /// A stored value as an object of this cache.
    ///
    /// # Errors
    /// The value is no JSON object.
    pub fn decode(
        &self,
        suffix: &str,
        stored: &[u8],
        revision: i64,
        event_type: EventType,
    ) -> Result<CachedObject, serde_json::Error> {
        CachedObject::new(suffix, &self.strategy.decode(stored), revision, event_type)
    }

    /// Takes over a snapshot at `revision`; all watches end.
    pub fn replace(&self, objects: Vec<CachedObject>, revision: i64) {
        let objects = objects.into_iter().map(|object| Entry(Arc::new(object))).collect();
        let mut state = self.state.write();
        let epoch = state.epoch + 1;
        *state = State {
            objects,
            ring: VecDeque::new(),
            // With room in front of it for what is recalled.
            first: RECALLED_MAX,
            ring_bytes: 0,
            horizon: revision,
            last_change: revision,
            epoch,
            since_waking_all: 0,
        };
        drop(state);
        self.wake_all();
    }

    /// Takes over one put. Gives the event for [`ResourceCache::wake`]; `None` for a version that is already in (a watch taken up again
    /// in the middle of a revision repeats its beginning).
    ///
    /// # Errors
    /// The value is no JSON object.
    pub fn put(
        &self,
        suffix: &str,
        stored: &[u8],
        revision: i64,
    ) -> Result<Option<Arc<CacheEvent>>, serde_json::Error> {
        // Encoding happens before the lock is taken; only this task writes, so the type cannot change in between.
        let event_type = match self.get(suffix) {
            Some(known) if known.revision >= revision => return Ok(None),
            Some(_) => EventType::Modified,
            None => EventType::Added,
        };
        let object = Arc::new(self.decode(suffix, stored, revision, event_type)?);
        let mut state = self.state.write();
        let previous = state.objects.replace(Entry(Arc::clone(&object))).map(|entry| entry.0);
        Ok(Some(self.push(&mut state, CacheEvent { revision, event_type, object, previous })))
    }

    /// Takes over one deletion; `None` if the object was not known.
    pub fn delete(&self, suffix: &str, revision: i64) -> Option<Arc<CacheEvent>> {
        let previous = self.get(suffix)?;
        let object = match previous.at_revision(revision, EventType::Deleted) {
            Ok(object) => Arc::new(object),
            // Cannot fail for what has been encoded once already.
            Err(_) => Arc::clone(&previous),
        };
        let mut state = self.state.write();
        state.objects.remove(suffix);
        let event = CacheEvent { revision, event_type: EventType::Deleted, object, previous: Some(previous) };
        Some(self.push(&mut state, event))
    }

    fn push(&self, state: &mut State, event: CacheEvent) -> Arc<CacheEvent> {
        let event = Arc::new(event);
        state.ring_bytes += event.object.size();
        state.last_change = event.revision;
        state.ring.push_back(Arc::clone(&event));
        state.since_waking_all += 1;
        while state.ring.len() > self.events_min
            && (state.ring_bytes > RING_BYTES_MAX || state.ring.len() > RING_EVENTS_MAX)
        {
            if let Some(oldest) = state.ring.pop_front() {
                state.ring_bytes -= oldest.object.size();
                state.horizon = oldest.revision;
                state.first += 1;
            }
        }
        event
    }

    /// Puts events in front of the ring: all there were after `from` and up to `through`. Those that the ring has are left out; if it no longer joins
    /// them, nothing happens.
    pub(super) fn recall(&self, events: Vec<Arc<CacheEvent>>, from: i64, through: i64) {
        let mut state = self.state.write();
        let horizon = state.horizon;
        if through < horizon || horizon <= from {
            return;
        }
        state.horizon = from;
        for event in events.into_iter().rev().filter(|event| (from + 1..=horizon).contains(&event.revision)) {
            let is_full = state.ring_bytes > RING_BYTES_MAX || state.ring.len() > RING_EVENTS_MAX;
            if is_full && state.ring.len() >= self.events_min || state.first == 0 {
                state.horizon = event.revision;
                break;
            }
            state.first -= 1;
            state.ring_bytes += event.object.size();
            state.ring.push_front(event);
        }
    }

    /// Wakes the watchers that these events may concern.
    pub fn wake(&self, events: &[Arc<CacheEvent>]) {
        if events.is_empty() {
            return;
        }
        // Watchers of single objects are woken now and then for nothing, so that the ring does not pass them by.
        let overdue = {
            let mut state = self.state.write();
            let overdue = state.since_waking_all >= (state.ring.len() / 4).max(16);
            if overdue {
                state.since_waking_all = 0;
            }
            overdue
        };
        if overdue {
            return self.wake_all();
        }
        let watchers = self.watchers.lock();
        let wake = |key: &WakeKey| {
            for (_, notify) in watchers.by_key.get(key).into_iter().flatten() {
                notify.notify_one();
            }
        };
        wake(&WakeKey::All);
        if watchers.by_key.len() <= usize::from(watchers.by_key.contains_key(&WakeKey::All)) {
            return;
        }
        for event in events {
            wake(&WakeKey::Namespace(event.object.namespace().into()));
            wake(&WakeKey::Object(event.object.suffix.clone()));
            if watchers.fields.is_empty() {
                continue;
            }
            for object in std::iter::once(&event.object).chain(&event.previous) {
                for (field, value) in object.fields(self.strategy) {
                    if watchers.fields.contains_key(field) {
                        wake(&WakeKey::Field(field, value.as_str().into()));
                    }
                }
            }
        }
    }

    fn wake_all(&self) {
        for (_, notify) in self.watchers.lock().by_key.values().flatten() {
            notify.notify_one();
        }
    }

    /// The newest version of an object.
    pub fn get(&self, suffix: &str) -> Option<Arc<CachedObject>> {
        self.state.read().objects.get(suffix).map(|entry| Arc::clone(&entry.0))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All objects whose key begins with `prefix` and is after `after`.
    pub fn list(&self, prefix: &str, from: Bound<&str>) -> Listing {
        let state = self.state.read();
        let objects = Self::list_in(&state, prefix, from);
        Listing { objects, last_change: state.last_change, cursor: Self::end_of(&state) }
    }

    fn list_in(state: &State, prefix: &str, from: Bound<&str>) -> Vec<Arc<CachedObject>> {
        let start = match from {
            Bound::Unbounded => Bound::Included(prefix),
            bound => bound,
        };
        let behind = state.objects.range::<str, _>((start, Bound::Unbounded)).map(|entry| &entry.0);
        behind.take_while(|object| object.suffix.starts_with(prefix)).map(Arc::clone).collect()
    }

    /// All objects whose key begins with `prefix`, from `from` on, as they were at `revision`; `None` if the changes since are no longer kept.
    pub fn list_at(&self, prefix: &str, from: Bound<&str>, revision: i64) -> Option<Vec<Arc<CachedObject>>> {
        let state = self.state.read();
        if revision < state.horizon {
            return None;
        }
        let mut objects = Self::list_in(&state, prefix, from);
        let since = state.ring.partition_point(|event| event.revision <= revision);
        // What was there before the first change since, of each object that has changed.
        let mut before = BTreeMap::new();
        for event in state.ring.iter().skip(since) {
            if event.object.suffix.starts_with(prefix) {
                before.entry(event.object.suffix.clone()).or_insert_with(|| event.previous.clone());
            }
        }
        drop(state);
        if !before.is_empty() {
            objects.retain(|object| !before.contains_key(&object.suffix));
            let range = (from, Bound::Unbounded);
            let within = |object: &Arc<CachedObject>| RangeBounds::<str>::contains(&range, &*object.suffix);
            objects.extend(before.into_values().flatten().filter(within));
            objects.sort_by(|a, b| a.suffix.cmp(&b.suffix));
        }
        Some(objects)
    }

    fn end_of(state: &State) -> Cursor {
        Cursor { next: state.first + state.ring.len() as u64, epoch: state.epoch }
    }

    /// The place behind everything that has happened: who has read up to here has missed nothing.
    pub fn end(&self) -> Cursor {
        Self::end_of(&self.state.read())
    }

    /// The place behind `revision`: its reader gets every event after it.
    ///
    /// # Errors
    /// Events after `revision` are no longer kept.
    pub fn cursor_after(&self, revision: i64) -> Result<Cursor, TooOld> {
        let state = self.state.read();
        if revision < state.horizon {
            return Err(TooOld { horizon: state.horizon });
        }
        let skip = state.ring.partition_point(|event| event.revision <= revision) as u64;
        Ok(Cursor { next: state.first + skip, epoch: state.epoch })
    }

    /// Events from the cursor on, which moves behind them: up to `max`, and no more once they have `bytes` together. Whether those were all.
    ///
    /// # Errors
    /// The ring has overtaken the cursor.
    pub fn read(
        &self,
        cursor: &mut Cursor,
        (max, bytes): (usize, usize),
        into: &mut Vec<Arc<CacheEvent>>,
    ) -> Result<bool, TooOld> {
        let state = self.state.read();
        if cursor.epoch != state.epoch || cursor.next < state.first {
            return Err(TooOld { horizon: state.horizon });
        }
        let skip = (cursor.next - state.first) as usize;
        let mut taken = 0;
        for event in state.ring.iter().skip(skip).take(max) {
            into.push(Arc::clone(event));
            cursor.next += 1;
            taken += event.object.size();
            if taken >= bytes {
                break;
            }
        }
        Ok(cursor.next >= state.first + state.ring.len() as u64)
    }

    /// Registers a watcher to be woken; deregistered when the result is dropped.
    pub fn subscribe(self: &Arc<Self>, key: WakeKey) -> Subscription {
        let notify = Arc::new(Notify::new());
        let mut watchers = self.watchers.lock();
        watchers.next_id += 1;
        let id = watchers.next_id;
        if let WakeKey::Field(field, _) = &key {
            *watchers.fields.entry(field).or_default() += 1;
        }
        watchers.by_key.entry(key.clone()).or_default().push((id, Arc::clone(&notify)));
        drop(watchers);
        Subscription { cache: Arc::clone(self), key, id, notify }
    }
}

/// A watcher's registration.
pub struct Subscription {
    cache: Arc<ResourceCache>,
    key: WakeKey,
    id: u64,
    notify: Arc<Notify>,
}

impl Subscription {
    /// Waits until there may be something to read.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watchers = self.cache.watchers.lock();
        if let Some(waiting) = watchers.by_key.get_mut(&self.key) {
            waiting.retain(|(id, _)| *id != self.id);
            if waiting.is_empty() {
                watchers.by_key.remove(&self.key);
            }
        }
        if let WakeKey::Field(field, _) = &self.key
            && let Some(count) = watchers.fields.get_mut(field)
        {
            *count -= 1;
            if *count == 0 {
                watchers.fields.remove(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::for_resource;
    use coracle_api::resource::lookup;
    use futures::FutureExt;

    fn cache() -> Arc<ResourceCache> {
        let resource = lookup("", "v1", "configmaps").expect("in the table");
        let cache = ResourceCache::new(resource, "/registry/configmaps/".into(), for_resource(resource), 4);
        cache.replace(Vec::new(), 10);
        Arc::new(cache)
    }

    fn stored(padding: usize) -> Vec<u8> {
        format!("{{\"metadata\":{{\"name\":\"x\"}},\"p\":\"{}\"}}", "x".repeat(padding)).into_bytes()
    }

    fn put(cache: &ResourceCache, suffix: &str, revision: i64, padding: usize) -> Arc<CacheEvent> {
        cache.put(suffix, &stored(padding), revision).expect("JSON").expect("new")
    }

    fn read(cache: &ResourceCache, cursor: &mut Cursor) -> Result<Vec<i64>, TooOld> {
        let mut events = Vec::new();
        cache.read(cursor, (100, usize::MAX), &mut events)?;
        Ok(events.iter().map(|event| event.revision).collect())
    }

    #[test]
    fn readers_get_every_event_after_their_revision_once() {
        let cache = cache();
        let mut early = cache.cursor_after(10).expect("the snapshot's revision");
        assert_eq!(cache.cursor_after(9), Err(TooOld { horizon: 10 }));
        put(&cache, "a/x", 11, 0);
        put(&cache, "a/y", 12, 0);
        assert!(cache.put("a/y", &stored(0), 12).expect("JSON").is_none(), "repeated");
        let mut late = cache.cursor_after(11).expect("in the ring");
        assert_eq!((read(&cache, &mut early), read(&cache, &mut late)), (Ok(vec![11, 12]), Ok(vec![12])));
        let gone = cache.delete("a/x", 13).expect("known");
        assert_eq!((gone.event_type, gone.object.revision), (EventType::Deleted, 13));
        assert_eq!(read(&cache, &mut early), Ok(vec![13]));
        assert_eq!(cache.list("a/", Bound::Unbounded).objects.len(), 1);
        assert_eq!(cache.list("b/", Bound::Unbounded).objects.len(), 0);
    }

    #[test]
    fn what_is_recalled_joins_the_ring_without_gap_or_repeat() {
        let earlier = cache();
        let events: Vec<_> = (11..=15).map(|revision| put(&earlier, "a/x", revision, 0)).collect();
        let cache = cache();
        cache.replace(vec![cache.decode("a/x", &stored(0), 14, EventType::Modified).expect("JSON")], 14);
        let mut current = cache.end();
        put(&cache, "a/x", 15, 0);
        cache.recall(events.clone(), 11, 13);
        assert_eq!(cache.cursor_after(13), Err(TooOld { horizon: 14 }), "14 would be missing");
        cache.recall(events.clone(), 11, 15);
        cache.recall(events[..1].to_vec(), 10, 11);
        assert_eq!(cache.cursor_after(9), Err(TooOld { horizon: 10 }));
        let mut cursor = cache.cursor_after(10).expect("recalled");
        assert_eq!(read(&cache, &mut cursor), Ok(vec![11, 12, 13, 14, 15]));
        assert_eq!(read(&cache, &mut current), Ok(vec![15]), "readers stay where they were");
        let before = cache.list_at("", Bound::Unbounded, 12).expect("recalled");
        assert_eq!(before.iter().map(|object| object.revision).collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn a_list_of_an_earlier_revision_is_what_was_there_then() {
        let cache = cache();
        put(&cache, "a/x", 11, 0);
        put(&cache, "a/z", 12, 0);
        put(&cache, "a/y", 13, 0);
        put(&cache, "a/x", 14, 1);
        put(&cache, "a/x", 15, 2);
        cache.delete("a/z", 16).expect("known");
        put(&cache, "b/w", 17, 0);
        let at = |revision, from| {
            let found = cache.list_at("a/", from, revision)?;
            Some(found.iter().map(|o| format!("{}@{}", o.suffix, o.revision)).collect::<Vec<_>>().join(" "))
        };
        let all = Bound::Unbounded;
        assert_eq!(at(9, all), None, "before the snapshot");
        assert_eq!(at(10, all).as_deref(), Some(""));
        assert_eq!(at(13, all).as_deref(), Some("a/x@11 a/y@13 a/z@12"));
        assert_eq!(at(14, Bound::Included("a/x\0")).as_deref(), Some("a/y@13 a/z@12"));
        assert_eq!(at(17, all).as_deref(), Some("a/x@15 a/y@13"));
    }

    #[test]
    fn the_ring_is_bounded_and_cuts_off_who_falls_behind() {
        let cache = cache();
        let mut slow = cache.cursor_after(10).expect("cursor");
        for n in 0..100 {
            put(&cache, "a/x", 11 + n, RING_BYTES_MAX / 8);
        }
        assert!(cache.state.read().ring_bytes <= RING_BYTES_MAX);
        assert!(matches!(read(&cache, &mut slow), Err(TooOld { horizon }) if horizon > 11));
        let mut cursor = cache.cursor_after(110).expect("newest");
        cache.replace(Vec::new(), 200);
        assert_eq!(read(&cache, &mut cursor), Err(TooOld { horizon: 200 }), "replaced as a whole");
    }

    #[test]
    fn watchers_are_woken_for_what_concerns_them() {
        let cache = cache();
        let all = cache.subscribe(WakeKey::All);
        let one = cache.subscribe(WakeKey::Object("a/x".into()));
        let elsewhere = cache.subscribe(WakeKey::Namespace("b".into()));
        cache.wake(&[put(&cache, "a/x", 11, 0)]);
        let woken = |subscription: &Subscription| subscription.woken().now_or_never().is_some();
        assert_eq!((woken(&all), woken(&one), woken(&elsewhere)), (true, true, false));
        drop(one);
        assert_eq!(cache.watchers.lock().by_key.len(), 2);
        for n in 0..40 {
            cache.wake(&[put(&cache, "c/z", 12 + n, 0)]);
        }
        assert!(woken(&elsewhere), "now and then everybody is, so that the ring does not pass them by");
    }
}
