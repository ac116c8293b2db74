//! The HTTPS client for extension servers: connections are kept and used again, one pool an endpoint. Answers are bounded in time and, where they are
//! read whole, in size.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use super::connect::Connector;
use super::tls::{Identity, Trust};
use super::{Endpoint, Target};
use crate::registry::Registry;
use crate::server::body::Body;

/// Clients kept; when there are more, all are made anew.
const CLIENTS_MAX: usize = 200;
const IDLE_PER_CLIENT_MAX: usize = 16;
const IDLE_MAX: Duration = Duration::from_secs(90);
/// The largest answer that is read whole.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

type Pooled = Client<Connector, Body>;
/// Where to, whom to trust, and since when the certificate to show is what it is.
type Key = (Target, Trust, Option<SystemTime>);

/// The clients of all extension servers.
pub struct Clients {
    registry: Arc<Registry>,
    /// Certificate and key to show, where asked for.
    identity: Option<Identity>,
    /// A password or token to show.
    authorization: Option<HeaderValue>,
    kept: Mutex<HashMap<Key, Pooled>>,
}

impl Clients {
    /// Clients that show a certificate, or none. A renewed one is shown from then on.
    pub fn new(registry: Arc<Registry>, identity: Option<Identity>) -> Self {
        Self { registry, identity, authorization: None, kept: Mutex::default() }
    }

    /// The same, which say who they are in a header too.
    #[must_use]
    pub fn with_authorization(mut self, authorization: Option<HeaderValue>) -> Self {
        self.authorization = authorization;
        self
    }

    fn of(&self, endpoint: &Endpoint) -> Result<Pooled, String> {
        let shown = match &self.identity {
            Some(Identity::Files { cert, .. }) => {
                std::fs::metadata(cert).and_then(|about| about.modified()).ok()
            }
            Some(Identity::Pem { .. }) | None => None,
        };
        let key = (endpoint.target.clone(), endpoint.trust.clone(), shown);
        if let Some(client) = self.kept.lock().get(&key) {
            return Ok(client.clone());
        }
        let connector = Connector {
            registry: Arc::clone(&self.registry),
            target: endpoint.target.clone(),
            config: endpoint.trust.client(self.identity.as_ref())?,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_CLIENT_MAX)
            .build(connector);
        let mut kept = self.kept.lock();
        if kept.len() >= CLIENTS_MAX {
            kept.clear();
        }
        kept.insert(key, client.clone());
        Ok(client)
    }

    /// Sends a request, whose URI is a path, and waits for the head of the answer.
    ///
    /// # Errors
    /// Why there is none, in upstream's words without what was asked.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, String> {
        let client = self.of(endpoint)?;
        *request.uri_mut() =
            format!("https://{}{}", endpoint.authority, request.uri()).parse().map_err(|_| {
                format!("{:?} is no URL", format_args!("https://{}{}", endpoint.authority, request.uri()))
            })?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        client.request(request).await.map_err(|error| innermost(&error))
    }

    /// Posts JSON to the endpoint's own path and reads the answer, all within `patience`.
    ///
    /// # Errors
    /// Why there is no good answer, in upstream's words.
    pub async fn post(&self, endpoint: &Endpoint, body: Bytes, patience: Duration) -> Result<Bytes, String> {
        self.try_post(endpoint, body, patience).await.map_err(|failure| failure.text)
    }

    /// The same, saying whether it is worth trying again.
    ///
    /// # Errors
    /// As for [`Clients::post`].
    pub async fn try_post(
        &self,
        endpoint: &Endpoint,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, Failure> {
        let path = format!("{}?timeout={}s", endpoint.path, patience.as_secs().max(1));
        let url = format!("https://{}{path}", endpoint.authority);
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, concat!("kube-apiserver/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| Failure { text: error.to_string(), may_pass: false })?;
        self.answered(endpoint, request, &format!("Post {url:?}"), patience).await
    }

    /// Reads what is at the endpoint's own path, all within `patience`.
    ///
    /// # Errors
    /// Why there is no good answer.
    pub async fn get(&self, endpoint: &Endpoint, patience: Duration) -> Result<Bytes, String> {
        let what = format!("Get \"https://{}{}\"", endpoint.authority, endpoint.path);
        let request = Request::get(&endpoint.path)
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, concat!("kube-apiserver/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| error.to_string())?;
        self.answered(endpoint, request, &what, patience).await.map_err(|failure| failure.text)
    }

    async fn answered(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        what: &str,
        patience: Duration,
    ) -> Result<Bytes, Failure> {
        let unreached = |text: String| Failure { text, may_pass: true };
        let asked = async {
            let sent = self.send(endpoint, request).await;
            let answer = sent.map_err(|error| unreached(format!("{what}: {error}")))?;
            let status = answer.status();
            let bytes = read(answer.into_body()).await.map_err(unreached)?;
            let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            if status.is_success() {
                Ok(bytes)
            } else {
                Err(Failure { text: refusal(status, &bytes), may_pass })
            }
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(unreached(format!("{what}: context deadline exceeded"))),
        }
    }
}

/// Why there is no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In upstream's words.
    pub text: String,
    /// Whether there may be one the next time.
    pub may_pass: bool,
}

/// Reads an answer whole.
///
/// # Errors
/// It breaks off or is too large.
pub async fn read(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"))
        }
        Err(error) => Err(format!("unexpected error when reading response body: {error}")),
    }
}

/// What clients of the API call an answer that is none of success. Pure.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    const TEXT_MAX: usize = 2048;
    if let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body)
        && answer["kind"] == "Status"
        && let Some(message) = answer["message"].as_str().filter(|message| !message.is_empty())
    {
        return message.to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(TEXT_MAX)]).trim().to_owned();
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => text,
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 => "the server was unable to respond with a content type that the client supports".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        415 => "the server was not able to decode the body".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request"
            .to_owned(),
        500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// The cause at the end of an error's chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    if at.to_string().is_empty() { error.to_string() } else { at.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_upstreams_words() {
        let text =
            |code: u16, body: &str| refusal(StatusCode::from_u16(code).expect("a code"), body.as_bytes());
        assert_eq!(text(404, "x"), "the server could not find the requested resource");
        assert_eq!(
            text(500, "oh\n"),
            "an error on the server (\"oh\") has prevented the request from succeeding"
        );
        assert_eq!(text(500, r#"{"kind":"Status","message":"no"}"#), "no");
    }
}
