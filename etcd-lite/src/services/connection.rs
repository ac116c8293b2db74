//! One accepted connection of the client port, after TLS if there is any: HTTP/1.1 or HTTP/2, told apart by what the client sends.

use std::time::Duration;

use component_base::gathered_writes::GatheredWrites;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::lenient_authority::LenientAuthority;
use super::ping_policy::PingPolicy;
use super::{ClientService, Served};
use crate::member::Member;

/// How long requests under way may take to finish after shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes a client may send ahead on one stream; a request of the largest size fits.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Serves a connection until the client closes it or, after `shutdown`, until its requests are answered.
pub async fn serve_connection<M, S>(stream: S, service: ClientService<M>, shutdown: CancellationToken)
where
    M: Member,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if service.served() == Served::Grpc {
        builder = builder.http2_only();
    }
    builder.http1().timer(TokioTimer::new());
    let config = service.config();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.concurrent_streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(4 * STREAM_WINDOW_BYTES)
        .keep_alive_interval((!config.keep_alive_interval.is_zero()).then_some(config.keep_alive_interval))
        .keep_alive_timeout(config.keep_alive_timeout);
    let stream = PingPolicy::new(GatheredWrites::new(stream), config.keep_alive_min_time);
    let stream = LenientAuthority::new(stream);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        // Clients that go away in the middle are everyday life.
        tracing::debug!(%error, "client connection ended");
    }
}
