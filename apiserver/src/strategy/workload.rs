//! Kinds with a spec that has a generation and a status that only their controller writes: one row of functions and answers each.

use coracle_api::field::FieldError;
use coracle_api::kinds::{
    access, cron_job, daemon_set, deployment, horizontal_pod_autoscaler, job, job_status,
    pod_disruption_budget, replica_set, replication_controller, stateful_set,
};
use serde_json::Value;

use super::common::{
    Validate, ValidateUpdate, differs, is_status, keep, keep_all_but_status, next_generation, set_generation,
};
use super::{Propagation, Strategy};
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// What the server itself writes into an object; the stored one second.
type Complete = fn(&mut Value, Option<&Value>);
/// Texts for `Warning` headers; the stored object second.
type Warnings = fn(&Value, Option<&Value>) -> Vec<String>;

/// A kind with spec and status.
pub struct Workload {
    default: fn(&mut Value),
    initial_status: fn() -> Value,
    validate: Validate,
    validate_update: ValidateUpdate,
    validate_status_update: ValidateUpdate,
    complete: Complete,
    warnings: Warnings,
    /// Whether there is a generation at all.
    generations: bool,
    /// Whether a change of annotations counts as a generation.
    annotations_count: bool,
    /// Whether writes of the status leave the labels alone.
    keeps_labels: bool,
    unconditional_update: bool,
    propagation: Propagation,
    deletion_warning: Option<&'static str>,
    /// Numbers that can be selected by, and where they stand.
    fields: &'static [(&'static str, &'static [&'static str])],
    field_names: &'static [&'static str],
}

fn complete_already(_: &mut Value, _: Option<&Value>) {}

fn no_warnings(_: &Value, _: Option<&Value>) -> Vec<String> {
    Vec::new()
}

const BASE: Workload = Workload {
    default: deployment::default,
    initial_status: deployment::initial_status,
    validate: deployment::validate,
    validate_update: deployment::validate_update,
    validate_status_update: deployment::validate_status_update,
    complete: complete_already,
    warnings: no_warnings,
    generations: true,
    annotations_count: false,
    keeps_labels: false,
    unconditional_update: true,
    propagation: Propagation::Background,
    deletion_warning: None,
    fields: &[],
    field_names: &[],
};

/// What runs a number of pods that are all alike.
const REPLICATED: Workload = Workload {
    initial_status: replica_set::initial_status,
    validate_status_update: replica_set::validate_status_update,
    fields: &[("status.replicas", &["status", "replicas"])],
    field_names: &["status.replicas"],
    ..BASE
};

/// `deployments.apps`.
pub static DEPLOYMENT: Workload = Workload { annotations_count: true, keeps_labels: true, ..BASE };
/// `replicasets.apps`.
pub static REPLICA_SET: Workload = Workload {
    default: replica_set::default,
    validate: replica_set::validate,
    validate_update: replica_set::validate_update,
    ..REPLICATED
};
/// `statefulsets.apps`.
pub static STATEFUL_SET: Workload = Workload {
    default: stateful_set::default,
    initial_status: stateful_set::initial_status,
    validate: stateful_set::validate,
    validate_update: stateful_set::validate_update,
    validate_status_update: stateful_set::validate_status_update,
    ..BASE
};
/// `daemonsets.apps`.
pub static DAEMON_SET: Workload = Workload {
    default: daemon_set::default,
    initial_status: daemon_set::initial_status,
    validate: daemon_set::validate,
    validate_update: daemon_set::validate_update,
    validate_status_update: daemon_set::validate_status_update,
    complete: daemon_set::count_template,
    ..BASE
};
/// `jobs.batch`.
pub static JOB: Workload = Workload {
    default: job::default,
    initial_status: job::initial_status,
    validate: job::validate,
    validate_update: job::validate_update,
    validate_status_update: job_status::validate_update,
    complete: job::generate_selector,
    warnings: job::warnings,
    propagation: Propagation::Orphan,
    deletion_warning: Some(
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
    ),
    fields: &[("status.successful", &["status", "succeeded"])],
    field_names: &["status.successful"],
    ..BASE
};
/// `cronjobs.batch`.
pub static CRON_JOB: Workload = Workload {
    default: cron_job::default,
    initial_status: cron_job::initial_status,
    validate: cron_job::validate,
    validate_update: cron_job::validate_update,
    validate_status_update: cron_job::validate_status_update,
    warnings: cron_job::warnings,
    ..BASE
};
/// `poddisruptionbudgets.policy`.
pub static POD_DISRUPTION_BUDGET: Workload = Workload {
    default: pod_disruption_budget::default,
    initial_status: pod_disruption_budget::initial_status,
    validate: pod_disruption_budget::validate,
    validate_update: pod_disruption_budget::validate_update,
    validate_status_update: pod_disruption_budget::validate_status_update,
    unconditional_update: false,
    ..BASE
};
/// `horizontalpodautoscalers.v2.autoscaling`.
pub static HORIZONTAL_POD_AUTOSCALER: Workload = Workload {
    default: horizontal_pod_autoscaler::default,
    initial_status: horizontal_pod_autoscaler::initial_status,
    validate: horizontal_pod_autoscaler::validate,
    validate_update: horizontal_pod_autoscaler::validate_update,
    validate_status_update: horizontal_pod_autoscaler::validate_status_update,
    generations: false,
    ..BASE
};
/// `replicationcontrollers`.
pub static REPLICATION_CONTROLLER: Workload = Workload {
    default: replication_controller::default,
    validate: replication_controller::validate,
    validate_update: replication_controller::validate_update,
    propagation: Propagation::Orphan,
    ..REPLICATED
};
impl Strategy for Workload {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        if self.generations {
            set_generation(object, 1);
        }
        access::set(object, "status", (self.initial_status)());
        (self.complete)(object, None);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        (self.validate)(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if is_status(request) {
            keep_all_but_status(new, old);
            if self.keeps_labels {
                meta::copy_field(old, new, "labels");
            }
            (self.complete)(new, Some(old));
            return;
        }
        keep(new, old, "status");
        let annotations =
            |object: &Value| coracle_api::meta::annotations(object).cloned().unwrap_or_default();
        let annotated = self.annotations_count && annotations(new) != annotations(old);
        if self.generations && (annotated || differs(new, old, "spec")) {
            next_generation(new, old);
        }
        (self.complete)(new, Some(old));
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        if is_status(request) {
            (self.validate_status_update)(new, old)
        } else {
            (self.validate_update)(new, old)
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warnings)(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.fields
            .iter()
            .map(|(field, path)| {
                let number = coracle_api::meta::get(object, path).and_then(Value::as_i64).unwrap_or(0);
                (*field, number.to_string())
            })
            .collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        self.field_names
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional_update
    }

    fn default_propagation(&self) -> Propagation {
        self.propagation
    }

    fn deletion_warning(&self) -> Option<&'static str> {
        self.deletion_warning
    }
}
