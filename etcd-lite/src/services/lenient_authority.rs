//! Lets in clients that put a whole URL where HTTP/2 has an authority.
//!
//! `etcdctl` 3.4 given `--endpoints=http://127.0.0.1:2379` sends `:authority: http://127.0.0.1:2379` with Status, HashKV and other
//! maintenance calls; Go clients of 3.5.0 send `#initially=[http://127.0.0.1:2379;…]` with every call; a client of a Unix socket may send
//! its path. etcd takes all that; the HTTP/2 library here refuses such a stream. So the bytes are watched on their way in, and an
//! authority that is none is overwritten with letters: as many, and in Huffman code of the same length, so that no length in the
//! stream and no size in the header table changes. Nothing on the server looks at the authority of gRPC calls.
//!
//! Never here: any other change; bytes that are not HTTP/2 pass untouched.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::http2_frames::{HEAD_BYTES, HEADERS, Head, PREFACE};
use super::huffman;

/// Largest frame a client may send while nothing else is agreed.
const FRAME_BYTES_MAX: usize = 16_384;

const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;

/// `:authority` in HPACK's static table.
const INDEX_AUTHORITY: usize = 1;

/// A connection whose incoming headers are mended.
pub(crate) struct LenientAuthority<S> {
    inner: S,
    scanner: Scanner,
    /// Bytes read and not given on.
    held: BytesMut,
    /// How many of them may go.
    ready: usize,
    is_at_end: bool,
}

