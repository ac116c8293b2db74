//! Why a storage operation failed, and what a client of the API is told.

use coracle_api::status::ApiError;
use tonic::{Code, Status};

/// Why the store did not do what was asked. Conflicts are no errors but outcomes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// No member answered, or none has a leader, within the deadline.
    #[error("etcd is not available: {0}")]
    Unavailable(String),
    /// The deadline passed, and a write may or may not have happened.
    #[error("etcd did not answer in time: {0}")]
    Timeout(String),
    /// The revision asked for is compacted.
    #[error("etcd has compacted the requested revision")]
    Compacted,
    /// The revision asked for has not come yet.
    #[error("etcd has not reached the requested revision")]
    FutureRevision,
    /// etcd refuses the size.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// The answer is larger than this process accepts; ask for a smaller page.
    #[error("answer of etcd is too large")]
    AnswerTooLarge,
    /// etcd refuses the request (permissions, quota), or answers what makes no sense.
    #[error("etcd refused: {0}")]
    Refused(String),
    /// A stored value cannot be decoded.
    #[error("object at {key} is not JSON: {reason}")]
    Corrupt {
        /// The store's key.
        key: String,
        /// What the decoder says.
        reason: String,
    },
}

/// What to do after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It surely did not happen: try again.
    Safe,
    /// It may have happened: try again only what can be repeated or told apart.
    Ambiguous,
    /// Trying again gives the same.
    Never,
}

/// Classifies a gRPC status by etcd's codes and texts.
pub(super) fn classify(status: &Status) -> Retry {
    let text = status.message();
    match status.code() {
        // The request never left, or the member knows that it could not propose it.
        Code::Unavailable if text.contains("no leader") || text.contains("not leader") => Retry::Safe,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => Retry::Ambiguous,
        // A connection that broke in the middle reaches us as Unknown or Internal from the transport.
        Code::Unknown | Code::Internal if std::error::Error::source(status).is_some() => Retry::Ambiguous,
        Code::ResourceExhausted if text.contains("too many requests") => Retry::Safe,
        _ => Retry::Never,
    }
}

impl From<&Status> for StorageError {
    fn from(status: &Status) -> Self {
        let text = status.message();
        match status.code() {
            Code::OutOfRange if text.contains("compacted") => Self::Compacted,
            Code::OutOfRange if text.contains("future revision") => Self::FutureRevision,
            Code::OutOfRange => Self::AnswerTooLarge,
            Code::InvalidArgument if text.contains("too large") => Self::TooLarge,
            Code::ResourceExhausted if text.contains("larger than max") => Self::TooLarge,
            Code::Unavailable => Self::Unavailable(text.to_owned()),
            Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => Self::Timeout(text.to_owned()),
            Code::Unknown | Code::Internal if std::error::Error::source(status).is_some() => {
                Self::Unavailable(text.to_owned())
            }
            _ => Self::Refused(text.to_owned()),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(_) => ApiError::service_unavailable(error.to_string()),
            StorageError::Timeout(_) => ApiError::timeout(error, 1),
            StorageError::Compacted => {
                ApiError::expired("The resourceVersion for the provided list is too old.")
            }
            StorageError::TooLarge => ApiError::request_entity_too_large(error),
            StorageError::FutureRevision
            | StorageError::AnswerTooLarge
            | StorageError::Refused(_)
            | StorageError::Corrupt { .. } => ApiError::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_before_the_proposal_are_safe_to_repeat() {
        assert_eq!(classify(&Status::unavailable("etcdserver: no leader")), Retry::Safe);
        assert_eq!(classify(&Status::unavailable("etcdserver: request timed out")), Retry::Ambiguous);
        assert_eq!(classify(&Status::invalid_argument("etcdserver: request is too large")), Retry::Never);
    }

    #[test]
    fn etcds_texts_become_variants() {
        let of = |status: Status| StorageError::from(&status);
        let compacted = of(Status::out_of_range("etcdserver: mvcc: required revision has been compacted"));
        assert!(matches!(compacted, StorageError::Compacted));
        assert!(matches!(of(Status::permission_denied("no")), StorageError::Refused(_)));
    }
}
