//! The flags of etcd 3.5 that are refused by name.

/// Flags of etcd 3.5 that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "experimental-compact-hash-check-enabled",
    "experimental-compact-hash-check-time",
    "experimental-max-learners",
    "experimental-warning-apply-duration",
    "experimental-warning-unary-request-duration",
    "force-new-cluster",
    "grpc-keepalive-min-time",
    "listen-client-http-urls",
    "max-learners",
    "strict-reconfig-check",
];
