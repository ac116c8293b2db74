//! Changes objects: replaces, patches and internal changes all go through one loop of read, change, check, compare-and-swap. The first try uses
//! the cached version; whatever is decided on a stale copy is decided again on the newest.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::apply::{self, Operation};
use coracle_api::field;
use coracle_api::resource::Resource;
use coracle_api::schema;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::patch::Patch;
use super::{Registry, Written, create, decode_stored, meta};
use crate::cache::object::CachedObject;
use crate::server::request_info::RequestInfo;
use crate::storage::Swap;
use crate::strategy::{self, Strategy};

/// How often a change is tried again when others write the same object.
const ATTEMPTS_MAX: u32 = 16;

/// How the new object comes out of the old one.
pub enum Change<'a> {
    /// The client sent all of it.
    Replace(Value),
    /// The client sent the difference.
    Patch(&'a Patch),
    /// The server itself knows (scale, eviction). The result goes through validation and admission like a client's.
    With(&'a (dyn Fn(Value) -> Result<Value, ApiError> + Send + Sync)),
}

enum Attempt {
    Unchanged,
    /// Store this.
    Store(Value),
    /// Nothing holds the object any longer: its deletion completes.
    Remove(Value),
}

impl Registry {
    /// Changes the request's object.
    ///
    /// # Errors
    /// 404, 409 for lost races that the client must settle, 422, what admission says, and the store's errors.
    pub async fn update(
        self: &Arc<Self>,
        request: &RequestInfo,
        change: Change<'_>,
    ) -> Result<Written, ApiError> {
        let resource = request.resource;
        let (namespace, name) = (request.namespace(), request.name());
        let strategy = strategy::for_resource(resource);
        let mut current = self.cached(resource, namespace, name);
        let mut fresh = current.is_none();
        if fresh {
            current = self.fresh(resource, namespace, name).await?;
        }
        for _ in 0..ATTEMPTS_MAX {
            let Some(known) = current.take() else {
                return self.create_instead(request, strategy, change).await;
            };
            let old = self.served_value(resource, &known).await?;
            let decided = self.attempt(request, strategy, &change, &old).await;
            if !fresh && !matches!(decided, Ok(Attempt::Store(_) | Attempt::Remove(_))) {
                fresh = true;
                current = self.fresh(resource, namespace, name).await?;
                if current.as_ref().is_none_or(|newest| newest.revision != known.revision) {
                    continue;
                }
            }
            let stored = match decided? {
                Attempt::Unchanged => {
                    return Ok(Written { json: self.served_json(resource, &known).await?, created: false });
                }
                Attempt::Store(new) => self.store_changed(request, strategy, &known, &old, new).await?,
                Attempt::Remove(new) => self.remove_changed(request, strategy, &known, new).await?,
            };
            match stored {
                Ok(written) => return Ok(written),
                Err(newest) => {
                    current = newest;
                    fresh = true;
                }
            }
        }
        Err(meta::modified(resource, name))
    }

    /// The object is not there: an upsert where the kind or the patch type allows it, else 404.
    async fn create_instead(
        self: &Arc<Self>,
        request: &RequestInfo,
        strategy: &dyn Strategy,
        change: Change<'_>,
    ) -> Result<Written, ApiError> {
        let resource = request.resource;
        let missing = || meta::not_found(resource, request.name());
        if request.subresource.is_some() {
            return Err(missing());
        }
        let new = match change {
            Change::Replace(new) if strategy.allow_create_on_update() => {
                // An update of one certain version or object cannot create.
                if !meta::text(&new, "resourceVersion").is_empty() || !meta::text(&new, "uid").is_empty() {
                    return Err(missing());
                }
                new
            }
            Change::Patch(patch) => match patch.create(request)? {
                Some(new) => {
                    let mut request = request.clone();
                    request.verb = crate::server::request_info::Verb::Create;
                    // The patch has set the managers already.
                    request.field_manager = String::new();
                    return self.create(&request, new).await;
                }
                None => return Err(missing()),
            },
            _ => return Err(missing()),
        };
        let mut request = request.clone();
        request.verb = crate::server::request_info::Verb::Create;
        self.create(&request, new).await
    }

    /// Works out the new object and checks it. Changes nothing.
    async fn attempt(
        &self,
        request: &RequestInfo,
        strategy: &dyn Strategy,
        change: &Change<'_>,
        old: &Value,
    ) -> Result<Attempt, ApiError> {
        let resource = request.resource;
        let mut new = match change {
            Change::Replace(new) => new.clone(),
            Change::Patch(patch) => patch.apply(request, old)?,
            Change::With(change) => change(old.clone())?,
        };
        check_identity(request, change, &new)?;
        self.check_version(request, strategy, change, &new, old)?;
        strategy.default(&mut new);
        self.admit_mutating(request, &mut new, Some(old)).await?;
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
            "name",
            "namespace",
        ] {
            meta::copy_field(old, &mut new, field);
        }
        meta::remove(&mut new, "selfLink");
        meta::drop_empty(&mut new);
        strategy.prepare_for_update(request, &mut new, old);
        let applied = matches!(change, Change::Patch(patch) if patch.is_apply());
        if !applied && !request.field_manager.is_empty() {
            new = apply::track_update(
                Some(old),
                new,
                &request.field_manager,
                Operation::Update,
                request.subresource().unwrap_or_default(),
                schema::of(resource),
                meta::now(),
            );
        }
        let errors = strategy.validate_update(request, &new, old);
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource.group_kind(), request.name(), errors));
        }
        for warning in strategy.warnings(&new, Some(old)) {
            request.warnings.add(warning);
        }
        self.admit_validating(request, Some(&new), Some(old)).await?;
        if is_finished(strategy, &new) && meta::is_deleting(old) {
            return Ok(Attempt::Remove(new));
        }
        let is_stale = || self.storage.may_be_stale(&self.key(resource, request.namespace(), request.name()));
        Ok(if same_content(&new, old) && !is_stale() { Attempt::Unchanged } else { Attempt::Store(new) })
    }

    /// Optimistic locking: the body's resourceVersion and uid, where given, must be the stored ones.
    fn check_version(
        &self,
        request: &RequestInfo,
        strategy: &dyn Strategy,
        change: &Change<'_>,
        new: &Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        let resource = request.resource;
        let name = meta::text(old, "name");
        let (uid, stored_uid) = (meta::text(new, "uid"), meta::text(old, "uid"));
        let invalid = |error| Err(ApiError::invalid(resource.group_kind(), name, vec![error]));
        match change {
            _ if uid.is_empty() || uid == stored_uid => {}
            // A replacement is meant for one object alone; a patch just changes what cannot be changed.
            Change::Replace(_) => {
                let key = self.key(resource, request.namespace(), name);
                let text = format!(
                    "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}"
                );
                return Err(ApiError::conflict(resource.group_resource(), name, text));
            }
            _ => return invalid(field::invalid("metadata.uid", uid, "field is immutable")),
        }
        match meta::text(new, "resourceVersion") {
            "" | "0" if strategy.allow_unconditional_update() => Ok(()),
            "" | "0" => {
                invalid(field::invalid("metadata.resourceVersion", "0x0", "must be specified for an update"))
            }
            version if version == meta::text(old, "resourceVersion") => Ok(()),
            _ => Err(meta::modified(resource, name)),
        }
    }

    /// Stores a changed object; `Ok(Err(newest))` when someone else was faster.
    async fn store_changed(
        self: &Arc<Self>,
        request: &RequestInfo,
        strategy: &dyn Strategy,
        known: &CachedObject,
        old: &Value,
        mut new: Value,
    ) -> Result<Result<Written, Option<Arc<CachedObject>>>, ApiError> {
        let dependencies = self.dependencies();
        strategy.before_update(&dependencies, request, &mut new, old).await?;
        if request.dry_run {
            strategy.after_update(&dependencies, &new, old, false).await;
            let json = serde_json::to_vec(&new).map_err(ApiError::internal)?;
            return Ok(Ok(Written { json: json.into(), created: false }));
        }
        let stored = self.stored_bytes(request.resource, strategy, &new).await?;
        let swapped =
            self.swap(request.resource, strategy, request.namespace(), request.name(), known, stored).await;
        strategy.after_update(&dependencies, &new, old, matches!(swapped, Ok(Ok(_)))).await;
        swapped
    }

    async fn remove_changed(
        self: &Arc<Self>,
        request: &RequestInfo,
        strategy: &dyn Strategy,
        known: &CachedObject,
        new: Value,
    ) -> Result<Result<Written, Option<Arc<CachedObject>>>, ApiError> {
        let stored = self.stored_bytes(request.resource, strategy, &new).await?;
        let answer = async |revision: i64| -> Result<Written, ApiError> {
            let json = self.answer(request.resource, &stored, revision).await?;
            Ok(Written { json, created: false })
        };
        if request.dry_run {
            return Ok(Ok(answer(known.revision).await?));
        }
        let removed =
            self.remove(request.resource, request.namespace(), request.name(), known.revision, &new).await?;
        Ok(match removed {
            Ok(revision) => Ok(answer(revision).await?),
            Err(newest) => Err(newest),
        })
    }

    /// One compare-and-swap; `Ok(Err(newest))` when someone else was faster.
    async fn swap(
        &self,
        resource: &'static Resource,
        strategy: &dyn Strategy,
        namespace: &str,
        name: &str,
        known: &CachedObject,
        stored: Bytes,
    ) -> Result<Result<Written, Option<Arc<CachedObject>>>, ApiError> {
        let lease = match strategy.time_to_live_seconds(&self.options) {
            Some(seconds) if seconds > 0 => self.storage.lease_for(seconds).await?,
            _ => 0,
        };
        let key = self.key(resource, namespace, name);
        match self.storage.put_if(&key, stored.clone(), known.revision, lease).await? {
            Swap::Done { revision } => {
                let json = self.answer(resource, &stored, revision).await?;
                Ok(Ok(Written { json, created: false }))
            }
            Swap::Conflict { current } => Ok(Err(current
                .map(|kv| decode_stored(resource, namespace, name, &kv.value, kv.mod_revision))
                .transpose()?)),
        }
    }

    /// Changes an object for the server's own purposes: no admission, no validation, no field manager. `change` may be called several times. An
    /// object that comes back unchanged is not written.
    ///
    /// # Errors
    /// 404, what `change` says (of the newest version), 409 after too many lost races, and the store's errors.
    pub async fn guaranteed_update(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        change: &(dyn Fn(&Value) -> Result<Value, ApiError> + Send + Sync),
    ) -> Result<Written, ApiError> {
        let strategy = strategy::for_resource(resource);
        let mut current = self.cached(resource, namespace, name);
        let mut fresh = current.is_none();
        for _ in 0..ATTEMPTS_MAX {
            let known = match current.take() {
                Some(known) => known,
                None => self.fresh_or_not_found(resource, namespace, name).await?,
            };
            let old = self.served_value(resource, &known).await?;
            let new = match change(&old) {
                Ok(new) if new != old => new,
                decided => {
                    if fresh {
                        decided?;
                        return Ok(Written {
                            json: self.served_json(resource, &known).await?,
                            created: false,
                        });
                    }
                    fresh = true;
                    continue;
                }
            };
            let stored = self.stored_bytes(resource, strategy, &new).await?;
            match self.swap(resource, strategy, namespace, name, &known, stored).await? {
                Ok(written) => return Ok(written),
                Err(newest) => {
                    current = Some(newest.ok_or_else(|| meta::not_found(resource, name))?);
                    fresh = true;
                }
            }
        }
        Err(meta::modified(resource, name))
    }
}

