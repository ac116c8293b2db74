//! The flags of etcd 3.5 that are refused by name.

/// Flags of etcd 3.5 that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "cors",
    "enable-grpc-gateway",
    "experimental-compact-hash-check-enabled",
    "experimental-compact-hash-check-time",
    "experimental-max-learners",
    "experimental-warning-apply-duration",
    "experimental-warning-unary-request-duration",
    "force-new-cluster",
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "host-whitelist",
    "listen-client-http-urls",
    "max-learners",
    "metrics",
    "strict-reconfig-check",
];
