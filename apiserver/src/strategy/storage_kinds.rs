//! Storage: volumes, claims, classes, drivers.

use coracle_api::kinds::{
    access, csi_driver, object_meta, persistent_volume, persistent_volume_claim, storage_class,
    volume_attachment,
};
use coracle_api::meta as object;
use jiff::Timestamp;
use serde_json::Value;

use super::common::text_at;
use super::standard::{Generation, Standard, Status, standard};

/// `persistentvolumes`.
pub(super) static PERSISTENT_VOLUME: Standard = Standard {
    default: persistent_volume::default,
    status: Some(Status {
        initial: persistent_volume::initial_status,
        validate: object_meta::validate_update,
        writes_metadata: true,
    }),
    stamp: stamp_phase,
    returns_deleted: true,
    fields: NAME,
    field_names: &["name"],
    ..standard(persistent_volume::validate, persistent_volume::validate_update)
};
/// `persistentvolumeclaims`.
pub(super) static PERSISTENT_VOLUME_CLAIM: Standard = Standard {
    default: persistent_volume_claim::default,
    normalize: persistent_volume_claim::normalize,
    status: Some(Status {
        initial: persistent_volume_claim::initial_status,
        validate: persistent_volume_claim::validate_status_update,
        writes_metadata: true,
    }),
    returns_deleted: true,
    fields: NAME,
    field_names: &["name"],
    ..standard(persistent_volume_claim::validate, persistent_volume_claim::validate_update)
};
/// `storageclasses.storage.k8s.io`.
pub(super) static STORAGE_CLASS: Standard = Standard {
    default: storage_class::default,
    returns_deleted: true,
    ..standard(storage_class::validate, storage_class::validate_update)
};
/// `volumeattributesclasses.storage.k8s.io`.
pub(super) static VOLUME_ATTRIBUTES_CLASS: Standard = Standard {
    returns_deleted: true,
    ..standard(storage_class::validate_attributes, storage_class::validate_attributes_update)
};
/// `csidrivers.storage.k8s.io`.
pub(super) static CSI_DRIVER: Standard = Standard {
    default: csi_driver::default,
    generation: Generation::OfChanges("spec"),
    unconditional_update: false,
    returns_deleted: true,
    ..standard(csi_driver::validate, csi_driver::validate_update)
};
/// `csinodes.storage.k8s.io`.
pub(super) static CSI_NODE: Standard = Standard {
    unconditional_update: false,
    returns_deleted: true,
    ..standard(csi_driver::validate_node, csi_driver::validate_node_update)
};
/// `csistoragecapacities.storage.k8s.io`.
pub(super) static CSI_STORAGE_CAPACITY: Standard = Standard {
    unconditional_update: false,
    ..standard(volume_attachment::validate_capacity, volume_attachment::validate_capacity_update)
};
/// `volumeattachments.storage.k8s.io`.
pub(super) static VOLUME_ATTACHMENT: Standard = Standard {
    default: volume_attachment::default,
    status: Some(Status {
        initial: volume_attachment::initial_status,
        validate: volume_attachment::validate_update,
        writes_metadata: false,
    }),
    unconditional_update: false,
    returns_deleted: true,
    ..standard(volume_attachment::validate, volume_attachment::validate_update)
};

const NAME: &[(&str, &[&str])] = &[("name", &["metadata", "name"])];

/// A volume knows since when it has been in its phase.
fn stamp_phase(new: &mut Value, old: Option<&Value>, now: Timestamp) {
    const TIME: &[&str] = &["status", "lastPhaseTransitionTime"];
    let phase = |volume: &Value| text_at(volume, &["status", "phase"]);
    let given_anew =
        old.is_some_and(|old| !text_at(new, TIME).is_empty() && text_at(new, TIME) != text_at(old, TIME));
    if old.is_none_or(|old| phase(old) != phase(new))
        && !given_anew
        && let Some(status) = access::struct_mut(new, "status")
    {
        access::set(status, "lastPhaseTransitionTime", object::format_time(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_of_phase_is_dated_once() {
        let time = |second: i64| Timestamp::from_second(second).expect("a time");
        let mut pending = json!({"status": {"phase": "Pending"}});
        stamp_phase(&mut pending, None, time(0));
        assert_eq!(pending["status"]["lastPhaseTransitionTime"], "1970-01-01T00:00:00Z");
        let mut bound =
            json!({"status": {"phase": "Bound", "lastPhaseTransitionTime": "1970-01-01T00:00:00Z"}});
        stamp_phase(&mut bound, Some(&pending), time(60));
        assert_eq!(bound["status"]["lastPhaseTransitionTime"], "1970-01-01T00:01:00Z");
        let before = bound.clone();
        stamp_phase(&mut bound, Some(&before), time(120));
        assert_eq!(bound, before);
    }
}
