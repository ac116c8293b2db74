//! Reads single objects: newest by default, at least as new as asked with resourceVersion.

use bytes::Bytes;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::list::too_large_version;
use super::{Registry, meta, served_json};
use crate::cache::NotFresh;
use crate::strategy;

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
        let strategy = strategy::for_resource(resource);
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
        served_json(strategy, &*object.ok_or_else(|| meta::not_found(resource, name))?)
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
