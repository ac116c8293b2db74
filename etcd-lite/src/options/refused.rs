//! The flags of etcd 3.5 that are refused by name.

/// Flags of etcd 3.5, of its later patch levels, that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] =
    &["experimental-snapshot-catchup-entries", "experimental-wait-cluster-ready-timeout"];
