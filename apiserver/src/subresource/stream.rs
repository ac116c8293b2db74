//! exec, attach and portforward: the client's upgrade request goes on to the kubelet, and after both have switched protocols bytes are copied both ways.
//! What the bytes mean (SPDY or WebSocket frames) is between client and kubelet.

use bytes::Bytes;
use coracle_api::kinds::access::{boolean, items, text};
use coracle_api::meta::get;
use coracle_api::status::ApiError;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{container, kubelet};
use crate::server::app::App;
use crate::server::body::Response;
use crate::server::relay;
use crate::server::request_info::RequestInfo;

/// Headers that the kubelet needs; credentials stay here.
const PASSED_ON: &[&str] = &[
    "connection",
    "upgrade",
    "user-agent",
    "x-stream-protocol-version",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
];

/// Connects the client with the pod's kubelet.
///
/// # Errors
/// 404, 400 for the container, options or a pod without node, and the kubelet's refusals.
pub async fn handle(
    app: &App,
    info: &RequestInfo,
    mut request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let action = info.subresource().unwrap_or_default();
    let pod = app.registry.read(info.resource, info.namespace(), info.name()).await?;
    let mut options = options(info, action);
    app.registry.admit(info, &mut options).await?;
    let uri = kubelet_uri(&pod, info.namespace(), info.name(), action, &options)?;
    let node = get(&pod, &["spec", "nodeName"]).and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", info.name())));
    }
    if !request.headers().contains_key(UPGRADE) {
        return Err(ApiError::bad_request(format!(
            "{action} needs an upgraded connection: Upgrade request required"
        )));
    }
    let location = kubelet::locate(&app.registry, node).await?;
    let mut onward = Request::builder().method(request.method().clone()).uri(uri);
    for (name, value) in request.headers().iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str())) {
        onward = onward.header(name, value);
    }
    let onward = onward.body(Empty::<Bytes>::new()).map_err(ApiError::internal)?;
    let mut answer = kubelet::send(&app.options, &location, onward).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(kubelet::refusal(answer).await);
    }
    let (client, server) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    let stop = app.draining.clone();
    let end = info.audit.end();
    tokio::spawn(async move {
        relay::copy(client, server, stop).await;
        drop(end);
    });
    Ok(relay::switching_protocols(switched(answer.headers())))
}

fn switched(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| {
            **name == CONNECTION
                || **name == UPGRADE
                || name.as_str() == "x-stream-protocol-version"
                || name.as_str().starts_with("sec-websocket-")
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The options of the stream, as admission sees and may change them: from the query.
fn options(info: &RequestInfo, action: &str) -> Value {
    let query = &info.query;
    let kind = info.subresource.map_or("", |part| part.kind);
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if action == "portforward" {
        let ports =
            query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse::<i64>().ok());
        let ports: Vec<i64> = ports.collect();
        if !ports.is_empty() {
            options["ports"] = json!(ports);
        }
        return options;
    }
    for parameter in ["stdin", "stdout", "stderr", "tty"] {
        // Without the parameter attach and exec give stdout and stderr.
        let by_default = matches!(parameter, "stdout" | "stderr") && query.get(parameter).is_none();
        if by_default || query.flag(parameter) {
            options[parameter] = true.into();
        }
    }
    if let Some(container) = query.get("container").filter(|container| !container.is_empty()) {
        options["container"] = container.into();
    }
    let command: Vec<&str> = query.all("command").collect();
    if action == "exec" && !command.is_empty() {
        options["command"] = json!(command);
    }
    options
}

/// Path and query for the kubelet. Pure.
fn kubelet_uri(
    pod: &Value,
    namespace: &str,
    name: &str,
    action: &str,
    options: &Value,
) -> Result<String, ApiError> {
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    let path = if action == "portforward" {
        let ports: Vec<String> = items(options, "ports").iter().map(Value::to_string).collect();
        if !ports.is_empty() {
            out.append_pair("port", &ports.join(","));
        }
        format!("/portForward/{namespace}/{name}")
    } else {
        let container = container::choose(pod, name, text(options, "container"))?;
        let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error")];
        if !streams.iter().any(|(parameter, _)| boolean(options, parameter)) {
            return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        for (parameter, theirs) in streams {
            if boolean(options, parameter) {
                out.append_pair(theirs, "1");
            }
        }
        if boolean(options, "tty") {
            out.append_pair("tty", "1");
        }
        if action == "exec" {
            let command = items(options, "command");
            if command.is_empty() {
                return Err(ApiError::bad_request("you must specify at least one command for the container"));
            }
            for argument in command.iter().filter_map(Value::as_str) {
                out.append_pair("command", argument);
            }
        }
        format!("/{action}/{namespace}/{name}/{container}")
    };
    let query = out.finish();
    Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::{Query, Verb};

    fn uri(action: &str, query: &str) -> Result<String, ApiError> {
        let pods = coracle_api::resource::lookup("", "v1", "pods").expect("in the table");
        let mut info = RequestInfo::internal(Verb::Create, pods, Some("ns"), Some("x"));
        info.query = Query::parse(Some(query));
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}});
        kubelet_uri(&pod, "ns", "x", action, &options(&info, action))
    }

    #[test]
    fn parameters_turn_into_the_kubelets() {
        assert_eq!(
            uri("exec", "command=sh&command=-c&command=echo%20a%26b&container=a&stdin=true&stdout=true&stderr=false&tty=true").expect("good"),
            "/exec/ns/x/a?input=1&output=1&tty=1&command=sh&command=-c&command=echo+a%26b"
        );
        assert_eq!(
            uri("attach", "stdout=true&stderr=true").expect("good"),
            "/attach/ns/x/a?output=1&error=1"
        );
        assert_eq!(uri("portforward", "").expect("good"), "/portForward/ns/x");
        assert_eq!(uri("portforward", "ports=80&ports=81").expect("good"), "/portForward/ns/x?port=80%2C81");
        for (query, text) in [
            ("stdout=true", "you must specify at least one command for the container"),
            ("command=a&stdout=false&stderr=false", "you must specify at least 1 of stdin, stdout, stderr"),
        ] {
            assert_eq!(uri("exec", query).expect_err("is refused").message(), text);
        }
    }
}
