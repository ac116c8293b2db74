//! Devices that drivers hand out to pods.

use coracle_api::kinds::device;

use super::standard::{Generation, Standard, Status, standard};

/// `deviceclasses.resource.k8s.io`.
pub(super) static DEVICE_CLASS: Standard = Standard {
    generation: Generation::Of("spec"),
    returns_deleted: true,
    ..standard(device::validate_class, device::validate_class_update)
};
/// `resourceclaims.resource.k8s.io`.
pub(super) static RESOURCE_CLAIM: Standard = Standard {
    default: device::default_claim,
    status: Some(Status {
        initial: device::initial_status,
        validate: device::validate_claim_status_update,
        writes_metadata: false,
    }),
    returns_deleted: true,
    ..standard(device::validate_claim, device::validate_claim_update)
};
/// `resourceclaimtemplates.resource.k8s.io`.
pub(super) static RESOURCE_CLAIM_TEMPLATE: Standard = Standard {
    default: device::default_template,
    returns_deleted: true,
    ..standard(device::validate_template, device::validate_claim_update)
};
/// `resourceslices.resource.k8s.io`.
pub(super) static RESOURCE_SLICE: Standard = Standard {
    generation: Generation::Of("spec"),
    returns_deleted: true,
    fields: &[("spec.driver", &["spec", "driver"]), ("spec.nodeName", &["spec", "nodeName"])],
    field_names: &["spec.driver", "spec.nodeName"],
    ..standard(device::validate_slice, device::validate_slice_update)
};
