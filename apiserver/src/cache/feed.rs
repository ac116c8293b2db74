//! Keeps the caches in step with the store: one paged snapshot, then one watch from there, taken up again on another member when it breaks. The
//! only writer of the caches.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::custom;
use coracle_proto::etcdserverpb::WatchResponse;
use coracle_proto::mvccpb::KeyValue;
use coracle_proto::mvccpb::event::EventType as StoreEventType;
use tokio_util::sync::CancellationToken;

use super::layout::{Definitions, Known, Layout, definitions_resource};
use super::object::{CachedObject, EventType};
use super::resource::{CacheEvent, ResourceCache};
use super::{Cache, history, store_watch};
use crate::storage::{Storage, StorageError, compaction, keys};

/// Objects a page of the snapshot asks for; less where objects are large.
const PAGE_KEYS: i64 = 2000;
/// Pause after a failure, doubling up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a watch ended.
enum Ended {
    /// It can go on from where it was.
    Broken(String),
    /// A snapshot is needed: the store no longer has the events, or some could not be followed.
    Outdated,
}

/// Runs until `shutdown`.
pub async fn run(cache: Arc<Cache>, storage: Arc<Storage>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = feed(&cache, &storage) => {}
        () = recall(&cache, &storage) => {}
    }
}

/// Once; never ends.
async fn recall(cache: &Cache, storage: &Storage) {
    if let Err(reason) = history::recall(cache, storage).await {
        tracing::info!(reason, "what happened before the start stays unknown; some watches begin anew");
    }
    cache.recall_ended();
    std::future::pending::<()>().await;
}

