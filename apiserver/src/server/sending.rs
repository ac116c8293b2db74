//! Answers on their way to clients, which may read them slowly or never: each has a time to be gone within, and where it is not, its stream or
//! its connection is cut and what it holds is free again.
//!
//! An HTTP server asks a body for its next part only when there is room for it, so a body cannot notice by itself that nobody reads it. Here the
//! body notes when it has handed a part over, and the future that sends it is bounded from outside.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::body::{Body, BoxError};

/// Parts handed over at a time; longer ones are divided, so that what has been handed over is little.
const PART_MAX: usize = 128 * 1024;
/// Answers this small are handed over and forgotten. Longer ones count as being sent until the last byte is gone.
const FORGOTTEN_MAX: u64 = 16 * 1024;

tokio::task_local! {
    /// What the future being polled sends.
    static CURRENT: Arc<Sending>;
}

/// How long an answer may be on its way.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// All of it has to be gone by then.
    Until(Instant),
    /// Every part of it has to be gone within this time.
    EachPart(Duration),
}

/// How far the answer has come that a stream, or a connection with one request at a time, sends.
#[derive(Default)]
pub struct Sending(Mutex<State>);

#[derive(Default)]
struct State {
    patience: Option<Patience>,
    /// When the part was handed over behind which no other has been asked for.
    waits_since: Option<Instant>,
    /// Parts that have been handed over and are not gone.
    unsent: usize,
    /// Wants to know when there are none.
    waker: Option<Waker>,
    /// Requests so far, and whether the last one is still in work.
    requests: u64,
    in_work: bool,
}

impl Sending {
    /// What the future that is being polled sends; a new one outside of [`bounded`].
    pub fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_default()
    }

    /// A request has come.
    pub fn receive(&self) {
        let mut state = self.0.lock();
        state.requests += 1;
        state.in_work = true;
    }

    /// The number of requests so far, if none is in work.
    pub fn between_requests(&self) -> Option<u64> {
        let state = self.0.lock();
        (!state.in_work).then_some(state.requests)
    }

    fn due(&self) -> Option<Instant> {
        let state = self.0.lock();
        match state.patience? {
            Patience::Until(end) => Some(end),
            Patience::EachPart(time) => state.waits_since.map(|since| since + time),
        }
    }
}

/// Runs what sends answers until it ends, or until an answer has not gone in time: then `None`, and the future is dropped.
pub async fn bounded<F: Future>(future: F, sending: Arc<Sending>) -> Option<F::Output> {
    tokio::pin!(future);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(move |cx| {
        let polled = CURRENT.sync_scope(Arc::clone(&sending), || future.as_mut().poll(cx));
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        loop {
            let Some(due) = sending.due() else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() == due {
                ready!(timer.as_mut().poll(cx));
                return Poll::Ready(None);
            }
            timer.as_mut().reset(due);
        }
    })
    .await
}

/// The body of an answer that is watched on its way.
pub struct SentBody {
    inner: Body,
    /// What is left of a part that is divided.
    rest: Bytes,
    sending: Arc<Sending>,
    /// Whether parts are followed until they are gone.
    follows: bool,
    /// The connection is the handler's from here on.
    is_upgrade: bool,
    ended: bool,
}

impl SentBody {
    /// Over the whole body of an answer that takes over the connection or not.
    pub fn new(
        inner: Body,
        patience: Option<Patience>,
        sending: Arc<Sending>,
        is_http2: bool,
        is_upgrade: bool,
    ) -> Self {
        // HTTP/1.1 has one answer at a time, and less room for what has been handed over.
        let follows = is_http2 && inner.size_hint().exact().is_none_or(|length| length > FORGOTTEN_MAX);
        sending.0.lock().patience = patience;
        Self { inner, rest: Bytes::new(), sending, follows, is_upgrade, ended: false }
    }

    fn part(&mut self, mut bytes: Bytes) -> Frame<Part> {
        if bytes.len() > PART_MAX {
            self.rest = bytes.split_off(PART_MAX);
        }
        let mut state = self.sending.0.lock();
        state.waits_since = Some(Instant::now());
        state.unsent += usize::from(self.follows);
        drop(state);
        let unsent = self.follows.then(|| Unsent(Arc::clone(&self.sending)));
        Frame::data(Part { bytes, _unsent: unsent })
    }

    /// Waits until everything that was handed over is gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.sending.0.lock();
        if state.unsent == 0 {
            return Poll::Ready(());
        }
        state.waits_since.get_or_insert_with(Instant::now);
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl http_body::Body for SentBody {
    type Data = Part;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, BoxError>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.part(rest))));
        }
        if self.ended {
            ready!(self.poll_gone(cx));
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Poll::Ready(Some(Ok(self.part(bytes)))),
                Err(frame) => {
                    Poll::Ready(frame.into_trailers().ok().map(|fields| Ok(Frame::trailers(fields))))
                }
            },
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => {
                self.ended = true;
                ready!(self.poll_gone(cx));
                Poll::Ready(None)
            }
            Poll::Pending => {
                // It is the client that waits now.
                self.sending.0.lock().waits_since = None;
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.follows && self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        let mut state = self.sending.0.lock();
        state.patience = None;
        state.waits_since = None;
        state.in_work = self.is_upgrade;
    }
}

/// Some bytes of an answer.
pub struct Part {
    bytes: Bytes,
    _unsent: Option<Unsent>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// Lives as long as a part that has been handed over.
struct Unsent(Arc<Sending>);

impl Drop for Unsent {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.unsent -= 1;
        // Something has gone, so others may have their time again.
        if state.waits_since.is_some() {
            state.waits_since = Some(Instant::now());
        }
        let waker = if state.unsent == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
