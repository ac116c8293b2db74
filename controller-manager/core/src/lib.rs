//! What the controllers decide, one folder a controller: pure functions from what is desired and what is observed to
//! [`action::Action`]s. Nothing here does IO, reads a clock or draws random numbers: `now` is an argument.

pub mod action;
pub mod bootstrap_tokens;
pub mod certificates;
pub mod controller_revision;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod expectations;
pub mod garbage_collector;
pub mod horizontal_autoscaler;
pub mod job;
pub mod label_selector;
pub mod legacy_token_cleaner;
pub mod merge_diff;
pub mod mutants;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_matching;
pub mod object_meta;
pub mod own_writes;
pub mod pod_gc;
pub mod pod_state;
pub mod pod_template;
pub mod replicaset;
pub mod resource_quota;
pub mod service_account_tokens;
pub mod statefulset;
pub mod status_report;
pub mod taint_eviction;
#[cfg(test)]
mod test_objects;
pub mod ttl_after_finished;
pub mod volume_attachment;
pub mod volume_binder;
pub mod volume_expander;
pub mod volume_protection;
