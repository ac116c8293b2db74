//! A byte stream that gathers what a server writes in one turn into few system calls.
//!
//! A connection with many answers under way is woken for each of them, and would write each by itself: on a machine with few processors these
//! writes are most of the cost of a short answer. Here the first flush of a turn only asks for another turn, behind everybody who is waiting for
//! one; what is written until then goes out with it. Where that gathers nothing, as with a client that has one request at a time, it is hardly ever
//! tried.
//!
//! For HTTP servers, which read and flush whenever they are woken. Not for a stream whose owner flushes once and then waits for something else: the
//! last bytes would wait with it. Never here: timers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes gathered at most. More goes out as it comes.
const GATHERED_MAX: usize = 64 * 1024;

/// A longer piece is worth a call of its own; gathering would only copy it. HTTP/2 frames of the usual 16 KiB are gathered: three to a call wake
/// the reader once.
const PIECE_MAX: usize = 20 * 1024;

/// Flushes done at once after one whose wait has gathered nothing.
const FLUSHES_BEFORE_RETRY: u32 = 15;

/// Flushes put off at most before one counts: those of a turn are one for each long frame, and who does not read first has few of them.
const PUT_OFF_MAX: u32 = 64;

/// Where the stream is between a flush that was put off and the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// No flush is owed.
    Free,
    /// Flushes were put off, the first of them with so many bytes gathered; the task is going to have another turn.
    Asked { gathered: usize, flushes: u32 },
    /// This is that turn: the next flush counts.
    Come { gathered: usize },
}

/// The stream. Reading marks the turns of its task.
#[derive(Debug)]
pub struct GatheredWrites<S> {
    inner: S,
    gathered: BytesMut,
    turn: Turn,
    /// Flushes still to be done at once.
    at_once: u32,
}

impl<S> GatheredWrites<S> {
    /// Around a stream.
    pub fn new(inner: S) -> Self {
        Self { inner, gathered: BytesMut::new(), turn: Turn::Free, at_once: 0 }
    }
}

impl<S: AsyncWrite + Unpin> GatheredWrites<S> {
    /// Writes out what was gathered.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a flush is to wait for another turn.
    fn puts_off(&mut self) -> bool {
        let gathered = self.gathered.len();
        match self.turn {
            Turn::Free if self.at_once > 0 => self.at_once -= 1,
            Turn::Free => {
                self.turn = Turn::Asked { gathered, flushes: 1 };
                return true;
            }
            Turn::Asked { gathered, flushes } if flushes < PUT_OFF_MAX => {
                self.turn = Turn::Asked { gathered, flushes: flushes + 1 };
                return true;
            }
            Turn::Asked { .. } => self.turn = Turn::Free,
            Turn::Come { gathered: before } => {
                if gathered == before {
                    self.at_once = FLUSHES_BEFORE_RETRY;
                }
                self.turn = Turn::Free;
            }
        }
        false
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheredWrites<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(piece)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if this.gathered.len() + length > GATHERED_MAX || length > PIECE_MAX {
            ready!(this.poll_gathered(cx))?;
        }
        if length > PIECE_MAX {
            return Pin::new(&mut this.inner).poll_write_vectored(cx, pieces);
        }
        for piece in pieces {
            this.gathered.extend_from_slice(piece);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty() && this.puts_off() {
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_gathered(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gathered(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheredWrites<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Turn::Asked { gathered, .. } = this.turn {
            this.turn = Turn::Come { gathered };
        }
        Pin::new(&mut this.inner).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Keeps the writes it gets apart.
    #[derive(Default)]
    struct Recorded(Vec<Vec<u8>>);

    impl AsyncWrite for Recorded {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(piece.to_vec());
            Poll::Ready(Ok(piece.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Recorded {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// One turn of a connection: it reads, writes these pieces and flushes after each.
    fn turn(stream: &mut GatheredWrites<Recorded>, pieces: &[&[u8]]) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut *stream).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 8]));
        for piece in pieces {
            assert!(matches!(
                Pin::new(&mut *stream).poll_write(&mut cx, piece),
                Poll::Ready(Ok(taken)) if taken == piece.len()
            ));
            assert!(Pin::new(&mut *stream).poll_flush(&mut cx).is_ready());
        }
        assert!(Pin::new(&mut *stream).poll_flush(&mut cx).is_ready());
    }

    #[test]
    fn what_two_turns_write_goes_out_in_one_call() {
        let mut stream = GatheredWrites::new(Recorded::default());
        turn(&mut stream, &[b"one ", b"two "]);
        assert!(stream.inner.0.is_empty(), "put off");
        turn(&mut stream, &[b"three"]);
        assert_eq!(stream.inner.0, [b"one two three".to_vec()]);
    }

    #[test]
    fn who_has_nothing_more_to_write_is_not_put_off_again_soon() {
        let mut stream = GatheredWrites::new(Recorded::default());
        turn(&mut stream, &[b"alone"]);
        turn(&mut stream, &[]);
        assert_eq!(stream.inner.0.len(), 1);
        for number in 0..FLUSHES_BEFORE_RETRY {
            turn(&mut stream, &[b"again"]);
            assert_eq!(stream.inner.0.len(), 2 + number as usize, "at once");
        }
        turn(&mut stream, &[b"tried"]);
        assert_eq!(stream.inner.0.len(), 1 + FLUSHES_BEFORE_RETRY as usize, "tried again");
    }

    #[test]
    fn long_pieces_go_through_after_what_was_gathered() {
        let mut stream = GatheredWrites::new(Recorded::default());
        let long = vec![7; PIECE_MAX + 1];
        turn(&mut stream, &[b"short", &long]);
        assert_eq!(stream.inner.0, [b"short".to_vec(), long]);
    }

    #[test]
    fn no_more_is_gathered_than_there_is_room_for() {
        let mut stream = GatheredWrites::new(Recorded::default());
        let piece = vec![7; PIECE_MAX];
        let fitting = GATHERED_MAX / PIECE_MAX;
        turn(&mut stream, &vec![&piece[..]; fitting + 1]);
        assert_eq!(stream.inner.0[0].len(), fitting * PIECE_MAX);
    }

    #[test]
    fn a_task_that_never_reads_is_flushed_all_the_same() {
        let mut stream = GatheredWrites::new(Recorded::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut stream).poll_write(&mut cx, b"kept").is_ready());
        for _ in 0..=PUT_OFF_MAX {
            assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_ready());
        }
        assert_eq!(stream.inner.0, [b"kept".to_vec()]);
    }

    #[tokio::test]
    async fn closing_writes_what_was_gathered() {
        let mut stream = GatheredWrites::new(Recorded::default());
        turn(&mut stream, &[b"last"]);
        stream.shutdown().await.expect("shutdown");
        assert_eq!(stream.inner.0, [b"last".to_vec()]);
    }
}
