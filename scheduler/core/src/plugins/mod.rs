//! One file a plugin, each under upstream's name for it. Owns what each rule means; the order and the weights are the
//! profile's.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod priority_sort;
pub mod registry;
pub mod scheduling_gates;
pub mod scoring_strategy;
pub mod taint_toleration;
pub mod unsupported;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;
