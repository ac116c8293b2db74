//! The same faults between the controllers and a real API server: a connection that fails, watches that are late, stand still, repeat themselves and
//! break, and lives that end between any two writes. In real time; what happens when is not decided by the seed alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::faults::{Failure, Faults};
use crate::random::Random;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Runs controllers on a connection with faults until `ended`, with a new life after each end, and without faults once `trouble` is false. How many
/// lives there were.
pub async fn run_controllers(
    client: kube::Client,
    names: &[&'static str],
    seed: u64,
    trouble: Arc<AtomicBool>,
    ended: CancellationToken,
) -> u64 {
    let mut random = Random::new(seed, 2);
    let mut faults = Faults::new(&mut Random::new(seed, 1));
    // In real time everything takes longer: shorter standstills, more work between two ends.
    faults.stall_max = faults.stall_max.min(Duration::from_secs(2));
    faults.kill_every = faults.kill_every.max(10) * 3;
    let faults = Arc::new(faults);
    let mut lives = 0;
    loop {
        lives += 1;
        let died = CancellationToken::new();
        let mut own = Random::new(seed, 100 + lives);
        let dies_at = own.below(1..faults.kill_every + 1);
        let link = Link {
            client: client.clone(),
            faults: Arc::clone(&faults),
            random: Arc::new(Mutex::new(own)),
            trouble: Arc::clone(&trouble),
            alive: Arc::new(AtomicBool::new(true)),
            writes: Arc::default(),
            dies_at,
            died: died.clone(),
        };
        let stop = CancellationToken::new();
        let (own, all, token) = (kube::Client::new(link.clone(), "default"), names.to_vec(), stop.clone());
        let life = tokio::spawn(async move { controller_manager::run_controllers(own, &all, token).await });
        tokio::select! {
            () = ended.cancelled() => {}
            () = died.cancelled() => {}
        }
        link.alive.store(false, Ordering::Relaxed);
        stop.cancel();
        life.abort();
        if ended.is_cancelled() {
            return lives;
        }
        let pause = random.millis(10..1_000);
        tokio::time::sleep(pause).await;
    }
}

#[derive(Clone)]
struct Link {
    client: kube::Client,
    faults: Arc<Faults>,
    random: Arc<Mutex<Random>>,
    trouble: Arc<AtomicBool>,
    alive: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    dies_at: u64,
    died: CancellationToken,
}

fn lost() -> BoxError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection was lost").into()
}

impl Link {
    async fn handle(self, request: Request<Body>) -> Result<Answer, BoxError> {
        if !self.alive.load(Ordering::Relaxed) {
            return futures::future::pending().await;
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let troubled = self.trouble.load(Ordering::Relaxed);
        let is_watch =
            uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("watch=")));
        let (failure, before) = {
            let mut random = self.random.lock();
            (self.faults.of_request(&mut random, method == Method::POST), random.percent(50))
        };
        let failure = failure.filter(|_| troubled);
        if failure == Some(Failure::Before) {
            return Err(lost());
        }
        let is_write = method != Method::GET && !uri.path().ends_with("/events");
        let dies = troubled && is_write && self.writes.fetch_add(1, Ordering::Relaxed) + 1 == self.dies_at;
        if dies && before {
            return self.die().await;
        }
        let answer = self.client.send(request).await?;
        if dies {
            return self.die().await;
        }
        if failure.is_some() {
            return Err(lost());
        }
        let (head, body) = answer.into_parts();
        if !is_watch || !head.status.is_success() {
            return Ok(Response::from_parts(head, body.map_err(BoxError::from).boxed_unsync()));
        }
        let seed = self.random.lock().next();
        let watch = Watch {
            stream: body.into_data_stream().map_err(BoxError::from).boxed(),
            link: self,
            random: Random::new(seed, 1),
            partial: BytesMut::new(),
            ready: VecDeque::new(),
            stands_still_until: Instant::now(),
            is_over: false,
        };
        let lines = futures::stream::unfold(watch, |mut watch| async move {
            let line = watch.next().await?;
            Some((line.map(http_body::Frame::data), watch))
        });
        Ok(Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(lines))))
    }

    async fn die<T>(&self) -> T {
        self.alive.store(false, Ordering::Relaxed);
        self.died.cancel();
        futures::future::pending().await
    }
}

struct Watch {
    stream: BoxStream<'static, Result<Bytes, BoxError>>,
    link: Link,
    random: Random,
    partial: BytesMut,
    ready: VecDeque<Bytes>,
    stands_still_until: Instant,
    is_over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.is_over {
                return None;
            }
            let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') else {
                match self.stream.next().await? {
                    Ok(bytes) => self.partial.extend_from_slice(&bytes),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let line = Bytes::copy_from_slice(&self.partial[..=end]);
            self.partial.advance(end + 1);
            let lag = u64::try_from(self.link.faults.lag.as_millis()).unwrap_or(0);
            if self.link.trouble.load(Ordering::Relaxed) {
                let lag = self.random.millis(0..lag + 1);
                tokio::time::sleep_until(self.stands_still_until.max(Instant::now() + lag)).await;
                self.go_wrong(&line);
            }
            if !self.link.alive.load(Ordering::Relaxed) {
                return futures::future::pending().await;
            }
            self.ready.push_front(line);
        }
    }

    fn go_wrong(&mut self, line: &Bytes) {
        let aftermath = self.link.faults.after_event(&mut self.random);
        if aftermath.repeats {
            self.ready.push_back(line.clone());
        }
        if let Some(time) = aftermath.stands_still {
            self.stands_still_until = Instant::now() + time;
        }
        self.is_over = aftermath.breaks;
    }
}

impl tower::Service<Request<Body>> for Link {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().handle(request))
    }
}
