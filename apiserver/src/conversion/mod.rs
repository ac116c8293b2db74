//! Custom resources whose definition names a webhook for conversion: objects of one version as another one, as many as possible in one question. Versions
//! that need no webhook are the strategies' matter.

mod review;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::custom::{self, Definition};
use coracle_api::kinds::access::text;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cache::object::{CachedObject, EventType};
use crate::extension::Endpoint;
use crate::extension::client::Clients;
use crate::extension::review::Version;

/// How long a webhook may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects of one question.
const OBJECTS_MAX: usize = 500;
/// Converted objects that are kept for other lists and watches.
const KEPT_MAX: usize = 4096;

/// A version of a custom resource (by its definition's address), an object's key, its revision.
type Key = (usize, Box<str>, i64);

/// Asks conversion webhooks.
pub struct Converter {
    clients: Arc<Clients>,
    kept: Mutex<HashMap<Key, Arc<CachedObject>>>,
}

/// What clients see: upstream gives such errors no reason.
fn failed(message: String) -> ApiError {
    ApiError::of_status(500, json!({"message": message}))
}

impl Converter {
    /// Over the clients of extension servers.
    pub fn new(clients: Arc<Clients>) -> Self {
        Self { clients, kept: Mutex::default() }
    }

    /// Objects in the version of `wanted`, in their order. Those that are in it already are not asked about.
    ///
    /// # Errors
    /// What the webhook did wrong, in upstream's words.
    pub async fn values(&self, wanted: &Definition, objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let mut objects = objects;
        let strange: Vec<usize> = (0..objects.len())
            .filter(|index| text(&objects[*index], "apiVersion") != wanted.api_version)
            .collect();
        for chunk in strange.chunks(OBJECTS_MAX) {
            let asked: Vec<&Value> = chunk.iter().map(|index| &objects[*index]).collect();
            let converted = self.ask(wanted, &asked).await?;
            for (index, mut object) in chunk.iter().zip(converted) {
                custom::prune(&mut object, &wanted.schema);
                objects[*index] = object;
            }
        }
        Ok(objects)
    }

    async fn ask(&self, wanted: &Definition, objects: &[&Value]) -> Result<Vec<Value>, ApiError> {
        let Some(first) = objects.first() else { return Ok(Vec::new()) };
        let about = format!("{}, Kind={}", text(first, "apiVersion"), text(first, "kind"));
        let whole = |error: String| failed(format!("conversion webhook for {about} failed: {error}"));
        let Some(conversion) = &wanted.conversion else {
            return Err(whole("the definition names no webhook".to_owned()));
        };
        let version = conversion.review_versions.iter().find_map(|version| Version::of(version));
        let version = version.ok_or_else(|| failed("no supported conversion review versions".to_owned()))?;
        let endpoint = Endpoint::of_client_config(&conversion.client_config).map_err(failed)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = review::review(version, &uid, &wanted.api_version, objects);
        let body = serde_json::to_vec(&review).map_err(ApiError::internal)?;
        let answer = self.clients.post(&endpoint, Bytes::from(body), PATIENCE).await.map_err(whole)?;
        let converted = review::converted(version, &uid, &answer).map_err(whole)?;
        if converted.len() != objects.len() {
            return Err(failed(format!(
                "conversion webhook for {about} returned {} objects, expected {}",
                converted.len(),
                objects.len()
            )));
        }
        let accepted = objects.iter().zip(converted).enumerate().map(|(index, (before, after))| {
            review::accept(before, after, &wanted.api_version).map_err(|problem| {
                let (what, problem) = problem.text(index, objects.len());
                failed(format!("conversion webhook for {about} returned {what}: {problem}"))
            })
        });
        accepted.collect()
    }

    /// Cached objects as `resource` shows them, in their order.
    ///
    /// # Errors
    /// As for [`Converter::values`].
    pub async fn objects(
        &self,
        resource: &'static Resource,
        objects: Vec<Arc<CachedObject>>,
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        let Some(wanted) = resource.custom else { return Ok(objects) };
        let mut shown = objects;
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for (index, object) in shown.iter_mut().enumerate() {
            let kept = self.kept.lock().get(&key(wanted, object)).cloned();
            if let Some(kept) = kept {
                *object = kept;
                continue;
            }
            let value = object.value().map_err(ApiError::internal)?;
            if text(&value, "apiVersion") != wanted.api_version {
                places.push(index);
                values.push(value);
            }
        }
        let converted = self.values(wanted, values).await?;
        for (index, value) in places.into_iter().zip(converted) {
            let before = &shown[index];
            let bytes = serde_json::to_vec(&value).map_err(ApiError::internal)?;
            let after = CachedObject::new(&before.suffix, &bytes, before.revision, EventType::Modified);
            let after = Arc::new(after.map_err(ApiError::internal)?);
            let mut kept = self.kept.lock();
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
            kept.insert(key(wanted, before), Arc::clone(&after));
            drop(kept);
            shown[index] = after;
        }
        Ok(shown)
    }
}

fn key(wanted: &'static Definition, object: &CachedObject) -> Key {
    (std::ptr::from_ref(wanted).addr(), object.suffix.clone(), object.revision)
}
