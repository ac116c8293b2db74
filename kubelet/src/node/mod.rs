//! This node in the API: registration, status, heartbeat, its network.

pub mod bootstrap;
pub mod cni;
pub mod facts;
pub mod lease;
pub mod registration;
