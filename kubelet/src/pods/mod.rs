//! Pods on this node: one worker a pod, fed by the API server, the runtime and the probes.

pub mod allocated;
pub mod container_config;
pub mod grpc_probe;
pub mod http_action;
pub mod images;
pub mod log_rotation;
pub mod manager;
pub mod prober;
pub mod sandbox_config;
pub mod static_pods;
pub mod status_manager;
pub mod termination;
pub mod worker;
