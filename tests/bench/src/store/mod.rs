//! The store: real etcd and etcd-lite under the same load.

pub mod cluster;
pub mod operations;
pub mod requests;
pub mod workloads;