/// Whether a deletion that was asked for has nothing left to wait for.
pub(super) fn is_finished(strategy: &dyn Strategy, object: &Value) -> bool {
    meta::is_deleting(object)
        && meta::finalizers(object).is_empty()
        && meta::grace_period(object).unwrap_or(0) == 0
        && !strategy.blocks_deletion(object)
}

/// The body must speak of the object that the path names.
fn check_identity(request: &RequestInfo, change: &Change<'_>, new: &Value) -> Result<(), ApiError> {
    meta::check_named(new, request.name())?;
    let namespace = meta::text(new, "namespace");
    if request.resource.namespaced && !namespace.is_empty() && namespace != request.namespace() {
        return Err(ApiError::bad_request(match change {
            Change::Patch(_) => format!(
                "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
                request.namespace()
            ),
            _ => "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned(),
        }));
    }
    create::check_name(request.name())
}

/// Whether nothing differs but when managers did what they did, and the version.
fn same_content(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match old.get(key) {
            Some(other) if key == "metadata" => same_metadata(value, other),
            other => other == Some(value),
        })
}

fn same_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let counted = |m: &serde_json::Map<String, Value>| m.keys().filter(|k| *k != "resourceVersion").count();
    counted(new) == counted(old)
        && new.iter().filter(|(key, _)| *key != "resourceVersion").all(|(key, value)| match old.get(key) {
            Some(other) if key == "managedFields" => without_times(value) == without_times(other),
            other => other == Some(value),
        })
}

fn without_times(managers: &Value) -> Vec<Vec<(&String, &Value)>> {
    managers
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|manager| manager.iter().filter(|(key, _)| *key != "time").collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_and_times_alone_are_no_change() {
        let old = json!({"metadata": {"resourceVersion": "1", "managedFields": [{"manager": "a", "time": "x"}]}, "data": {}});
        let mut new = json!({"metadata": {"resourceVersion": "2", "managedFields": [{"manager": "a", "time": "y"}]}, "data": {}});
        assert!(same_content(&new, &old));
        new["metadata"]["managedFields"][0]["manager"] = json!("b");
        assert!(!same_content(&new, &old));
        assert!(!same_content(&json!({"metadata": {}, "data": {}, "more": 1}), &old));
    }
}
