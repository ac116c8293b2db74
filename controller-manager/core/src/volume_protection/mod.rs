//! Claims that pods use and volumes that claims use do not go: a finalizer holds them until nobody uses them any more.

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::action::{Action, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, ResourceId, Target};
use crate::ephemeral_volume::{claim_name, is_for_pod};
use crate::object_meta::{list_or_null, name, namespace, preconditions};
use crate::pod_state::node_name;

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// It should have the finalizer and does not.
    Protect(Action),
    /// It is being deleted: it may go if nobody uses it.
    ReleaseIfUnused(Action),
}

/// About a claim.
pub fn claim_step(claim: &PersistentVolumeClaim) -> Step {
    step(&PERSISTENT_VOLUME_CLAIMS, &claim.metadata, OF_CLAIMS)
}

/// About a volume.
pub fn volume_step(volume: &PersistentVolume) -> Step {
    step(&PERSISTENT_VOLUMES, &volume.metadata, OF_VOLUMES)
}

fn step(resource: &ResourceId, meta: &ObjectMeta, finalizer: &str) -> Step {
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|one| one == finalizer);
    let patch = |finalizers: Vec<String>| {
        let mut patch = json!({ "metadata": preconditions(meta, true) });
        patch["metadata"]["finalizers"] = list_or_null(&finalizers);
        Action::Patch { target: Target::new(resource, namespace(meta), name(meta)), subresource: "", patch }
    };
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => {
            Step::ReleaseIfUnused(patch(finalizers.into_iter().filter(|one| one != finalizer).collect()))
        }
        (false, false) => {
            Step::Protect(patch(finalizers.into_iter().chain([finalizer.to_owned()]).collect()))
        }
        _ => Step::Nothing,
    }
}

/// Whether a claim uses the volume.
pub fn is_volume_used(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The claims that a pod names or is to be given.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let of = |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(claim_name(pod, volume)),
        _ => None,
    };
    volumes(pod).filter_map(of).collect()
}

/// Whether a pod uses the claim. Before it has a node it does not: no kubelet starts a pod whose claim is being deleted.
pub fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let claimed = name(&claim.metadata);
    !node_name(pod).is_empty()
        && namespace(&pod.metadata) == namespace(&claim.metadata)
        && volumes(pod).any(|volume| {
            volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claimed)
                || (volume.ephemeral.is_some()
                    && !is_shut_down(pod)
                    && claim_name(pod, volume) == claimed
                    && is_for_pod(pod, claim))
        })
}

/// Whether the kubelet is done with the pod, or was not asked: it waits for others to let it go, and they may wait for the claim.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}
