//! Deletes objects: preconditions, propagation through finalizers, graceful deletion; and completes a deletion when nothing holds the object any
//! longer.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::field;
use coracle_api::resource::Resource;
use coracle_api::status::{ApiError, GroupKind, GroupResource};
use serde_json::{Value, json};

use super::update::is_finished;
use super::{Registry, Written, decode_stored, meta};
use crate::cache::object::{CachedObject, EventType};
use crate::server::request_info::{Query, RequestInfo};
use crate::storage::Swap;
use crate::strategy::{self, Propagation, Strategy};

const ATTEMPTS_MAX: u32 = 16;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// 0: at once.
    pub grace_period_seconds: Option<i64>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object has this resourceVersion.
    pub resource_version: Option<String>,
    /// What happens to dependents.
    pub propagation: Option<Propagation>,
    /// Nothing is to be stored.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// From the body, or from the query when there is none.
    ///
    /// # Errors
    /// 400 for what cannot be understood, 422 for values that do not exist.
    pub fn decode(body: Option<&Value>, query: &Query) -> Result<Self, ApiError> {
        let mut options =
            Self { dry_run: query.all("dryRun").any(|value| value == "All"), ..Self::default() };
        let (grace, policy, orphan) = match body {
            Some(body) => {
                let kind = body.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
                if kind != "DeleteOptions" {
                    return Err(ApiError::bad_request(format!(
                        "the object provided is unrecognized (must be of type DeleteOptions): got {kind}"
                    )));
                }
                let precondition = |field: &str| {
                    let value = body.get("preconditions")?.get(field)?.as_str()?;
                    Some(value.to_owned())
                };
                options.uid = precondition("uid");
                options.resource_version = precondition("resourceVersion");
                options.dry_run |= body
                    .get("dryRun")
                    .and_then(Value::as_array)
                    .is_some_and(|values| values.iter().any(|value| value == "All"));
                (
                    body.get("gracePeriodSeconds").and_then(Value::as_i64),
                    body.get("propagationPolicy").and_then(Value::as_str).map(str::to_owned),
                    body.get("orphanDependents").and_then(Value::as_bool),
                )
            }
            None => {
                let grace = match query.get("gracePeriodSeconds") {
                    None | Some("") => None,
                    Some(text) => Some(text.parse().map_err(|_| {
                        ApiError::bad_request(format!("gracePeriodSeconds: {text:?} is not a number"))
                    })?),
                };
                let orphan = query.get("orphanDependents").map(|_| query.flag("orphanDependents"));
                (grace, query.get("propagationPolicy").filter(|p| !p.is_empty()).map(str::to_owned), orphan)
            }
        };
        if let Some(seconds) = grace.filter(|seconds| *seconds < 0) {
            // A negative period means one second, as upstream has it.
            tracing::debug!(seconds, "negative grace period");
        }
        options.grace_period_seconds = grace.map(|seconds| if seconds < 0 { 1 } else { seconds });
        let mut errors = Vec::new();
        if let (Some(policy), Some(_)) = (&policy, orphan) {
            errors.push(field::invalid(
                "propagationPolicy",
                policy.as_str(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        options.propagation = match (policy.as_deref(), orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), _) => {
                errors.push(field::not_supported_in_order(
                    "propagationPolicy",
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
            (None, None) => None,
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                GroupKind { group: "meta.k8s.io", kind: "DeleteOptions" },
                "",
                errors,
            ));
        }
        Ok(options)
    }

    /// As a `DeleteOptions` has it, without kind.
    fn to_value(&self) -> Value {
        let mut value = json!({});
        if let Some(seconds) = self.grace_period_seconds {
            value["gracePeriodSeconds"] = seconds.into();
        }
        for (field, wanted) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(wanted) = wanted {
                value["preconditions"][field] = wanted.as_str().into();
            }
        }
        if let Some(propagation) = self.propagation {
            value["propagationPolicy"] = match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            }
            .into();
        }
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }
}

