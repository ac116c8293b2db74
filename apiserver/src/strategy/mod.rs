//! What differs between kinds, as one trait, and the table that gives every resource its strategy. Everything kinds have in common
//! is in `registry`. A strategy never talks to the store by itself: its asynchronous hooks go through [`Dependencies`].

pub mod autoscaler;
pub mod common;
mod control_kinds;
mod custom_resource;
pub mod custom_resource_definition;
mod device_kinds;
pub mod event;
pub mod generic;
mod groups;
mod limit_kinds;
pub mod namespace;
mod network_kinds;
pub mod node;
pub mod plain;
pub mod pod;
pub mod service;
pub mod signing_request;
mod standard;
mod storage_kinds;
pub mod workload;

use std::borrow::Cow;
use std::sync::Arc;

use coracle_api::field::FieldError;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::options::Options;
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

/// What a strategy's hooks may use.
#[derive(Clone)]
pub struct Dependencies {
    /// The generic store over all resources.
    pub registry: Arc<Registry>,
    /// The command line.
    pub options: Arc<Options>,
}

/// What happens to dependents when a deletion does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes dependents later.
    Background,
    /// Dependents go first (finalizer `foregroundDeletion`).
    Foreground,
    /// Dependents stay and lose their owner reference (finalizer `orphan`).
    Orphan,
}

/// What differs between kinds. Object-safe; synchronous and pure but for the allocation hooks.
///
/// The order of a create is: `default`, mutating admission, `prepare_for_create`, managed fields, `validate`, validating admission,
/// `before_create`, write, `after_create` or `after_failed_create`. An update has the same order with `prepare_for_update`,
/// `validate_update` and `before_update`.
pub trait Strategy: Send + Sync {
    /// Fills in the version's defaults; also runs on objects of patches and applies.
    fn default(&self, _object: &mut Value) {}

    /// Resets what clients may not set (status, generation 1).
    fn prepare_for_create(&self, _request: &RequestInfo, _object: &mut Value) {}

    /// Everything wrong with a new object. `registry` has checked `metadata` of its own accord only for what it needs (namespace,
    /// name present); name syntax belongs here.
    fn validate(&self, object: &Value) -> Vec<FieldError>;

    /// Resets what this request may not change. With `request.subresource() == Some("status")` keeps all but `status` (and the
    /// metadata status may change) from `old`; without, keeps `old`'s status and bumps `generation` when the spec changed.
    fn prepare_for_update(&self, _request: &RequestInfo, _new: &mut Value, _old: &Value) {}

    /// Everything wrong with a changed object.
    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError>;

    /// Texts for `Warning` headers.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// The fields a field selector may name, with their values, besides `metadata.name` and `metadata.namespace`, which `registry` adds.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The labels of the fields of [`Strategy::selectable_fields`], to refuse other field selectors with upstream's text.
    fn selectable_field_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// `Some(seconds)` over 0: the object gets a deletion timestamp and waits for its owner to delete it with 0. `Some(0)` and `None`:
    /// it goes at once.
    fn graceful_deletion(&self, _object: &Value, _requested_seconds: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something other than `metadata.finalizers` keeps a deleted object (a namespace's `spec.finalizers`).
    fn blocks_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// Marks an object whose deletion was asked for but is blocked (a namespace's phase `Terminating`).
    fn mark_deleting(&self, _object: &mut Value) {}

    /// Whether a deletion answers with the object instead of a `Status`.
    fn returns_deleted_object(&self) -> bool {
        false
    }

    /// Whether an update of a missing object creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `resourceVersion` overwrites whatever is there.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// What a deletion without `propagationPolicy` means.
    fn default_propagation(&self) -> Propagation {
        Propagation::Background
    }

    /// The text of the `Warning` header of a deletion without `propagationPolicy`.
    fn deletion_warning(&self) -> Option<&'static str> {
        None
    }

    /// The resource in whose form (and under whose key) objects are stored, when that is another one: `events.k8s.io` events are
    /// stored as core events.
    fn stored_as(&self) -> Option<&'static Resource> {
        None
    }

    /// What is stored, in the form in which it is kept in memory: custom resources take what their definition says now.
    fn decode<'a>(&self, stored: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(stored)
    }

    /// From the served form to the stored one; only with [`Strategy::stored_as`].
    fn to_stored(&self, object: Value) -> Value {
        object
    }

    /// From the stored form to the served one; only with [`Strategy::stored_as`].
    #[allow(clippy::wrong_self_convention)]
    fn from_stored(&self, object: Value) -> Value {
        object
    }

    /// Seconds after which the store drops the object by itself.
    fn time_to_live_seconds(&self, _options: &Options) -> Option<i64> {
        None
    }

    /// Takes what must be unique over the cluster (ClusterIP, NodePort) and writes it into the object.
    fn before_create<'a>(
        &'a self,
        _dependencies: &'a Dependencies,
        _request: &'a RequestInfo,
        _object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gives back what [`Strategy::before_create`] took for an object that was not stored.
    fn after_failed_create<'a>(
        &'a self,
        _dependencies: &'a Dependencies,
        _object: &'a Value,
    ) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Like [`Strategy::before_create`] for a change; `old` is the stored object.
    fn before_update<'a>(
        &'a self,
        _dependencies: &'a Dependencies,
        _request: &'a RequestInfo,
        _new: &'a mut Value,
        _old: &'a Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gives back what is no longer used after a successful change (`stored` is true) or after a failed one.
    fn after_update<'a>(
        &'a self,
        _dependencies: &'a Dependencies,
        _new: &'a Value,
        _old: &'a Value,
        _stored: bool,
    ) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Gives back what a removed object held.
    fn after_delete<'a>(&'a self, _dependencies: &'a Dependencies, _object: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The strategy of a resource.
pub fn for_resource(resource: &Resource) -> &'static dyn Strategy {
    if let Some(definition) = resource.custom {
        return definition;
    }
    let found = match resource.group {
        "" => groups::core(resource.plural),
        "admissionregistration.k8s.io" => groups::admission_registration(resource.plural),
        "apiregistration.k8s.io" => groups::api_registration(resource.plural),
        "apiextensions.k8s.io" => groups::apiextensions(resource.plural),
        "apps" => groups::apps(resource.plural),
        "autoscaling" => groups::autoscaling(resource.version, resource.plural),
        "batch" => groups::batch(resource.plural),
        "certificates.k8s.io" => groups::certificates(resource.plural),
        "coordination.k8s.io" => groups::coordination(resource.plural),
        "discovery.k8s.io" => groups::discovery(resource.plural),
        "events.k8s.io" => groups::events(resource.plural),
        "policy" => groups::policy(resource.plural),
        "rbac.authorization.k8s.io" => groups::rbac(resource.plural),
        "flowcontrol.apiserver.k8s.io" => groups::flow_control(resource.plural),
        "networking.k8s.io" => groups::networking(resource.plural),
        "node.k8s.io" => groups::node(resource.plural),
        "resource.k8s.io" => groups::devices(resource.plural),
        "scheduling.k8s.io" => groups::scheduling(resource.plural),
        "storage.k8s.io" => groups::storage(resource.plural),
        _ => None,
    };
    // Kinds that only hold what clients put in, and virtual ones, which are never stored.
    found.unwrap_or(&generic::Generic)
}