async fn feed(cache: &Cache, storage: &Storage) {
    let mut pause = BACKOFF.0;
    loop {
        let mut revision = match snapshot(cache, storage).await {
            Ok(revision) => revision,
            Err(error) => {
                tracing::warn!(%error, "cannot read the store; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
                continue;
            }
        };
        pause = BACKOFF.0;
        loop {
            let before = revision;
            match follow(cache, storage, &mut revision).await {
                Ended::Outdated => {
                    tracing::warn!(
                        revision,
                        "the watch cache cannot go on from where it is; reading all again"
                    );
                    break;
                }
                Ended::Broken(reason) => {
                    tracing::info!(reason, revision, "the watch of the store broke; taking it up again");
                    pause = if revision > before { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Reads everything at one revision: first the definitions of custom resources, which tell what else there is.
async fn snapshot(cache: &Cache, storage: &Storage) -> Result<i64, StorageError> {
    let before = cache.layout();
    let mut revision = 0;
    let mut definitions = Definitions::new();
    if let Some(definers) = definitions_resource().and_then(|resource| before.of(resource)) {
        revision = pages(storage, &definers.prefix, 0, |key, kv| {
            let name = key.strip_prefix(definers.prefix.as_str()).unwrap_or(key);
            let rows = serde_json::from_slice(&kv.value).ok().and_then(|value| custom::established(&value));
            definitions.insert(name.into(), Known { revision: kv.mod_revision, rows });
        })
        .await?;
    }
    let (layout, _) = Layout::new(&cache.root, cache.events_min, definitions, &cache.hidden, Some(&before));
    let mut found: Vec<Vec<CachedObject>> = layout.caches.iter().map(|_| Vec::new()).collect();
    let prefix = format!("{}/", storage.prefix());
    let revision = pages(storage, &prefix, revision, |key, kv| {
        let Some((at, suffix)) = layout.locate(key) else { return };
        if let (Some(object), Ok(index)) =
            (decode(at, suffix, kv), layout.caches.binary_search_by(|c| c.prefix.cmp(&at.prefix)))
        {
            found[index].push(object);
        }
    })
    .await?;
    for (cache, objects) in layout.caches.iter().zip(found) {
        cache.replace(objects, revision);
    }
    exchange(cache, layout, &before, revision);
    cache.advance(revision);
    Ok(revision)
}

/// Puts a new layout in place; watches of caches that are no longer in it end.
fn exchange(cache: &Cache, layout: Layout, before: &Layout, revision: i64) {
    let layout = Arc::new(layout);
    *cache.layout.write() = Arc::clone(&layout);
    for old in &before.caches {
        if !layout.caches.iter().any(|kept| Arc::ptr_eq(kept, old)) {
            old.replace(Vec::new(), revision);
        }
    }
}

/// Brings the custom resources in step with their definitions, whose changes up to `revision` are in.
async fn redefine(cache: &Cache, storage: &Storage, revision: i64) -> Result<(), StorageError> {
    let before = cache.layout();
    let Some(definers) = definitions_resource().and_then(|resource| before.of(resource)) else {
        return Ok(());
    };
    let definitions: Definitions = definers
        .list("", Bound::Unbounded)
        .objects
        .into_iter()
        .map(|object| {
            let known = before.definitions.get(&object.suffix).copied();
            let known = known.filter(|known| known.revision == object.revision).unwrap_or_else(|| Known {
                revision: object.revision,
                rows: object.value().ok().and_then(|value| custom::established(&value)),
            });
            (object.suffix.clone(), known)
        })
        .collect();
    let (layout, fresh) =
        Layout::new(&cache.root, cache.events_min, definitions, &cache.hidden, Some(&before));
    for made in fresh {
        let mut objects = Vec::new();
        pages(storage, &made.prefix, revision, |key, kv| {
            let suffix = key.strip_prefix(made.prefix.as_str()).unwrap_or(key);
            objects.extend(decode(&made, suffix, kv));
        })
        .await?;
        made.replace(objects, revision);
    }
    exchange(cache, layout, &before, revision);
    Ok(())
}

fn decode(cache: &ResourceCache, suffix: &str, kv: &KeyValue) -> Option<CachedObject> {
    match cache.decode(suffix, &kv.value, kv.mod_revision, EventType::Added) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(prefix = cache.prefix, suffix, %error, "stored object is not JSON; it is not served");
            None
        }
    }
}

/// Reads all keys that begin with `prefix` at `revision` (0: now), page by page. Gives the revision read at.
async fn pages(
    storage: &Storage,
    prefix: &str,
    mut revision: i64,
    mut each: impl FnMut(&str, &KeyValue),
) -> Result<i64, StorageError> {
    let end = Bytes::from(keys::prefix_end(prefix.as_bytes()));
    let (mut key, mut limit) = (Bytes::copy_from_slice(prefix.as_bytes()), PAGE_KEYS);
    loop {
        let page = match storage.page(key.clone(), end.clone(), limit, revision).await {
            Err(StorageError::AnswerTooLarge) if limit > 1 => {
                limit = (limit / 8).max(1);
                continue;
            }
            page => page?,
        };
        if revision == 0 {
            revision = page.header.as_ref().map_or(0, |header| header.revision);
        }
        for kv in &page.kvs {
            if let Ok(text) = std::str::from_utf8(&kv.key) {
                each(text, kv);
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => {
                let mut next = last.key.to_vec();
                next.push(0);
                key = Bytes::from(next);
            }
            _ => return Ok(revision),
        }
    }
}

/// Watches from behind `revision`, which moves along.
async fn follow(cache: &Cache, storage: &Storage, revision: &mut i64) -> Ended {
    let mut watch = match store_watch::open(storage, *revision + 1, false).await {
        Ok(watch) => watch,
        Err(reason) => return Ended::Broken(reason),
    };
    loop {
        match watch.responses.message().await {
            Ok(Some(response)) if response.compact_revision > 0 => return Ended::Outdated,
            Ok(Some(response)) if response.canceled => {
                storage.give_up_on(watch.member);
                return if response.cancel_reason.contains("compacted") {
                    Ended::Outdated
                } else {
                    Ended::Broken(response.cancel_reason)
                };
            }
            Ok(Some(mut response)) => {
                storage.open_events(&mut response);
                match apply(cache, storage, &response).await {
                    Ok(Some(reached)) => {
                        *revision = reached.max(*revision);
                        cache.advance(*revision);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the custom resources of a definition");
                        return Ended::Outdated;
                    }
                }
            }
            Ok(None) => {
                storage.give_up_on(watch.member);
                return Ended::Broken("the member ended the stream".into());
            }
            Err(status) => {
                storage.give_up_on(watch.member);
                return Ended::Broken(status.message().to_owned());
            }
        }
    }
}

/// Takes over the events of one response. Gives the revision that is complete with it.
async fn apply(
    cache: &Cache,
    storage: &Storage,
    response: &WatchResponse,
) -> Result<Option<i64>, StorageError> {
    let layout = cache.layout();
    let mut touched: Vec<(&Arc<ResourceCache>, Vec<Arc<CacheEvent>>)> = Vec::new();
    let mut last = None;
    for event in &response.events {
        let Some(kv) = &event.kv else { continue };
        last = Some(kv.mod_revision);
        let Ok(key) = std::str::from_utf8(&kv.key) else { continue };
        if key == compaction::KEY {
            if let Some(revision) = compaction::round_revision(&kv.value) {
                cache.compaction_round(revision);
            }
            continue;
        }
        let Some((at, suffix)) = layout.locate(key) else { continue };
        let change = if event.r#type == StoreEventType::Delete as i32 {
            at.delete(suffix, kv.mod_revision)
        } else {
            match at.put(suffix, &kv.value, kv.mod_revision) {
                Ok(event) => event,
                Err(error) => {
                    tracing::error!(key, %error, "stored object is not JSON; it is not served");
                    at.delete(suffix, kv.mod_revision)
                }
            }
        };
        if let Some(change) = change {
            match touched.iter_mut().find(|(cache, _)| Arc::ptr_eq(cache, at)) {
                Some((_, events)) => events.push(change),
                None => touched.push((at, vec![change])),
            }
        }
    }
    // Who learns that a custom resource is established finds it served.
    let definitions = definitions_resource();
    let defined =
        touched.iter().any(|(cache, _)| definitions.is_some_and(|row| std::ptr::eq(row, cache.resource)));
    let redefined = match last {
        Some(revision) if defined => redefine(cache, storage, revision).await,
        _ => Ok(()),
    };
    // The revision moves before watchers wake: a watcher that has read everything may then say so in a bookmark.
    let reached = match last {
        // More of the same revision follows: only the one before is complete.
        Some(revision) if response.fragment => Some(revision - 1),
        Some(revision) => Some(revision),
        None => None,
    };
    if let (Some(revision), Ok(())) = (reached, &redefined) {
        cache.advance(revision);
    }
    for (cache, events) in touched {
        cache.wake(&events);
    }
    redefined.map(|()| reached)
}