/// The result of a deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this was its last state.
    Gone(Written),
    /// It stays until its grace period is over or its finalizers are gone.
    Pending(Written),
}

/// What is to be done to an object whose deletion is asked for. Pure.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing: it is on its way already.
    Keep,
    /// Mark it.
    Mark(Value),
    /// Remove it.
    Remove,
}

fn plan(strategy: &dyn Strategy, object: &Value, options: &DeleteOptions, now: jiff::Timestamp) -> Plan {
    let mut new = object.clone();
    let finalizers = finalizers_after(strategy, object, options.propagation);
    meta::set_finalizers(&mut new, &finalizers);
    let grace = strategy.graceful_deletion(object, options.grace_period_seconds).unwrap_or(0).max(0);
    let mark = |new: &mut Value, seconds: i64| {
        if let Some(metadata) = meta::metadata_mut(new) {
            metadata.insert("deletionTimestamp".into(), Value::String(meta::time_after(now, seconds)));
            metadata.insert("deletionGracePeriodSeconds".into(), json!(seconds));
        }
        strategy.mark_deleting(new);
    };
    if meta::is_deleting(object) {
        let before = meta::grace_period(object).unwrap_or(0);
        // A deletion can be made quicker, not slower; without a stated period it stays as it is.
        let shorter = options.grace_period_seconds.is_some() && grace < before;
        if shorter {
            mark(&mut new, grace);
        }
        if is_finished(strategy, &new) {
            return Plan::Remove;
        }
        return if new == *object { Plan::Keep } else { Plan::Mark(new) };
    }
    if grace > 0 {
        bump_generation(&mut new);
        mark(&mut new, grace);
        return Plan::Mark(new);
    }
    if finalizers.is_empty() && !strategy.blocks_deletion(object) {
        return Plan::Remove;
    }
    bump_generation(&mut new);
    mark(&mut new, 0);
    Plan::Mark(new)
}

/// A deletion is a change of what is wanted, for kinds that count generations.
fn bump_generation(object: &mut Value) {
    let generation = object.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64);
    if let (Some(generation), Some(metadata)) = (generation, meta::metadata_mut(object))
        && generation > 0
    {
        metadata.insert("generation".into(), json!(generation + 1));
    }
}

/// The finalizers with those that stand for the propagation wanted: an explicit wish replaces what was there, the default leaves it.
fn finalizers_after<'a>(
    strategy: &dyn Strategy,
    object: &'a Value,
    wanted: Option<Propagation>,
) -> Vec<&'a str> {
    let present = meta::finalizers(object);
    let has = |name: &str| present.contains(&name);
    let propagation = match wanted {
        Some(wanted) => wanted,
        None if has(ORPHAN) => Propagation::Orphan,
        None if has(FOREGROUND) => Propagation::Foreground,
        None => strategy.default_propagation(),
    };
    let mut finalizers: Vec<&str> =
        present.iter().copied().filter(|f| *f != ORPHAN && *f != FOREGROUND).collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Orphan => finalizers.push(ORPHAN),
        Propagation::Foreground => finalizers.push(FOREGROUND),
    }
    if finalizers.len() == present.len() && finalizers.iter().all(|f| present.contains(f)) {
        return present;
    }
    finalizers
}

fn check_preconditions(resource: &Resource, object: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    // As upstream: this conflict names the kind where others name the resource.
    let of_kind = GroupResource { group: resource.group, resource: resource.kind };
    for (what, wanted, found, since) in [
        ("UID", &options.uid, meta::text(object, "uid"), "deleted and then recreated"),
        ("ResourceVersion", &options.resource_version, meta::text(object, "resourceVersion"), "modified"),
    ] {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let text = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {since}"
            );
            return Err(ApiError::conflict(of_kind, meta::text(object, "name"), text));
        }
    }
    Ok(())
}

