//! A WebSocket by which this server sends a stream of bytes and takes nothing: for clients that read logs in browsers.
//!
//! Never here: the sockets of exec and port-forward; those are between client and kubelet.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_api::status::ApiError;
use futures::{Stream, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::server::body::Response;
use crate::server::relay;

/// RFC 6455, section 1.3.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How long a client may take to read one message.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// The code of a normal end.
const CLOSE_NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
/// Names of protocols that carry a credential and are none.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Base64,
}

/// Whether the client wants a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Answers with a WebSocket on which the bytes come; it ends with them, with the client or when `stop` fires.
///
/// # Errors
/// 400 when the client offers no protocol that is known here, or no key.
pub fn answer<E: std::fmt::Display + Send + 'static>(
    mut request: Request<Incoming>,
    bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    stop: CancellationToken,
) -> Result<Response, ApiError> {
    let (form, protocol) = negotiate(request.headers()).map_err(ApiError::bad_request)?;
    let key = request.headers().get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let accept = accept_key(key.ok_or_else(|| ApiError::bad_request("Sec-WebSocket-Key is missing"))?);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = run(TokioIo::new(stream), bytes, form) => {}
                }
            }
            Err(error) => tracing::debug!(%error, "a WebSocket did not come about"),
        }
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(ApiError::internal)?);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(relay::switching_protocols(headers))
}

fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{KEY_SUFFIX}")))
}

/// The first protocol of the client's that is known here; without any offer it is binary.
fn negotiate(headers: &HeaderMap) -> Result<(Form, Option<&'static str>), String> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty() && !name.starts_with(BEARER))
        .collect();
    if offered.is_empty() {
        return Ok((Form::Binary, None));
    }
    let known = offered.iter().find_map(|name| match *name {
        "binary.k8s.io" => Some((Form::Binary, Some("binary.k8s.io"))),
        "base64.binary.k8s.io" => Some((Form::Base64, Some("base64.binary.k8s.io"))),
        _ => None,
    });
    known.ok_or_else(|| format!("requested protocol(s) are not supported: {offered:?}; supports binary.k8s.io and base64.binary.k8s.io"))
}

/// One whole message, not masked, as servers send.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | kind];
    match payload.len() {
        short @ 0..126 => out.push(short as u8),
        middle @ 126..65536 => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

async fn run<E: std::fmt::Display>(
    stream: impl AsyncRead + AsyncWrite,
    bytes: impl Stream<Item = Result<Bytes, E>>,
    form: Form,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let gone = async {
        let mut ignored = [0; 1024];
        while matches!(reader.read(&mut ignored).await, Ok(count) if count > 0) {}
    };
    let send = async {
        // As upstream: the first message is empty, which tells the client that it goes on.
        let mut bytes = std::pin::pin!(futures::stream::iter([Ok(Bytes::new())]).chain(bytes));
        while let Some(next) = bytes.next().await {
            let message = match (next, form) {
                (Ok(bytes), Form::Binary) => frame(BINARY, &bytes),
                (Ok(bytes), Form::Base64) => frame(TEXT, STANDARD.encode(&bytes).as_bytes()),
                (Err(error), _) => {
                    tracing::debug!(%error, "a stream for a WebSocket broke off");
                    break;
                }
            };
            if !matches!(tokio::time::timeout(WRITE_DEADLINE, writer.write_all(&message)).await, Ok(Ok(()))) {
                return;
            }
        }
        let end = async {
            writer.write_all(&frame(CLOSE, &CLOSE_NORMAL)).await?;
            writer.shutdown().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(WRITE_DEADLINE, end).await {
            tracing::debug!(%error, "a WebSocket was not closed in peace");
        }
    };
    tokio::select! {
        () = gone => {}
        () = send => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_accepted_as_the_standard_has_it() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_have_lengths_of_three_sizes() {
        assert_eq!(frame(BINARY, b"ab"), [0x82, 2, b'a', b'b']);
        assert_eq!(frame(TEXT, &[0; 300])[..4], [0x81, 126, 1, 44]);
        assert_eq!(frame(BINARY, &[0; 70_000])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn a_known_protocol_is_chosen() {
        let offer = |list: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, list.parse().expect("a header"));
            negotiate(&headers)
        };
        assert_eq!(negotiate(&HeaderMap::new()), Ok((Form::Binary, None)));
        assert_eq!(offer("x, binary.k8s.io"), Ok((Form::Binary, Some("binary.k8s.io"))));
        assert_eq!(offer("base64.binary.k8s.io"), Ok((Form::Base64, Some("base64.binary.k8s.io"))));
        assert_eq!(offer("base64url.bearer.authorization.k8s.io.abc"), Ok((Form::Binary, None)));
        assert!(offer("x").is_err());
    }

    #[tokio::test]
    async fn what_is_sent_comes_in_messages_and_ends_with_a_close() {
        let (client, server) = tokio::io::duplex(1024);
        let chunks = [Ok::<_, std::io::Error>(Bytes::from_static(b"log\n"))];
        let task = tokio::spawn(run(server, futures::stream::iter(chunks), Form::Binary));
        let (mut reader, _writer) = tokio::io::split(client);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.expect("read");
        task.await.expect("ends");
        assert_eq!(got, [&[0x82, 0, 0x82, 4][..], b"log\n", &[0x88, 2, 3, 0xE8]].concat());
    }
}
