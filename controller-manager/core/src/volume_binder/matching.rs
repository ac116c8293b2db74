//! Which volume fits a claim best: the one kept for it, else the smallest of those with the fewest access modes.

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{claim_ref, class_of_claim, class_of_volume, is_bound_to, volume_phase};
use crate::label_selector;
use crate::object_meta::name;

fn amount(text: Option<&Text>) -> Quantity {
    text.and_then(|text| text.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn size(volume: &PersistentVolume) -> Quantity {
    amount(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage")))
}

fn wanted_size(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    amount(requests.and_then(|requests| requests.get("storage")))
}

fn modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| modes(volume).contains(mode))
}

pub(super) fn has_volume_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    const USUAL: &str = "Filesystem";
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or(USUAL);
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or(USUAL);
    of_volume == of_claim
}

/// Why a volume that the claim names cannot be its.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if size(volume) < wanted_size(claim) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return Some("storageClassName does not match");
    }
    if !has_volume_mode(volume, claim) {
        return Some("incompatible volumeMode");
    }
    (!has_modes(volume, claim)).then_some("incompatible accessMode")
}

/// The best volume for a claim that names none. A claim that waits for its first pod gets only what is kept for it.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a PersistentVolume>,
    waits: bool,
) -> Option<&'a PersistentVolume> {
    let mut fitting: Vec<&PersistentVolume> = volumes
        .filter(|volume| {
            has_volume_mode(volume, claim)
                && has_modes(volume, claim)
                && size(volume) >= wanted_size(claim)
                && volume.metadata.deletion_timestamp.is_none()
        })
        .collect();
    fitting.sort_by(|a, b| {
        (modes(a).len(), size(a), name(&a.metadata)).cmp(&(modes(b).len(), size(b), name(&b.metadata)))
    });
    if let Some(kept) = fitting.iter().find(|volume| is_bound_to(volume, claim)) {
        return Some(kept);
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    fitting.into_iter().find(|volume| {
        !waits
            && volume_phase(volume) == "Available"
            && claim_ref(volume).is_none()
            && selector
                .is_none_or(|selector| label_selector::matches(selector, volume.metadata.labels.as_ref()))
            && class_of_volume(volume) == class_of_claim(claim)
    })
}