impl Registry {
    /// Deletes the request's object.
    ///
    /// # Errors
    /// 404, 409 when preconditions fail, what admission says, and the store's errors.
    pub async fn delete(
        self: &Arc<Self>,
        request: &RequestInfo,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let mut request = request.clone();
        request.dry_run |= options.dry_run;
        request.delete_options = options.to_value();
        let request = &request;
        let resource = request.resource;
        let (namespace, name) = (request.namespace(), request.name());
        let strategy = strategy::for_resource(resource);
        let mut current = self.cached(resource, namespace, name);
        let mut fresh = current.is_none();
        for _ in 0..ATTEMPTS_MAX {
            let known = match current.take() {
                Some(known) => known,
                None => self.fresh_or_not_found(resource, namespace, name).await?,
            };
            let old = self.served_value(resource, &known).await?;
            let planned = match check_preconditions(resource, &old, options) {
                Ok(()) => self
                    .admit_validating(request, None, Some(&old))
                    .await
                    .map(|()| plan(strategy, &old, options, meta::now())),
                Err(error) => Err(error),
            };
            if !fresh && !matches!(planned, Ok(Plan::Remove | Plan::Mark(_))) {
                // Decided on a copy that may be stale: decide again on the newest.
                fresh = true;
                continue;
            }
            let result = match planned? {
                Plan::Keep => {
                    let json = self.served_json(resource, &known).await?;
                    return Ok(Deleted::Pending(Written { json, created: false }));
                }
                Plan::Remove => self.remove_now(request, &known, &old, options).await?,
                Plan::Mark(new) => self.mark(request, strategy, &known, new, options).await?,
            };
            match result {
                Ok(deleted) => return Ok(deleted),
                Err(newest) => {
                    current = Some(newest.ok_or_else(|| meta::not_found(resource, name))?);
                    fresh = true;
                }
            }
        }
        Err(meta::modified(resource, name))
    }

    async fn remove_now(
        self: &Arc<Self>,
        request: &RequestInfo,
        known: &CachedObject,
        old: &Value,
        options: &DeleteOptions,
    ) -> Result<Result<Deleted, Option<Arc<CachedObject>>>, ApiError> {
        let last_state = async |revision: i64| -> Result<Deleted, ApiError> {
            let last = known.at_revision(revision, EventType::Deleted).map_err(ApiError::internal)?;
            let json = self.served_json(request.resource, &last).await?;
            Ok(Deleted::Gone(Written { json, created: false }))
        };
        if options.dry_run || request.dry_run {
            return Ok(Ok(last_state(known.revision).await?));
        }
        let removed =
            self.remove(request.resource, request.namespace(), request.name(), known.revision, old).await?;
        Ok(match removed {
            Ok(revision) => Ok(last_state(revision).await?),
            Err(newest) => Err(newest),
        })
    }

    async fn mark(
        &self,
        request: &RequestInfo,
        strategy: &dyn Strategy,
        known: &CachedObject,
        new: Value,
        options: &DeleteOptions,
    ) -> Result<Result<Deleted, Option<Arc<CachedObject>>>, ApiError> {
        let stored: Bytes = self.stored_bytes(request.resource, strategy, &new).await?;
        let pending = async |revision: i64| -> Result<Deleted, ApiError> {
            let json = self.answer(request.resource, &stored, revision).await?;
            Ok(Deleted::Pending(Written { json, created: false }))
        };
        if options.dry_run || request.dry_run {
            return Ok(Ok(pending(known.revision).await?));
        }
        let (resource, namespace, name) = (request.resource, request.namespace(), request.name());
        let key = self.key(resource, namespace, name);
        match self.storage.put_if(&key, stored.clone(), known.revision, 0).await? {
            Swap::Done { revision } => Ok(Ok(pending(revision).await?)),
            Swap::Conflict { current } => Ok(Err(current
                .map(|kv| decode_stored(resource, namespace, name, &kv.value, kv.mod_revision))
                .transpose()?)),
        }
    }

