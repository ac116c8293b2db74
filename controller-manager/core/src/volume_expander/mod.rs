//! A claim that asks for more than its volume has: who makes the volume larger is told so. Nothing grows here; drivers' resizers do that.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::json;

use crate::action::{Action, PERSISTENT_VOLUME_CLAIMS, Target};
use crate::object_meta::{annotation, name, namespace, object_reference, preconditions, uid};
use crate::volume_binder::{claim_phase, claim_ref, in_tree};

/// Who is asked to make the claim's volume larger.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// What a volume had before it was made larger, while its file system does not fill it yet.
const PRE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
const REASON: &str = "ExternalExpanding";

/// The volume is not the claim's: to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBound;

fn storage(amounts: Option<&BTreeMap<String, Amount>>) -> Quantity {
    let text = amounts.and_then(|amounts| amounts.get("storage"));
    text.and_then(|text| text.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    storage(requests)
}

fn has(claim: &PersistentVolumeClaim) -> Quantity {
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    storage(capacity)
}

/// Whether a change of a claim needs a look: it is new to us, asks for more than before, or has become larger.
pub fn matters(old: Option<&PersistentVolumeClaim>, claim: &PersistentVolumeClaim) -> bool {
    claim_phase(claim) == "Bound"
        && old.is_none_or(|old| requested(claim) > requested(old) || has(claim) > has(old))
}

/// Decides about a claim and the volume that it names.
///
/// # Errors
/// The volume is not bound to the claim, by what is seen.
pub fn plan(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Vec<Action>, NotBound> {
    let meta = &claim.metadata;
    let is_ours = claim_ref(volume).is_some_and(|reference| {
        reference.uid.as_deref() == Some(uid(meta)) && reference.namespace.as_deref() == Some(namespace(meta))
    });
    if !is_ours {
        return Err(NotBound);
    }
    if requested(claim) <= has(claim) && annotation(&volume.metadata, PRE_RESIZE).is_none() {
        return Ok(Vec::new());
    }
    let told = |warning, message| Action::Event {
        regarding: Box::new(object_reference(&PERSISTENT_VOLUME_CLAIMS, meta)),
        warning,
        reason: REASON,
        message,
    };
    let Some((plugin, driver)) =
        in_tree::plugin_of(volume).and_then(|plugin| Some((plugin, in_tree::driver(plugin)?)))
    else {
        let is_csi = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
        return Ok(vec![told(!is_csi, "waiting for an external controller to expand this PVC".to_owned())]);
    };
    let text = format!("CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc");
    let mut actions = vec![told(false, text)];
    if annotation(meta, RESIZER) != Some(driver) {
        let mut patch = json!({"metadata": preconditions(meta, false)});
        patch["metadata"]["annotations"][RESIZER] = json!(driver);
        let target = Target::new(&PERSISTENT_VOLUME_CLAIMS, namespace(meta), name(meta));
        actions.push(Action::Patch { target, subresource: "status", patch });
    }
    Ok(actions)
}
