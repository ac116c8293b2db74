//! What happens to a claim: it waits, is bound, or is lost.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONER, PROVISIONER_BETA, SELECTED_NODE, bind, claim_phase,
    claim_ref, class_of_claim, event_on_claim, in_tree, is_bound_to, matching, patch_claim,
};
use crate::action::Action;
use crate::object_meta::{annotation, name, uid};

/// What is known of the claim's class.
#[derive(Clone, Copy, Debug)]
pub enum Class<'a> {
    /// The claim has none, and there is no default.
    None,
    /// The claim names none, and this is the default.
    Default(&'a StorageClass),
    /// It is there.
    Known(&'a StorageClass),
    /// It is named, and is not there.
    Missing,
}

/// The write of a claim's phase with what the volume offers; none if nothing differs.
pub(super) fn enters(
    claim: &PersistentVolumeClaim,
    phase: &str,
    modes: Option<Vec<String>>,
    capacity: Option<BTreeMap<String, Quantity>>,
    exact: bool,
) -> Option<Action> {
    let status = claim.status.clone().unwrap_or_default();
    let bound = phase == "Bound";
    // A volume that has grown is the expander's business.
    let keeps = bound && status.capacity.as_ref().is_some_and(|known| known.contains_key("storage"));
    let capacity = if keeps { status.capacity.clone() } else { capacity };
    if status.phase.as_deref() == Some(phase) && status.access_modes == modes && status.capacity == capacity {
        return None;
    }
    let change = json!({"status": {"phase": phase, "accessModes": modes, "capacity": capacity}});
    Some(patch_claim(claim, "status", exact, change))
}

fn waits(claim: &PersistentVolumeClaim) -> Option<Action> {
    enters(claim, "Pending", None, None, true)
}

/// Decides about a claim, given the volumes, its class, and the names of its pods that have no node yet.
pub fn plan<'a>(
    claim: &PersistentVolumeClaim,
    class: Class<'_>,
    volumes: impl Iterator<Item = &'a PersistentVolume> + Clone,
    unscheduled: &[&str],
) -> Vec<Action> {
    if let Some(annotations) = in_tree::claim_moves(&claim.metadata) {
        // A new version: the rest follows with it.
        return vec![patch_claim(claim, "", true, json!({"metadata": {"annotations": annotations}}))];
    }
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let named = volumes.clone().find(|volume| !wanted.is_empty() && name(&volume.metadata) == wanted);
    if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        return bound(claim, wanted, named);
    }
    if let Some(volume) = named {
        return asked_for(claim, volume);
    }
    if !wanted.is_empty() {
        return waits(claim).into_iter().collect();
    }
    unbound(claim, class, volumes, unscheduled)
}

/// A claim that was bound stays so, or is lost for good.
fn bound(claim: &PersistentVolumeClaim, wanted: &str, volume: Option<&PersistentVolume>) -> Vec<Action> {
    let lost = |reason, message: &str| {
        if claim_phase(claim) == "Lost" {
            return Vec::new();
        }
        let write = enters(claim, "Lost", None, None, true);
        write.into_iter().chain([event_on_claim(claim, true, reason, message.to_owned())]).collect()
    };
    match volume {
        _ if wanted.is_empty() => lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        ),
        None => lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        Some(volume) => match claim_ref(volume) {
            None => bind(volume, claim),
            Some(reference) if reference.uid.as_deref() == Some(uid(&claim.metadata)) => bind(volume, claim),
            Some(_) => lost(
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound incorrectly",
            ),
        },
    }
}

/// A claim that names its volume.
fn asked_for(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<Action> {
    let refuse = |reason, message| {
        [event_on_claim(claim, true, reason, message)].into_iter().chain(waits(claim)).collect()
    };
    if claim_ref(volume).is_none() {
        return match matching::mismatch(volume, claim) {
            None => bind(volume, claim),
            Some(problem) => {
                let shown = name(&volume.metadata);
                refuse("VolumeMismatch", format!("Cannot bind to requested volume {shown:?}: {problem}"))
            }
        };
    }
    if is_bound_to(volume, claim) {
        return bind(volume, claim);
    }
    if annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_some() {
        // Ours, and somebody took the mark of its completion away: nothing is safe to do.
        return Vec::new();
    }
    let shown = name(&volume.metadata);
    refuse("FailedBinding", format!("volume {shown:?} already bound to a different claim."))
}

/// A claim that takes any volume that fits.
fn unbound<'a>(
    claim: &PersistentVolumeClaim,
    class: Class<'_>,
    volumes: impl Iterator<Item = &'a PersistentVolume>,
    unscheduled: &[&str],
) -> Vec<Action> {
    if let Class::Default(class) = class {
        let change = json!({"spec": {"storageClassName": class.metadata.name}});
        return vec![patch_claim(claim, "", true, change)];
    }
    let waits_for_pod = match class {
        Class::Known(class) => class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        _ => false,
    };
    if let Some(volume) = matching::best(claim, volumes, waits_for_pod) {
        return bind(volume, claim);
    }
    let is_placed = annotation(&claim.metadata, SELECTED_NODE).is_some();
    let mut actions = match class {
        _ if waits_for_pod && !is_placed => vec![waits_for(claim, unscheduled)],
        Class::Known(class) => provision(claim, class),
        Class::Missing => vec![event_on_claim(
            claim,
            true,
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io {:?} not found", class_of_claim(claim)),
        )],
        Class::None | Class::Default(_) => vec![event_on_claim(
            claim,
            false,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".to_owned(),
        )],
    };
    // The write of an annotation is a new version: the phase follows with it.
    if !actions.iter().any(|action| matches!(action, Action::Patch { .. })) {
        actions.extend(waits(claim));
    }
    actions
}

/// Says what a claim that is bound with its first pod waits for.
fn waits_for(claim: &PersistentVolumeClaim, unscheduled: &[&str]) -> Action {
    let (reason, message) = match unscheduled {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    };
    event_on_claim(claim, false, reason, message)
}

/// Asks the class's provisioner, which is no part of this process.
fn provision(claim: &PersistentVolumeClaim, class: &StorageClass) -> Vec<Action> {
    let provisioner = in_tree::driver(&class.provisioner).unwrap_or(&class.provisioner);
    if provisioner.starts_with(in_tree::PREFIX) {
        let message = in_tree::no_plugin(provisioner);
        return vec![event_on_claim(claim, true, "ProvisioningFailed", message)];
    }
    if annotation(&claim.metadata, PROVISIONER) != Some(provisioner) {
        let mut annotations = json!({});
        annotations[PROVISIONER] = Value::from(provisioner);
        annotations[PROVISIONER_BETA] = Value::from(provisioner);
        annotations[in_tree::MIGRATED_TO] = Value::Null;
        // A new version: with it people are told.
        return vec![patch_claim(claim, "", true, json!({"metadata": {"annotations": annotations}}))];
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    vec![event_on_claim(claim, false, "ExternalProvisioning", message)]
}
