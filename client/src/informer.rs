//! One shared watch per resource: keeps a [`Store`] equal to the server's state and tells its subscribers what changed.
//! Owns the watch task. It never relists on a timer, never drops a change, and never lets a slow subscriber grow without
//! bound: a [`Subscription`] holds at most one pending change an object.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::describe;
use crate::object_key::ObjectKey;
use crate::store::{Index, Store};

/// A watch is renewed after this many seconds, which is also how long a silently dead connection can go unnoticed.
const WATCH_TIMEOUT_SECONDS: u32 = 60;
/// First and longest delay between attempts to list or watch again after an error.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Failures in a row before they are worth a warning.
const WARN_AFTER: u32 = 4;

/// What an informer can watch: any typed Kubernetes resource.
pub trait Watchable: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watchable for K {}

/// One difference between two states of the store.
#[derive(Debug)]
pub enum Change<K> {
    /// The object is new or has changed.
    Applied {
        /// What the store held before; `None` for a new object.
        old: Option<Arc<K>>,
        /// What it holds now.
        new: Arc<K>,
    },
    /// The object is gone; this is the last state known.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { old, new } => Self::Applied { old: old.clone(), new: Arc::clone(new) },
            Self::Deleted(object) => Self::Deleted(Arc::clone(object)),
        }
    }
}

impl<K: Resource> Change<K> {
    /// The newest state known.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted(object) => object,
        }
    }

    /// The state before, if there was one.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Applied { old, .. } => old.as_ref(),
            Self::Deleted(object) => Some(object),
        }
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&**self.object())
    }

    /// Whether the object is gone.
    pub fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted(_))
    }
}

type Handler<K> = Box<dyn FnMut(&Change<K>) + Send>;

struct Shared<K> {
    store: Arc<Store<K>>,
    /// Held while the store changes and the handlers hear of it, so that a new subscriber misses nothing and sees nothing twice.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// A shared, always current copy of one resource. Clones share the same watch and store.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Settings of an informer before it starts.
pub struct InformerBuilder<K> {
    api: Api<K>,
    config: watcher::Config,
    indexes: Vec<Index<K>>,
    trim: Box<dyn Fn(&mut K) + Send>,
}

impl<K: Watchable> Informer<K>
where
    K::DynamicType: Clone,
{
    /// Starts describing an informer over `api` (`Api::all` or one namespace).
    pub fn builder(api: Api<K>) -> InformerBuilder<K> {
        InformerBuilder {
            api,
            config: watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS),
            indexes: Vec::new(),
            trim: Box::new(|_| {}),
        }
    }
}

impl<K: Watchable> InformerBuilder<K>
where
    K::DynamicType: Clone,
{
    /// Watches only objects that a field selector matches, such as `spec.nodeName=node-a`.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    /// Watches only objects that a label selector matches.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Adds an index to the store.
    #[must_use]
    pub fn index(mut self, index: Index<K>) -> Self {
        self.indexes.push(index);
        self
    }

    /// Gets the first state through the watch itself (`sendInitialEvents`) instead of paged lists. Such a list may be
    /// older than what another server has already shown; use it where that does no harm.
    #[must_use]
    pub fn streaming_lists(mut self) -> Self {
        self.config = self.config.streaming_lists();
        self
    }

    /// Drops fields before an object is stored, to save memory. `metadata.managedFields` always goes.
    #[must_use]
    pub fn trim(mut self, trim: impl Fn(&mut K) + Send + 'static) -> Self {
        self.trim = Box::new(trim);
        self
    }

    /// Starts the watch; it ends with `shutdown`.
    pub fn start(self, shutdown: &CancellationToken) -> Informer<K> {
        let Self { api, config, indexes, trim } = self;
        let informer = Informer::with_store(Store::new(indexes));
        let stream = watcher::watcher(api, config);
        let task = run(Arc::clone(&informer.shared), stream, trim);
        let shutdown = shutdown.clone();
        let watching = tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = task => {}
            }
        });
        tokio::spawn(async move {
            // A copy that no longer changes is worse than none: whoever supervises the process starts it again.
            if watching.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(kind = std::any::type_name::<K>(), "a change handler panicked; ending");
                std::process::exit(1);
            }
        });
        informer
    }
}

