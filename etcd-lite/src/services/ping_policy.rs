//! `--grpc-keepalive-min-time`: sends clients away that ping more often than they may, as etcd's gRPC library does.
//!
//! The HTTP/2 library here answers pings by itself and says nothing of them. So the frames' heads are looked at on their way in and out, and a
//! client that goes on too long is told GOAWAY with "too_many_pings" between two frames, which is the connection's end. A ping after the server sent
//! headers or data is free: clients measure their window with those. Never here: any other change; bytes that are not HTTP/2 pass unseen.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2_frames::{DATA, GOAWAY, HEAD_BYTES, HEADERS, Head, PING, PREFACE, RST_STREAM};

const END_STREAM: u8 = 1;
const ACK: u8 = 1;

const ENHANCE_YOUR_CALM: u32 = 11;
const REASON: &[u8] = b"too_many_pings";

/// Between pings while no stream is open, whatever the flag says.
const IDLE_MIN: Duration = Duration::from_secs(2 * 60 * 60);
/// The library's own, when the flag is 0.
const MIN_IF_ZERO: Duration = Duration::from_secs(5 * 60);
/// Pings too early that are let pass.
const STRIKES_MAX: u32 = 2;

/// Where in a sequence of frames the next byte is.
#[derive(Default)]
struct Frames {
    /// Bytes of the present frame's payload that are still to come.
    payload_left: usize,
    head: [u8; HEAD_BYTES],
    head_filled: usize,
}

impl Frames {
    fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let passed = self.payload_left.min(bytes.len());
            self.payload_left -= passed;
            bytes = &bytes[passed..];
            if self.payload_left > 0 {
                return;
            }
            let taken = (HEAD_BYTES - self.head_filled).min(bytes.len());
            self.head[self.head_filled..self.head_filled + taken].copy_from_slice(&bytes[..taken]);
            self.head_filled += taken;
            bytes = &bytes[taken..];
            if self.head_filled == HEAD_BYTES {
                let head = Head::of(self.head);
                self.head_filled = 0;
                self.payload_left = head.payload_bytes;
                each(head);
            }
        }
    }

    /// Bytes that certainly belong to the present frame; none between two.
    fn left(&self) -> usize {
        if self.head_filled > 0 { HEAD_BYTES - self.head_filled } else { self.payload_left }
    }
}

/// What is known of a client's pings.
struct Policy {
    min: Duration,
    open: HashSet<u32>,
    newest: u32,
    last: Option<Instant>,
    strikes: u32,
    /// The server has sent headers or data since the last ping.
    is_free: bool,
}

impl Policy {
    fn new(min: Duration) -> Self {
        let min = if min.is_zero() { MIN_IF_ZERO } else { min };
        Self { min, open: HashSet::new(), newest: 0, last: None, strikes: 0, is_free: false }
    }

    /// Whether the client is to be sent away.
    fn received(&mut self, head: Head, now: impl FnOnce() -> Instant) -> bool {
        match head.kind {
            HEADERS if head.stream > self.newest => {
                self.newest = head.stream;
                self.open.insert(head.stream);
            }
            RST_STREAM => {
                self.open.remove(&head.stream);
            }
            PING if head.flags & ACK == 0 => return self.pinged(now()),
            _ => {}
        }
        false
    }

    fn sent(&mut self, head: Head) {
        match head.kind {
            HEADERS | DATA => {
                self.is_free = true;
                if head.flags & END_STREAM != 0 {
                    self.open.remove(&head.stream);
                }
            }
            RST_STREAM => {
                self.open.remove(&head.stream);
            }
            _ => {}
        }
    }

    fn pinged(&mut self, now: Instant) -> bool {
        let since = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        if std::mem::take(&mut self.is_free) {
            self.strikes = 0;
            return false;
        }
        let min = if self.open.is_empty() { IDLE_MIN } else { self.min };
        if since.is_some_and(|since| since < min) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }

    fn farewell(&self) -> Vec<u8> {
        let length = u32::try_from(8 + REASON.len()).unwrap_or(u32::MAX).to_be_bytes();
        let head = [&length[1..], &[GOAWAY, 0, 0, 0, 0, 0]].concat();
        [&head[..], &self.newest.to_be_bytes(), &ENHANCE_YOUR_CALM.to_be_bytes(), REASON].concat()
    }
}

/// What is spoken.
enum Spoken {
    /// So many bytes of the preface have come.
    Unknown(usize),
    Http2,
    Other,
}

/// A connection whose pings are counted.
pub(crate) struct PingPolicy<S> {
    inner: S,
    spoken: Spoken,
    incoming: Frames,
    outgoing: Frames,
    policy: Policy,
    /// What is still to be said before the end.
    farewell: Option<Vec<u8>>,
}

