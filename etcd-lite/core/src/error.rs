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
    /// A member is out of space: nothing that takes some is accepted until the alarm is disarmed.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// Members were found to differ: nothing is changed until the alarm is disarmed.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// A log entry of a kind this build does not know; it was written by a newer one.
    #[error("etcdserver: not capable")]
    UnknownCommand,
    /// Enabling authentication without a user root.
    #[error("etcdserver: root user does not exist")]
    RootUserMissing,
    /// Enabling authentication when the user root does not have the role root.
    #[error("etcdserver: root user does not have root role")]
    RootRoleMissing,
    /// A user of this name is there already.
    #[error("etcdserver: user name already exists")]
    UserExists,
    /// A user without name; also a request that needs a user and names none.
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    /// No user has this name.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// A role of this name is there already.
    #[error("etcdserver: role name already exists")]
    RoleExists,
    /// No role has this name.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// A role without name.
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    /// Granting no permission.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// Wrong name or password.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    /// Logging in as a user that has no password. As in etcd, this text has not the usual beginning.
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// The user may not do it.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// Revoking a role that the user does not have.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// Revoking a permission that the role does not have.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// Authenticating while authentication is off.
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    /// A token that no member has given, or that ran out.
    #[error("etcdserver: invalid auth token")]
    InvalidAuthToken,
    /// Taking from root what authentication needs; a permission for a range without keys.
    #[error("etcdserver: invalid auth management")]
    InvalidAuthManagement,
    /// Users or roles have changed since the request was authenticated; clients authenticate again and retry.
    #[error("etcdserver: revision of auth store is old")]
    AuthRevisionOld,
    /// No member has this id, or not any more.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// A member with the wanted id is there already.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// Another member has one of the peer URLs.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// Promoting a member that votes already.
    #[error("etcdserver: can only promote a learner member")]
    MemberNotLearner,
    /// More learners than allowed.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// The change would leave fewer started members than a majority.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStartedMembers,
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
    /// The caller is known and may not.
    PermissionDenied,
    /// Who the caller is cannot be told.
    Unauthenticated,
    /// No particular one.
    Unknown,
    /// There is no room for it.
    ResourceExhausted,
    /// Stored data is damaged.
    DataLoss,
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
            | Self::InvalidSortOption
            | Self::UserEmpty
            | Self::RoleEmpty
            | Self::PermissionNotGiven
            | Self::AuthFailed
            | Self::InvalidAuthManagement
            | Self::AuthRevisionOld => ErrorCode::InvalidArgument,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => ErrorCode::OutOfRange,
            Self::LeaseNotFound | Self::MemberNotFound => ErrorCode::NotFound,
            Self::LeaseExists
            | Self::RootUserMissing
            | Self::RootRoleMissing
            | Self::UserExists
            | Self::UserNotFound
            | Self::RoleExists
            | Self::RoleNotFound
            | Self::RoleNotGranted
            | Self::PermissionNotGranted
            | Self::AuthNotEnabled
            | Self::MemberExists
            | Self::PeerUrlExists
            | Self::MemberNotLearner
            | Self::TooManyLearners
            | Self::NotEnoughStartedMembers => ErrorCode::FailedPrecondition,
            Self::PermissionDenied => ErrorCode::PermissionDenied,
            Self::InvalidAuthToken => ErrorCode::Unauthenticated,
            Self::NoPasswordUser => ErrorCode::Unknown,
            Self::NoSpace => ErrorCode::ResourceExhausted,
            Self::Corrupt => ErrorCode::DataLoss,
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
