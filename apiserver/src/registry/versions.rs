//! Between the version an object is stored in and the one a request is about, where a webhook has to be asked. What needs none is left as it is: the
//! strategies' `from_stored` and `to_stored` see to it.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::custom::Definition;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::{Registry, meta, served_json, served_value};
use crate::cache::object::{CachedObject, EventType};
use crate::conversion::Converter;
use crate::strategy::{self, Strategy};

/// An object, written without its resourceVersion, which is the store's revision.
struct Unversioned<'a>(&'a Value);

impl Serialize for Unversioned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(fields) = self.0 else { return self.0.serialize(serializer) };
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in fields {
            match value {
                Value::Object(metadata) if name == "metadata" => {
                    map.serialize_entry(name, &WithoutVersion(metadata))?;
                }
                value => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

struct WithoutVersion<'a>(&'a Map<String, Value>);

impl Serialize for WithoutVersion<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(name, _)| *name != "resourceVersion"))
    }
}

/// The definition of a resource whose versions a webhook converts.
pub(super) fn by_webhook(resource: &Resource) -> Option<&'static Definition> {
    resource.custom.filter(|definition| definition.conversion.is_some())
}

impl Registry {
    /// Installs what asks conversion webhooks. Later calls change nothing.
    pub fn set_converter(&self, converter: Arc<Converter>) {
        let _ = self.converter.set(converter);
    }

    pub(super) fn converter(&self) -> Result<&Arc<Converter>, ApiError> {
        self.converter.get().ok_or_else(|| ApiError::internal("conversion webhooks cannot be called yet"))
    }

    /// One object as its definition's webhook converts it.
    async fn converted(&self, definition: &'static Definition, object: Value) -> Result<Value, ApiError> {
        let mut converted = self.converter()?.values(definition, vec![object]).await?;
        Ok(converted.pop().unwrap_or_default())
    }

    /// Stored objects as `resource` shows them, as far as it takes a webhook to say so.
    ///
    /// # Errors
    /// What the webhook did wrong.
    pub async fn shown(
        &self,
        resource: &'static Resource,
        objects: Vec<Arc<CachedObject>>,
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        match by_webhook(resource) {
            None => Ok(objects),
            Some(_) => self.converter()?.objects(resource, objects).await,
        }
    }

    async fn shown_one(
        &self,
        resource: &'static Resource,
        object: &CachedObject,
    ) -> Result<Option<CachedObject>, ApiError> {
        let Some(definition) = by_webhook(resource) else { return Ok(None) };
        let value = object.value().map_err(ApiError::internal)?;
        let converted = self.converted(definition, value).await?;
        let bytes = serde_json::to_vec(&converted).map_err(ApiError::internal)?;
        let shown = CachedObject::new(&object.suffix, &bytes, object.revision, EventType::Modified);
        shown.map(Some).map_err(ApiError::internal)
    }

    /// An object in the form its resource serves.
    pub(super) async fn served_value(
        &self,
        resource: &'static Resource,
        object: &CachedObject,
    ) -> Result<Value, ApiError> {
        let shown = self.shown_one(resource, object).await?;
        served_value(strategy::for_resource(resource), shown.as_ref().unwrap_or(object))
    }

    /// An object's bytes in the form its resource serves.
    pub(super) async fn served_json(
        &self,
        resource: &'static Resource,
        object: &CachedObject,
    ) -> Result<Bytes, ApiError> {
        let shown = self.shown_one(resource, object).await?;
        served_json(strategy::for_resource(resource), shown.as_ref().unwrap_or(object))
    }

    /// The bytes that are stored for an object in served form: in stored form and without resourceVersion.
    pub(super) async fn stored_bytes(
        &self,
        resource: &'static Resource,
        strategy: &dyn Strategy,
        object: &Value,
    ) -> Result<Bytes, ApiError> {
        let stored = strategy.stored_as().unwrap_or(resource);
        let converter = by_webhook(stored);
        if strategy.stored_as().is_none() && converter.is_none() {
            return serde_json::to_vec(&Unversioned(object)).map(Bytes::from).map_err(ApiError::internal);
        }
        let mut object = object.clone();
        meta::remove(&mut object, "resourceVersion");
        if let Some(definition) = converter {
            object = self.converted(definition, object).await?;
        }
        if strategy.stored_as().is_some() {
            object = strategy.to_stored(object);
        }
        serde_json::to_vec(&object).map(Bytes::from).map_err(ApiError::internal)
    }

    /// The bytes answered for what was stored at `revision`.
    pub(super) async fn answer(
        &self,
        resource: &'static Resource,
        stored: &[u8],
        revision: i64,
    ) -> Result<Bytes, ApiError> {
        let object =
            CachedObject::new("", stored, revision, EventType::Modified).map_err(ApiError::internal)?;
        self.served_json(resource, &object).await
    }

    /// An object of one version as another version of the same resource shows it.
    ///
    /// # Errors
    /// What a conversion webhook did wrong.
    pub async fn in_version(
        &self,
        object: Value,
        from: &'static Resource,
        to: &'static Resource,
    ) -> Result<Value, ApiError> {
        if std::ptr::eq(from, to) {
            return Ok(object);
        }
        if let Some(definition) = by_webhook(to) {
            return self.converted(definition, object).await;
        }
        let stored = strategy::for_resource(from).to_stored(object);
        Ok(strategy::for_resource(to).from_stored(stored))
    }
}