impl<S> PingPolicy<S> {
    /// Of a client that may ping this often while a stream is open.
    pub(crate) fn new(inner: S, min: Duration) -> Self {
        let (incoming, outgoing) = (Frames::default(), Frames::default());
        Self {
            inner,
            spoken: Spoken::Unknown(0),
            incoming,
            outgoing,
            policy: Policy::new(min),
            farewell: None,
        }
    }

    fn look_at_incoming(&mut self, mut bytes: &[u8]) {
        if let Spoken::Unknown(seen) = self.spoken {
            let count = (PREFACE.len() - seen).min(bytes.len());
            let (begin, rest) = bytes.split_at(count);
            bytes = rest;
            self.spoken = match seen + count {
                _ if begin != &PREFACE[seen..seen + count] => Spoken::Other,
                seen if seen == PREFACE.len() => Spoken::Http2,
                seen => Spoken::Unknown(seen),
            };
        }
        if matches!(self.spoken, Spoken::Http2) {
            let (policy, mut is_too_much) = (&mut self.policy, false);
            self.incoming.scan(bytes, |head| is_too_much |= policy.received(head, Instant::now));
            if is_too_much && self.farewell.is_none() {
                self.farewell = Some(policy.farewell());
            }
        }
    }

    fn look_at_outgoing(&mut self, bytes: &[u8]) {
        if matches!(self.spoken, Spoken::Http2) {
            let policy = &mut self.policy;
            self.outgoing.scan(bytes, |head| policy.sent(head));
        }
    }
}

impl<S: AsyncWrite + Unpin> PingPolicy<S> {
    /// Says what is left to say, and closes; the error ends the connection here.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some(left) = self.farewell.as_mut().filter(|left| !left.is_empty()) {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, left))?;
            left.drain(..count);
        }
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client pings too often")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PingPolicy<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = out.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, out))?;
        this.look_at_incoming(&out.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PingPolicy<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let bytes = match (&this.farewell, this.outgoing.left()) {
            (None, _) => bytes,
            (Some(_), 0) => return this.poll_farewell(cx),
            // First the end of the frame that has begun.
            (Some(_), left) => &bytes[..left.min(bytes.len())],
        };
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        this.look_at_outgoing(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.farewell.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices))?;
        let mut left = count;
        for slice in slices {
            let written = left.min(slice.len());
            this.look_at_outgoing(&slice[..written]);
            left -= written;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn head(kind: u8, flags: u8, stream: u32) -> Head {
        Head { payload_bytes: 0, kind, flags, stream }
    }

    /// After how many pings, so far apart, a client is sent away; the server does something between them.
    fn sent_away_after(mut policy: Policy, apart: Duration, between: impl Fn(&mut Policy)) -> Option<u32> {
        let begun = Instant::now();
        (1..50).find(|n| {
            between(&mut policy);
            policy.received(head(PING, 0, 0), || begun + apart * *n)
        })
    }

    #[test]
    fn three_pings_too_early_are_too_many() {
        let with_stream = || {
            let mut policy = Policy::new(5 * SECOND);
            policy.received(head(HEADERS, 0, 1), Instant::now);
            policy
        };
        let nothing = |_: &mut Policy| {};
        assert_eq!(sent_away_after(with_stream(), SECOND, nothing), Some(4));
        assert_eq!(sent_away_after(with_stream(), 5 * SECOND, nothing), None);
        assert_eq!(
            sent_away_after(Policy::new(5 * SECOND), 5 * SECOND, nothing),
            Some(4),
            "no stream is open"
        );
        assert_eq!(sent_away_after(with_stream(), SECOND, |policy| policy.sent(head(DATA, 0, 1))), None);
        let mut ended = with_stream();
        ended.sent(head(HEADERS, END_STREAM, 1));
        assert_eq!(sent_away_after(ended, 5 * SECOND, nothing), Some(4), "it is closed");
        assert_eq!(
            sent_away_after(with_stream(), SECOND, |policy| {
                policy.received(head(PING, ACK, 0), Instant::now);
            }),
            Some(4),
            "answers are no pings"
        );
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let frame = |kind: u8, stream: u8, payload: usize| {
            [&[0, 0, payload as u8, kind, 0, 0, 0, 0, stream][..], &vec![7; payload]].concat()
        };
        let bytes =
            [frame(HEADERS, 1, 20), frame(DATA, 1, 0), frame(PING, 0, 8), frame(DATA, 3, 200)].concat();
        for size in [1, 5, 9, 10, bytes.len()] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.scan(piece, |head| found.push((head.kind, head.stream)));
            }
            assert_eq!(found, [(HEADERS, 1), (DATA, 1), (PING, 0), (DATA, 3)], "in pieces of {size}");
            assert_eq!(frames.left(), 0);
        }
    }
}
