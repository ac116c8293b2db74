//! What happens to a volume: it is available, bound, or released when its claim went.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::{
    BOUND_BY_CONTROLLER, PROVISIONED_BY, claim_ref, event_on_claim, event_on_volume, in_tree, matching,
    patch_volume, reclaim_policy, volume_enters, volume_phase,
};
use crate::action::Action;
use crate::object_meta::{annotation, name, uid};

/// Decides about a volume; `claim` is the one of the name that it refers to.
pub fn plan(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Vec<Action> {
    if let Some(change) = in_tree::volume_moves(volume) {
        // A new version: the rest follows with it.
        return vec![patch_volume(volume, "", true, json!({"metadata": change}))];
    }
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
        // The claim's turn, unless it can never take the volume.
        return if matching::has_volume_mode(volume, claim) {
            Vec::new()
        } else {
            mode_mismatch(volume, claim)
        };
    }
    if bound_to == name(&volume.metadata) {
        return volume_enters(volume, "Bound", "", true).into_iter().collect();
    }
    let is_made_for_it = annotation(&volume.metadata, PROVISIONED_BY).is_some();
    if is_made_for_it && reclaim_policy(volume) == "Delete" { release(volume) } else { unbind(volume) }
}

fn mode_mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Vec<Action> {
    let (of_volume, of_claim) = (name(&volume.metadata), name(&claim.metadata));
    vec![
        event_on_volume(
            volume,
            "VolumeMismatch",
            format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {of_claim:?} due to incompatible volumeMode."
            ),
        ),
        event_on_claim(
            claim,
            true,
            "VolumeMismatch",
            format!(
                "Cannot bind PersistentVolume {of_volume:?} to requested PersistentVolumeClaim due to incompatible volumeMode."
            ),
        ),
    ]
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

/// Why what is behind the volume cannot be deleted here; none where its driver does that, which then deletes the volume too.
fn delete_failure(volume: &PersistentVolume) -> Option<String> {
    let provisioner = annotation(&volume.metadata, PROVISIONED_BY).unwrap_or_default();
    if provisioner.starts_with(in_tree::PREFIX) {
        return Some(in_tree::no_plugin(provisioner));
    }
    let is_csi = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    (provisioner.is_empty() && !is_csi).then(|| {
        format!(
            "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
            name(&volume.metadata)
        )
    })
}

/// The claim went: what becomes of the volume follows its policy. Deleting what is behind it is its provisioner's work.
fn release(volume: &PersistentVolume) -> Vec<Action> {
    let is_new = !matches!(volume_phase(volume), "Released" | "Failed");
    let failure = match reclaim_policy(volume) {
        _ if annotation(&volume.metadata, in_tree::MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) => {
            None
        }
        "Retain" => None,
        "Delete" => delete_failure(volume).map(|message| ("VolumeFailedDelete", message)),
        "Recycle" => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned())),
        _ => Some((
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned(),
        )),
    };
    match failure {
        None if is_new => volume_enters(volume, "Released", "", true).into_iter().collect(),
        Some((reason, message)) if volume_phase(volume) != "Failed" => {
            let event = event_on_volume(volume, reason, message.clone());
            volume_enters(volume, "Failed", &message, true).into_iter().chain([event]).collect()
        }
        _ => Vec::new(),
    }
}
