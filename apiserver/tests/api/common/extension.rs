//! A small HTTPS server that tests put in the place of webhooks and of other API servers. Gone when dropped.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use component_base::tls::{self, ServerTls};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Cluster;

/// The name under which certificates of extension servers hold, besides localhost.
pub const SERVICE_HOST: &str = "hooks.default.svc";

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub uri: String,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.uri.split('?').next().unwrap_or_default()
    }

    /// The answer to an AdmissionReview with these fields in the response.
    pub fn review(&self, response: Value) -> (u16, Value) {
        let mut response = response;
        response["uid"] = self.body["request"]["uid"].clone();
        (200, json!({"apiVersion": self.body["apiVersion"], "kind": self.body["kind"], "response": response}))
    }

    /// The answer that applies a JSON patch.
    pub fn patch(&self, operations: Value) -> (u16, Value) {
        let patch = STANDARD.encode(operations.to_string());
        self.review(json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
    }
}

/// The server.
pub struct Extension {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Extension {
    /// Answers with what `answer` makes of each request.
    pub async fn start(
        cluster: &Cluster,
        answer: impl Fn(&Seen) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let (cert, key) = cluster.pki.issue_for("extension", "extension", &[], &["localhost", SERVICE_HOST]);
        let config = ServerTls {
            cert,
            key,
            client_ca: Some(cluster.dir.path().join("ca.crt")),
            require_client_cert: false,
            alpn: &["http/1.1"],
        };
        let acceptor = TlsAcceptor::from(tls::server_config(&config).expect("TLS"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (list, answer) = (Arc::clone(&seen), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, list, answer) = (acceptor.clone(), Arc::clone(&list), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (list, answer) = (Arc::clone(&list), Arc::clone(&answer));
                        async move {
                            if request.headers().contains_key("upgrade") {
                                return Ok(echo(request, &list));
                            }
                            let (head, body) = request.into_parts();
                            let bytes = body.collect().await?.to_bytes();
                            let seen = Seen {
                                method: head.method.to_string(),
                                uri: head.uri.to_string(),
                                headers: head.headers,
                                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                            };
                            let (status, body) = answer(&seen);
                            list.lock().push(seen);
                            let response = Response::builder()
                                .status(status)
                                .header("content-type", "application/json")
                                .body(Full::new(Bytes::from(body.to_string())));
                            Ok::<_, hyper::Error>(response.expect("a response"))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { port, seen, task }
    }

    /// What came in so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// A `clientConfig` that names this server by URL.
    pub fn by_url(&self, cluster: &Cluster, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.port), "caBundle": ca_bundle(cluster)})
    }
}

/// Upgrades the connection and sends back what comes.
fn echo(mut request: Request<Incoming>, seen: &Mutex<Vec<Seen>>) -> Response<Full<Bytes>> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let protocol = request.headers()["upgrade"].clone();
    seen.lock().push(Seen {
        method: request.method().to_string(),
        uri: request.uri().to_string(),
        headers: request.headers().clone(),
        body: Value::Null,
    });
    let response =
        Response::builder().status(101).header("connection", "Upgrade").header("upgrade", protocol);
    response.body(Full::new(Bytes::new())).expect("a response")
}

/// The test's authority as `caBundle`.
pub fn ca_bundle(cluster: &Cluster) -> String {
    STANDARD.encode(std::fs::read(cluster.dir.path().join("ca.crt")).expect("read"))
}
