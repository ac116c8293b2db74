//! The strategy of kinds without status and hooks: a row of functions and answers each.

use coracle_api::field::FieldError;
use coracle_api::kinds::{
    config_map, controller_revision, endpoint_slice, endpoints, lease, pod_template, priority_class, rbac,
    secret, service_account,
};
use serde_json::Value;

use super::Strategy;
use super::common::{Validate, ValidateUpdate, differs, next_generation, set_generation, text_at};
use crate::server::request_info::RequestInfo;

/// When a kind's generation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generations {
    /// There is none.
    None,
    /// It is 1 for ever.
    One,
    /// It counts changes of everything but the metadata.
    Content,
    /// It counts changes of labels too.
    ContentAndLabels,
}

/// A kind without status and hooks.
pub struct Plain {
    default: fn(&mut Value),
    validate: Validate,
    validate_update: ValidateUpdate,
    create_on_update: bool,
    unconditional_update: bool,
    returns_deleted: bool,
    generations: Generations,
    /// Top-level text fields that can be selected by.
    fields: &'static [&'static str],
    warning: Option<&'static str>,
}

const PLAIN: Plain = Plain {
    default: config_map::default,
    validate: config_map::validate,
    validate_update: config_map::validate_update,
    create_on_update: false,
    unconditional_update: true,
    returns_deleted: false,
    generations: Generations::None,
    fields: &[],
    warning: None,
};

/// `configmaps`.
pub static CONFIG_MAP: Plain = PLAIN;
/// `secrets`.
pub static SECRET: Plain = Plain {
    default: secret::default,
    validate: secret::validate,
    validate_update: secret::validate_update,
    fields: &["type"],
    ..PLAIN
};
/// `serviceaccounts`.
pub static SERVICE_ACCOUNT: Plain = Plain {
    default: service_account::default,
    validate: service_account::validate,
    validate_update: service_account::validate_update,
    unconditional_update: false,
    returns_deleted: true,
    ..PLAIN
};
/// `endpoints`.
pub static ENDPOINTS: Plain = Plain {
    default: endpoints::default,
    validate: endpoints::validate,
    validate_update: endpoints::validate_update,
    create_on_update: true,
    warning: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    ..PLAIN
};
/// `endpointslices.discovery.k8s.io`.
pub static ENDPOINT_SLICE: Plain = Plain {
    default: endpoint_slice::default,
    validate: endpoint_slice::validate,
    validate_update: endpoint_slice::validate_update,
    generations: Generations::ContentAndLabels,
    ..PLAIN
};
/// `podtemplates`.
pub static POD_TEMPLATE: Plain = Plain {
    default: pod_template::default,
    validate: pod_template::validate,
    validate_update: pod_template::validate_update,
    generations: Generations::Content,
    ..PLAIN
};
/// `controllerrevisions.apps`.
pub static CONTROLLER_REVISION: Plain = Plain {
    default: controller_revision::default,
    validate: controller_revision::validate,
    validate_update: controller_revision::validate_update,
    ..PLAIN
};
/// `leases.coordination.k8s.io`.
pub static LEASE: Plain = Plain {
    default: lease::default,
    validate: lease::validate,
    validate_update: lease::validate_update,
    create_on_update: true,
    unconditional_update: false,
    ..PLAIN
};
/// `priorityclasses.scheduling.k8s.io`.
pub static PRIORITY_CLASS: Plain = Plain {
    default: priority_class::default,
    validate: priority_class::validate,
    validate_update: priority_class::validate_update,
    generations: Generations::One,
    ..PLAIN
};

/// `roles.rbac.authorization.k8s.io`.
pub static ROLE: Plain = Plain {
    default: rbac::default_role,
    validate: rbac::validate_role,
    validate_update: rbac::validate_role_update,
    create_on_update: true,
    ..PLAIN
};
/// `clusterroles.rbac.authorization.k8s.io`.
pub static CLUSTER_ROLE: Plain = Plain {
    validate: rbac::validate_cluster_role,
    validate_update: rbac::validate_cluster_role_update,
    ..ROLE
};
/// `rolebindings.rbac.authorization.k8s.io`.
pub static ROLE_BINDING: Plain = Plain {
    default: rbac::default_binding,
    validate: rbac::validate_role_binding,
    validate_update: rbac::validate_role_binding_update,
    ..ROLE
};
/// `clusterrolebindings.rbac.authorization.k8s.io`.
pub static CLUSTER_ROLE_BINDING: Plain = Plain {
    validate: rbac::validate_cluster_role_binding,
    validate_update: rbac::validate_cluster_role_binding_update,
    ..ROLE_BINDING
};

fn content_differs(new: &Value, old: &Value) -> bool {
    let keys = |object: &Value| object.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    keys(new).into_iter().chain(keys(old)).flatten().any(|key| key != "metadata" && differs(new, old, &key))
}

fn labels_differ(new: &Value, old: &Value) -> bool {
    let labels = |object: &Value| coracle_api::meta::labels(object).cloned().unwrap_or_default();
    labels(new) != labels(old)
}

impl Strategy for Plain {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        if self.generations != Generations::None {
            set_generation(object, 1);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        (self.validate)(object)
    }

    fn prepare_for_update(&self, _request: &RequestInfo, new: &mut Value, old: &Value) {
        let counts = match self.generations {
            Generations::None | Generations::One => false,
            Generations::Content => content_differs(new, old),
            Generations::ContentAndLabels => content_differs(new, old) || labels_differ(new, old),
        };
        if counts {
            next_generation(new, old);
        }
    }

    fn validate_update(&self, _request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        (self.validate_update)(new, old)
    }

    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        self.warning.map(str::to_owned).into_iter().collect()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.fields.iter().map(|name| (*name, text_at(object, &[name]))).collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        self.fields
    }

    fn returns_deleted_object(&self) -> bool {
        self.returns_deleted
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional_update
    }
}
