//! The scheduler: our own, or a peer's beside it, on our API server and store, with nodes that are objects only.

pub mod nodes;
pub mod objects;
pub mod workloads;
