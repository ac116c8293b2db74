//! etcd-lite: a replicated key-value store that speaks the etcd v3 API.

pub mod http_endpoints;
pub mod lease_keeper;
pub mod member;
pub mod metrics;
pub mod services;
