//! A client for HTTP/2, on tokio alone, that does nothing of its own accord: it gives back no room, so an answer stays where it is until the client says otherwise.
// The tests of connections inside the API server take one half of it, those from outside the other.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// CANCEL, as a payload of RST_STREAM.
pub const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
/// Room that connections have for all answers together.
const CONNECTION_ROOM: u32 = 1 << 30;
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// What comes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Its head, and whether it is 200.
    Head(bool),
    /// Some of its bytes.
    Data(Bytes),
    /// It is whole.
    End,
    /// It was cut, for this reason.
    Reset(u32),
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A text of HPACK.
fn text(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.len();
    if rest < 127 {
        bytes.push(rest as u8);
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes.extend(value.as_bytes());
    bytes
}

/// The frames of a request's head; `last` says that there is no body.
fn head(stream: u32, method: &str, path: &str, fields: &[(&str, &str)], last: bool) -> Vec<u8> {
    // The numbers of HPACK's static table: authority, method, path, https.
    let mut head =
        [vec![0x01], text("localhost"), vec![0x02], text(method), vec![0x04], text(path), vec![0x87]]
            .concat();
    for (name, value) in fields {
        head.extend([vec![0], text(name), text(value)].concat());
    }
    let count = head.len().div_ceil(FRAME_BYTES_MAX);
    let pieces = head.chunks(FRAME_BYTES_MAX).enumerate();
    let frames = pieces.map(|(number, piece)| {
        let end = if number + 1 == count { END_HEADERS } else { 0 };
        match number {
            0 => frame(HEADERS, end | if last { END_STREAM } else { 0 }, stream, piece),
            _ => frame(CONTINUATION, end, stream, piece),
        }
    });
    frames.flatten().collect()
}

/// What begins a connection, with that much room for each answer.
fn opening(room: u32) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: [u8; 2] = 4_u16.to_be_bytes();
    let settings = [INITIAL_WINDOW_SIZE.as_slice(), &room.to_be_bytes()].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &settings));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &CONNECTION_ROOM.to_be_bytes()));
    bytes
}

/// A connection on which that many requests are sent, and each of them is taken back at once.
pub fn taken_back(requests: usize) -> Vec<u8> {
    let mut bytes = opening(1);
    for stream in (1..).step_by(2).take(requests) {
        bytes.extend(head(stream, "GET", "/version", &[], true));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    bytes
}

/// A connection.
pub struct Http2 {
    writes: UnboundedSender<Vec<u8>>,
    answers: Arc<Mutex<HashMap<u32, UnboundedSender<Part>>>>,
    next: AtomicU32,
}

/// An answer as it comes.
pub struct Answer {
    pub stream: u32,
    parts: UnboundedReceiver<Part>,
}

impl Answer {
    /// What comes next; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Part> {
        self.parts.recv().await
    }
}

impl Http2 {
    /// Over a connection that has agreed on it, with that much room for each answer.
    pub fn new<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S, room: u32) -> Self {
        let (mut read, mut write) = tokio::io::split(stream);
        let (writes, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
        let answers: Arc<Mutex<HashMap<u32, UnboundedSender<Part>>>> = Arc::default();
        let _ = writes.send(opening(room));
        tokio::spawn(async move {
            while let Some(bytes) = frames.recv().await {
                if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
        });
        let (known, acknowledge) = (Arc::clone(&answers), writes.downgrade());
        tokio::spawn(async move {
            let mut start = [0_u8; 9];
            while read.read_exact(&mut start).await.is_ok() {
                let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
                let (kind, flags) = (start[3], start[4]);
                let stream = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
                let mut payload = vec![0; length as usize];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
                    let Some(writes) = acknowledge.upgrade() else { break };
                    let payload = if kind == PING { payload.as_slice() } else { &[] };
                    let _ = writes.send(frame(kind, ACK, 0, payload));
                    continue;
                }
                let part = match kind {
                    // 200 has a number of its own; a change of the table's size may stand before it.
                    HEADERS => Part::Head(payload.iter().find(|byte| **byte >> 5 != 1) == Some(&0x88)),
                    DATA => Part::Data(payload.into()),
                    RST_STREAM => Part::Reset(u32::from_be_bytes(payload[..4].try_into().expect("a number"))),
                    _ => continue,
                };
                let mut known = known.lock();
                let Some(answer) = known.get(&stream) else { continue };
                let is_cut = matches!(part, Part::Reset(_));
                let _ = answer.send(part);
                if flags & END_STREAM != 0 && matches!(kind, HEADERS | DATA) {
                    let _ = answer.send(Part::End);
                    known.remove(&stream);
                } else if is_cut {
                    known.remove(&stream);
                }
            }
            known.lock().clear();
        });
        Self { writes, answers, next: AtomicU32::new(1) }
    }

    /// Sends the head of a request; `last` says that there is no body.
    pub fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], last: bool) -> Answer {
        let (sender, parts) = mpsc::unbounded_channel();
        // Numbers have to come in order.
        let mut answers = self.answers.lock();
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        answers.insert(stream, sender);
        let _ = self.writes.send(head(stream, method, path, fields, last));
        Answer { stream, parts }
    }

    /// Lets that much more of an answer come.
    pub fn give_room(&self, stream: u32, bytes: usize) {
        let room = u32::try_from(bytes).expect("a number").to_be_bytes();
        let _ = self.writes.send(frame(WINDOW_UPDATE, 0, stream, &room));
    }

    /// Takes a request back.
    pub fn take_back(&self, stream: u32) {
        let _ = self.writes.send(frame(RST_STREAM, 0, stream, &CANCEL));
    }

    /// Sends some of a request's body.
    pub fn send_data(&self, stream: u32, bytes: &[u8]) {
        let _ = self.writes.send(frame(DATA, 0, stream, bytes));
    }
}
