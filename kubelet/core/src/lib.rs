//! What a kubelet decides, as pure functions over data: the pod state machine, pod status, restart backoff, probes,
//! environment, resources to cgroup values, image names and the container log format.
//!
//! Never here: IO, clocks, randomness, tokio. `now` and everything observed are arguments.

pub mod admission;
pub mod allocatable;
pub mod backoff;
pub mod container_log;
pub mod deadline;
pub mod dns;
pub mod environment;
pub mod expansion;
pub mod field_ref;
pub mod host_name;
pub mod image;
pub mod node_events;
pub mod observed;
pub mod pod_actions;
pub mod pod_status;
pub mod pod_view;
pub mod probe;
pub mod resize;
pub mod resources;
pub mod spec_hash;
pub mod static_pod;
pub mod sysctl;
pub mod termination_order;
