//! Defaulting and validation, one file a kind, pure over JSON values.
//!
//! Every kind has `default` (upstream's defaults of its version), `validate` (a new object) and `validate_update` (a changed object against
//! the stored one). What several kinds share has files of its own. Nothing here knows requests, users or the store.

pub mod access;
pub mod admission_policy;
pub mod admission_policy_types;
pub mod admission_rule;
pub mod affinity;
pub mod api_service;
pub mod certificate_request;
pub mod check;
pub mod config_map;
pub mod container;
pub mod controller_revision;
pub mod cron_job;
pub mod cron_schedule;
pub mod csi_driver;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod device;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod flow_control;
pub mod horizontal_pod_autoscaler;
pub mod ingress;
pub mod int_or_percent;
pub mod job;
pub mod job_indexes;
pub mod job_policies;
pub mod job_spec;
pub mod job_status;
pub mod label_selector;
pub mod lease;
pub mod limit_range;
pub mod mutating_policy;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod object_meta;
mod operating_system;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_disruption_budget;
pub mod pod_ephemeral;
pub mod pod_qos;
pub mod pod_resize;
pub mod pod_resources;
pub mod pod_spec;
pub mod pod_spec_defaults;
pub mod pod_template;
pub mod pod_update;
pub mod priority_class;
pub mod probe;
pub mod quota_usage;
pub mod rbac;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_quota;
pub mod resources;
pub mod runtime_class;
pub mod secret;
pub mod security_context;
pub mod service;
pub mod service_account;
pub mod service_cidr;
pub mod stateful_set;
pub mod storage_class;
pub mod volume;
pub mod volume_attachment;
pub mod webhook;
pub mod workload;

#[cfg(test)]
mod tests;
