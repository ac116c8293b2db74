//! The JSON gateway: POST of JSON on `/v3/…`, answered by the gRPC service that the path stands for. One table of paths; everything else follows
//! from the `.proto` files. A call goes through [`ClientService`] as one from outside would. Never here: what a service does.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status};

use super::ClientService;
use super::gateway_json::{self, JsonValues};
use crate::http_endpoints::text;
use crate::member::Member;

/// Paths below `/v3/` (and `/v3beta/`), with service and method.
const PATHS: &[(&str, &str, &str)] = &[
    ("kv/range", "etcdserverpb.KV", "Range"),
    ("kv/put", "etcdserverpb.KV", "Put"),
    ("kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("kv/txn", "etcdserverpb.KV", "Txn"),
    ("kv/compaction", "etcdserverpb.KV", "Compact"),
    ("watch", "etcdserverpb.Watch", "Watch"),
    ("lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("kv/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster", "MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster", "MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster", "MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance", "Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance", "MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth", "UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth", "RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth", "RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock", "Lock"),
    ("lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("election/campaign", "v3electionpb.Election", "Campaign"),
    ("election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("election/leader", "v3electionpb.Election", "Leader"),
    ("election/observe", "v3electionpb.Election", "Observe"),
    ("election/resign", "v3electionpb.Election", "Resign"),
];

/// Each service and method of the table once.
pub(super) fn methods() -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_first = |(n, (_, service, method)): &(usize, &(&str, &'static str, &'static str))| {
        !PATHS[..*n].iter().any(|(_, s, m)| (s, m) == (service, method))
    };
    PATHS.iter().enumerate().filter(is_first).map(|(_, (_, service, method))| (*service, *method))
}

/// The methods by path; made when first asked for.
static METHODS: LazyLock<HashMap<&'static str, MethodDescriptor>> = LazyLock::new(|| {
    // The descriptors are this build's own; a test sees to it that every path is found.
    let pool = DescriptorPool::decode(coracle_proto::DESCRIPTORS).unwrap_or_default();
    let find = |service: &str, method: &str| {
        pool.get_service_by_name(service)?.methods().find(|candidate| candidate.name() == method)
    };
    PATHS.iter().filter_map(|(path, service, method)| Some((*path, find(service, method)?))).collect()
});

/// Messages under way from one body to its call.
const MESSAGES_AHEAD_MAX: usize = 4;

/// What comes before a header that is to become metadata under the rest of its name.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// The part of a path that the gateway answers for.
pub(super) fn path_of(path: &str) -> Option<&str> {
    if path == "/v3" {
        return Some("");
    }
    path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))
}

/// Answers one request; `path` is what [`path_of`] gave.
pub(super) async fn answer<M: Member>(
    service: ClientService<M>,
    path: &str,
    request: Request<Body>,
) -> Response<Body> {
    let Some(method) = METHODS.get(path) else {
        return text(StatusCode::NOT_FOUND, "Not Found\n".to_owned()).map(Body::new);
    };
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned()).map(Body::new);
    }
    let answered = if method.is_server_streaming() {
        stream_answer(service, method, request).await
    } else {
        unary_answer(service, method, request).await
    };
    answered.unwrap_or_else(|status| {
        let message = gateway_json::string(status.message());
        let code = i32::from(status.code());
        let body = format!(r#"{{"error":{message},"code":{code},"message":{message}}}"#);
        json(http_status(status.code()), Body::new(Full::from(body)))
    })
}

async fn unary_answer<M: Member>(
    service: ClientService<M>,
    method: &MethodDescriptor,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let given = JsonValues::new(body, service.gateway_body_bytes_max()).only().await?;
    let message = gateway_json::to_message(&given.unwrap_or_default(), &method.input())?;
    let call = grpc_request(method, &head.headers, Body::new(Full::new(framed(&message))))?;
    let mut frames = Frames::of(called(&service, call).await)?;
    let message = frames.next().await?.ok_or_else(|| Status::internal("a call ended without an answer"))?;
    // A unary call ends with its status.
    if frames.next().await?.is_some() {
        return Err(Status::internal("a call had more than one answer"));
    }
    let body = gateway_json::of_message(message, &method.output())?;
    Ok(answered(Body::new(Full::from(body))))
}

