//! The connection of one life of the process to the server: plain HTTP requests in, answers and watches out, with failures, and the end of that life between
//! any two writes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use history_oracle::Key;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::faults::{Failure, Faults};
use crate::random::Random;
use crate::server::{Deletion, Refused, Server};
use crate::watch::Watch;

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// One life's connection.
#[derive(Clone)]
pub struct Link {
    server: Server,
    faults: Arc<Faults>,
    random: Arc<Mutex<Random>>,
    alive: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    /// The write in which it ends, and whether before or after its effect; 0 is never.
    dies_at: u64,
    died: CancellationToken,
}

/// What a request is about.
struct Address {
    key: Key,
    subresource: String,
}

/// Reads `/api/v1/namespaces/NS/PLURAL/NAME/SUBRESOURCE` and the like.
fn address(path: &str) -> Option<Address> {
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let version = if *parts.first()? == "api" { 2 } else { 3 };
    parts.drain(..version.min(parts.len()));
    let namespace = match parts.as_slice() {
        ["namespaces", namespace, _, ..] => {
            let namespace = (*namespace).to_owned();
            parts.drain(..2);
            namespace
        }
        _ => String::new(),
    };
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    Some(Address { key: Key::new(parts.first()?, &namespace, part(1)), subresource: part(2).to_owned() })
}

fn answer(code: u16, body: &Value) -> Answer {
    let body =
        Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    answer
}

fn refused(refused: &Refused) -> Answer {
    let Refused { code, reason, message } = refused;
    answer(
        *code,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "code": code,
        }),
    )
}

fn lost() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection was lost")
}

impl Link {
    /// The connection of a life that ends by `died`.
    pub fn new(server: Server, faults: Arc<Faults>, mut random: Random, died: CancellationToken) -> Self {
        let dies_at = if faults.kill_every == 0 { 0 } else { random.below(1..faults.kill_every + 1) };
        Self {
            server,
            faults,
            random: Arc::new(Mutex::new(random)),
            alive: Arc::new(AtomicBool::new(true)),
            writes: Arc::default(),
            dies_at,
            died,
        }
    }

    /// A client that goes by it.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock())
    }

    async fn handle(self, request: Request<Body>) -> Result<Answer, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| lost())?.to_bytes();
        let Some(address) = address(parts.uri.path()) else {
            return Ok(refused(&not_served(parts.uri.path())));
        };
        let query = parts.uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let delay = self.draw(|random| random.millis(1..20));
        tokio::time::sleep(delay).await;
        if !self.alive.load(Ordering::Relaxed) {
            return futures::future::pending().await;
        }
        if address.key.resource == "events" {
            return Ok(answer(201, &serde_json::from_slice(&body).unwrap_or_default()));
        }
        if parameter("watch").is_some() {
            let since = parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
            return Ok(self.watch(address.key.resource, since));
        }
        let makes = parts.method == Method::POST;
        let failure = self.draw(|random| self.faults.of_request(random, makes));
        let failure = failure.filter(|_| self.server.is_troubled());
        if failure == Some(Failure::Before) {
            return Err(lost());
        }
        let is_write = parts.method != Method::GET;
        let dies = is_write
            && self.server.is_troubled()
            && self.writes.fetch_add(1, Ordering::Relaxed) + 1 == self.dies_at;
        if dies && self.draw(|random| random.percent(50)) {
            return self.die().await;
        }
        let result = self.serve(&parts.method, &address, &parts.headers, &body);
        if dies {
            return self.die().await;
        }
        if let Err(refused) = &result {
            self.server.tell(|| {
                format!(
                    "      {} {} {}: {} {}",
                    parts.method, address.key, address.subresource, refused.code, refused.message
                )
            });
        }
        let delay = self.draw(|random| random.millis(1..20));
        tokio::time::sleep(delay).await;
        if !self.alive.load(Ordering::Relaxed) {
            return futures::future::pending().await;
        }
        if failure.is_some() && is_write {
            return Err(lost());
        }
        Ok(match result {
            Ok(object) => answer(if parts.method == Method::POST { 201 } else { 200 }, &object),
            Err(error) => refused(&error),
        })
    }

    async fn die<T>(&self) -> T {
        self.alive.store(false, Ordering::Relaxed);
        self.server.tell(|| "      the process is killed".to_owned());
        self.died.cancel();
        futures::future::pending().await
    }

    /// Ends the life without a fault.
    pub fn end(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn watch(&self, resource: String, since: u64) -> Answer {
        let seed = self.draw(Random::next);
        let watch = Watch::new(
            resource,
            since,
            self.server.clone(),
            Arc::clone(&self.faults),
            Arc::clone(&self.alive),
            Random::new(seed, 1),
        );
        let frames = watch.lines().map(|line| line.map(http_body::Frame::data));
        Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
    }

    fn serve(
        &self,
        method: &Method,
        at: &Address,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Result<Value, Refused> {
        let key = &at.key;
        let sent = || -> Result<Value, Refused> {
            serde_json::from_slice(body).map_err(|error| Refused {
                code: 400,
                reason: "BadRequest",
                message: error.to_string(),
            })
        };
        match *method {
            Method::GET if key.name.is_empty() => {
                let (items, revision) = self.server.list(&key.resource, &key.namespace);
                Ok(json!({
                    "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": revision.to_string() }, "items": items,
                }))
            }
            Method::GET if at.subresource == "scale" => {
                let object = self.server.get(key)?;
                Ok(json!({
                    "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": object["metadata"],
                    "spec": { "replicas": object["spec"]["replicas"] },
                }))
            }
            Method::GET => self.server.get(key),
            Method::POST => self.server.create(&key.resource, &key.namespace, sent()?),
            Method::PUT => {
                let object = sent()?;
                self.server.update(key, &at.subresource, |_| Ok(object))
            }
            Method::PATCH => {
                let patch = sent()?;
                let strategic = headers
                    .get(http::header::CONTENT_TYPE)
                    .is_some_and(|kind| kind.as_bytes().starts_with(b"application/strategic"));
                self.server.update(key, &at.subresource, |old| Ok(patched(old, patch, strategic)))
            }
            Method::DELETE => {
                let options = if body.is_empty() { Value::Null } else { sent()? };
                let asked = |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
                let at_once = options["gracePeriodSeconds"] == 0;
                self.server
                    .delete(key, &Deletion { uid: asked("uid"), version: asked("resourceVersion"), at_once })
            }
            _ => Err(not_served(method.as_str())),
        }
    }
}

fn not_served(what: &str) -> Refused {
    Refused { code: 404, reason: "NotFound", message: format!("not served: {what}") }
}

/// The object as a patch leaves it; what the patch says of version and uid stays as a precondition.
fn patched(old: &Value, mut patch: Value, strategic: bool) -> Value {
    const REMOVED: &str = "$deleteFromPrimitiveList/finalizers";
    let mut new = old.clone();
    // The version of the object itself is no precondition.
    if let Some(meta) = new["metadata"].as_object_mut() {
        meta.remove("resourceVersion");
    }
    let removed =
        patch["metadata"].as_object_mut().filter(|_| strategic).and_then(|meta| meta.remove(REMOVED));
    json_patch::merge(&mut new, &patch);
    if let (Some(Value::Array(removed)), Some(finalizers)) =
        (removed, new["metadata"]["finalizers"].as_array_mut())
    {
        finalizers.retain(|finalizer| !removed.contains(finalizer));
    }
    new
}

impl tower::Service<Request<Body>> for Link {
    type Response = Answer;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().handle(request))
    }
}
