//! Values that must be unique over the whole cluster: ClusterIPs and node ports. Which ones are taken stands in one record a pool in the store,
//! changed by compare-and-swap, so any number of API servers share it.

pub mod pool;
pub mod repair;
pub mod service;
