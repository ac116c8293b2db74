//! What the store refuses, with the texts that etcd clients compare, and the gRPC code each belongs to.

use thiserror::Error;

/// A request the store refuses. `Display` is etcd's text, which clients match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// A request without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More operations in one branch of a transaction than allowed.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// One transaction writes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// The revision asked for is older than the last compaction.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for has not happened yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// No lease has this id.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease with the wanted id is there already.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A TTL above the maximum.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// `sort_order`, `sort_target`, a comparison or a filter outside the API's enumeration.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// A log entry of a kind this build does not know; it was written by a newer one.
    #[error("etcdserver: not capable")]
    UnknownCommand,
}

/// The gRPC status codes the store's errors belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request can never succeed as it is.
    InvalidArgument,
    /// What the request names does not exist.
    NotFound,
    /// What the request names is in a state that forbids it.
    FailedPrecondition,
    /// Beyond the valid range.
    OutOfRange,
    /// The member cannot do it now.
    Unavailable,
}

impl StoreError {
    /// The gRPC code clients expect with this text.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOps
            | Self::DuplicateKey
            | Self::InvalidSortOption => ErrorCode::InvalidArgument,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => ErrorCode::OutOfRange,
            Self::LeaseNotFound => ErrorCode::NotFound,
            Self::LeaseExists => ErrorCode::FailedPrecondition,
            Self::UnknownCommand => ErrorCode::Unavailable,
        }
    }
}

/// Why saved records do not make a store. The caller sets the checkpoint aside and rebuilds from snapshot and log.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A key of no known shape.
    #[error("record key {0:02x?} has no known shape")]
    UnknownKey(Vec<u8>),
    /// The record's bytes do not decode.
    #[error("record {key:02x?} does not decode")]
    Undecodable {
        /// The record's key.
        key: Vec<u8>,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// Records came out of order.
    #[error("record {0:02x?} is out of order")]
    OutOfOrder(Vec<u8>),
    /// The records contradict each other, as after a torn write.
    #[error("records contradict each other: {0}")]
    Inconsistent(&'static str),
    /// There is no meta record although there are others.
    #[error("the meta record is missing")]
    MissingMeta,
}
