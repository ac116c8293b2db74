//! Measuring programs: a peer and our own program in turn on the same machine under the same load, and the ratios.
//!
//! Owns what every such program shares (processes with their CPU and memory, latencies, pairs and their report) and the workloads of the store,
//! of the API server, the scheduler and the controllers. Never here: a number to reach; those are in the issue, and a run only prints what it saw.

pub mod api;
pub mod component;
pub mod controllers;
pub mod grpc;
pub mod latency;
pub mod load;
pub mod processes;
pub mod program;
pub mod report;
pub mod sched;
pub mod store;
