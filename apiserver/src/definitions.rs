//! The controller of CustomResourceDefinitions: accepts their names, establishes them, and removes the custom resources of one that is deleted before it
//! goes. What it decides is `coracle_api::custom::naming`'s matter; every server runs it, and the store settles who was first.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::custom::{self, naming};
use coracle_api::kinds::custom_resource_definition::CLEANUP_FINALIZER;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cache::changes;
use crate::cache::layout::definitions_resource;
use crate::cache::resource::WakeKey;
use crate::registry::Registry;
use crate::registry::delete::DeleteOptions;
use crate::registry::list::ListOptions;
use crate::registry::meta;
use crate::registry::selection::Selection;
use crate::registry::update::Change;
use crate::server::request_info::{RequestInfo, Verb};

/// How soon what is not finished, or failed, is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs until `stop` fires.
pub async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let Some(resource) = definitions_resource() else { return };
    let Some(cache) = registry.cache.of(resource) else { return };
    let changed = cache.subscribe(WakeKey::All);
    loop {
        let finished = match pass(&registry, resource).await {
            Ok(finished) => finished,
            Err(error) => {
                tracing::warn!(%error, "a definition of custom resources could not be taken care of; trying again");
                false
            }
        };
        if !changes::next(&[&changed], (!finished).then_some(AGAIN), Duration::ZERO, &stop).await {
            return;
        }
    }
}

/// Looks at every definition. Whether nothing is left to be waited for.
async fn pass(registry: &Arc<Registry>, resource: &'static Resource) -> Result<bool, ApiError> {
    if registry.cache.wait_for(0).await.is_err() {
        return Ok(false);
    }
    let names: Vec<String> =
        all(registry, resource)?.iter().map(|one| meta::text(one, "name").to_owned()).collect();
    let mut finished = true;
    for name in names {
        // What was done for the one before counts for the next.
        let definitions = all(registry, resource)?;
        let Some(definition) = definitions.iter().find(|one| meta::text(one, "name") == name) else {
            continue;
        };
        if meta::is_deleting(definition) {
            if meta::finalizers(definition).contains(&CLEANUP_FINALIZER) {
                finished &= clean_up(registry, resource, definition).await?;
            }
            continue;
        }
        let others: Vec<Value> =
            definitions.iter().filter(|one| meta::text(one, "name") != name).cloned().collect();
        if naming::accept(definition, &others, meta::now()).is_none() {
            continue;
        }
        let change = |current: &Value| {
            Ok(naming::accept(current, &others, meta::now()).unwrap_or_else(|| current.clone()))
        };
        match registry.guaranteed_update(resource, "", &name, &change).await {
            Ok(written) => {
                let version = meta::text(&written.value()?, "resourceVersion").parse().unwrap_or(0);
                finished &= registry.cache.wait_for(version).await.is_ok();
            }
            Err(error) if error.code() == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(finished)
}

fn all(registry: &Registry, resource: &'static Resource) -> Result<Vec<Value>, ApiError> {
    let Some(cache) = registry.cache.of(resource) else { return Ok(Vec::new()) };
    let listed = cache.list("", Bound::Unbounded).objects;
    listed.iter().map(|object| object.value().map_err(ApiError::internal)).collect()
}

/// Deletes the custom resources of a definition, and lets the definition go when none is left. Whether it was let go.
async fn clean_up(
    registry: &Arc<Registry>,
    resource: &'static Resource,
    definition: &Value,
) -> Result<bool, ApiError> {
    let name = meta::text(definition, "name");
    if let Some(rows) = custom::established(definition)
        && registry.cache.of(rows.storage).is_some()
    {
        let mut request = RequestInfo::internal(Verb::DeleteCollection, rows.storage, None, None);
        // They go with their definition, whatever anyone says.
        request.admitted = true;
        let (selection, list) = (Selection::default(), ListOptions::default());
        registry.delete_collection(&request, &selection, &list, &DeleteOptions::default()).await?;
        if !registry.list(rows.storage, &selection, &list).await?.objects.is_empty() {
            return Ok(false);
        }
    }
    let request = RequestInfo::internal(Verb::Update, resource, None, Some(name));
    let let_go = |mut current: Value| {
        coracle_api::meta::remove_finalizer(&mut current, CLEANUP_FINALIZER);
        Ok(current)
    };
    match registry.update(&request, Change::With(&let_go)).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == 404 => Ok(true),
        Err(error) => Err(error),
    }
}
