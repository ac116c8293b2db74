//! What namespaces and pods may use: quotas, ranges, runtime classes.

use coracle_api::kinds::{limit_range, resource_quota, runtime_class};

use super::standard::{Standard, Status, standard};

/// `limitranges`.
pub(super) static LIMIT_RANGE: Standard = Standard {
    default: limit_range::default,
    create_on_update: true,
    ..standard(limit_range::validate, limit_range::validate_update)
};
/// `resourcequotas`.
pub(super) static RESOURCE_QUOTA: Standard = Standard {
    status: Some(Status {
        initial: resource_quota::initial_status,
        validate: resource_quota::validate_status_update,
        writes_metadata: true,
    }),
    returns_deleted: true,
    ..standard(resource_quota::validate, resource_quota::validate_update)
};
/// `runtimeclasses.node.k8s.io`.
pub(super) static RUNTIME_CLASS: Standard = Standard {
    unconditional_update: false,
    ..standard(runtime_class::validate, runtime_class::validate_update)
};
