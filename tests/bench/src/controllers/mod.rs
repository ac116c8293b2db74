//! The controllers: our controller-manager, or a peer's beside it, with our API server, store and scheduler, and kubelets that only write
//! statuses.

pub mod cluster;
pub mod kubelets;
pub mod workloads;
