//! Defaulting and validation, one file a kind, pure over JSON values.
//!
//! Every kind has `default` (upstream's defaults of its version), `validate` (a new object) and `validate_update` (a changed object against
//! the stored one). What several kinds share has files of its own. Nothing here knows requests, users or the store.

pub mod access;
pub mod admission_policy;
pub mod admission_rule;
pub mod affinity;
pub mod api_service;
pub mod certificate_request;
pub mod check;
pub mod config_map;
pub mod container;
pub mod csi_driver;
pub mod deployment;
pub mod device;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod flow_control;
pub mod ingress;
pub mod label_selector;
pub mod lease;
pub mod limit_range;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod object_meta;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_qos;
pub mod pod_spec;
pub mod pod_spec_defaults;
pub mod pod_template;
pub mod pod_update;
pub mod priority_class;
pub mod probe;
pub mod rbac;
pub mod replica_set;
pub mod resource_quota;
pub mod resources;
pub mod runtime_class;
pub mod secret;
pub mod security_context;
pub mod service;
pub mod service_account;
pub mod service_cidr;
pub mod storage_class;
pub mod volume;
pub mod volume_attachment;
pub mod webhook;

#[cfg(test)]
mod tests;
