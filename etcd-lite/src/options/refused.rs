//! The flags of etcd 3.5 that are refused by name.

/// Flags of etcd 3.5 that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "experimental-compact-hash-check-enabled",
    "experimental-compact-hash-check-time",
    "experimental-warning-apply-duration",
    "experimental-warning-unary-request-duration",
    "grpc-keepalive-min-time",
    "listen-client-http-urls",
];