impl<S> LenientAuthority<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, scanner: Scanner::Preface, held: BytesMut::new(), ready: 0, is_at_end: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                let count = this.ready.min(out.remaining());
                out.put_slice(&this.held[..count]);
                this.held.advance(count);
                this.ready -= count;
                return Poll::Ready(Ok(()));
            }
            if this.is_at_end {
                return Poll::Ready(Ok(()));
            }
            if matches!(this.scanner, Scanner::Other) && this.held.is_empty() {
                return Pin::new(&mut this.inner).poll_read(cx, out);
            }
            this.held.reserve(8 * 1024);
            if ready!(poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.held))? == 0 {
                this.is_at_end = true;
                this.ready = this.held.len();
            } else {
                this.ready = this.scanner.scan(&mut this.held);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LenientAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
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

/// Where in the incoming bytes the next unseen one is.
enum Scanner {
    /// Nothing seen; it may or may not become HTTP/2.
    Preface,
    /// Inside a frame that passes as it is.
    Skip(usize),
    /// Before a frame.
    Frame,
    /// Not HTTP/2: everything passes.
    Other,
}

impl Scanner {
    /// Looks at bytes not seen before, mends header frames, and says how many bytes may go on; the rest is to be shown
    /// again with what follows.
    fn scan(&mut self, bytes: &mut [u8]) -> usize {
        let mut position = 0;
        loop {
            let rest = &mut bytes[position..];
            match self {
                Self::Preface if rest.len() >= PREFACE.len() && rest.starts_with(PREFACE) => {
                    *self = Self::Skip(PREFACE.len())
                }
                Self::Preface if PREFACE.starts_with(rest) => return position,
                Self::Preface => *self = Self::Other,
                Self::Other => return bytes.len(),
                Self::Skip(count) => {
                    let passed = (*count).min(rest.len());
                    position += passed;
                    *count -= passed;
                    if *count > 0 {
                        return position;
                    }
                    *self = Self::Frame;
                }
                Self::Frame => {
                    let Some(head) = rest.first_chunk().copied().map(Head::of) else { return position };
                    let frame_bytes = HEAD_BYTES + head.payload_bytes;
                    if head.kind != HEADERS || head.payload_bytes > FRAME_BYTES_MAX {
                        *self = Self::Skip(frame_bytes);
                        continue;
                    }
                    let Some(payload) = rest.get_mut(HEAD_BYTES..frame_bytes) else {
                        return position;
                    };
                    // A frame that cannot be followed passes; the HTTP/2 library judges it.
                    let _ = mend_headers(payload, head.flags);
                    position += frame_bytes;
                }
            }
        }
    }
}

/// Walks a header block and mends the authorities that are spelt out in it. `None` when the block ends early or makes no sense.
fn mend_headers(payload: &mut [u8], flags: u8) -> Option<()> {
    let mut position = 0;
    if flags & FLAG_PADDED != 0 {
        position += 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        position += 5;
    }
    while position < payload.len() {
        let first = payload[position];
        let index_bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(payload, &mut position, index_bits)?;
        if first >= 0x80 || (0x20..0x40).contains(&first) {
            // A header from the table, or a new size of the table.
            continue;
        }
        if index == 0 {
            let (_, length) = string_head(payload, &mut position)?;
            position = position.checked_add(length)?;
        }
        let (is_huffman, length) = string_head(payload, &mut position)?;
        let value = payload.get_mut(position..position.checked_add(length)?)?;
        if index == INDEX_AUTHORITY {
            mend(value, is_huffman);
        }
        position += length;
    }
    Some(())
}

/// A string's coding and length in bytes.
fn string_head(bytes: &[u8], position: &mut usize) -> Option<(bool, usize)> {
    let is_huffman = bytes.get(*position)? & 0x80 != 0;
    Some((is_huffman, integer(bytes, position, 7)?))
}

/// HPACK's integer with a prefix of so many bits.
fn integer(bytes: &[u8], position: &mut usize, prefix_bits: u32) -> Option<usize> {
    let prefix_max = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*bytes.get(*position)?) & prefix_max;
    *position += 1;
    if value < prefix_max {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(*position)?;
        *position += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Makes an authority acceptable by length alone: what the HTTP/2 library takes stays, anything else becomes as many letters.
fn mend(value: &mut [u8], is_huffman: bool) {
    let decoded = if is_huffman { huffman::decode(value) } else { Some((value.to_vec(), 0)) };
    let Some((text, _)) = &decoded else { return };
    if http::uri::Authority::try_from(text.as_slice()).is_ok() {
        return;
    }
    if is_huffman {
        if let Some(filler) = decoded.and_then(|(text, bits)| huffman::filler(text.len(), bits)) {
            value.copy_from_slice(&filler);
        }
    } else {
        value.fill(b'x');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method POST` from the table, then `:authority` literal, then a literal header with a name.
    fn headers(authority: &[u8], is_huffman: bool) -> Vec<u8> {
        let coding = if is_huffman { 0x80 } else { 0 };
        let length = u8::try_from(authority.len()).expect("short") | coding;
        [&[0x83, 0x41, length], authority, b"\x40\x01a\x09http://xy"].concat()
    }

    async fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let mut mock = tokio_util::io::StreamReader::new(futures::stream::iter(
            pieces.iter().map(|p| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(p))),
        ));
        let mut out = Vec::new();
        let mut read = LenientAuthority::new(&mut mock);
        read.read_to_end(&mut out).await.expect("reads");
        out
    }

    #[tokio::test]
    async fn what_is_no_authority_becomes_one_however_it_is_cut() {
        let strange = "#initially=[http://127.0.0.1:2379;http://127.0.0.1:22379]";
        let huffman_coded = |text: &str| (huffman::encode(text.as_bytes()), true);
        let plain = |text: &str| (text.as_bytes().to_vec(), false);
        for (given, stays) in [
            (huffman_coded("http://127.0.0.1:2379"), false),
            (huffman_coded(strange), false),
            (huffman_coded("/tmp/etcd.sock"), false),
            (huffman_coded("127.0.0.1:2379"), true),
            (huffman_coded("[::1]:2379"), true),
            (huffman_coded("node-1.example.com:2379"), true),
            (plain("http://h:1"), false),
            (plain(strange), false),
            (plain("httpx"), true),
        ] {
            let (given, is_huffman) = given;
            let mut mended = given.clone();
            mend(&mut mended, is_huffman);
            assert_eq!(mended == given, stays, "{given:?}");
            let decode = |bytes: &[u8]| {
                if is_huffman { huffman::decode(bytes).expect("a code").0 } else { bytes.to_vec() }
            };
            assert_eq!(decode(&mended).len(), decode(&given).len(), "the header table counts decoded bytes");
            http::uri::Authority::try_from(decode(&mended).as_slice()).expect("an authority");
            let stream = |authority: &[u8]| {
                [
                    PREFACE,
                    &frame(4, 0, &[]),
                    &frame(1, 4, &headers(authority, is_huffman)),
                    &frame(0, 1, b"\x41\x0ahttp://h:1"),
                    &frame(
                        1,
                        0x2c,
                        &[&[2, 0, 0, 0, 0, 9][..], &headers(authority, is_huffman), &[0, 0]].concat(),
                    ),
                ]
                .concat()
            };
            let given = stream(&given);
            assert_eq!(through(&[&given]).await, stream(&mended));
            let bytes: Vec<&[u8]> = given.chunks(1).collect();
            assert_eq!(through(&bytes).await, stream(&mended), "byte by byte");
        }
    }

    #[tokio::test]
    async fn what_is_not_http2_passes_untouched() {
        for text in [&b"GET / HTTP/1.1\r\nHost: http://x\r\n\r\n"[..], b"PRI * HTTP/1", b"P", b""] {
            assert_eq!(through(&[text]).await, text);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_added_whatever_comes(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            with_preface in any::<bool>(),
            cut in 1..50_usize,
        ) {
            let given = if with_preface { [PREFACE, &bytes].concat() } else { bytes };
            let pieces: Vec<&[u8]> = given.chunks(cut).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            prop_assert_eq!(runtime.block_on(through(&pieces)).len(), given.len());
        }
    }
}
