//! One connection, encrypted already: HTTP/1.1 or HTTP/2, within limits on how long a client may take for what it sends, and for what it reads.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use component_base::gathered_writes::GatheredWrites;
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arriving::Heads;
use super::body::Response;
use super::closing::LastOfConnection;
use super::sending::{Patience, Sending, SentBody, bounded};

/// The largest head of a request over HTTP/2, as that protocol counts: URLs of the longest kind that can be understood, and as much besides.
const HEAD_BYTES_MAX: u32 = 128 * 1024;
/// Bytes of an answer that wait within a stream.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// How often a client over HTTP/2 is asked whether it is there, and how long it may take to say so.
const PINGS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));
/// How long a connection that has been told to end may take, if nothing is in work on it.
const ENDING_MAX: Duration = Duration::from_secs(15);

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Requests in work at a time.
    pub streams_max: u32,
    /// How long it may be without a request.
    pub idle_max: Duration,
    /// How long the head of a request over HTTP/1.1 may take to arrive, once it has begun. HTTP/2 asks for signs of life, which cannot come in the
    /// middle of a head.
    pub head_max: Duration,
}

/// Serves until the client is done or out of time, or `stop` fires and what is in work is done.
///
/// # Errors
/// Why the connection ended before its time.
pub async fn serve<S, A, F>(
    stream: S,
    is_http2: bool,
    allowance: Allowance,
    stop: CancellationToken,
    answer: A,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response> + Send + 'static,
{
    let ending = CancellationToken::new();
    let last = ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // What the work takes is free again as soon as there is an answer: one that runs long would keep it otherwise, as would an idle connection.
        let (answered, last) = (Box::pin(answer(request)), last.clone());
        async move {
            let sending = Sending::current();
            sending.receive();
            let mut response = answered.await;
            if response.extensions_mut().remove::<LastOfConnection>().is_some() {
                if is_http2 {
                    last.cancel();
                } else {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            let patience = response.extensions_mut().remove::<Patience>();
            let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            Ok::<_, Infallible>(
                response.map(|body| SentBody::new(body, patience, sending, is_http2, is_upgrade)),
            )
        }
    });
    let told_to_end = async {
        tokio::select! { () = stop.cancelled() => {}, () = ending.cancelled() => {} }
    };
    let ended = if is_http2 {
        let streams = Streams::default();
        let connection = http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(allowance.streams_max)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .keep_alive_interval(PINGS.0)
            .keep_alive_timeout(PINGS.1)
            // Gathering is not for HTTP/1.1, whose connections may be upgraded to streams that flush once and then wait.
            .serve_connection(TokioIo::new(GatheredWrites::new(stream)), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = told_to_end => {
                connection.as_mut().graceful_shutdown();
                Some(connection.await)
            }
            () = streams.unused_for(allowance.idle_max) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => Some(ended),
                    // It may have got another request just before it was told.
                    () = streams.unused_for(ENDING_MAX) => None,
                }
            }
        }
    } else {
        let sending = Arc::new(Sending::default());
        let stream = TokioIo::new(Heads::new(stream, Arc::clone(&sending), allowance.head_max));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(allowance.idle_max)
            .serve_connection(stream, service)
            .with_upgrades();
        let served = async {
            let mut connection = pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = told_to_end => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        bounded(served, sending).await
    };
    match ended {
        Some(ended) => ended.map_err(|error| error.to_string()),
        None => Err("its client was out of time".to_owned()),
    }
}

/// Runs the requests of a connection, each of which is cut when its answer is not read in time, and knows how many there are.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Use>>);

struct Use {
    in_work: usize,
    /// When the last one ended.
    since: Instant,
}

impl Default for Use {
    fn default() -> Self {
        Self { in_work: 0, since: Instant::now() }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.lock().in_work += 1;
        let in_work = InWork(self.clone());
        tokio::spawn(async move {
            let _in_work = in_work;
            if bounded(future, Arc::default()).await.is_none() {
                tracing::debug!("an answer was cut: its client did not read it in time");
            }
        });
    }
}

