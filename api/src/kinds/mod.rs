//! Defaulting and validation, one file a kind, pure over JSON values.
//!
//! Every kind has `default` (upstream's defaults of its version), `validate` (a new object) and `validate_update` (a changed object against
//! the stored one). What several kinds share has files of its own. Nothing here knows requests, users or the store.

pub mod access;
pub mod affinity;
pub mod config_map;
pub mod container;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod label_selector;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod object_meta;
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
pub mod resources;
pub mod secret;
pub mod security_context;
pub mod service;
pub mod service_account;
pub mod volume;

#[cfg(test)]
mod tests;
