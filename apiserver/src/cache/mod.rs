//! The watch caches of all resources, fed by one watch over the whole store, so that all of them know at every moment up to which revision they
//! are complete. Reads of the API come from here; the store is asked only for its revision and for what is older.

pub mod changes;
pub mod derived;
pub mod feed;
mod history;
pub mod layout;
pub mod object;
pub mod resource;
mod store_watch;

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resource::{Hidden, Resource, Served};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::storage::keys;
use layout::{Definitions, Layout};
use object::CachedObject;
use resource::ResourceCache;

/// How long a read waits for the cache to reach the revision it needs.
pub const FRESHNESS_DEADLINE: Duration = Duration::from_secs(3);
/// How long a watch from before the start waits until its events have been read back.
const RECALL_PATIENCE: Duration = Duration::from_secs(1);
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
    root: String,
    events_min: usize,
    /// Versions that are kept here but served to nobody.
    hidden: Hidden,
    /// Locked for writing only while one pointer is exchanged for another.
    layout: RwLock<Arc<Layout>>,
    progress: watch::Sender<Progress>,
    /// Whether what was before the start has been read back, as far as it can be.
    recalled: watch::Sender<bool>,
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
        Self::hiding(root, events_min, Hidden::default())
    }

    /// The same, with versions that are served to nobody.
    pub fn hiding(root: &str, events_min: usize, hidden: Hidden) -> Self {
        let (layout, _) = Layout::new(root, events_min, Definitions::new(), &hidden, None);
        Self {
            root: root.to_owned(),
            events_min,
            hidden,
            layout: RwLock::new(Arc::new(layout)),
            progress: watch::Sender::new(Progress::Starting),
            recalled: watch::Sender::new(false),
            compaction: Mutex::default(),
        }
    }

    /// Which caches there are at this moment.
    pub fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.read())
    }

    /// What is served at this moment.
    pub fn served(&self) -> Arc<Served> {
        Arc::clone(self.layout.read().served())
    }

    /// The resource at a URL's group, version and plural.
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        coracle_api::resource::lookup(group, version, plural)
            .or_else(|| self.served().lookup(group, version, plural))
    }

    /// Whether a version is there for clients.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        !self.hidden.iter().any(|(of, name)| *of == group && *name == version)
    }

    /// The cache a resource is read from; `None` for virtual resources and for custom ones that are no longer defined.
    pub fn of(&self, resource: &Resource) -> Option<Arc<ResourceCache>> {
        self.layout.read().of(resource).map(Arc::clone)
    }

    /// An object's newest known version, for decisions that tolerate a moment's delay.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.of(resource)?.get(&keys::object_suffix(resource, namespace, name))
    }

    /// All objects of a resource in the order of their keys; those that cannot be read are left out.
    pub fn values(&self, resource: &Resource) -> Vec<Value> {
        self.of(resource).map(|cache| cache.list("", Bound::Unbounded).values()).unwrap_or_default()
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

    /// Waits for the first snapshot.
    async fn started(&self) {
        let mut progress = self.progress.subscribe();
        // Cannot fail: the sender is this cache's own.
        let _ = progress.wait_for(|progress| matches!(progress, Progress::At(_))).await;
    }

    fn recall_ended(&self) {
        self.recalled.send_replace(true);
    }

    /// Waits a moment until what was before the start has been read back.
    pub async fn recalled(&self) {
        let mut recalled = self.recalled.subscribe();
        let _ = tokio::time::timeout(RECALL_PATIENCE, recalled.wait_for(|ended| *ended)).await;
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
