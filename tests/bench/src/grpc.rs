//! A gRPC client that costs little: ready-made headers, messages encoded once, answers handed out without a copy where they came in
//! one piece. On two cores shared with the program under test, every microsecond saved here is one more for what is measured.
//!
//! Never here: retries, deadlines, balancing. The caller says when it has waited long enough.

use std::fmt;

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::TcpStream;

const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const PREFIX_BYTES: usize = 5;

/// A method's path and the headers sent with each call.
#[derive(Clone)]
pub struct Method(Request<()>);

impl Method {
    /// `service` as `etcdserverpb.KV`, `method` as `Put`.
    ///
    /// # Errors
    /// When they do not make a path.
    pub fn new(service: &str, method: &str) -> anyhow::Result<Self> {
        let request = Request::post(format!("http://store/{service}/{method}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())?;
        Ok(Self(request))
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub struct RpcError {
    /// The gRPC code; `None` when the connection failed.
    pub code: Option<i32>,
    /// The server's text, or the connection's.
    pub message: String,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} (code {code})", self.message),
            None => write!(f, "connection: {}", self.message),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<h2::Error> for RpcError {
    fn from(error: h2::Error) -> Self {
        Self { code: None, message: error.to_string() }
    }
}

/// A message as it goes over the wire.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(length as u32);
    message.encode_raw(&mut framed);
    framed.freeze()
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Bytes>,
}

impl Connection {
    /// Connects to a loopback port.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(port: u16) -> anyhow::Result<Self> {
        Self::open_at((std::net::Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// Connects to an address.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open_at(address: std::net::SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(4 * WINDOW_BYTES)
            .max_frame_size(1024 * 1024)
            .handshake(socket)
            .await?;
        tokio::spawn(async move {
            // The calls in flight fail with the connection and say so.
            let _ = connection.await;
        });
        Ok(Self { sender })
    }

    async fn start(
        &self,
        method: &Method,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), RpcError> {
        let mut sender = self.sender.clone().ready().await?;
        Ok(sender.send_request(method.0.clone(), false)?)
    }

    /// Sends a framed request and gives the answer's message, still encoded.
    ///
    /// # Errors
    /// The server's status, or the connection's failure.
    pub async fn unary(&self, method: &Method, framed: Bytes) -> Result<Bytes, RpcError> {
        let (response, mut sending) = self.start(method).await?;
        sending.send_data(framed, true)?;
        let response = response.await?;
        status(response.headers())?;
        let mut stream =
            Messages { body: response.into_body(), pending: BytesMut::new(), whole: Bytes::new() };
        let message = stream.next().await?;
        stream.finish().await?;
        message.ok_or_else(|| RpcError { code: None, message: "an answer without a message".into() })
    }

    /// [`Connection::unary`] with messages.
    ///
    /// # Errors
    /// As there, and when the answer does not decode.
    pub async fn call<A: Message + Default>(
        &self,
        method: &Method,
        request: &impl Message,
    ) -> Result<A, RpcError> {
        decode(self.unary(method, frame(request)).await?)
    }

    /// Opens a stream both ways and sends the first request on it.
    ///
    /// # Errors
    /// The server's status, or the connection's failure.
    pub async fn stream(&self, method: &Method, first: Bytes) -> Result<(Requests, Messages), RpcError> {
        let (response, mut sending) = self.start(method).await?;
        sending.send_data(first, false)?;
        let response = response.await?;
        status(response.headers())?;
        let messages = Messages { body: response.into_body(), pending: BytesMut::new(), whole: Bytes::new() };
        Ok((Requests(sending), messages))
    }
}

/// An answer's message.
///
/// # Errors
/// When it does not decode.
pub fn decode<A: Message + Default>(message: Bytes) -> Result<A, RpcError> {
    A::decode(message).map_err(|error| RpcError { code: None, message: format!("answer: {error}") })
}

/// The requests' half of a stream; dropping it resets the stream.
pub struct Requests(SendStream<Bytes>);

impl Requests {
    /// Sends one more framed request.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn send(&mut self, framed: Bytes) -> Result<(), RpcError> {
        Ok(self.0.send_data(framed, false)?)
    }
}

/// The answers' half of a stream.
pub struct Messages {
    body: RecvStream,
    pending: BytesMut,
    /// A frame that came alone is cut up without copying.
    whole: Bytes,
}

impl Messages {
    /// The next message, still encoded; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection's failure.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RpcError> {
        loop {
            if let Some(length) = message_length(&self.whole)
                && self.whole.len() >= PREFIX_BYTES + length
            {
                self.whole.advance(PREFIX_BYTES);
                return Ok(Some(self.whole.split_to(length)));
            }
            if !self.whole.is_empty() {
                self.pending.extend_from_slice(&self.whole);
                self.whole = Bytes::new();
            }
            if let Some(length) = message_length(&self.pending) {
                if self.pending.len() >= PREFIX_BYTES + length {
                    self.whole = std::mem::take(&mut self.pending).freeze();
                    continue;
                }
                self.pending.reserve(PREFIX_BYTES + length - self.pending.len());
            }
            let Some(data) = self.body.data().await else { return Ok(None) };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            if self.pending.is_empty() {
                self.whole = data;
            } else {
                self.pending.extend_from_slice(&data);
            }
        }
    }

    /// Reads to the end and gives the server's status.
    async fn finish(&mut self) -> Result<(), RpcError> {
        while let Some(data) = self.body.data().await {
            let length = data?.len();
            self.body.flow_control().release_capacity(length)?;
        }
        self.body.trailers().await?.map_or(Ok(()), |trailers| status(&trailers))
    }

    /// What the server said when the stream ended.
    ///
    /// # Errors
    /// The server's status, or the connection's failure.
    pub async fn status(mut self) -> Result<(), RpcError> {
        self.finish().await
    }
}

fn message_length(data: &[u8]) -> Option<usize> {
    let length = data.get(1..PREFIX_BYTES)?.try_into().ok()?;
    Some(u32::from_be_bytes(length) as usize)
}

fn status(headers: &HeaderMap) -> Result<(), RpcError> {
    let Some(code) = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<i32>().ok())
    else {
        return Ok(());
    };
    if code == 0 {
        return Ok(());
    }
    let message = headers.get("grpc-message").map(|m| percent_decoded(m.as_bytes()));
    Err(RpcError { code: Some(code), message: message.unwrap_or_default() })
}

/// A status' text: on the wire all but printable ASCII is `%` and two digits. What is not of that form stays as it is.
fn percent_decoded(encoded: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_as_the_server_wrote_it() {
        assert_eq!(percent_decoded(b"etcdserver:%20no%20leader"), "etcdserver: no leader");
        assert_eq!(percent_decoded(b"caf%C3%A9 100% %zz %2"), "caf\u{e9} 100% %zz %2");
    }
}