impl<K: Watchable> Informer<K> {
    /// An informer that no watch feeds: [`Informer::feed`] does. For tests of what is built on informers.
    pub fn with_store(store: Store<K>) -> Self {
        let (synced, _) = watch::channel(false);
        Self { shared: Arc::new(Shared { store: Arc::new(store), handlers: Mutex::new(Vec::new()), synced }) }
    }

    /// The local copy.
    pub fn store(&self) -> &Arc<Store<K>> {
        &self.shared.store
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the first list is complete.
    pub async fn wait_synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Calls `handler` for every object there is (as new) and then for every change, in order. It runs on the watch task:
    /// it must be quick, must not block and must not subscribe to the same informer.
    pub fn on_change(&self, mut handler: impl FnMut(&Change<K>) + Send + 'static) {
        let mut handlers = self.shared.handlers.lock();
        for object in self.shared.store.list() {
            handler(&Change::Applied { old: None, new: object });
        }
        handlers.push(Box::new(handler));
    }

    /// Changes as a stream to be awaited. Changes of one object that were not taken yet are merged into one.
    pub fn subscribe(&self) -> Subscription<K> {
        let pending = Arc::new(Pending { merged: Mutex::new(Merged::new()), ready: Notify::new() });
        let sink = Arc::clone(&pending);
        self.on_change(move |change| {
            sink.merged.lock().push(change.clone());
            sink.ready.notify_one();
        });
        Subscription { pending }
    }

    /// Handles one watch event as if the server had sent it. The watch task calls it; tests may too.
    pub fn feed(&self, event: Event<K>, listed: &mut HashSet<ObjectKey>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(ObjectKey::of(&object));
                self.apply(object);
            }
            Event::InitDone => {
                for key in self.shared.store.keys() {
                    if !listed.contains(&key) {
                        self.delete(&key, None);
                    }
                }
                *listed = HashSet::new();
                self.shared.synced.send_replace(true);
            }
            Event::Apply(object) => self.apply(object),
            Event::Delete(object) => self.delete(&ObjectKey::of(&object), Some(object)),
        }
    }

    fn apply(&self, object: K) {
        let new = Arc::new(object);
        let mut handlers = self.shared.handlers.lock();
        let old = self.shared.store.insert(Arc::clone(&new));
        let unchanged = old.as_ref().is_some_and(|old| {
            old.resource_version().is_some() && old.resource_version() == new.resource_version()
        });
        if !unchanged {
            let change = Change::Applied { old, new };
            handlers.iter_mut().for_each(|handler| handler(&change));
        }
    }

    fn delete(&self, key: &ObjectKey, last: Option<K>) {
        let mut handlers = self.shared.handlers.lock();
        let Some(stored) = self.shared.store.remove(key) else { return };
        let change = Change::Deleted(last.map_or(stored, Arc::new));
        handlers.iter_mut().for_each(|handler| handler(&change));
    }
}

async fn run<K: Watchable>(
    shared: Arc<Shared<K>>,
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    trim: Box<dyn Fn(&mut K) + Send>,
) {
    let informer = Informer { shared };
    let mut listed = HashSet::new();
    let mut delay = RETRY_FIRST;
    let mut failures = 0_u32;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if !matches!(event, Event::Init) {
                    delay = RETRY_FIRST;
                    failures = 0;
                }
                let event = event.modify(|object| {
                    object.meta_mut().managed_fields = None;
                    trim(object);
                });
                informer.feed(event, &mut listed);
            }
            Err(error) => {
                failures += 1;
                let kind = std::any::type_name::<K>().rsplit("::").next().unwrap_or_default();
                let error = describe_watch(&error);
                // A server that restarts is no news; one that keeps refusing is.
                if failures >= WARN_AFTER && failures.is_power_of_two() {
                    tracing::warn!(kind, failures, error, "cannot watch, trying again");
                } else {
                    tracing::debug!(kind, error, "watch interrupted, trying again");
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_LONGEST);
            }
        }
    }
}

fn describe_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Pending changes, at most one an object, in the order in which objects first changed.
struct Merged<K> {
    order: VecDeque<ObjectKey>,
    changes: HashMap<ObjectKey, Change<K>>,
}

