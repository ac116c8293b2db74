//! The flags of etcd 3.5 that are refused by name.

/// Flags of etcd 3.5 that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &["grpc-keepalive-min-time"];
