//! `etcdserverpb.KV/Range` as a gRPC server. Written by hand in place of the generated one for the sake of its codec: a long list is encoded
//! straight from the store's versions into one buffer of the right size, with no message in between.

use std::sync::Arc;

use bytes::BufMut;
use coracle_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use etcd_lite_core::RangeFound;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::kv::KvService;
use crate::member::Member;

/// The method's path.
pub(crate) const PATH: &str = "/etcdserverpb.KV/Range";
/// Field number of `RangeResponse.kvs`.
const KVS_TAG: u32 = 2;

/// A range response whose key-values are still the store's.
#[derive(Clone, Debug)]
pub(crate) struct RangeAnswer {
    pub(crate) header: Option<ResponseHeader>,
    pub(crate) found: RangeFound,
}

impl RangeAnswer {
    /// The whole message.
    pub(crate) fn into_response(self) -> RangeResponse {
        RangeResponse { header: self.header, ..self.found.to_response() }
    }

    /// Everything but the key-values.
    fn head(&self) -> RangeResponse {
        RangeResponse { header: self.header, kvs: Vec::new(), more: self.found.more, count: self.found.count }
    }

    fn encoded_len(&self) -> usize {
        let kv = |length: usize| key_len(KVS_TAG) + encoded_len_varint(length as u64) + length;
        let kvs = self.found.versions.iter().map(|version| kv(version.encoded_len(self.found.keys_only)));
        self.head().encoded_len() + kvs.sum::<usize>()
    }

    fn encode(&self, buffer: &mut impl BufMut) {
        let keys_only = self.found.keys_only;
        for version in &self.found.versions {
            encode_key(KVS_TAG, WireType::LengthDelimited, buffer);
            encode_varint(version.encoded_len(keys_only) as u64, buffer);
            version.encode(keys_only, buffer);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct RangeCodec;

impl Codec for RangeCodec {
    type Encode = RangeAnswer;
    type Decode = RangeRequest;
    type Encoder = RangeEncoder;
    type Decoder = ProstDecoder<RangeRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        RangeEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<RangeResponse, RangeRequest>::raw_decoder(BufferSettings::default())
    }
}

#[derive(Clone, Copy, Debug)]
struct RangeEncoder;

impl Encoder for RangeEncoder {
    type Item = RangeAnswer;
    type Error = Status;

    fn encode(&mut self, answer: RangeAnswer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.encoded_len());
        answer.head().encode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        answer.encode(buffer);
        Ok(())
    }
}

struct RangeService<M>(Arc<KvService<M>>);

impl<M: Member> UnaryService<RangeRequest> for RangeService<M> {
    type Response = RangeAnswer;
    type Future = BoxFuture<Response<RangeAnswer>, Status>;

    fn call(&mut self, request: Request<RangeRequest>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.read(request).await.map(Response::new) })
    }
}

/// Answers the calls.
pub(crate) struct RangeServer<M> {
    service: Arc<KvService<M>>,
    decoding_bytes_max: usize,
}

impl<M> Clone for RangeServer<M> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), decoding_bytes_max: self.decoding_bytes_max }
    }
}

impl<M: Member> RangeServer<M> {
    pub(crate) fn new(service: Arc<KvService<M>>, decoding_bytes_max: usize) -> Self {
        Self { service, decoding_bytes_max }
    }

    pub(crate) async fn serve<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let mut grpc = Grpc::new(RangeCodec).max_decoding_message_size(self.decoding_bytes_max);
        grpc.unary(RangeService(self.service), request).await
    }
}

#[cfg(test)]
mod tests {
    use etcd_lite_core::{Life, Revision, Version};

    use super::*;

    #[test]
    fn what_is_encoded_reads_as_the_message() {
        let version = |main: i64| {
            let life = Life { create_revision: 1, version: main, lease: main % 2 };
            Arc::new(Version::put(Revision { main, sub: 0 }, b"key", &[7; 300], life))
        };
        for keys_only in [false, true] {
            let found = RangeFound {
                revision: 9,
                versions: vec![version(2), version(3)],
                more: true,
                count: 70,
                keys_only,
            };
            let header = Some(ResponseHeader { revision: 9, member_id: 5, ..ResponseHeader::default() });
            let answer = RangeAnswer { header, found };
            let mut bytes = answer.head().encode_to_vec();
            answer.encode(&mut bytes);
            assert_eq!(bytes.len(), answer.encoded_len());
            assert_eq!(RangeResponse::decode(&bytes[..]).expect("decodes"), answer.into_response());
        }
    }
}
