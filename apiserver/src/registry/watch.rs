//! Watches: the present objects where asked for, then every change in order, filtered, as ready-made frames. A watcher that falls behind the cache's
//! ring gets an `Expired` error and ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use futures::stream::{self, Stream, StreamExt};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::frame::Frames;
use super::get::parse_version;
use super::list::ListOptions;
use super::selection::Selection;
use super::{Registry, versions};
use crate::cache::Cache;
use crate::cache::object::{CachedObject, EventType};
use crate::cache::resource::{CacheEvent, Cursor, ResourceCache, Subscription, TooOld};
use crate::conversion::Converter;
use crate::strategy::{self, Strategy};

/// How often a watch that allows it gets a bookmark.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events taken from the ring at a time: so many, or fewer of together so many bytes, as a watcher that does not read keeps them.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 256 * 1024;

/// A running watch.
pub struct Watch {
    resource: &'static Resource,
    /// Asked for other versions, where it takes a webhook.
    converter: Option<Arc<Converter>>,
    strategy: &'static dyn Strategy,
    everything: Arc<Cache>,
    cache: Arc<ResourceCache>,
    selection: Selection,
    frames: Frames,
    cursor: Cursor,
    subscription: Subscription,
    /// Lines of the initial state, to be sent first.
    initial: std::vec::IntoIter<Arc<CachedObject>>,
    /// Revision of the initial state whose end a bookmark marks.
    initial_end: Option<i64>,
    /// Events up to here are part of the initial state.
    after: i64,
    bookmarks: Option<Interval>,
    deadline: Instant,
    shutdown: CancellationToken,
    ended: bool,
}

