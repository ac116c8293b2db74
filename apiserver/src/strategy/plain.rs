//! Kinds without status that hold what others read: rows of [`Standard`].

use coracle_api::kinds::{
    config_map, controller_revision, endpoint_slice, endpoints, lease, pod_template, priority_class, rbac,
    secret, service_account, workload,
};

use super::standard::{Generation, Standard, standard};

/// `configmaps`.
pub(super) static CONFIG_MAP: Standard =
    Standard { default: config_map::default, ..standard(config_map::validate, config_map::validate_update) };
/// `secrets`.
pub(super) static SECRET: Standard = Standard {
    default: secret::default,
    fields: &[("type", &["type"])],
    field_names: &["type"],
    ..standard(secret::validate, secret::validate_update)
};
/// `serviceaccounts`.
pub(super) static SERVICE_ACCOUNT: Standard = Standard {
    default: service_account::default,
    unconditional_update: false,
    returns_deleted: true,
    ..standard(service_account::validate, service_account::validate_update)
};
/// `endpoints`.
pub(super) static ENDPOINTS: Standard = Standard {
    default: endpoints::default,
    create_on_update: true,
    warning: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    ..standard(endpoints::validate, endpoints::validate_update)
};
/// `endpointslices.discovery.k8s.io`.
pub(super) static ENDPOINT_SLICE: Standard = Standard {
    default: endpoint_slice::default,
    generation: Generation::ContentAndLabels,
    ..standard(endpoint_slice::validate, endpoint_slice::validate_update)
};
/// `podtemplates`.
pub(super) static POD_TEMPLATE: Standard = Standard {
    default: pod_template::default,
    generation: Generation::Content,
    ..standard(pod_template::validate, pod_template::validate_update)
};
/// `controllerrevisions.apps`.
pub(super) static CONTROLLER_REVISION: Standard = Standard {
    default: controller_revision::default,
    ..standard(controller_revision::validate, controller_revision::validate_update)
};
/// `leases.coordination.k8s.io`.
pub(super) static LEASE: Standard = Standard {
    default: lease::default,
    create_on_update: true,
    unconditional_update: false,
    ..standard(lease::validate, lease::validate_update)
};
/// `priorityclasses.scheduling.k8s.io`.
pub(super) static PRIORITY_CLASS: Standard = Standard {
    default: priority_class::default,
    generation: Generation::One,
    ..standard(priority_class::validate, priority_class::validate_update)
};
/// `workloads.scheduling.k8s.io`.
pub(super) static WORKLOAD: Standard = standard(workload::validate, workload::validate_update);
/// `roles.rbac.authorization.k8s.io`.
pub(super) static ROLE: Standard = Standard {
    default: rbac::default_role,
    create_on_update: true,
    ..standard(rbac::validate_role, rbac::validate_role_update)
};
/// `clusterroles.rbac.authorization.k8s.io`.
pub(super) static CLUSTER_ROLE: Standard = Standard {
    default: rbac::default_role,
    create_on_update: true,
    ..standard(rbac::validate_cluster_role, rbac::validate_cluster_role_update)
};
/// `rolebindings.rbac.authorization.k8s.io`.
pub(super) static ROLE_BINDING: Standard = Standard {
    default: rbac::default_binding,
    create_on_update: true,
    ..standard(rbac::validate_role_binding, rbac::validate_role_binding_update)
};
/// `clusterrolebindings.rbac.authorization.k8s.io`.
pub(super) static CLUSTER_ROLE_BINDING: Standard = Standard {
    default: rbac::default_binding,
    create_on_update: true,
    ..standard(rbac::validate_cluster_role_binding, rbac::validate_cluster_role_binding_update)
};
