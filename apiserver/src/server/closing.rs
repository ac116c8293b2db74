//! The end of the server as its clients see it: with `--shutdown-send-retry-after` new requests are told to come back later, to another server,
//! while those in work are brought to their end.

use std::time::Duration;

use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::{self, Response};

/// What is answered to the end: who watches the server wants to see how it goes.
const ANSWERED_PATHS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
/// How this server's own requests begin their names.
const OWN_AGENT: &str = "kube-apiserver/";

/// Marks an answer as the last of its connection: HTTP/1.1 says `Connection: close`, HTTP/2 sends GOAWAY and lets the other requests finish.
#[derive(Clone, Copy, Debug)]
pub struct LastOfConnection;

/// Requests in work, and whether more are taken.
#[derive(Debug, Default)]
pub struct Closing {
    refusing: CancellationToken,
    in_work: TaskTracker,
}

impl Closing {
    /// Counts a request, unless it runs long, as in work until the token is dropped.
    pub fn enter(&self) -> TaskTrackerToken {
        self.in_work.token()
    }

    /// Refuses new requests from now on, and waits until those in work are done, but no longer than this.
    pub async fn refuse_and_wait(&self, at_most: Duration) {
        self.refusing.cancel();
        self.in_work.close();
        if tokio::time::timeout(at_most, self.in_work.wait()).await.is_err() {
            tracing::warn!(left = self.in_work.len(), "requests in work did not finish in time");
        }
    }

    /// The answer to a request that comes too late.
    pub fn refusal<B>(&self, request: &Request<B>) -> Option<Response> {
        (self.refusing.is_cancelled() && !is_answered_to_the_end(request)).then(later)
    }
}

fn is_answered_to_the_end<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    ANSWERED_PATHS.iter().any(|prefix| path.starts_with(prefix)) || agent.starts_with(OWN_AGENT.as_bytes())
}

fn later() -> Response {
    let text = "The apiserver is shutting down, please try again later.\n";
    let mut response = body::plain(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response.extensions_mut().insert(LastOfConnection);
    response
}

/// Whether a request is one of the fraction `chance`, by 64 random bits.
pub fn is_drawn(chance: f64, random: u64) -> bool {
    const ONE: f64 = (1_u64 << 53) as f64;
    ((random >> 11) as f64 / ONE) < chance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, agent: &str) -> Request<()> {
        Request::get(path).header(USER_AGENT, agent).body(()).expect("a request")
    }

    #[tokio::test]
    async fn late_requests_are_told_to_come_back() {
        let closing = Closing::default();
        assert!(closing.refusal(&request("/api/v1/pods", "kubectl/v1.35.0")).is_none());
        let working = closing.enter();
        let waiting = closing.refuse_and_wait(Duration::from_secs(20));
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending(), "one is in work");
        let answer = closing.refusal(&request("/api/v1/pods", "kubectl/v1.35.0")).expect("refused");
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[RETRY_AFTER], "5");
        assert!(answer.extensions().get::<LastOfConnection>().is_some());
        for (path, agent) in
            [("/readyz", ""), ("/metrics", ""), ("/livez/etcd", ""), ("/api", "kube-apiserver/v1")]
        {
            assert!(closing.refusal(&request(path, agent)).is_none(), "{path} {agent}");
        }
        drop(working);
        waiting.await;
    }

    #[test]
    fn a_fraction_is_drawn() {
        assert!(!is_drawn(0.0, 0) && !is_drawn(0.02, u64::MAX));
        assert!(is_drawn(0.02, 0) && is_drawn(1.0, u64::MAX));
        let step = u64::MAX / 10_000;
        let drawn = (0..10_000).filter(|n| is_drawn(0.02, n * step)).count();
        assert!((199..=201).contains(&drawn), "{drawn}");
    }
}