impl Registry {
    /// Starts a watch that lasts at most `lifetime`.
    ///
    /// # Errors
    /// 410 when the version asked for is too old, 504 when it has not come yet, and the store's errors.
    pub async fn watch(
        &self,
        resource: &'static Resource,
        selection: Selection,
        options: &ListOptions,
        frames: Frames,
        lifetime: Duration,
        shutdown: CancellationToken,
    ) -> Result<Watch, ApiError> {
        let cache = self
            .cache
            .of(resource)
            .ok_or_else(|| ApiError::method_not_supported(resource.group_resource(), "watch"))?;
        let version = options.resource_version.as_str();
        let send_initial = options.send_initial_events.unwrap_or(matches!(version, "" | "0"));
        // Registered before the cursor is taken, so that nothing falls in between.
        let subscription = cache.subscribe(selection.wake_key(strategy::for_resource(cache.resource)));
        let (objects, reached, cursor) = if send_initial {
            self.list_for_watch(&cache, &selection, version).await?
        } else {
            let after = match version {
                "" => self.storage.current_revision().await?,
                // Any place to begin at will do.
                "0" => self.cache.revision().unwrap_or(0),
                version => parse_version(version)?,
            };
            // Before the first snapshot there is no telling what is too old.
            if !self.cache.is_started() && self.cache.wait_for(0).await.is_err() {
                return Err(ApiError::service_unavailable("the watch cache is still being filled"));
            }
            let mut cursor = cache.cursor_after(after);
            if cursor.is_err() {
                self.cache.recalled().await;
                cursor = cache.cursor_after(after);
            }
            let cursor = cursor.map_err(|TooOld { horizon }| too_old(after, horizon))?;
            (Vec::new(), after, cursor)
        };
        let bookmarks = options.allow_bookmarks.then(|| {
            let mut interval =
                tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        let converter = match versions::by_webhook(resource) {
            None => None,
            Some(_) => Some(Arc::clone(self.converter()?)),
        };
        Ok(Watch {
            resource,
            converter,
            strategy: strategy::for_resource(resource),
            everything: Arc::clone(&self.cache),
            cache,
            selection,
            frames,
            cursor,
            subscription,
            initial: objects.into_iter(),
            initial_end: (options.send_initial_events == Some(true) && options.allow_bookmarks)
                .then_some(reached),
            after: reached,
            bookmarks,
            deadline: Instant::now() + lifetime,
            shutdown,
            ended: false,
        })
    }
}

/// The first of these that fit in a batch.
fn next_batch(objects: &mut std::vec::IntoIter<Arc<CachedObject>>) -> Vec<Arc<CachedObject>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH
        && bytes < BATCH_BYTES
        && let Some(object) = objects.next()
    {
        bytes += object.size();
        batch.push(object);
    }
    batch
}

/// 410 with upstream's text.
fn too_old(wanted: i64, horizon: i64) -> ApiError {
    ApiError::expired(format!("too old resource version: {wanted} ({horizon})"))
}

impl Watch {
    /// The lines as a stream; each item is one or several whole lines.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut watch| async move {
            let lines = watch.next().await?;
            Some((stream::iter(lines), watch))
        })
        .flatten()
    }

    /// The next lines; `None` at the end.
    pub async fn next(&mut self) -> Option<Vec<Bytes>> {
        if self.ended {
            return None;
        }
        let mut lines: Vec<Bytes> = Vec::new();
        let initial = next_batch(&mut self.initial);
        let initial = match self.shown(initial).await {
            Ok(initial) => initial,
            Err(error) => return Some(vec![self.end(&error)]),
        };
        for object in initial {
            match self.frames.of(self.strategy, EventType::Added, &object) {
                Ok(line) => lines.push(line),
                Err(error) => {
                    self.ended = true;
                    lines.push(self.frames.framing.error(&error));
                    return Some(lines);
                }
            }
        }
        if !lines.is_empty() {
            return Some(lines);
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(vec![self.bookmark(revision, true)]);
        }
        let mut events = Vec::new();
        loop {
            // Read before the ring: everything up to here is in the ring by then.
            let complete = self.everything.revision();
            let drained = match self.cache.read(&mut self.cursor, (BATCH, BATCH_BYTES), &mut events) {
                Ok(drained) => drained,
                Err(TooOld { horizon }) => {
                    self.ended = true;
                    return Some(vec![self.frames.framing.error(&too_old(self.after, horizon))]);
                }
            };
            if let Err(error) = self.show(&mut events).await {
                return Some(vec![self.end(&error)]);
            }
            for event in events.drain(..) {
                if event.revision <= self.after {
                    continue;
                }
                self.after = event.revision;
                match self.line(&event) {
                    Ok(Some(line)) => lines.push(line),
                    Ok(None) => {}
                    Err(error) => {
                        self.ended = true;
                        lines.push(self.frames.framing.error(&error));
                        return Some(lines);
                    }
                }
            }
            if !lines.is_empty() {
                return Some(lines);
            }
            if !drained {
                continue;
            }
            if let Some(complete) = complete {
                self.after = self.after.max(complete);
            }
            let bookmarks = &mut self.bookmarks;
            let tick = async {
                match bookmarks {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.subscription.woken() => {}
                _ = tick => return Some(vec![self.bookmark(self.after, false)]),
                () = tokio::time::sleep_until(self.deadline) => return self.last_bookmark(),
                () = self.shutdown.cancelled() => return self.last_bookmark(),
            }
        }
    }

    fn last_bookmark(&mut self) -> Option<Vec<Bytes>> {
        self.ended = true;
        self.bookmarks.is_some().then(|| vec![self.bookmark(self.after, false)])
    }

    /// The event that ends the watch with an error.
    fn end(&mut self, error: &ApiError) -> Bytes {
        self.ended = true;
        self.frames.framing.error(error)
    }

    /// Objects in the version watched, as far as it takes a webhook.
    async fn shown(&self, objects: Vec<Arc<CachedObject>>) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        match &self.converter {
            None => Ok(objects),
            Some(converter) => converter.objects(self.resource, objects).await,
        }
    }

    /// The same for events: their objects before and after.
    async fn show(&self, events: &mut [Arc<CacheEvent>]) -> Result<(), ApiError> {
        if self.converter.is_none() {
            return Ok(());
        }
        let objects = |event: &Arc<CacheEvent>| {
            [Some(Arc::clone(&event.object)), event.previous.clone()].into_iter().flatten()
        };
        let mut shown = self.shown(events.iter().flat_map(objects).collect()).await?.into_iter();
        for event in events {
            let Some(object) = shown.next() else { break };
            let previous = event.previous.as_ref().and_then(|_| shown.next());
            let (revision, event_type) = (event.revision, event.event_type);
            *event = Arc::new(CacheEvent { revision, event_type, object, previous });
        }
        Ok(())
    }

    /// What this watcher sees of an event: objects that come to match are added, those that cease to are deleted.
    fn line(&self, event: &CacheEvent) -> Result<Option<Bytes>, ApiError> {
        let selects = |object: &CachedObject| self.selection.matches(object, self.strategy);
        let matched = event.previous.as_deref().is_some_and(selects);
        let matches = event.event_type != EventType::Deleted && selects(&event.object);
        let encode =
            |event_type, object: &CachedObject| self.frames.of(self.strategy, event_type, object).map(Some);
        match (matched, matches) {
            (true, true) => encode(EventType::Modified, &event.object),
            (false, true) => encode(EventType::Added, &event.object),
            (true, false) if event.event_type == EventType::Deleted => {
                encode(EventType::Deleted, &event.object)
            }
            (true, false) => match &event.previous {
                // The last state that matched, at the revision at which it ceased to.
                Some(previous) => {
                    let last = previous
                        .at_revision(event.revision, EventType::Deleted)
                        .map_err(ApiError::internal)?;
                    encode(EventType::Deleted, &last)
                }
                None => Ok(None),
            },
            (false, false) => Ok(None),
        }
    }

    fn bookmark(&self, revision: i64, initial_end: bool) -> Bytes {
        let (api_version, kind) = if self.frames.transform.is_some() {
            // Readers of tables and of metadata take any object in a bookmark.
            ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata")
        } else {
            (self.resource.api_version(), self.resource.kind)
        };
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        let framing = self.frames.framing;
        framing.event("BOOKMARK", &object).unwrap_or_else(|error| framing.error(&error))
    }
}
