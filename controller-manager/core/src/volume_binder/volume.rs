//! What happens to a volume: it is available, bound, or released when its claim went.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, claim_ref, patch_volume, volume_enters, volume_phase};
use crate::action::{Action, PERSISTENT_VOLUMES};
use crate::object_meta::{annotation, name, object_reference, uid};

/// Decides about a volume; `claim` is the one of the name that it refers to.
pub fn plan(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Vec<Action> {
    let Some(reference) = claim_ref(volume) else {
        return volume_enters(volume, "Available", "", true).into_iter().collect();
    };
    let of = reference.uid.as_deref().unwrap_or_default();
    if of.is_empty() {
        // It is kept for a claim, which will bind it.
        return volume_enters(volume, "Available", "", true).into_iter().collect();
    }
    let Some(claim) = claim.filter(|claim| uid(&claim.metadata) == of) else { return release(volume) };
    let bound_to = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if bound_to.is_empty() {
        // The claim's turn.
        return Vec::new();
    }
    if bound_to == name(&volume.metadata) {
        return volume_enters(volume, "Bound", "", true).into_iter().collect();
    }
    let is_made_for_it = annotation(&volume.metadata, PROVISIONED_BY).is_some();
    if is_made_for_it && reclaim_policy(volume) == "Delete" { release(volume) } else { unbind(volume) }
}

fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

/// Takes back a binding that came to nothing. What a user kept for a claim stays kept.
fn unbind(volume: &PersistentVolume) -> Vec<Action> {
    let change = if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        let mut annotations = json!({});
        annotations[BOUND_BY_CONTROLLER] = Value::Null;
        json!({"metadata": {"annotations": annotations}, "spec": {"claimRef": null}})
    } else {
        json!({"spec": {"claimRef": {"uid": null}}})
    };
    let mut actions = vec![patch_volume(volume, "", true, change)];
    actions.extend(volume_enters(volume, "Available", "", false));
    actions
}

/// The claim went: what becomes of the volume follows its policy. Deleting what is behind it is its provisioner's work.
fn release(volume: &PersistentVolume) -> Vec<Action> {
    let is_new = !matches!(volume_phase(volume), "Released" | "Failed");
    let external = annotation(&volume.metadata, PROVISIONED_BY).is_some();
    let failure = match reclaim_policy(volume) {
        "Retain" => None,
        "Delete" if external => None,
        "Delete" => Some((
            "VolumeFailedDelete",
            format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                name(&volume.metadata)
            ),
        )),
        "Recycle" => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned())),
        _ => Some((
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned(),
        )),
    };
    match failure {
        None if is_new => volume_enters(volume, "Released", "", true).into_iter().collect(),
        Some((reason, message)) if volume_phase(volume) != "Failed" => {
            let event = Action::Event {
                regarding: Box::new(object_reference(&PERSISTENT_VOLUMES, &volume.metadata)),
                warning: true,
                reason,
                message: message.clone(),
            };
            volume_enters(volume, "Failed", &message, true).into_iter().chain([event]).collect()
        }
        _ => Vec::new(),
    }
}
