//! The watch caches of all resources, fed by one watch over the whole store, so that all of them know at every moment up to which revision they
//! are complete. Reads of the API come from here; the store is asked only for its revision and for what is older.

pub mod feed;
pub mod object;
pub mod resource;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resource::Resource;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::storage::keys;
use crate::strategy;
use object::CachedObject;
use resource::ResourceCache;

/// How long a read waits for the cache to reach the revision it needs.
pub const FRESHNESS_DEADLINE: Duration = Duration::from_secs(3);
/// A feed that has said nothing for this long while the store is ahead will not say anything: the store was written to outside of
/// the keys watched.
const SILENCE: Duration = Duration::from_millis(200);

/// How far the caches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No snapshot has been taken yet.
    Starting,
    /// Everything up to this revision is in.
    At(i64),
}

/// The caches do not reach a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFresh {
    /// Where they are; `None` while starting.
    pub at: Option<i64>,
}

/// The watch caches of all resources.
pub struct Cache {
    /// In order of their prefixes.
    caches: Vec<Arc<ResourceCache>>,
    by_resource: HashMap<(&'static str, &'static str, &'static str), usize>,
    progress: watch::Sender<Progress>,
    compaction: Mutex<Compaction>,
}

/// What is known of the store's compaction. Each of its rounds announces a revision, and forgets what was before the one announced last.
#[derive(Clone, Copy, Debug, Default)]
struct Compaction {
    announced: i64,
    done: i64,
}

impl Cache {
    /// Caches for every stored resource of the table. `root` is what all keys begin with.
    pub fn new(root: &str, events_min: usize) -> Self {
        let stored = |resource: &&'static Resource| resource.is_stored();
        let mut caches: Vec<Arc<ResourceCache>> = Vec::new();
        for resource in coracle_api::resource::table().filter(stored) {
            let strategy = strategy::for_resource(resource);
            if strategy.stored_as().is_none() {
                let prefix = keys::resource_prefix(root, resource);
                caches.push(Arc::new(ResourceCache::new(resource, prefix, strategy, events_min)));
            }
        }
        caches.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        let mut by_resource = HashMap::new();
        for resource in coracle_api::resource::table().filter(stored) {
            let prefix =
                keys::resource_prefix(root, strategy::for_resource(resource).stored_as().unwrap_or(resource));
            if let Ok(index) = caches.binary_search_by(|cache| cache.prefix.cmp(&prefix)) {
                by_resource.insert((resource.group, resource.version, resource.plural), index);
            }
        }
        let progress = watch::Sender::new(Progress::Starting);
        Self { caches, by_resource, progress, compaction: Mutex::default() }
    }

    /// The cache a resource is read from; `None` for virtual resources.
    pub fn of(&self, resource: &Resource) -> Option<&Arc<ResourceCache>> {
        self.by_resource
            .get(&(resource.group, resource.version, resource.plural))
            .map(|index| &self.caches[*index])
    }

    /// An object's newest known version, for decisions that tolerate a moment's delay.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.of(resource)?.get(&keys::object_suffix(resource, namespace, name))
    }

    /// The cache and the suffix that a store key belongs to.
    fn locate<'k>(&self, key: &'k str) -> Option<(&Arc<ResourceCache>, &'k str)> {
        let after = self.caches.partition_point(|cache| cache.prefix.as_str() <= key);
        let cache = &self.caches[after.checked_sub(1)?];
        Some((cache, key.strip_prefix(cache.prefix.as_str())?))
    }

    /// The revision up to which everything is in; `None` while starting.
    pub fn revision(&self) -> Option<i64> {
        match *self.progress.borrow() {
            Progress::Starting => None,
            Progress::At(revision) => Some(revision),
        }
    }

    /// Whether the first snapshot has been taken.
    pub fn is_started(&self) -> bool {
        self.revision().is_some()
    }

    /// Waits until everything up to `revision` is in (0: until started). Gives the revision reached.
    ///
    /// # Errors
    /// It does not happen in time.
    pub async fn wait_for(&self, revision: i64) -> Result<i64, NotFresh> {
        let reached = |progress: &Progress| match *progress {
            Progress::At(at) if at >= revision => Some(at),
            _ => None,
        };
        let mut receiver = self.progress.subscribe();
        if let Some(at) = reached(&receiver.borrow_and_update()) {
            return Ok(at);
        }
        let end = Instant::now() + FRESHNESS_DEADLINE;
        loop {
            let started = matches!(*receiver.borrow_and_update(), Progress::At(_));
            let patience = if started { end.min(Instant::now() + SILENCE) } else { end };
            match tokio::time::timeout_at(patience, receiver.changed()).await {
                Ok(Ok(())) => {
                    if let Some(at) = reached(&receiver.borrow_and_update()) {
                        return Ok(at);
                    }
                }
                _ => return Err(NotFresh { at: self.revision() }),
            }
        }
    }

    /// The revision before which the store has forgotten everything, as far as it is known: nothing older is served.
    pub fn compacted(&self) -> i64 {
        self.compaction.lock().done
    }

    /// A round of compaction began.
    fn compaction_round(&self, announced: i64) {
        let mut compaction = self.compaction.lock();
        let done = compaction.announced;
        *compaction = Compaction { announced, done };
    }

    fn advance(&self, revision: i64) {
        self.progress.send_if_modified(|progress| match progress {
            Progress::At(at) if *at >= revision => false,
            _ => {
                *progress = Progress::At(revision);
                true
            }
        });
    }
}
