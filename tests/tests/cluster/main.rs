//! Whole clusters of separate programs, through clients that nobody here wrote. One program, so that it is linked once.

mod budgets;
mod chaos;
mod claims;
mod clients;
mod faults;
mod hollow;
mod kubectl;
mod kubectl_verbs;
mod kubelet_start;
mod node;
mod real_workloads;
mod scheduling;
mod workloads;
