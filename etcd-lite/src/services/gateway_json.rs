//! Requests and responses as JSON, by what the `.proto` files say of them: bytes in base64, 64-bit numbers as strings, enumerations by name,
//! fields under their own names and left out when unset, as grpc-gateway. Also one JSON value after the other out of a body.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::Status;
use tonic::body::Body;

/// An encoded message from its JSON. Nothing at all is a message without fields; fields unknown here are passed over.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn to_message(json: &[u8], kind: &MessageDescriptor) -> Result<Vec<u8>, Status> {
    let json = json.trim_ascii();
    if json.is_empty() || json == b"null" {
        return Ok(Vec::new());
    }
    let invalid = |error: serde_json::Error| Status::invalid_argument(error.to_string());
    let mut value: Value = serde_json::from_slice(json).map_err(invalid)?;
    // The library either refuses unknown fields or takes unknown names of enumerations for nothing.
    drop_unknown_fields(&mut value, kind);
    DynamicMessage::deserialize(kind.clone(), value).map(|message| message.encode_to_vec()).map_err(invalid)
}

fn drop_unknown_fields(value: &mut Value, kind: &MessageDescriptor) {
    let Value::Object(fields) = value else { return };
    let field_of = |name: &str| kind.get_field_by_name(name).or_else(|| kind.get_field_by_json_name(name));
    fields.retain(|name, _| field_of(name).is_some());
    for (name, value) in fields {
        let Some(Kind::Message(kind)) = field_of(name).map(|field| field.kind()) else { continue };
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| drop_unknown_fields(item, &kind)),
            value => drop_unknown_fields(value, &kind),
        }
    }
}

/// The JSON of an encoded message.
///
/// # Errors
/// `Internal`, for what no service here sends.
pub(super) fn of_message(encoded: Bytes, kind: &MessageDescriptor) -> Result<String, Status> {
    let internal = |error: String| Status::internal(error);
    let message =
        DynamicMessage::decode(kind.clone(), encoded).map_err(|error| internal(error.to_string()))?;
    let mut json = Vec::new();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
        .map_err(|error| internal(error.to_string()))?;
    String::from_utf8(json).map(|json| escaped(&json)).map_err(|error| internal(error.to_string()))
}

/// A JSON string.
pub(super) fn string(text: &str) -> String {
    escaped(&serde_json::Value::from(text).to_string())
}

/// What Go escapes beyond need, for the sake of HTML. These stand in strings only.
fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Takes JSON values off a body as they come.
pub(super) struct JsonValues {
    body: Body,
    buffer: BytesMut,
    bytes_max: usize,
    is_at_end: bool,
}

impl JsonValues {
    pub(super) fn new(body: Body, bytes_max: usize) -> Self {
        Self { body, buffer: BytesMut::new(), bytes_max, is_at_end: false }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// What comes is no JSON, is too large, or does not come.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let blanks = self.buffer.len() - self.buffer.trim_ascii_start().len();
            self.buffer.advance(blanks);
            if let Some(length) = complete_value(&self.buffer)? {
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
            if self.is_at_end {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(Status::invalid_argument("unexpected EOF"))
                };
            }
            self.read().await?;
        }
    }

    /// The first value of a body that is read to its end; what follows it is passed over.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(super) async fn only(mut self) -> Result<Option<Bytes>, Status> {
        while !self.is_at_end {
            self.read().await?;
        }
        self.next().await
    }

    async fn read(&mut self) -> Result<(), Status> {
        match self.body.frame().await {
            None => self.is_at_end = true,
            Some(Err(error)) => return Err(Status::invalid_argument(error.to_string())),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { return Ok(()) };
                if self.buffer.len() + data.len() > self.bytes_max {
                    return Err(Status::invalid_argument("etcdserver: request is too large"));
                }
                self.buffer.extend_from_slice(&data);
            }
        }
        Ok(())
    }
}

/// How long the first value is, if all of it is there.
fn complete_value(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    match values.next() {
        None => Ok(None),
        Some(Ok(_)) => Ok(Some(values.byte_offset())),
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(error)) => Err(Status::invalid_argument(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_proto::etcdserverpb as pb;
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use prost_reflect::DescriptorPool;

    fn kind(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(coracle_proto::DESCRIPTORS).expect("descriptors");
        pool.get_message_by_name(&format!("etcdserverpb.{name}")).expect("a message")
    }

    #[test]
    fn json_is_that_of_grpc_gateway() {
        let response = pb::MemberListResponse {
            header: Some(pb::ResponseHeader { cluster_id: u64::MAX, revision: 7, ..Default::default() }),
            members: vec![pb::Member {
                id: 5,
                name: "a<b>".into(),
                peer_urls: vec!["http://x".into()],
                ..Default::default()
            }],
        };
        let json = of_message(response.encode_to_vec().into(), &kind("MemberListResponse")).expect("JSON");
        assert_eq!(
            json,
            r#"{"header":{"cluster_id":"18446744073709551615","revision":"7"},"members":[{"ID":"5","name":"a\u003cb\u003e","peerURLs":["http://x"]}]}"#
        );
    }

    #[test]
    fn numbers_enumerations_and_bytes_are_read_in_all_their_forms() {
        let json = br#"{"key":"Zm9v","limit":"3","revision":4,"sort_order":"DESCEND","sort_target":1,"unknown":[1],"countOnly":true}"#;
        let request = to_message(json, &kind("RangeRequest")).expect("a message");
        let request = pb::RangeRequest::decode(&request[..]).expect("decodes");
        assert_eq!((&request.key[..], request.limit, request.revision), (&b"foo"[..], 3, 4));
        assert_eq!((request.sort_order, request.sort_target, request.count_only), (2, 1, true));
        for nothing in ["", " ", "null", "{}"] {
            assert_eq!(to_message(nothing.as_bytes(), &kind("RangeRequest")).expect("empty"), b"");
        }
        for wrong in [r#"{"key":"!"}"#, r#"{"sort_order":"FOO"}"#, "5", r#"{"limit":"x"}"#] {
            let status = to_message(wrong.as_bytes(), &kind("RangeRequest")).expect_err(wrong);
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn values_come_off_a_body_however_it_is_cut() {
        let text = br#" {"a":[1,{"b":"}"}]}
 {} null{"c":1} "#;
        for size in [1, 3, text.len()] {
            let frames: Vec<_> = text
                .chunks(size)
                .map(|chunk| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(chunk))))
                .collect();
            let mut values = JsonValues::new(Body::new(StreamBody::new(stream::iter(frames))), 100);
            let mut found = Vec::new();
            while let Some(value) = values.next().await.expect("JSON") {
                found.push(value);
            }
            assert_eq!(found, [&br#"{"a":[1,{"b":"}"}]}"#[..], b"{}", b"null", br#"{"c":1}"#], "{size}");
        }
        let long = Body::new(http_body_util::Full::new(Bytes::from(format!("\"{}\"", "x".repeat(100)))));
        assert!(JsonValues::new(long, 100).only().await.is_err());
    }
}
