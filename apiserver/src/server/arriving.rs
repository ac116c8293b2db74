//! The heads of requests over HTTP/1.1 as they arrive: one that has begun has to be there soon, however its bytes drip in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::sending::Sending;

/// A stream whose reader finds it broken when a head takes too long.
pub struct Heads<S> {
    inner: S,
    sending: Arc<Sending>,
    time_max: Duration,
    begun: Option<Begun>,
}

/// A head of which something is there.
struct Begun {
    /// Requests before it.
    number: u64,
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Heads<S> {
    /// Around the stream of a connection.
    pub fn new(inner: S, sending: Arc<Sending>, time_max: Duration) -> Self {
        Self { inner, sending, time_max, begun: None }
    }

    /// The head that has begun, if it has not become a request.
    fn begun(&mut self) -> Option<&mut Begun> {
        let number = self.sending.between_requests();
        self.begun.as_mut().filter(|begun| Some(begun.number) == number)
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the head of a request did not arrive in time")
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let time_max = self.time_max;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Some(begun) = self.begun() {
            let due = begun.at + time_max;
            let timer = begun.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(too_late()));
            }
        } else if buf.filled().len() > before
            && let Some(number) = self.sending.between_requests()
        {
            self.begun = Some(Begun { number, at: Instant::now(), timer: None });
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
