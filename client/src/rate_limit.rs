//! Limits how many requests a component sends a second (`--kube-api-qps`, `--kube-api-burst`): requests beyond the burst wait their
//! turn. Owns the bucket ([`TokenBucket`], pure) and the layer round the HTTP client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{Layer, Service};

/// A bucket that fills at a steady rate. `now` is the time since any fixed point.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    /// May be negative: tokens promised to requests that wait.
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gains `per_second` (above 0) a second.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second, burst, tokens: burst, at: Duration::ZERO }
    }

    /// Takes a token and returns how long to wait before using it.
    pub fn take(&mut self, now: Duration) -> Duration {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = now;
        self.tokens -= 1.0;
        if self.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.tokens / self.per_second)
        }
    }
}

#[derive(Clone)]
struct Shared {
    bucket: Arc<Mutex<TokenBucket>>,
    started: Instant,
}

/// Puts [`RateLimited`] round a service.
#[derive(Clone)]
pub struct RateLimit {
    shared: Option<Shared>,
}

impl RateLimit {
    /// A limit for a client and its clones; `per_second` of 0 or less means none.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let limited = per_second > 0.0;
        let bucket = || Arc::new(Mutex::new(TokenBucket::new(per_second, burst)));
        Self { shared: limited.then(|| Shared { bucket: bucket(), started: Instant::now() }) }
    }
}

impl<S> Layer<S> for RateLimit {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimited { inner, shared: self.shared.clone() }
    }
}

/// A service whose requests wait for their token.
pub struct RateLimited<S> {
    inner: S,
    shared: Option<Shared>,
}

impl<S, R> Service<R> for RateLimited<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let wait = self.shared.as_ref().map(|shared| shared.bucket.lock().take(shared.started.elapsed()));
        // Nothing is sent before the future is polled.
        let response = self.inner.call(request);
        match wait.filter(|wait| !wait.is_zero()) {
            None => Box::pin(response),
            Some(wait) => Box::pin(async move {
                tokio::time::sleep(wait).await;
                response.await
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut bucket = TokenBucket::new(10.0, 3);
        let waits: Vec<_> = (0..5).map(|_| bucket.take(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        assert_eq!(bucket.take(Duration::from_secs(10)), Duration::ZERO, "it has filled again");
        let waits: Vec<_> = (0..3).map(|_| bucket.take(Duration::from_secs(10)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100], "to the burst, not beyond");
    }
}
