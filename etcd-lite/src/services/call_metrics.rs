//! What is counted of each gRPC call, under the names that etcd's gRPC library and etcd itself give it: calls begun and ended, messages and bytes.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use component_base::metrics::Registry;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::slow_requests::SlowRequests;

/// Streaming methods by path; every other is unary.
const STREAMING: [(&str, &str); 6] = [
    ("/etcdserverpb.Watch/Watch", "bidi_stream"),
    ("/etcdserverpb.Lease/LeaseKeepAlive", "bidi_stream"),
    ("/etcdserverpb.Maintenance/Snapshot", "server_stream"),
    ("/v3electionpb.Election/Observe", "server_stream"),
    ("/grpc.health.v1.Health/Watch", "server_stream"),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "bidi_stream"),
];

/// Seconds, as the gRPC library's own default.
const HANDLING_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type MethodLabels = [(&'static str, &'static str); 3];
type HandledLabels = [(&'static str, &'static str); 4];
type VersionLabels = [(&'static str, String); 2];

/// The counters of one method.
#[derive(Debug)]
struct Method {
    labels: MethodLabels,
    is_unary: bool,
    started: Counter,
    received: Counter,
    sent: Counter,
    handled_ok: Counter,
    seconds: Option<Histogram>,
}

/// The counters of all methods that are served.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    methods: HashMap<String, Method>,
    handled: Family<HandledLabels, Counter>,
    requests: Family<VersionLabels, Counter>,
    bytes_received: Counter,
    bytes_sent: Counter,
    slow_requests: SlowRequests,
}

impl CallMetrics {
    /// Registers the counters of these services' methods; with `is_extensive` also how long calls take.
    pub(crate) fn register(
        registry: &mut Registry,
        methods: impl Iterator<Item = (&'static str, &'static str)>,
        is_extensive: bool,
        slow_requests: SlowRequests,
    ) -> Self {
        let started = Family::<MethodLabels, Counter>::default();
        let received = Family::<MethodLabels, Counter>::default();
        let sent = Family::<MethodLabels, Counter>::default();
        let handled = Family::<HandledLabels, Counter>::default();
        let requests = Family::<VersionLabels, Counter>::default();
        let seconds =
            Family::<MethodLabels, Histogram>::new_with_constructor(|| Histogram::new(HANDLING_BUCKETS));
        let (bytes_received, bytes_sent) = (Counter::default(), Counter::default());
        registry.register(
            "grpc_server_started",
            "Total number of RPCs started on the server",
            started.clone(),
        );
        registry.register(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure",
            handled.clone(),
        );
        registry.register(
            "grpc_server_msg_received",
            "Total number of RPC stream messages received on the server",
            received.clone(),
        );
        registry.register(
            "grpc_server_msg_sent",
            "Total number of gRPC stream messages sent by the server",
            sent.clone(),
        );
        if is_extensive {
            registry.register(
                "grpc_server_handling_seconds",
                "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server",
                seconds.clone(),
            );
        }
        registry.register(
            "etcd_server_client_requests",
            "The total number of client requests per client version",
            requests.clone(),
        );
        registry.register(
            "etcd_network_client_grpc_received_bytes",
            "The total number of bytes received from grpc clients",
            bytes_received.clone(),
        );
        registry.register(
            "etcd_network_client_grpc_sent_bytes",
            "The total number of bytes sent to grpc clients",
            bytes_sent.clone(),
        );
        let methods = methods
            .map(|(service, method)| {
                let path = format!("/{service}/{method}");
                let streaming = STREAMING.iter().find(|(streaming, _)| *streaming == path);
                let kind = streaming.map_or("unary", |(_, kind)| *kind);
                let labels = [("grpc_type", kind), ("grpc_service", service), ("grpc_method", method)];
                let of = |family: &Family<MethodLabels, Counter>| family.get_or_create(&labels).clone();
                let counters = Method {
                    labels,
                    is_unary: kind == "unary",
                    started: of(&started),
                    received: of(&received),
                    sent: of(&sent),
                    handled_ok: handled.get_or_create(&with_code(labels, Code::Ok)).clone(),
                    seconds: is_extensive.then(|| seconds.get_or_create(&labels).clone()),
                };
                (path, counters)
            })
            .collect();
        Self { methods, handled, requests, bytes_received, bytes_sent, slow_requests }
    }

    /// Counts a call that begins. `None` for a method that is not counted.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Call> {
        let method = self.methods.get(path)?;
        method.started.inc();
        let version = headers.get("client-api-version").and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        let kind = if method.is_unary { "unary" } else { "stream" };
        self.requests
            .get_or_create(&[("type", kind.to_owned()), ("client_api_version", version.to_owned())])
            .inc();
        Some(Call {
            begun: Instant::now(),
            labels: method.labels,
            handled: self.handled.clone(),
            handled_ok: method.handled_ok.clone(),
            seconds: method.seconds.clone(),
            slow_requests: method.is_unary.then(|| self.slow_requests.clone()),
            received: (method.received.clone(), self.bytes_received.clone()),
            sent: (method.sent.clone(), self.bytes_sent.clone()),
            is_counted: false,
        })
    }
}

