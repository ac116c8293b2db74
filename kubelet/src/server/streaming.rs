//! exec, attach and port-forward: asks the runtime where to stream, then passes the upgraded bytes through unchanged, so
//! that whatever protocol client and runtime agree on (SPDY, WebSocket) works.
//!
//! Never here: the protocols themselves.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::ExecRequest;
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::observed::RunState;
use kubelet_core::pod_view;
use tokio::net::TcpStream;
use tonic::Code;
use url::Url;

use super::routes::{Query, text};
use super::{Body, Shared};
use crate::runtime::RuntimeError;
use crate::runtime::observe::observe;

const CONNECT: Duration = Duration::from_secs(10);

fn refusal(error: &RuntimeError) -> Response<Body> {
    let status = match error.code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, error.message.clone())
}

/// Runs a command in a container, or attaches to its main process.
pub async fn exec(
    shared: &Shared,
    pod: &Pod,
    container: &str,
    attach: bool,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let runtime = &shared.context.runtime;
    let observed = match observe(runtime.as_ref(), pod_view::uid(pod)).await {
        Ok(observed) => observed,
        Err(error) => return refusal(&error),
    };
    let Some(seen) = observed.newest(container).filter(|seen| seen.state == RunState::Running) else {
        return text(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"));
    };
    let tty = query.flag(&["tty"]);
    let message = ExecRequest {
        container_id: seen.id.clone(),
        cmd: query.all("command").map(str::to_owned).collect(),
        tty,
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        // With a terminal there is one stream only.
        stderr: query.flag(&["error", "stderr"]) && !tty,
    };
    if !message.stdin && !message.stdout && !message.stderr {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let url = if attach { runtime.attach_url(message).await } else { runtime.exec_url(message).await };
    match url {
        Ok(url) => proxy(&url, request).await,
        Err(error) => refusal(&error),
    }
}

/// Forwards ports of a pod.
pub async fn port_forward(
    shared: &Shared,
    pod: &Pod,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let runtime = &shared.context.runtime;
    let sandbox = match observe(runtime.as_ref(), pod_view::uid(pod)).await {
        Ok(observed) => observed.ready_sandbox().map(|sandbox| sandbox.id.clone()),
        Err(error) => return refusal(&error),
    };
    let Some(sandbox) = sandbox else {
        let name = format!("{}_{}", pod_view::name(pod), pod_view::namespace(pod));
        return text(StatusCode::NOT_FOUND, format!("sandbox of pod {name} not found"));
    };
    let ports =
        query.all("port").flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok()).collect();
    match runtime.port_forward_url(&sandbox, ports).await {
        Ok(url) => proxy(&url, request).await,
        Err(error) => refusal(&error),
    }
}

/// Repeats the request at `url` and joins the two connections.
async fn proxy(url: &str, mut request: Request<Incoming>) -> Response<Body> {
    let gateway = |why: String| {
        text(StatusCode::BAD_GATEWAY, format!("cannot reach the runtime's streaming server: {why}"))
    };
    let Some((authority, target)) = Url::parse(url).ok().and_then(|url| {
        let authority = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Some((authority, format!("{}{query}", url.path())))
    }) else {
        return gateway(format!("it gave {url:?}"));
    };
    let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(&authority)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return gateway(format!("{authority}: {error}")),
        Err(_) => return gateway(format!("{authority}: timed out")),
    };
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return gateway(error.to_string()),
    };
    tokio::spawn(connection.with_upgrades());
    let mut repeated =
        match Request::builder().method(request.method()).uri(target).body(Empty::<Bytes>::new()) {
            Ok(repeated) => repeated,
            Err(error) => return gateway(error.to_string()),
        };
    for (name, value) in request.headers() {
        // Credentials are for the kubelet alone.
        if name != header::AUTHORIZATION && name != header::HOST && name != header::CONTENT_LENGTH {
            repeated.headers_mut().append(name, value.clone());
        }
    }
    if let Ok(host) = authority.parse() {
        repeated.headers_mut().insert(header::HOST, host);
    }
    let mut answer = match sender.send_request(repeated).await {
        Ok(answer) => answer,
        Err(error) => return gateway(error.to_string()),
    };
    let status = answer.status();
    let headers = answer.headers().clone();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = answer.into_body().map_err(std::io::Error::other).boxed();
        return with_headers(status, &headers, body);
    }
    let ours = hyper::upgrade::on(&mut request);
    let theirs = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else { return };
        let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
        if let Err(error) = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await {
            tracing::debug!(%error, "a stream ended early");
        }
    });
    with_headers(status, &headers, Empty::new().map_err(|never| match never {}).boxed())
}

fn with_headers(status: StatusCode, headers: &HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if name != header::TRANSFER_ENCODING {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
