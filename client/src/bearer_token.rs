//! Puts a bearer token that changes over time on every request of a client. Owns the token and the layer round the HTTP client; where tokens come from is the
//! caller's matter.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::{HeaderValue, Request, Response, StatusCode};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tower::{Layer, Service};

#[derive(Default)]
struct Shared {
    header: RwLock<Option<HeaderValue>>,
    refused: Notify,
}

/// A token shared by a client, its clones and whoever renews it. Cheap to clone.
#[derive(Clone, Default)]
pub struct BearerToken(Arc<Shared>);

impl BearerToken {
    /// Uses this token from now on.
    ///
    /// # Errors
    /// The text cannot be part of a header.
    pub fn set(&self, token: &str) -> Result<(), InvalidHeaderValue> {
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))?;
        header.set_sensitive(true);
        *self.0.header.write() = Some(header);
        Ok(())
    }

    /// Waits until the server has refused the token.
    pub async fn refused(&self) {
        self.0.refused.notified().await;
    }
}

impl<S> Layer<S> for BearerToken {
    type Service = WithToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithToken { inner, token: self.clone() }
    }
}

/// A service whose requests carry the token.
#[derive(Clone)]
pub struct WithToken<S> {
    inner: S,
    token: BearerToken,
}

impl<S, A, B> Service<Request<A>> for WithToken<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        if let Some(header) = &*self.token.0.header.read() {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let (response, token) = (self.inner.call(request), self.token.clone());
        Box::pin(async move {
            let response = response.await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                token.0.refused.notify_one();
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn requests_carry_the_newest_token_and_a_refusal_is_told() {
        let token = BearerToken::default();
        let mut service = token.layer(tower::service_fn(async |request: Request<()>| {
            let header = request.headers().get(AUTHORIZATION).cloned();
            let known = header.as_ref().is_some_and(|header| header == "Bearer second");
            let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            Ok::<_, Infallible>(Response::builder().status(status).body(()).expect("a response"))
        }));
        token.set("first").expect("a header");
        let answer = service.call(Request::new(())).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        token.refused().await;
        token.set("second").expect("a header");
        assert_eq!(service.call(Request::new(())).await.expect("answers").status(), StatusCode::OK);
        assert!(token.set("a\nb").is_err());
    }
}
