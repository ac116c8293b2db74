//! What happened shortly before the first snapshot, read back from the store and put in front of the rings: watches that another server began go on
//! here, although their last event may be from before this one's start.

use std::sync::Arc;

use coracle_proto::etcdserverpb::WatchResponse;
use coracle_proto::mvccpb::Event;
use coracle_proto::mvccpb::event::EventType as StoreEventType;

use super::layout::Layout;
use super::object::EventType;
use super::resource::{CacheEvent, ResourceCache};
use super::{Cache, store_watch};
use crate::storage::{Storage, compaction};

/// So many revisions are read back.
const REVISIONS: i64 = 1000;
/// And about so many bytes of objects.
const BYTES_MAX: usize = 16 << 20;

/// What was read back so far.
struct Recalled {
    /// After this revision nothing is missing.
    from: i64,
    /// By resource, in order.
    events: Vec<(Arc<ResourceCache>, Vec<Arc<CacheEvent>>)>,
    bytes: usize,
}

/// Reads back until an event comes that is newer than what was there at the beginning: then nothing before it is missing.
///
/// # Errors
/// Why nothing could be read back, in words.
pub(super) async fn recall(cache: &Cache, storage: &Storage) -> Result<(), String> {
    cache.started().await;
    let (announced, now) = storage.get(compaction::KEY).await.map_err(|error| error.to_string())?;
    // What was announced is not compacted before the next round.
    let announced = announced.and_then(|kv| compaction::round_revision(&kv.value)).unwrap_or(0);
    let mut recalled = Recalled { from: (now - REVISIONS).max(announced), events: Vec::new(), bytes: 0 };
    if recalled.from >= now {
        return Ok(());
    }
    let mut watch = store_watch::open(storage, recalled.from + 1, true).await?;
    loop {
        let response = watch.responses.message().await.map_err(|status| status.message().to_owned())?;
        let mut response = response.ok_or("the member ended the stream")?;
        if response.canceled {
            return Err(response.cancel_reason);
        }
        storage.open_events(&mut response);
        if let Some(through) = recalled.take(&cache.layout(), &response, now) {
            for (cache, events) in recalled.events {
                cache.recall(events, recalled.from, through);
            }
            return Ok(());
        }
    }
}

impl Recalled {
    /// Takes over the events of one response. Gives the revision up to which everything is in once that is `now` or later.
    fn take(&mut self, layout: &Layout, response: &WatchResponse, now: i64) -> Option<i64> {
        for event in &response.events {
            let Some(kv) = &event.kv else { continue };
            if kv.mod_revision > now {
                return Some(kv.mod_revision - 1);
            }
            let Ok(key) = std::str::from_utf8(&kv.key) else { continue };
            let Some((at, suffix)) = layout.locate(key) else { continue };
            match understood(at, suffix, event) {
                Some(event) if self.bytes <= BYTES_MAX => self.add(at, event),
                // Whoever goes on from before it would miss it.
                _ => *self = Self { from: kv.mod_revision, events: Vec::new(), bytes: 0 },
            }
        }
        None
    }

    fn add(&mut self, at: &Arc<ResourceCache>, event: CacheEvent) {
        self.bytes += event.object.size();
        let event = Arc::new(event);
        match self.events.iter_mut().find(|(cache, _)| Arc::ptr_eq(cache, at)) {
            Some((_, events)) => events.push(event),
            None => self.events.push((Arc::clone(at), vec![event])),
        }
    }
}

/// The store's event as one of the ring; `None` if a version of it is missing or no JSON object.
fn understood(cache: &ResourceCache, suffix: &str, event: &Event) -> Option<CacheEvent> {
    let kv = event.kv.as_ref()?;
    let previous = match &event.prev_kv {
        Some(before) => {
            let line = if before.version == 1 { EventType::Added } else { EventType::Modified };
            Some(Arc::new(cache.decode(suffix, &before.value, before.mod_revision, line).ok()?))
        }
        None => None,
    };
    let revision = kv.mod_revision;
    let (event_type, object) = if event.r#type == StoreEventType::Delete as i32 {
        (EventType::Deleted, previous.as_ref()?.at_revision(revision, EventType::Deleted).ok()?)
    } else {
        let event_type = if kv.version == 1 { EventType::Added } else { EventType::Modified };
        if (event_type == EventType::Added) != previous.is_none() {
            return None;
        }
        (event_type, cache.decode(suffix, &kv.value, revision, event_type).ok()?)
    };
    Some(CacheEvent { revision, event_type, object: Arc::new(object), previous })
}
