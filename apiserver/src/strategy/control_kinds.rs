//! What the server itself obeys: webhooks, admission policies, flow control, other API servers.

use coracle_api::kinds::{
    admission_policy, api_service, flow_control, mutating_policy, object_meta, webhook,
};
use coracle_api::meta::format_time;
use jiff::Timestamp;
use serde_json::Value;

use super::standard::{Generation, Standard, Status, standard};

/// `validatingwebhookconfigurations.admissionregistration.k8s.io`.
pub(super) static VALIDATING_WEBHOOKS: Standard = Standard {
    default: webhook::default_validating,
    generation: Generation::Of("webhooks"),
    unconditional_update: false,
    ..standard(webhook::validate, webhook::validate_update)
};
/// `mutatingwebhookconfigurations.admissionregistration.k8s.io`.
pub(super) static MUTATING_WEBHOOKS: Standard = Standard {
    default: webhook::default_mutating,
    generation: Generation::Of("webhooks"),
    unconditional_update: false,
    ..standard(webhook::validate, webhook::validate_update)
};
/// `validatingadmissionpolicies.admissionregistration.k8s.io`.
pub(super) static ADMISSION_POLICY: Standard = Standard {
    default: admission_policy::default,
    status: Some(Status {
        initial: admission_policy::initial_status,
        validate: admission_policy::validate_status_update,
        writes_metadata: false,
    }),
    generation: Generation::Of("spec"),
    unconditional_update: false,
    ..standard(admission_policy::validate, admission_policy::validate_update)
};
/// `validatingadmissionpolicybindings.admissionregistration.k8s.io`.
pub(super) static ADMISSION_POLICY_BINDING: Standard = Standard {
    default: admission_policy::default_binding,
    generation: Generation::Of("spec"),
    unconditional_update: false,
    ..standard(admission_policy::validate_binding, admission_policy::validate_binding_update)
};
/// `mutatingadmissionpolicies.admissionregistration.k8s.io`.
pub(super) static MUTATING_POLICY: Standard = Standard {
    default: mutating_policy::default,
    generation: Generation::Of("spec"),
    unconditional_update: false,
    ..standard(mutating_policy::validate, mutating_policy::validate_update)
};
/// `mutatingadmissionpolicybindings.admissionregistration.k8s.io`.
pub(super) static MUTATING_POLICY_BINDING: Standard = Standard {
    default: admission_policy::default_binding,
    generation: Generation::Of("spec"),
    unconditional_update: false,
    ..standard(mutating_policy::validate_binding, mutating_policy::validate_binding_update)
};
/// `flowschemas.flowcontrol.apiserver.k8s.io`.
pub(super) static FLOW_SCHEMA: Standard = Standard {
    default: flow_control::default_schema,
    status: Some(FLOW_STATUS),
    generation: Generation::Of("spec"),
    ..standard(flow_control::validate_schema, flow_control::validate_schema_update)
};
/// `prioritylevelconfigurations.flowcontrol.apiserver.k8s.io`.
pub(super) static PRIORITY_LEVEL: Standard = Standard {
    default: flow_control::default_level,
    status: Some(FLOW_STATUS),
    generation: Generation::Of("spec"),
    ..standard(flow_control::validate_level, flow_control::validate_level_update)
};
/// `apiservices.apiregistration.k8s.io`.
pub(super) static API_SERVICE: Standard = Standard {
    default: api_service::default,
    status: Some(Status {
        initial: || Value::Null,
        validate: api_service::validate_status_update,
        writes_metadata: false,
    }),
    stamp: stamp_availability,
    unconditional_update: false,
    ..standard(api_service::validate, api_service::validate_update)
};

const FLOW_STATUS: Status = Status {
    initial: flow_control::initial_status,
    validate: object_meta::validate_update,
    writes_metadata: false,
};

fn stamp_availability(object: &mut Value, old: Option<&Value>, now: Timestamp) {
    if old.is_none() {
        let status = api_service::initial_status(object, &format_time(now));
        coracle_api::kinds::access::set(object, "status", status);
    }
}