impl<K: Resource> Merged<K> {
    fn new() -> Self {
        Self { order: VecDeque::new(), changes: HashMap::new() }
    }

    /// Adds a change; the merged one goes from the oldest state not yet taken to the newest.
    fn push(&mut self, change: Change<K>) {
        let key = change.key();
        let merged = match (self.changes.remove(&key), change) {
            (Some(earlier), Change::Applied { new, .. }) => {
                Change::Applied { old: earlier.old().cloned(), new }
            }
            (Some(_), deleted) => deleted,
            (None, change) => {
                self.order.push_back(key.clone());
                change
            }
        };
        self.changes.insert(key, merged);
    }

    fn pop(&mut self) -> Option<Change<K>> {
        let key = self.order.pop_front()?;
        self.changes.remove(&key)
    }
}

struct Pending<K> {
    merged: Mutex<Merged<K>>,
    ready: Notify,
}

/// Changes waiting to be taken by one subscriber.
pub struct Subscription<K> {
    pending: Arc<Pending<K>>,
}

impl<K: Resource> Subscription<K> {
    /// Waits for the next change. Safe to drop and call again (in `select!`): no change is lost.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.try_next() {
                return change;
            }
            self.pending.ready.notified().await;
        }
    }

    /// The next change if one waits.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.pending.merged.lock().pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn map(name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("default".into()),
                name: Some(name.into()),
                resource_version: Some(version.into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn describe(change: &Change<ConfigMap>) -> String {
        let version = |object: &Arc<ConfigMap>| object.resource_version().unwrap_or_default();
        match change {
            Change::Applied { old, new } => {
                format!(
                    "{} {}->{}",
                    change.key().name,
                    old.as_ref().map_or("none".into(), version),
                    version(new)
                )
            }
            Change::Deleted(last) => format!("{} gone at {}", change.key().name, version(last)),
        }
    }

    fn informer() -> (Informer<ConfigMap>, HashSet<ObjectKey>) {
        (Informer::with_store(Store::new(vec![])), HashSet::new())
    }

    #[test]
    fn a_relist_reports_only_differences_and_what_vanished() {
        let (informer, mut listed) = informer();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        informer.on_change(move |change| log.lock().push(describe(change)));

        for event in
            [Event::Init, Event::InitApply(map("a", "1")), Event::InitApply(map("b", "2")), Event::InitDone]
        {
            informer.feed(event, &mut listed);
        }
        assert!(informer.is_synced());
        informer.feed(Event::Apply(map("a", "3")), &mut listed);
        for event in
            [Event::Init, Event::InitApply(map("a", "3")), Event::InitApply(map("c", "5")), Event::InitDone]
        {
            informer.feed(event, &mut listed);
        }
        assert_eq!(*seen.lock(), ["a none->1", "b none->2", "a 1->3", "c none->5", "b gone at 2"]);
        assert_eq!(informer.store().len(), 2);
    }

    #[tokio::test]
    async fn a_subscription_replays_the_store_and_merges_what_was_not_taken() {
        let (informer, mut listed) = informer();
        informer.feed(Event::Apply(map("a", "1")), &mut listed);
        let mut subscription = informer.subscribe();
        informer.feed(Event::Apply(map("a", "2")), &mut listed);
        informer.feed(Event::Apply(map("b", "3")), &mut listed);
        informer.feed(Event::Apply(map("b", "4")), &mut listed);
        assert_eq!(describe(&subscription.next().await), "a none->2");
        informer.feed(Event::Delete(map("b", "5")), &mut listed);
        assert_eq!(describe(&subscription.next().await), "b gone at 5");
        assert!(subscription.try_next().is_none());
    }

    #[tokio::test]
    async fn deleted_and_made_again_before_it_was_taken_keeps_the_old_object() {
        let (informer, mut listed) = informer();
        informer.feed(Event::Apply(map("a", "1")), &mut listed);
        let mut subscription = informer.subscribe();
        let _ = subscription.next().await;
        informer.feed(Event::Delete(map("a", "2")), &mut listed);
        informer.feed(Event::Apply(map("a", "3")), &mut listed);
        assert_eq!(describe(&subscription.next().await), "a 2->3");
    }
}