impl Streams {
    /// Returns when there has been no request for so long.
    async fn unused_for(&self, time: Duration) {
        let start = Instant::now();
        loop {
            let now = Instant::now();
            // Looked at now and then, so that requests need not tell.
            let due = match &*self.0.lock() {
                used if used.in_work > 0 => now + time,
                used => used.since.max(start) + time,
            };
            if due <= now {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

struct InWork(Streams);

impl Drop for InWork {
    fn drop(&mut self) {
        let mut used = self.0.0.lock();
        used.in_work -= 1;
        used.since = Instant::now();
    }
}

#[cfg(test)]
#[path = "../../tests/api/common/http2.rs"]
mod h2_client;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::stream;
    use http_body::Body as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;

    use crate::server::body;
    use h2_client::{Http2, Part};

    const ALLOWANCE: Allowance =
        Allowance { streams_max: 100, idle_max: Duration::from_secs(90), head_max: Duration::from_secs(32) };
    /// How long answers may be on their way.
    const SENT_MAX: Duration = Duration::from_secs(60);
    /// The number of HTTP/2's reason.
    const CANCEL: u32 = 8;
    const HEAD: &[u8] = b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n";

    /// `/small`: some bytes; `/large`: many at once; `/endless`: without end, all in time; `/events`: the same, each part in time; `/quiet`: nothing.
    fn answer(path: &str, held: &Arc<()>) -> Response {
        let held = Arc::clone(held);
        let endless = stream::repeat_with(move || {
            let _ = &held;
            Bytes::from_static(&[b'x'; 10_000])
        });
        let (body, patience) = match path {
            "/large" => {
                (body::full(vec![b'x'; 5_000_000].into()), Patience::Until(Instant::now() + SENT_MAX))
            }
            "/endless" => (body::streaming(endless), Patience::Until(Instant::now() + SENT_MAX)),
            "/events" => (body::streaming(endless), Patience::EachPart(SENT_MAX)),
            "/quiet" => (body::streaming(stream::pending()), Patience::EachPart(SENT_MAX)),
            _ => (body::full(Bytes::from_static(b"some")), Patience::Until(Instant::now() + SENT_MAX)),
        };
        let mut response = Response::new(body);
        response.extensions_mut().insert(patience);
        response
    }

    /// A connection, and what its endless answers hold.
    fn start(is_http2: bool) -> (DuplexStream, JoinHandle<Result<(), String>>, Arc<()>) {
        let (client, server) = tokio::io::duplex(1024);
        let held = Arc::new(());
        let answers = Arc::clone(&held);
        let served = serve(server, is_http2, ALLOWANCE, CancellationToken::new(), move |request| {
            std::future::ready(answer(request.uri().path(), &answers))
        });
        (client, tokio::spawn(served), held)
    }

    async fn seconds_until<T>(end: impl Future<Output = T>) -> u64 {
        let start = Instant::now();
        end.await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_say_nothing_are_left() {
        let (_client, served, _) = start(false);
        assert_eq!(seconds_until(served).await, 90);
        let (_client, served, _) = start(true);
        assert_eq!(seconds_until(served).await, 90 + 15);
    }

    #[tokio::test(start_paused = true)]
    async fn heads_that_drip_are_not_waited_for() {
        for requests_before in 0..2 {
            let (mut client, served, _) = start(false);
            for _ in 0..requests_before {
                client.write_all(HEAD).await.expect("written");
                let mut answer = [0; 16];
                client.read_exact(&mut answer).await.expect("an answer");
                assert!(answer.starts_with(b"HTTP/1.1 200"));
                // Between requests it may take longer.
                tokio::time::sleep(Duration::from_secs(50)).await;
            }
            let dripping = async {
                while client.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            let lasted = seconds_until(dripping).await;
            assert!((32..=34).contains(&lasted), "{lasted} s");
            assert!(served.await.expect("no panic").is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_reads_are_cut_over_http1() {
        for path in ["/endless", "/events"] {
            let (mut client, served, held) = start(false);
            client
                .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes())
                .await
                .expect("written");
            assert_eq!(seconds_until(served).await, 60, "{path}");
            assert_eq!(Arc::strong_count(&held), 1, "{path}");
        }
    }

    async fn ask(client: &Http2, path: &str) -> h2_client::Answer {
        let mut answer = client.send("GET", path, &[], true);
        assert_eq!(answer.next().await, Some(Part::Head(true)), "{path}");
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_reads_are_cut_over_http2_and_others_are_not() {
        for path in ["/endless", "/large", "/events"] {
            for room in [0, 1, 60_000] {
                let (client, served, held) = start(true);
                let client = Http2::new(client, room);
                let mut unread = ask(&client, path).await;
                let mut quiet = ask(&client, "/quiet").await;
                let cut = async {
                    loop {
                        match unread.next().await {
                            Some(Part::Data(_)) => {}
                            part => return assert_eq!(part, Some(Part::Reset(CANCEL)), "{path} {room}"),
                        }
                    }
                };
                assert_eq!(seconds_until(cut).await, 60, "{path} {room}");
                assert_eq!(Arc::strong_count(&held), 1 + 1, "{path} {room}: what the connection itself has");
                let quiet = tokio::time::timeout(Duration::from_secs(600), quiet.next()).await;
                assert!(quiet.is_err(), "a watch without events goes on");
                ask(&client, "/small").await;
                served.abort();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_read_are_whole() {
        let (client, served, _) = start(true);
        let client = Http2::new(client, 20_000);
        let mut large = ask(&client, "/large").await;
        let mut length = 0;
        while let Some(Part::Data(bytes)) = large.next().await {
            length += bytes.len();
            client.give_room(large.stream, bytes.len().max(1));
        }
        assert_eq!(length, 5_000_000);
        let mut events = ask(&client, "/events").await;
        let start = Instant::now();
        // Slow, but each part is read in time.
        while start.elapsed() < SENT_MAX * 5 {
            let Some(Part::Data(bytes)) = events.next().await else { panic!("it goes on") };
            tokio::time::sleep(SENT_MAX / 20).await;
            client.give_room(events.stream, bytes.len());
        }
        served.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_over_http1_are_whole_too() {
        let (mut client, served, _) = start(false);
        client
            .write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .expect("written");
        let mut text = Vec::new();
        client.read_to_end(&mut text).await.expect("read");
        assert_eq!(text.iter().rev().take_while(|byte| **byte == b'x').count(), 5_000_000);
        assert_eq!(served.await.expect("no panic"), Ok(()));
        assert_eq!(body::full(Bytes::from_static(b"some")).size_hint().exact(), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_over_http2_end_when_nothing_is_asked() {
        let (client, served, _) = start(true);
        let client = Http2::new(client, 1000);
        let watch = ask(&client, "/quiet").await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert!(!served.is_finished());
        client.take_back(watch.stream);
        let lasted = seconds_until(served).await;
        assert!((90..=180).contains(&lasted), "{lasted} s");
    }
}
