//! Binds claims to volumes that are there: which volume fits a claim best, and the writes that tie both together, in an order in which each can
//! be the last one before a crash. Provisioning is external provisioners' work; where a claim waits for its first pod, the scheduler's.

pub mod claim;
pub(crate) mod in_tree;
pub mod matching;
#[cfg(test)]
mod tests;
pub mod volume;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::action::{Action, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Target};
use crate::object_meta::{annotation, name, namespace, object_reference, preconditions, uid};

/// The binding of the claim is complete.
pub(crate) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binding is ours, not a user's wish.
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made the volume.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Who is asked to make a volume for the claim.
pub(crate) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, as older provisioners read it.
pub(crate) const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node that the scheduler chose for the claim's first pod.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The class of a claim; empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&claim.metadata, CLASS_ANNOTATION).or(spec).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&volume.metadata, CLASS_ANNOTATION).or(spec).unwrap_or_default()
}

/// The class that claims without one get: the youngest of those that say so.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a StorageClass>) -> Option<&'a StorageClass> {
    let is_default = |class: &&StorageClass| annotation(&class.metadata, DEFAULT_CLASS) == Some("true");
    classes.filter(is_default).max_by(|a, b| {
        let created = |class: &StorageClass| crate::object_meta::created(&class.metadata);
        created(a).cmp(&created(b)).then_with(|| name(&b.metadata).cmp(name(&a.metadata)))
    })
}

/// The claim that the volume is bound to or kept for.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn refers_to(reference: &ObjectReference, claim: &ObjectMeta) -> bool {
    reference.name.as_deref() == Some(name(claim)) && reference.namespace.as_deref() == Some(namespace(claim))
}

/// Whether the volume is bound to the claim, or kept for one of its name.
pub(crate) fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        let of = reference.uid.as_deref().unwrap_or_default();
        refers_to(reference, &claim.metadata) && (of.is_empty() || of == uid(&claim.metadata))
    })
}

fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

pub(crate) fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn event_on_claim(
    claim: &PersistentVolumeClaim,
    warning: bool,
    reason: &'static str,
    message: String,
) -> Action {
    let regarding = Box::new(object_reference(&PERSISTENT_VOLUME_CLAIMS, &claim.metadata));
    Action::Event { regarding, warning, reason, message }
}

fn event_on_volume(volume: &PersistentVolume, reason: &'static str, message: String) -> Action {
    let regarding = Box::new(object_reference(&PERSISTENT_VOLUMES, &volume.metadata));
    Action::Event { regarding, warning: true, reason, message }
}

fn patch_volume(volume: &PersistentVolume, subresource: &'static str, exact: bool, change: Value) -> Action {
    patch(
        Target::new(&PERSISTENT_VOLUMES, "", name(&volume.metadata)),
        &volume.metadata,
        subresource,
        exact,
        change,
    )
}

fn patch_claim(
    claim: &PersistentVolumeClaim,
    subresource: &'static str,
    exact: bool,
    change: Value,
) -> Action {
    let meta = &claim.metadata;
    let target = Target::new(&PERSISTENT_VOLUME_CLAIMS, namespace(meta), name(meta));
    patch(target, meta, subresource, exact, change)
}

/// A change of what was seen; of exactly that version if `exact`, which the steps after the first of a plan cannot ask for.
fn patch(
    target: Target,
    meta: &ObjectMeta,
    subresource: &'static str,
    exact: bool,
    mut change: Value,
) -> Action {
    for (key, value) in preconditions(meta, exact).as_object().into_iter().flatten() {
        change["metadata"][key] = value.clone();
    }
    Action::Patch { target, subresource, patch: change }
}

/// The write of a volume's phase; none if it is in it.
fn volume_enters(volume: &PersistentVolume, phase: &str, message: &str, exact: bool) -> Option<Action> {
    let message = if message.is_empty() { Value::Null } else { json!(message) };
    (volume_phase(volume) != phase).then(|| {
        patch_volume(volume, "status", exact, json!({"status": {"phase": phase, "message": message}}))
    })
}

/// Ties a claim and a volume together: the volume first, so that nobody else gets it, then the claim.
pub(crate) fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Vec<Action> {
    let mut actions = Vec::new();
    let meta = &claim.metadata;
    let is_tied = claim_ref(volume)
        .is_some_and(|reference| refers_to(reference, meta) && reference.uid.as_deref() == Some(uid(meta)));
    if !is_tied {
        let mut change = json!({"spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }}});
        if !is_bound_to(volume, claim) && annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_none() {
            change["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
        }
        actions.push(patch_volume(volume, "", true, change));
    }
    actions.extend(volume_enters(volume, "Bound", "", false));
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let mut change = json!({});
    if wanted != name(&volume.metadata) {
        change["spec"]["volumeName"] = json!(volume.metadata.name);
        if annotation(meta, BOUND_BY_CONTROLLER).is_none() {
            change["metadata"]["annotations"][BOUND_BY_CONTROLLER] = json!("yes");
        }
    }
    if annotation(meta, BIND_COMPLETED).is_none() {
        change["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
    }
    if change != json!({}) {
        actions.push(patch_claim(claim, "", true, change));
    }
    let spec = volume.spec.as_ref();
    let (modes, capacity) =
        (spec.and_then(|spec| spec.access_modes.clone()), spec.and_then(|spec| spec.capacity.clone()));
    actions.extend(claim::enters(claim, "Bound", modes, capacity, false));
    actions
}
