//! The vocabulary of the Kubernetes API, pure over [`serde_json::Value`]: which resources exist, how their fields merge,
//! who owns which field, what a selector matches, how errors read on the wire.
//!
//! This crate never does IO, never reads a clock and never draws random numbers: times and random bytes are arguments.

pub mod apply;
pub mod autoscaler_versions;
pub mod cel;
pub mod custom;
pub mod decode;
pub mod field;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod pod_security;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
