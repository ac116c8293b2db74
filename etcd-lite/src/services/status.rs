//! Errors as gRPC statuses, and the refusal of requests that ask for a leader when there is none.

use etcd_lite_core::{ErrorCode, StoreError};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::member::{Member, ProposeError};

/// The status of a request the store refused.
pub(crate) fn of_store(error: StoreError) -> Status {
    let code = match error.code() {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::OutOfRange => Code::OutOfRange,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::Unknown => Code::Unknown,
        ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::DataLoss => Code::DataLoss,
    };
    Status::new(code, error.to_string())
}

/// The status of a request that did not go through.
pub(crate) fn of_propose(error: ProposeError) -> Status {
    let code = match &error {
        ProposeError::Store(error) => return of_store(*error),
        ProposeError::NoLeader
        | ProposeError::LeaderChanged
        | ProposeError::Timeout
        | ProposeError::TimeoutLeaderFailed
        | ProposeError::TimeoutConnectionLost
        | ProposeError::Stopped
        | ProposeError::LeaderTransferTimeout
        | ProposeError::UnhealthyCluster
        | ProposeError::Learner => Code::Unavailable,
        ProposeError::NotLeader | ProposeError::BadLeaderTransferee | ProposeError::LearnerNotReady => {
            Code::FailedPrecondition
        }
        ProposeError::TooLarge => Code::InvalidArgument,
        ProposeError::TooManyRequests => Code::ResourceExhausted,
        ProposeError::Disk(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// The status of an answer of the wrong kind, which would be a fault of this program.
pub(crate) fn unexpected() -> Status {
    Status::internal("etcdserver: the answer does not belong to the request")
}

/// Whether the client set `hasleader`.
pub(crate) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

/// Refuses a request with `hasleader` while there is no leader.
pub(crate) fn require_leader<M: Member>(member: &M, metadata: &MetadataMap) -> Result<(), Status> {
    if wants_leader(metadata) && *member.leader().borrow() == 0 {
        return Err(of_propose(ProposeError::NoLeader));
    }
    Ok(())
}

/// What the gRPC library says to a message beyond its limit, in the words and with the code that etcd's has.
pub(crate) fn refused_for_size(
    response: http::Response<tonic::body::Body>,
) -> http::Response<tonic::body::Body> {
    const REFUSAL: &str = "Error, decoded message length too large: found ";
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let Some((found, limit)) = status.message().strip_prefix(REFUSAL).and_then(|rest| {
        let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
        Some((found, rest.split_once(' ')?.0))
    }) else {
        return response;
    };
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    Status::resource_exhausted(text).into_http()
}
