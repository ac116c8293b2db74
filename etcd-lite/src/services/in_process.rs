//! A way for services of this process to call others of it as a client would: everything a request passes on its way in (checks,
//! permissions) it passes here too. Also what Lock and Election are made of: a transaction, a read, waiting for deletions.

use std::convert::Infallible;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use coracle_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::mvccpb::event::EventType;
use futures::stream::{self, StreamExt};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status, Streaming};

use super::{kv, lease, watch};
use crate::member::Member;

/// Metadata that says who asks and what for; the rest belongs to the connection it came on.
const PASSED_ON: [&str; 3] = ["token", "authorization", "hasleader"];

/// Seconds of the lease that a lock or a candidate gets that brought none, as etcd's sessions.
const SESSION_TTL_SECONDS: i64 = 60;

/// The services that others are made of.
pub(crate) struct InProcess<M: Member> {
    pub(crate) kv: pb::kv_server::KvServer<kv::KvService<M>>,
    pub(crate) watch: watch::WatchServer<M>,
    pub(crate) lease: pb::lease_server::LeaseServer<lease::LeaseService<M>>,
}

impl<M: Member> Clone for InProcess<M> {
    fn clone(&self) -> Self {
        Self { kv: self.kv.clone(), watch: self.watch.clone(), lease: self.lease.clone() }
    }
}

impl<M: Member> Service<http::Request<Body>> for InProcess<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().split('/').nth(1).unwrap_or_default() {
            "etcdserverpb.KV" => self.kv.call(request),
            "etcdserverpb.Watch" => self.watch.call(request),
            "etcdserverpb.Lease" => self.lease.call(request),
            other => {
                let text = format!("unknown service {other}");
                Box::pin(async move { Ok(Status::unimplemented(text).into_http()) })
            }
        }
    }
}

/// Calls in the name of whoever sent a request.
pub(crate) struct Caller<M: Member> {
    services: InProcess<M>,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl<M: Member> Clone for Caller<M> {
    fn clone(&self) -> Self {
        Self {
            services: self.services.clone(),
            metadata: self.metadata.clone(),
            extensions: self.extensions.clone(),
        }
    }
}

/// What a refused call says to the client of Lock and Election. etcd passes the text on and loses the code.
fn passed_on(status: Status) -> Status {
    Status::unknown(status.message())
}

impl<M: Member> Caller<M> {
    /// The caller of a request.
    pub(crate) fn of<T>(services: &InProcess<M>, request: &Request<T>) -> Self {
        let mut metadata = MetadataMap::new();
        for name in PASSED_ON {
            if let Some(value) = request.metadata().get(name) {
                metadata.insert(name, value.clone());
            }
        }
        Self { services: services.clone(), metadata, extensions: request.extensions().clone() }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    fn kv(&self) -> KvClient<InProcess<M>> {
        // What is stored may be answered; its size was bounded when it came in.
        KvClient::new(self.services.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The lease given, or a new one when none is.
    pub(crate) async fn session_lease(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id: 0 };
        let mut leases = LeaseClient::new(self.services.clone());
        Ok(leases.lease_grant(self.request(grant)).await.map_err(passed_on)?.into_inner().id)
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        Ok(self.kv().txn(self.request(request)).await.map_err(passed_on)?.into_inner())
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(self.kv().range(self.request(request)).await.map_err(passed_on)?.into_inner())
    }

    pub(crate) async fn delete(&self, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
        let request = pb::DeleteRangeRequest { key, ..Default::default() };
        Ok(self.kv().delete_range(self.request(request)).await.map_err(passed_on)?.into_inner())
    }

    /// A watch from a revision on.
    pub(crate) async fn watch(&self, create: pb::WatchCreateRequest) -> Result<EventStream, Status> {
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of requests stays open as long as the watch is wanted.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut watches = WatchClient::new(self.services.clone()).max_decoding_message_size(usize::MAX);
        let responses = watches.watch(self.request(requests)).await.map_err(passed_on)?.into_inner();
        Ok(EventStream { responses })
    }

    /// Waits until no key of a prefix is left that was created at this revision or before.
    pub(crate) async fn wait_until_deleted(
        &self,
        prefix: &Bytes,
        create_revision_max: i64,
    ) -> Result<(), Status> {
        if create_revision_max <= 0 {
            return Ok(());
        }
        loop {
            let newest = pb::RangeRequest {
                max_create_revision: create_revision_max,
                ..first_by_creation(prefix, SortOrder::Descend)
            };
            let found = self.range(newest).await?;
            let Some(kv) = found.kvs.into_iter().next() else { return Ok(()) };
            let revision = found.header.map_or(0, |header| header.revision);
            let create =
                pb::WatchCreateRequest { key: kv.key, start_revision: revision, ..Default::default() };
            let mut events = self.watch(create).await?;
            loop {
                let response = events.next().await?;
                if response.events.iter().any(|event| event.r#type() == EventType::Delete) {
                    break;
                }
            }
        }
    }
}

/// Responses of one watch.
pub(crate) struct EventStream {
    responses: Streaming<pb::WatchResponse>,
}

impl EventStream {
    /// The next response with events.
    ///
    /// # Errors
    /// The watch was refused or cancelled, or the stream ended.
    pub(crate) async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            let response = self.responses.message().await.map_err(passed_on)?;
            let Some(response) = response else {
                return Err(Status::unknown("lost watcher waiting for delete"));
            };
            if response.canceled {
                return Err(Status::unknown(response.cancel_reason));
            }
            if !response.events.is_empty() {
                return Ok(response);
            }
        }
    }
}

/// The key of a prefix that was created first, or last.
pub(crate) fn first_by_creation(prefix: &Bytes, order: SortOrder) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: end_of_prefix(prefix),
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..Default::default()
    }
}

/// The end of the range of all keys that begin so.
pub(crate) fn end_of_prefix(prefix: &Bytes) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else { return Bytes::from_static(&[0]) };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

/// `name/`, where the keys of a lock or an election are.
pub(crate) fn key_prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a lease's holder there.
pub(crate) fn key_of_lease(prefix: &Bytes, lease: i64) -> Bytes {
    // Go prints negative numbers with a sign.
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// Holds when a key was created at this revision; 0 when it does not exist.
pub(crate) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

pub(crate) fn operation(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The first key of a transaction's n-th answer, if that is a read.
pub(crate) fn key_read(response: &pb::TxnResponse, n: usize) -> Option<&coracle_proto::mvccpb::KeyValue> {
    match response.responses.get(n)?.response.as_ref()? {
        pb::response_op::Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_etcds_clients() {
        let prefix = key_prefix(b"lock");
        assert_eq!(key_of_lease(&prefix, 0x2040_a1fd_4776_780a), "lock/2040a1fd4776780a");
        assert_eq!(key_of_lease(&prefix, -255), "lock/-ff");
        assert_eq!(end_of_prefix(&prefix), "lock0");
        assert_eq!(end_of_prefix(&Bytes::from_static(b"a\xff")), "b");
        assert_eq!(end_of_prefix(&Bytes::from_static(b"\xff")), "\0");
    }
}
