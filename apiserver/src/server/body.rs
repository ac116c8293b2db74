//! Bodies: reading a request's within limits, and making answers' of bytes, of cached objects and of streams.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_api::status::ApiError;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;

use crate::cache::object::CachedObject;
use crate::protobuf;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// Every answer.
pub type Response = http::Response<Body>;

/// The largest request body that is read.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Lists are written in pieces of about this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// Answers smaller than this are not worth compressing.
const COMPRESS_BYTES_MIN: usize = 128 * 1024;
/// How long a client may take to send its body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Nothing.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A whole answer of plain text.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// These pieces, as they come.
pub fn streaming(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece)))).boxed_unsync()
}

/// Reads a request's body.
///
/// # Errors
/// 413 when it is too large, 400 when it breaks off, 504 when it takes too long.
pub async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(413, "RequestEntityTooLarge", too_large()))
        }
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the request's body broke off: {error}"))),
        Err(_) => Err(ApiError::timeout("the request's body did not arrive in time", 0)),
    }
}

/// Upstream's text.
pub fn too_large() -> String {
    format!("Request entity too large: limit is {BODY_BYTES_MAX}")
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &http::HeaderMap) -> bool {
    headers
        .get_all(http::header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        })
}

/// Bytes as a body, compressed when they are many and the client takes it. Says whether they are compressed.
pub fn maybe_compressed(bytes: Bytes, gzip: bool) -> (Body, bool) {
    if !gzip || bytes.len() < COMPRESS_BYTES_MIN {
        return (full(bytes), false);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(&bytes);
    (full(Bytes::from(encoder.finish().unwrap_or_default())), true)
}

/// How a list holds its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    /// As JSON with commas between.
    Json,
    /// As messages, each with its opening.
    Protobuf,
}

impl Items {
    /// Appends one.
    fn append(self, object: &CachedObject, first: bool, piece: &mut BytesMut) {
        match self {
            Self::Json => {
                if !first {
                    piece.extend_from_slice(b",");
                }
                piece.extend_from_slice(object.json_bytes());
            }
            Self::Protobuf => {
                // Encoded before the list was begun, so it cannot fail here.
                let message = object.message().unwrap_or_default();
                piece.extend_from_slice(&protobuf::item_opening(message.len()));
                piece.extend_from_slice(&message);
            }
        }
    }
}

/// A list: `head`, the items, `tail`; made piece by piece while it is sent.
pub struct ListBody {
    /// What comes before the items.
    pub head: Bytes,
    /// The objects. In protobuf all of them have been encoded.
    pub objects: Vec<Arc<CachedObject>>,
    /// How they are written.
    pub items: Items,
    /// What comes behind the items.
    pub tail: Bytes,
}

impl ListBody {
    /// Bytes of the whole list.
    pub fn length(&self) -> usize {
        let items: usize = match self.items {
            Items::Json => {
                let objects: usize = self.objects.iter().map(|object| object.json_bytes().len()).sum();
                objects + self.objects.len().saturating_sub(1)
            }
            Items::Protobuf => {
                let message = |object: &Arc<CachedObject>| object.message().unwrap_or_default().len();
                self.objects.iter().map(|object| protobuf::item_length(message(object))).sum()
            }
        };
        self.head.len() + items + self.tail.len()
    }

    /// As a body. Gives its length when it is known.
    pub fn into_body(self, gzip: bool) -> (Body, Option<usize>) {
        let length = self.length();
        let pieces = Pieces {
            head: Some(self.head),
            objects: self.objects.into_iter(),
            items: self.items,
            first: true,
            tail: Some(self.tail),
        };
        if gzip && length >= COMPRESS_BYTES_MIN {
            let compressed =
                Compressed { pieces, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) };
            return (streaming(stream::iter(compressed)), None);
        }
        (streaming(stream::iter(pieces)), Some(length))
    }
}

struct Pieces {
    head: Option<Bytes>,
    objects: std::vec::IntoIter<Arc<CachedObject>>,
    items: Items,
    first: bool,
    tail: Option<Bytes>,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.tail.as_ref()?;
        let mut piece = BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(&head);
        }
        while piece.len() < CHUNK_BYTES {
            match self.objects.next() {
                Some(object) => {
                    self.items.append(&object, std::mem::take(&mut self.first), &mut piece);
                }
                None => {
                    piece.extend_from_slice(&self.tail.take()?);
                    break;
                }
            }
        }
        Some(piece.freeze())
    }
}

struct Compressed {
    pieces: Pieces,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Compressed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.pieces.next() {
                Some(piece) => {
                    // Writing to memory cannot fail.
                    let _ = encoder.write_all(&piece);
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Some(Bytes::from(ready));
                    }
                }
                None => return self.encoder.take()?.finish().ok().map(Bytes::from),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::object::EventType;
    use std::io::Read;

    fn list(count: usize) -> ListBody {
        let padding = "x".repeat(1000);
        let object = |n: usize| {
            let json = format!("{{\"metadata\":{{\"name\":\"o{n}\"}},\"p\":\"{padding}\"}}");
            Arc::new(
                CachedObject::new(&format!("o{n}"), json.as_bytes(), 5, EventType::Added).expect("encodes"),
            )
        };
        ListBody {
            head: Bytes::from_static(b"{\"items\":["),
            objects: (0..count).map(object).collect(),
            items: Items::Json,
            tail: Bytes::from_static(b"]}\n"),
        }
    }

    async fn text(body: Body) -> Vec<u8> {
        body.collect().await.expect("body").to_bytes().to_vec()
    }

    #[tokio::test]
    async fn lists_of_any_length_are_whole_json_of_the_announced_length() {
        for count in [0, 1, 300] {
            let (body, length) = list(count).into_body(true);
            let mut text = text(body).await;
            match length {
                Some(length) => assert_eq!(text.len(), length),
                None => {
                    let mut plain = Vec::new();
                    flate2::read::GzDecoder::new(text.as_slice()).read_to_end(&mut plain).expect("gzip");
                    text = plain;
                }
            }
            let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(value["items"].as_array().map(Vec::len), Some(count));
        }
    }

    #[test]
    fn gzip_is_recognised_among_codings() {
        let mut headers = http::HeaderMap::new();
        assert!(!accepts_gzip(&headers));
        headers.insert("accept-encoding", "br, gzip;q=0.8".parse().expect("header"));
        assert!(accepts_gzip(&headers));
        headers.insert("accept-encoding", "gzip;q=0".parse().expect("header"));
        assert!(!accepts_gzip(&headers));
    }
}