    /// Removes an object of a known revision from the store and gives back what it held. `Ok(Err(newest))` when someone else was faster.
    pub(super) async fn remove(
        self: &Arc<Self>,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        revision: i64,
        object: &Value,
    ) -> Result<Result<i64, Option<Arc<CachedObject>>>, ApiError> {
        let key = self.key(resource, namespace, name);
        match self.storage.delete_if(&key, revision).await? {
            Swap::Done { revision } => {
                strategy::for_resource(resource).after_delete(&self.dependencies(), object).await;
                Ok(Ok(revision))
            }
            Swap::Conflict { current } => Ok(Err(current
                .map(|kv| decode_stored(resource, namespace, name, &kv.value, kv.mod_revision))
                .transpose()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::field::FieldError;

    struct Graceful;
    impl Strategy for Graceful {
        fn validate(&self, _: &Value) -> Vec<FieldError> {
            Vec::new()
        }
        fn validate_update(&self, _: &RequestInfo, _: &Value, _: &Value) -> Vec<FieldError> {
            Vec::new()
        }
        fn graceful_deletion(&self, _: &Value, requested: Option<i64>) -> Option<i64> {
            Some(requested.unwrap_or(30))
        }
    }

    fn now() -> jiff::Timestamp {
        "2026-01-02T03:04:05Z".parse().expect("time")
    }

    fn options(grace: Option<i64>) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() }
    }

    #[test]
    fn graceful_deletion_waits_gets_shorter_and_ends() {
        let object = json!({"metadata": {"name": "a"}});
        let Plan::Mark(marked) = plan(&Graceful, &object, &options(None), now()) else { panic!("waits") };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(plan(&Graceful, &marked, &options(None), now()), Plan::Keep);
        assert_eq!(plan(&Graceful, &marked, &options(Some(60)), now()), Plan::Keep);
        let Plan::Mark(shorter) = plan(&Graceful, &marked, &options(Some(5)), now()) else {
            panic!("shorter")
        };
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(plan(&Graceful, &marked, &options(Some(0)), now()), Plan::Remove);
    }

    #[test]
    fn finalizers_hold_an_object_and_propagation_adds_them() {
        let held = json!({"metadata": {"finalizers": ["a/b"]}});
        assert!(matches!(plan(&Graceful, &held, &options(Some(0)), now()), Plan::Mark(_)));
        let foreground = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            grace_period_seconds: Some(0),
            ..DeleteOptions::default()
        };
        let Plan::Mark(marked) = plan(&Graceful, &json!({"metadata": {}}), &foreground, now()) else {
            panic!("waits for dependents")
        };
        assert_eq!(meta::finalizers(&marked), [FOREGROUND]);
        let background = DeleteOptions { propagation: Some(Propagation::Background), ..foreground };
        assert_eq!(plan(&Graceful, &marked, &background, now()), Plan::Remove);
    }

    #[test]
    fn options_come_from_body_or_query() {
        let query = Query::parse(Some("gracePeriodSeconds=7&propagationPolicy=Orphan&dryRun=All"));
        let options = DeleteOptions::decode(None, &query).expect("decodes");
        assert_eq!(
            (options.grace_period_seconds, options.propagation, options.dry_run),
            (Some(7), Some(Propagation::Orphan), true)
        );
        let body = json!({"kind": "DeleteOptions", "preconditions": {"uid": "u"}, "orphanDependents": false});
        let options = DeleteOptions::decode(Some(&body), &Query::default()).expect("decodes");
        assert_eq!((options.uid.as_deref(), options.propagation), (Some("u"), Some(Propagation::Background)));
        assert!(
            DeleteOptions::decode(Some(&json!({"propagationPolicy": "Never"})), &Query::default()).is_err()
        );
    }
}
