//! Calls to members: the methods used, and what an error says about the request.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use coracle_bench::grpc::{Connection, Method, RpcError, decode, frame};
use coracle_proto::etcdserverpb as pb;
use store_checker::{Outcome, Refusal, Request, Response};
use tokio::time::timeout;

/// A connection that is not there by then is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For calls of the harness itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Port of all members for clients.
pub const CLIENT_PORT: u16 = 2379;
/// Port of all members for each other.
pub const PEER_PORT: u16 = 2380;

/// Where a member, counted from 0, serves clients.
pub fn client_address(member: usize) -> SocketAddr {
    (crate::network::address(member), CLIENT_PORT).into()
}

/// Connects to a member.
///
/// # Errors
/// It cannot be reached in time.
pub async fn connect(member: usize) -> anyhow::Result<Connection> {
    timeout(CONNECT_TIMEOUT, Connection::open_at(client_address(member))).await.context("connect")?
}

/// A call of the harness itself, on a connection of its own. `method` is as `KV/Range`.
///
/// # Errors
/// The member's, or that it does not answer in time.
pub async fn call<A: prost::Message + Default>(
    member: usize,
    method: &str,
    request: &impl prost::Message,
) -> anyhow::Result<A> {
    let (service, name) = method.split_once('/').context("a method has a service")?;
    let method = Method::new(&format!("etcdserverpb.{service}"), name)?;
    let connection = connect(member).await?;
    let answer = timeout(CALL_TIMEOUT, connection.call(&method, request)).await;
    Ok(answer.with_context(|| format!("{name}: no answer within {CALL_TIMEOUT:?}"))??)
}

/// The methods that clients call.
pub struct Methods {
    range: Method,
    put: Method,
    delete: Method,
    txn: Method,
    compact: Method,
    grant: Method,
    revoke: Method,
    keep_alive: Method,
    /// The watch stream.
    pub watch: Method,
}

impl Methods {
    /// All of them.
    ///
    /// # Errors
    /// Never in practice: the paths are fixed.
    pub fn new() -> anyhow::Result<Self> {
        let kv = |name| Method::new("etcdserverpb.KV", name);
        let lease = |name| Method::new("etcdserverpb.Lease", name);
        Ok(Self {
            range: kv("Range")?,
            put: kv("Put")?,
            delete: kv("DeleteRange")?,
            txn: kv("Txn")?,
            compact: kv("Compact")?,
            grant: lease("LeaseGrant")?,
            revoke: lease("LeaseRevoke")?,
            keep_alive: lease("LeaseKeepAlive")?,
            watch: Method::new("etcdserverpb.Watch", "Watch")?,
        })
    }

    /// Sends a request and waits for its answer, as long as that takes.
    ///
    /// # Errors
    /// The member's, or the connection's.
    pub async fn send(&self, connection: &Connection, request: &Request) -> Result<Response, RpcError> {
        let link = connection;
        Ok(match request {
            Request::Range(r) => Response::Range(link.call(&self.range, r).await?),
            Request::Put(r) => Response::Put(link.call(&self.put, r).await?),
            Request::DeleteRange(r) => Response::DeleteRange(link.call(&self.delete, r).await?),
            Request::Txn(r) => Response::Txn(link.call(&self.txn, r).await?),
            Request::Compact(r) => Response::Compact(link.call(&self.compact, r).await?),
            Request::LeaseGrant(r) => Response::LeaseGrant(link.call(&self.grant, r).await?),
            Request::LeaseRevoke(r) => Response::LeaseRevoke(link.call(&self.revoke, r).await?),
            Request::LeaseKeepAlive(r) => {
                let (_requests, mut answers) = link.stream(&self.keep_alive, frame(r)).await?;
                match answers.next().await? {
                    Some(answer) => Response::LeaseKeepAlive(decode(answer)?),
                    None => return Err(RpcError { code: None, message: "the stream ended".into() }),
                }
            }
        })
    }
}

/// Whether a request may change keys, leases or history, so that it matters whether it happened.
pub fn may_change(request: &Request) -> bool {
    fn writes(txn: &pb::TxnRequest) -> bool {
        use pb::request_op::Request as Op;
        txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
            Some(Op::RequestRange(_)) | None => false,
            Some(Op::RequestTxn(nested)) => writes(nested),
            Some(_) => true,
        })
    }
    match request {
        // A renewal counts only when it is answered: it may lengthen a lease, never shorten it.
        Request::Range(_) | Request::LeaseKeepAlive(_) => false,
        Request::Txn(txn) => writes(txn),
        _ => true,
    }
}

/// What became of a request that was sent and got an error.
///
/// Only these say that it did not and will not happen: refusals of the store, found before the request enters the log or when it is applied; and
/// those for load and by learners, made before it enters the log. After "no leader", time-outs and a lost connection it may be in a log somewhere.
pub fn outcome_of_error(request: &Request, error: &RpcError) -> Outcome {
    const INVALID_ARGUMENT: i32 = 3;
    const NOT_FOUND: i32 = 5;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const FAILED_PRECONDITION: i32 = 9;
    const OUT_OF_RANGE: i32 = 11;
    const UNAVAILABLE: i32 = 14;
    match error.code {
        Some(INVALID_ARGUMENT | NOT_FOUND | FAILED_PRECONDITION | OUT_OF_RANGE)
            if error.message.starts_with("etcdserver: ") =>
        {
            Outcome::Refused(Refusal::of_text(&error.message))
        }
        Some(RESOURCE_EXHAUSTED) if error.message == "etcdserver: mvcc: database space exceeded" => {
            Outcome::Refused(Refusal::of_text(&error.message))
        }
        Some(RESOURCE_EXHAUSTED) if error.message == "etcdserver: too many requests" => Outcome::Failed,
        Some(UNAVAILABLE) if error.message == "etcdserver: rpc not supported for learner" => Outcome::Failed,
        _ if may_change(request) => Outcome::Unknown,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(request: &Request, code: Option<i32>, message: &str) -> Outcome {
        outcome_of_error(request, &RpcError { code, message: message.into() })
    }

    #[test]
    fn a_write_fails_for_certain_only_when_that_is_certain() {
        let put = Request::Put(pb::PutRequest::default());
        for (code, message) in [
            (None, "broken pipe"),
            (Some(14), "etcdserver: request timed out"),
            (Some(14), "etcdserver: request timed out, possibly due to previous leader failure"),
            (Some(14), "etcdserver: leader changed"),
            (Some(14), "etcdserver: no leader"),
            (Some(14), "etcdserver: server stopped"),
            (Some(13), "etcdserver: no space left on device"),
            (Some(1), "context canceled"),
            (Some(4), "context deadline exceeded"),
            (Some(9), "something of a proxy"),
        ] {
            assert_eq!(outcome(&put, code, message), Outcome::Unknown, "{message}");
        }
        assert_eq!(outcome(&put, Some(8), "etcdserver: too many requests"), Outcome::Failed);
        assert_eq!(outcome(&put, Some(14), "etcdserver: rpc not supported for learner"), Outcome::Failed);
        let refusal = outcome(&put, Some(5), "etcdserver: requested lease not found");
        assert_eq!(refusal, Outcome::Refused(Refusal::LeaseNotFound));
    }

    #[test]
    fn a_read_changes_nothing_whatever_happens() {
        let read = Request::Range(pb::RangeRequest::default());
        assert_eq!(outcome(&read, None, "broken pipe"), Outcome::Failed);
        let refusal = outcome(&read, Some(11), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(refusal, Outcome::Refused(Refusal::Compacted));
    }
}