async fn stream_answer<M: Member>(
    service: ClientService<M>,
    method: &MethodDescriptor,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    let mut values = JsonValues::new(body, service.gateway_body_bytes_max());
    // Where requests stream, grpc-gateway has no code for what it cannot read.
    let unreadable = |status: Status| {
        if method.is_client_streaming() { Status::unknown(status.message()) } else { status }
    };
    let given = values.next().await.map_err(unreadable)?;
    let first =
        gateway_json::to_message(&given.clone().unwrap_or_default(), &method.input()).map_err(unreadable)?;
    let body = if !method.is_client_streaming() {
        Body::new(Full::new(framed(&first)))
    } else if given.is_none() {
        Body::empty()
    } else {
        let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD_MAX);
        let kind = method.input();
        tokio::spawn(async move {
            let mut message = first;
            // Ends with the body, with what is no message, or when the call has ended.
            while sender.send(framed(&message)).await.is_ok() {
                let Ok(Some(value)) = values.next().await else { return };
                let Ok(next) = gateway_json::to_message(&value, &kind) else { return };
                message = next;
            }
        });
        let frames = ReceiverStream::new(receiver).map(|data| Ok::<_, Status>(Frame::data(data)));
        Body::new(StreamBody::new(frames))
    };
    let call = grpc_request(method, &head.headers, body)?;
    let mut frames = Frames::of(called(&service, call).await)?;
    let kind = method.output();
    // The answer begins when there is something to say, so that an early failure has its HTTP status.
    let first = match frames.next().await {
        Ok(first) => first,
        Err(status) => {
            let body = stream_error(&status);
            return Ok(json(http_status(status.code()), Body::new(Full::from(body))));
        }
    };
    let lines = results(first, frames).map(move |result| {
        let line = result.and_then(|message| gateway_json::of_message(message, &kind));
        let line = match line {
            Ok(message) => format!("{{\"result\":{message}}}\n"),
            Err(status) => stream_error(&status),
        };
        Ok::<_, Status>(Frame::data(Bytes::from(line)))
    });
    Ok(answered(Body::new(StreamBody::new(lines))))
}

/// The messages of a call, and at the end its error if it has one.
fn results(first: Option<Bytes>, frames: Frames) -> impl Stream<Item = Result<Bytes, Status>> {
    stream::unfold((first, Some(frames)), async |(first, frames)| {
        let mut frames = frames?;
        if let Some(message) = first {
            return Some((Ok(message), (None, Some(frames))));
        }
        match frames.next().await {
            Ok(Some(message)) => Some((Ok(message), (None, Some(frames)))),
            Ok(None) => None,
            Err(status) => Some((Err(status), (None, None))),
        }
    })
}

fn stream_error(status: &Status) -> String {
    let http = http_status(status.code());
    format!(
        r#"{{"error":{{"grpc_code":{},"http_code":{},"message":{},"http_status":{}}}}}"#,
        i32::from(status.code()),
        http.as_u16(),
        gateway_json::string(status.message()),
        gateway_json::string(http.canonical_reason().unwrap_or_default()),
    )
}

fn grpc_request(method: &MethodDescriptor, headers: &HeaderMap, body: Body) -> Result<Request<Body>, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = Request::post(path)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .body(body)
        .map_err(|error| Status::internal(error.to_string()))?;
    let metadata = request.headers_mut();
    if let Some(token) = headers.get(AUTHORIZATION) {
        metadata.insert(AUTHORIZATION, token.clone());
    }
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX) else { continue };
        if name.starts_with("grpc-") {
            continue;
        }
        if let Ok(name) = HeaderName::try_from(name)
            && !metadata.contains_key(&name)
        {
            metadata.insert(name, value.clone());
        }
    }
    Ok(request)
}

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The messages of a gRPC response.
struct Frames {
    body: Body,
    buffer: BytesMut,
}

impl Frames {
    fn of(response: Response<Body>) -> Result<Self, Status> {
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(Self { body: response.into_body(), buffer: BytesMut::new() }),
        }
    }

    /// The next message, `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(&[_, a, b, c, d]) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            match frame?.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return match Status::from_header_map(&trailers) {
                        Some(status) if status.code() != Code::Ok => Err(status),
                        _ => Ok(None),
                    };
                }
            }
        }
    }
}

async fn called<M: Member>(service: &ClientService<M>, call: Request<Body>) -> Response<Body> {
    match service.grpc(call).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn answered(body: Body) -> Response<Body> {
    let mut response = json(StatusCode::OK, body);
    let name = HeaderName::from_static("grpc-metadata-content-type");
    response.headers_mut().insert(name, HeaderValue::from_static("application/grpc"));
    response
}

/// The HTTP status of a gRPC code, as grpc-gateway's table has it.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_method() {
        for (path, service, method) in PATHS {
            let found = METHODS.get(path).unwrap_or_else(|| panic!("{path}: no {service}/{method}"));
            assert_eq!((found.parent_service().full_name(), found.name()), (*service, *method));
        }
        assert_eq!(METHODS.len(), PATHS.len());
    }
}
