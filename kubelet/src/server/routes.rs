//! Paths to answers.
//!
//! Never here: how streams and logs work.

use std::sync::Arc;

use bytes::Bytes;
use component_base::metrics;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::pod_view;
use serde_json::json;

use super::access::Peer;
use super::{Body, Shared, pod_logs, running, stats, streaming};

/// A response with a text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let body = Full::new(Bytes::from(text.into())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json_response(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The parameters of a query; a name may come several times.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what follows the question mark.
    pub fn parse(query: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Whether one of the names is set to `1` or `true`.
    pub fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|name| matches!(self.get(name), Some("1" | "true")))
    }
}

/// The local health check.
pub fn local(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/healthz" | "/healthz/ping" | "/livez" | "/readyz" => health(shared),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn health(shared: &Shared) -> Response<Body> {
    // A kubelet that waits for its network still works.
    if shared.manager.pods().is_synced() {
        text(StatusCode::OK, "ok")
    } else {
        text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "[-]pods failed: not listed from the API server yet\nhealthz check failed\n",
        )
    }
}

/// Answers a request of the main port.
pub async fn answer(shared: &Arc<Shared>, peer: Option<&Peer>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Err((status, message)) =
        shared.access.check(peer, request.headers(), request.method(), &path).await
    {
        return text(status, message);
    }
    let parts: Vec<String> = path.trim_matches('/').split('/').map(str::to_owned).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query());
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz", ..]) => health(shared),
        (&Method::GET, ["metrics"]) => {
            let running = stats::running_pods(&shared.manager.list());
            shared.running_pods.set(i64::try_from(running).unwrap_or(i64::MAX));
            text(StatusCode::OK, metrics::encode(&shared.registry.lock()))
        }
        (&Method::GET, ["metrics", "resource"]) => text(StatusCode::OK, stats::resource_metrics(shared)),
        (&Method::GET, ["stats", "summary"]) => json_response(&stats::summary(shared)),
        (&Method::GET, ["pods"]) => {
            let pods: Vec<Pod> = shared.manager.list().iter().map(|pod| (**pod).clone()).collect();
            json_response(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))
        }
        (&Method::GET, ["configz"]) => json_response(&json!({ "kubeletconfig": shared.shown })),
        (
            _,
            [
                "containerLogs" | "exec" | "attach" | "portForward" | "run" | "runningpods" | "logs"
                | "debug",
                ..,
            ],
        ) if !shared.debugging => text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n"),
        (&Method::GET, ["runningpods"]) => running_pods(shared).await,
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            match find(shared, namespace, pod, None) {
                Ok(found) => pod_logs::answer(shared, &found, container, &query).await,
                Err(response) => *response,
            }
        }
        (&Method::GET | &Method::POST, [what @ ("exec" | "attach"), namespace, pod, container])
        | (&Method::GET | &Method::POST, [what @ ("exec" | "attach"), namespace, pod, _, container]) => {
            let uid = if let [_, _, _, uid, _] = parts.as_slice() { Some(*uid) } else { None };
            match find(shared, namespace, pod, uid) {
                Ok(found) => {
                    streaming::exec(shared, &found, container, *what == "attach", &query, request).await
                }
                Err(response) => *response,
            }
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, pod, rest @ ..]) if rest.len() <= 1 => {
            match find(shared, namespace, pod, rest.first().copied()) {
                Ok(found) => streaming::port_forward(shared, &found, &query, request).await,
                Err(response) => *response,
            }
        }
        (_, ["run" | "logs" | "debug" | "checkpoint", ..]) => {
            text(StatusCode::NOT_IMPLEMENTED, format!("{path} is not implemented by Coracle yet"))
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// What runs, as the runtime has it, whatever the API server says.
async fn running_pods(shared: &Shared) -> Response<Body> {
    let runtime = &shared.context.runtime;
    let listed = tokio::try_join!(runtime.list_sandboxes(None), runtime.list_containers(None));
    match listed {
        Ok((sandboxes, containers)) => json_response(&running::pod_list(&sandboxes, &containers)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A pod of this node by name. The error is the response.
fn find(
    shared: &Shared,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<Arc<Pod>, Box<Response<Body>>> {
    shared
        .manager
        .find(namespace, name)
        .filter(|pod| uid.is_none_or(|uid| uid == pod_view::uid(pod)))
        .ok_or_else(|| {
            Box::new(text(StatusCode::NOT_FOUND, format!("pod {name}_{namespace} does not exist")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_keep_repeated_names_in_order() {
        let query = Query::parse(Some("command=sh&command=-c&command=a%20b&stdout=true&tty=1"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "a b"]);
        assert!(
            query.flag(&["output", "stdout"]) && query.flag(&["tty"]) && !query.flag(&["input", "stdin"])
        );
    }
}
