//! Networking: Ingresses, policies, blocks of cluster IPs.

use coracle_api::kinds::{ingress, network_policy, object_meta, service_cidr};

use super::standard::{Generation, Standard, Status, standard};

/// `ingresses.networking.k8s.io`.
pub(super) static INGRESS: Standard = Standard {
    default: ingress::default,
    status: Some(Status {
        initial: ingress::initial_status,
        validate: ingress::validate_status_update,
        writes_metadata: true,
    }),
    generation: Generation::Of("spec"),
    ..standard(ingress::validate, ingress::validate_update)
};
/// `ingressclasses.networking.k8s.io`.
pub(super) static INGRESS_CLASS: Standard = Standard {
    default: ingress::default_class,
    generation: Generation::Of("spec"),
    ..standard(ingress::validate_class, ingress::validate_class_update)
};
/// `networkpolicies.networking.k8s.io`.
pub(super) static NETWORK_POLICY: Standard = Standard {
    default: network_policy::default,
    generation: Generation::Of("spec"),
    ..standard(network_policy::validate, network_policy::validate_update)
};
/// `ipaddresses.networking.k8s.io`.
pub(super) static IP_ADDRESS: Standard =
    standard(service_cidr::validate_address, service_cidr::validate_address_update);
/// `servicecidrs.networking.k8s.io`.
pub(super) static SERVICE_CIDR: Standard = Standard {
    status: Some(Status {
        initial: service_cidr::initial_status,
        validate: object_meta::validate_update,
        writes_metadata: true,
    }),
    ..standard(service_cidr::validate, service_cidr::validate_update)
};
