//! Reads single objects: newest by default, at least as new as asked with resourceVersion.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::list::{ListOptions, too_large_version};
use super::selection::Selection;
use super::{Registry, meta};
use crate::cache::NotFresh;

impl Registry {
    /// The object's JSON. `version` empty: the newest there is; `0`: whatever is at hand; else at least as new.
    ///
    /// # Errors
    /// 404, 400 for a malformed version, 504 for one that has not come yet, and the store's errors.
    pub async fn get(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        version: &str,
    ) -> Result<Bytes, ApiError> {
        let object = if version.is_empty() {
            self.fresh(resource, namespace, name).await?
        } else {
            let wanted = parse_version(version)?;
            match self.cache.wait_for(wanted).await {
                Ok(_) => self.cached(resource, namespace, name),
                Err(NotFresh { at }) if wanted > 0 => {
                    let now = self.storage.current_revision().await?;
                    if now < wanted {
                        return Err(too_large_version(wanted, at.unwrap_or(now), 1));
                    }
                    self.fresh(resource, namespace, name).await?
                }
                Err(_) => self.fresh(resource, namespace, name).await?,
            }
        };
        self.served_json(resource, &*object.ok_or_else(|| meta::not_found(resource, name))?).await
    }

    /// The object as the cache has it, parsed; one that the cache has not heard of yet is read from the store. For decisions that tolerate a moment's
    /// delay, such as admission.
    ///
    /// # Errors
    /// 404 and the store's errors.
    pub async fn known(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        match self.cached(resource, namespace, name) {
            Some(known) => known.shared().map_err(ApiError::internal),
            None => self.read(resource, namespace, name).await.map(Arc::new),
        }
    }

    /// The labels of an object that is not worth keeping parsed, known as in [`Registry::known`].
    ///
    /// # Errors
    /// 404 and the store's errors.
    pub async fn known_labels(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<BTreeMap<String, String>, ApiError> {
        let known = match self.cached(resource, namespace, name) {
            Some(known) => known,
            None => self.fresh_or_not_found(resource, namespace, name).await?,
        };
        Ok(known.labels().clone())
    }

    /// All objects of a namespace (empty: of all) as the cache has them, parsed. For decisions by what hardly ever changes.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn all_known(
        &self,
        resource: &'static Resource,
        namespace: &str,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let options = ListOptions { resource_version: "0".into(), ..ListOptions::default() };
        let page = self.list(resource, &Selection::namespace(namespace), &options).await?;
        page.objects.iter().map(|object| object.shared().map_err(ApiError::internal)).collect()
    }

    /// The newest object, parsed.
    ///
    /// # Errors
    /// 404 and the store's errors.
    pub async fn read(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Value, ApiError> {
        let json = self.get(resource, namespace, name, "").await?;
        serde_json::from_slice(&json).map_err(ApiError::internal)
    }
}

/// A resourceVersion as a number.
///
/// # Errors
/// 400 with upstream's text.
pub fn parse_version(text: &str) -> Result<i64, ApiError> {
    match text.parse::<u64>().ok().and_then(|number| i64::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => Err(ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))),
    }
}
