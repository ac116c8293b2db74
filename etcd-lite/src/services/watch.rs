//! `etcdserverpb.Watch` as a gRPC server. Written by hand in place of the generated one for the sake of its codec.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use coracle_proto::etcdserverpb::WatchRequest;
use futures::stream::{Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::caller::Credentials;
use super::watch_codec::{WatchCodec, WatchFrame};
use super::watch_hub::{StreamOut, WatchHub};
use super::watch_stream::{HISTORY_SCAN_MAX, StreamSettings, WatchStream};
use super::{Context, status};
use crate::member::Member;

/// Opens watch streams.
pub(crate) struct WatchServer<M> {
    context: Arc<Context<M>>,
    hub: Arc<WatchHub<M>>,
    decoding_bytes_max: usize,
    shutdown: CancellationToken,
}

impl<M> Clone for WatchServer<M> {
    fn clone(&self) -> Self {
        Self {
            context: Arc::clone(&self.context),
            hub: Arc::clone(&self.hub),
            decoding_bytes_max: self.decoding_bytes_max,
            shutdown: self.shutdown.clone(),
        }
    }
}

impl<M: Member> WatchServer<M> {
    pub(crate) fn new(
        context: Arc<Context<M>>,
        hub: Arc<WatchHub<M>>,
        decoding_bytes_max: usize,
        shutdown: CancellationToken,
    ) -> Self {
        Self { context, hub, decoding_bytes_max, shutdown }
    }

    fn open(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<FrameStream>, Status> {
        let member = &self.context.member;
        status::require_leader(&**member, request.metadata())?;
        let settings = StreamSettings {
            progress_interval: self.context.config.watch_progress_interval,
            part_bytes_max: self.context.config.request_bytes_max,
            history_scan_max: HISTORY_SCAN_MAX,
            wants_leader: status::wants_leader(request.metadata()),
            credentials: Credentials::of(request.metadata(), request.extensions()),
        };
        let (out, frames, queue) = StreamOut::new();
        let stream = WatchStream::new(Arc::clone(member), Arc::clone(&self.hub), out, settings);
        let open = self.context.metrics.watch_streams.clone();
        let shutdown = self.shutdown.clone();
        let requests = request.into_inner();
        open.inc();
        tokio::spawn(async move {
            stream.run(requests, shutdown).await;
            open.dec();
        });
        let frames = ReceiverStream::new(frames).inspect(move |frame| {
            if let Ok(frame) = frame {
                queue.taken(frame);
            }
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

type FrameStream = Pin<Box<dyn Stream<Item = Result<WatchFrame, Status>> + Send>>;

impl<M: Member> StreamingService<WatchRequest> for WatchServer<M> {
    type Response = WatchFrame;
    type ResponseStream = FrameStream;
    type Future = std::future::Ready<Result<Response<FrameStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        std::future::ready(self.open(request))
    }
}

impl<M, B> Service<http::Request<B>> for WatchServer<M>
where
    M: Member,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.Watch/Watch" {
                return Ok(Status::unimplemented("unknown method of etcdserverpb.Watch").into_http());
            }
            let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(server.decoding_bytes_max);
            Ok(grpc.streaming(server, request).await)
        })
    }
}
