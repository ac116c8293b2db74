//! The generic store over all kinds: one file a verb. What differs between kinds comes from `strategy`, policy from the admission chain; nothing
//! here knows a kind by name.

pub mod continue_token;
pub mod create;
pub mod decode;
pub mod delete;
pub mod delete_collection;
pub mod frame;
pub mod get;
pub mod list;
pub mod meta;
pub mod patch;
pub mod selection;
pub mod update;
mod versions;
pub mod watch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::cache::Cache;
use crate::cache::object::{CachedObject, EventType};
use crate::conversion::Converter;
use crate::options::Options;
use crate::server::request_info::RequestInfo;
use crate::storage::{Storage, StorageError, keys};
use crate::strategy::{self, Dependencies, Strategy};

/// Policy on writes: changes objects, then refuses or lets pass. Installed once at start.
pub trait Admission: Send + Sync {
    /// Runs before defaults of the strategy are final and before validation. `object` is `None` for deletions.
    fn mutate<'a>(
        &'a self,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Runs on the final object, right before it is stored; for deletions with the object that is to go as `old` only.
    fn validate<'a>(
        &'a self,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>>;
}

/// The generic store over all resources.
pub struct Registry {
    /// The store below.
    pub storage: Arc<Storage>,
    /// What reads are served from.
    pub cache: Arc<Cache>,
    /// The command line.
    pub options: Arc<Options>,
    admission: OnceLock<Arc<dyn Admission>>,
    converter: OnceLock<Arc<Converter>>,
}

/// The result of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as stored, resourceVersion included.
    pub json: Bytes,
    /// It did not exist before.
    pub created: bool,
}

impl Written {
    /// The object, parsed.
    ///
    /// # Errors
    /// Never for what the registry wrote.
    pub fn value(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.json).map_err(ApiError::internal)
    }

    /// `metadata.uid`, without parsing the rest.
    ///
    /// # Errors
    /// Never for what the registry wrote.
    pub fn uid(&self) -> Result<String, ApiError> {
        #[derive(serde::Deserialize)]
        struct Envelope {
            metadata: Metadata,
        }
        #[derive(serde::Deserialize)]
        struct Metadata {
            #[serde(default)]
            uid: String,
        }
        let envelope: Envelope = serde_json::from_slice(&self.json).map_err(ApiError::internal)?;
        Ok(envelope.metadata.uid)
    }
}

/// How long a negative answer waits for news.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(1);

impl Registry {
    /// Over a store and its caches.
    pub fn new(storage: Arc<Storage>, cache: Arc<Cache>, options: Arc<Options>) -> Arc<Self> {
        Arc::new(Self { storage, cache, options, admission: OnceLock::new(), converter: OnceLock::new() })
    }

    /// Installs the admission chain. Later calls change nothing.
    pub fn set_admission(&self, admission: Arc<dyn Admission>) {
        let _ = self.admission.set(admission);
    }

    fn dependencies(self: &Arc<Self>) -> Dependencies {
        Dependencies { registry: Arc::clone(self), options: Arc::clone(&self.options) }
    }

    async fn admit_mutating(
        &self,
        request: &RequestInfo,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        match self.admission.get() {
            Some(admission) if !request.admitted => admission.mutate(request, object, old).await,
            _ => Ok(()),
        }
    }

    /// Asks both parts of the admission chain about what is answered without being stored, or about the options of a stream.
    pub(crate) async fn admit(&self, request: &RequestInfo, object: &mut Value) -> Result<(), ApiError> {
        self.admit_mutating(request, object, None).await?;
        self.admit_validating(request, Some(object), None).await
    }

    async fn admit_validating(
        &self,
        request: &RequestInfo,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        match self.admission.get() {
            Some(admission) if !request.admitted => admission.validate(request, object, old).await,
            _ => Ok(()),
        }
    }

    /// Waits a moment until the cache has what the store has now: before saying that there is none of what another server may have
    /// just made.
    pub(crate) async fn catch_up(&self) {
        let reached = async {
            if let Ok(revision) = self.storage.current_revision().await {
                let _ = self.cache.wait_for(revision).await;
            }
        };
        // A store that does not answer must not keep anyone from hearing what is known.
        let _ = tokio::time::timeout(CATCH_UP_PATIENCE, reached).await;
    }

    /// The store key of an object.
    pub(crate) fn key(&self, resource: &'static Resource, namespace: &str, name: &str) -> String {
        let stored = strategy::for_resource(resource).stored_as().unwrap_or(resource);
        let mut key = keys::resource_prefix(self.storage.prefix(), stored);
        key.push_str(&keys::object_suffix(stored, namespace, name));
        key
    }

    /// An object's newest version as the cache has it: for decisions that tolerate a moment's delay, such as admission.
    pub fn cached(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<CachedObject>> {
        self.cache.get(resource, namespace, name)
    }

    /// An object's newest version from the store itself.
    async fn fresh(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<CachedObject>>, ApiError> {
        let key = self.key(resource, namespace, name);
        let (found, _) = self.storage.get(&key).await?;
        found.map(|kv| decode_stored(resource, namespace, name, &kv.value, kv.mod_revision)).transpose()
    }

    /// The same, or 404.
    async fn fresh_or_not_found(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<CachedObject>, ApiError> {
        self.fresh(resource, namespace, name).await?.ok_or_else(|| meta::not_found(resource, name))
    }
}

/// A stored value as an object of its (stored) resource.
fn decode_stored(
    resource: &'static Resource,
    namespace: &str,
    name: &str,
    value: &[u8],
    revision: i64,
) -> Result<Arc<CachedObject>, ApiError> {
    let suffix = keys::object_suffix(resource, namespace, name);
    let value = strategy::for_resource(resource).decode(value);
    CachedObject::new(&suffix, &value, revision, EventType::Modified).map(Arc::new).map_err(|error| {
        StorageError::Corrupt { key: format!("{}/{suffix}", resource.plural), reason: error.to_string() }
            .into()
    })
}

/// An object in the form its resource serves.
fn served_value(strategy: &dyn Strategy, object: &CachedObject) -> Result<Value, ApiError> {
    let value = object.value().map_err(ApiError::internal)?;
    Ok(if strategy.stored_as().is_some() { strategy.from_stored(value) } else { value })
}

/// An object's bytes in the form its resource serves.
pub(crate) fn served_json(strategy: &dyn Strategy, object: &CachedObject) -> Result<Bytes, ApiError> {
    if strategy.stored_as().is_none() {
        return Ok(object.json());
    }
    let value = served_value(strategy, object)?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(ApiError::internal)
}