fn with_code([a, b, c]: MethodLabels, code: Code) -> HandledLabels {
    [a, b, c, ("grpc_code", code_name(code))]
}

/// A code as Go prints it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// One call under way. Counted as cancelled when nobody ends it.
pub(crate) struct Call {
    begun: Instant,
    labels: MethodLabels,
    handled: Family<HandledLabels, Counter>,
    handled_ok: Counter,
    seconds: Option<Histogram>,
    /// Told of calls with one answer.
    slow_requests: Option<SlowRequests>,
    received: (Counter, Counter),
    sent: (Counter, Counter),
    is_counted: bool,
}

impl Call {
    /// Counts what comes in.
    pub(crate) fn request<B>(&self, body: B) -> Counted<B> {
        let (messages, bytes) = self.received.clone();
        Counted { inner: body, messages, bytes, scan: Scan::default(), call: None }
    }

    /// Counts what goes out, and the end.
    pub(crate) fn response(mut self, response: http::Response<Body>) -> http::Response<Body> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            self.end(status.code());
            return response;
        }
        let (messages, bytes) = self.sent.clone();
        response.map(|body| {
            Body::new(Counted { inner: body, messages, bytes, scan: Scan::default(), call: Some(self) })
        })
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        match code {
            Code::Ok => self.handled_ok.inc(),
            code => self.handled.get_or_create(&with_code(self.labels, code)).inc(),
        };
        let took = self.begun.elapsed();
        if let Some(seconds) = &self.seconds {
            seconds.observe(took.as_secs_f64());
        }
        if let Some(slow_requests) = &self.slow_requests {
            let [_, (_, service), (_, method)] = self.labels;
            slow_requests.called(took, service, method, code_name(code));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// A body whose messages and bytes are counted.
pub(crate) struct Counted<B> {
    inner: B,
    messages: Counter,
    bytes: Counter,
    scan: Scan,
    /// The call that ends with this body.
    call: Option<Call>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                this.bytes.inc_by(data.len() as u64);
                this.messages.inc_by(this.scan.messages_begun(data));
            } else if let (Some(call), Some(trailers)) = (&mut this.call, frame.trailers_ref()) {
                call.end(Status::from_header_map(trailers).map_or(Code::Ok, |status| status.code()));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where in a sequence of gRPC messages the next byte is.
#[derive(Default)]
struct Scan {
    /// Bytes of the present message that are still to come.
    remaining: usize,
    /// Bytes of the next message's head that have come, and its length so far.
    head_bytes: usize,
    length: usize,
}

impl Scan {
    /// How many message heads are complete with these bytes.
    fn messages_begun(&mut self, mut data: &[u8]) -> u64 {
        const HEAD_BYTES: usize = 5;
        let mut count = 0;
        while !data.is_empty() {
            let passed = self.remaining.min(data.len());
            self.remaining -= passed;
            data = &data[passed..];
            while self.remaining == 0
                && let Some((byte, rest)) = data.split_first()
            {
                data = rest;
                if self.head_bytes > 0 {
                    self.length = (self.length << 8) | usize::from(*byte);
                }
                self.head_bytes += 1;
                if self.head_bytes == HEAD_BYTES {
                    count += 1;
                    self.remaining = std::mem::take(&mut self.length);
                    self.head_bytes = 0;
                }
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 3, 300, 1] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![9; length as usize]);
        }
        for size in [1, 4, 7, bytes.len()] {
            let mut scan = Scan::default();
            let count: u64 = bytes.chunks(size).map(|chunk| scan.messages_begun(chunk)).sum();
            assert_eq!(count, 4, "in pieces of {size}");
        }
    }
}
