//! The API server: our own on real etcd and on etcd-lite, or a peer on etcd and ours on etcd-lite, under the same load.

pub mod client;
pub mod events;
pub mod objects;
pub mod operations;
pub mod pki;
pub mod system;
pub mod workloads;
