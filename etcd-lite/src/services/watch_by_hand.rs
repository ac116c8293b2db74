//! The watch machinery without tasks: whoever holds it says when what is applied is told, when a stream goes on, and what its client reads. The
//! simulation drives it; it decides nothing of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_proto::etcdserverpb::{WatchRequest, WatchResponse};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::caller::Credentials;
use super::watch_codec::WatchFrame;
use super::watch_hub::{QueueState, StreamOut, WatchHub};
use super::watch_stream::{StreamSettings, WatchStream};
use crate::member::Member;
use crate::metrics::RequestMetrics;

/// The hub of one member and the streams of its clients.
pub struct WatchByHand<M: Member> {
    member: Arc<M>,
    hub: Arc<WatchHub<M>>,
    streams: BTreeMap<u64, Stream<M>>,
    part_bytes_max: usize,
    history_scan_max: usize,
}

struct Stream<M: Member> {
    stream: WatchStream<M>,
    frames: mpsc::Receiver<Result<WatchFrame, Status>>,
    queue: Arc<QueueState>,
}

impl<M: Member> WatchByHand<M> {
    /// The watch service of a member; responses that may be split are split at `part_bytes_max`, and who is behind gets on by `history_scan_max`
    /// events at a time.
    pub fn new(
        member: Arc<M>,
        part_bytes_max: usize,
        history_scan_max: usize,
        metrics: Arc<RequestMetrics>,
    ) -> Self {
        let hub = Arc::new(WatchHub::new(Arc::clone(&member), part_bytes_max, metrics));
        Self { member, hub, streams: BTreeMap::new(), part_bytes_max, history_scan_max }
    }

    /// A client begins a stream, under a number of the caller's; `frames_max` may wait for it.
    pub fn open(&mut self, number: u64, frames_max: usize) {
        let (out, frames, queue) = StreamOut::with_room(frames_max);
        let settings = StreamSettings {
            progress_interval: Duration::MAX,
            part_bytes_max: self.part_bytes_max,
            history_scan_max: self.history_scan_max,
            wants_leader: false,
            credentials: Credentials::default(),
        };
        let stream = WatchStream::new(Arc::clone(&self.member), Arc::clone(&self.hub), out, settings);
        self.streams.insert(number, Stream { stream, frames, queue });
    }

    /// The stream's client is gone.
    pub fn close(&mut self, number: u64) {
        if let Some(stream) = self.streams.remove(&number) {
            stream.stream.leave();
        }
    }

    /// The stream's client asks something.
    pub fn request(&mut self, number: u64, request: WatchRequest) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.stream.handle(request, Ok(()));
        }
    }

    /// Tells what is applied to watchers that are up to date.
    pub fn tell(&mut self) {
        self.hub.tell_waiting();
    }

    /// The stream goes on: sends what it holds, brings those behind a step further.
    pub fn advance(&mut self, number: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.stream.advance();
        }
    }

    /// The time for progress notifications of the stream has come.
    pub fn notify_progress(&mut self, number: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.stream.notify_progress();
        }
    }

    /// The stream's client reads up to so many responses.
    ///
    /// # Errors
    /// The stream ended with this status, or sent what cannot be read.
    pub fn read(&mut self, number: u64, responses_max: usize) -> Result<Vec<WatchResponse>, Status> {
        let mut responses = Vec::new();
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(responses) };
        while responses.len() < responses_max
            && let Ok(frame) = stream.frames.try_recv()
        {
            let frame = frame?;
            stream.queue.taken(&frame);
            // As on the wire, where fields of both parts follow each other.
            let mut response = frame.head;
            response.merge(frame.events).map_err(|error| Status::internal(error.to_string()))?;
            responses.push(response);
        }
        Ok(responses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::test_member::TestMember;
    use coracle_proto::etcdserverpb::watch_request::RequestUnion;
    use coracle_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchProgressRequest};
    use etcd_lite_core::Request;

    #[test]
    fn progress_is_told_when_all_that_was_written_before_the_question_was_told() {
        let member = TestMember::new(16);
        let mut watch = WatchByHand::new(Arc::clone(&member), 1_000, 100, Arc::default());
        watch.open(1, 16);
        let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        watch.request(1, WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        watch.advance(1);
        assert!(watch.read(1, 10).expect("a stream")[0].created);
        let put = PutRequest { key: "other".into(), ..PutRequest::default() };
        member.apply(Request::Put(put)).expect("revision 2");
        watch.request(1, WatchRequest { request_union: Some(progress) });
        watch.advance(1);
        assert_eq!(watch.read(1, 10).expect("a stream"), []);
        watch.tell();
        watch.advance(1);
        let answers = watch.read(1, 10).expect("a stream");
        let revision = answers[0].header.map(|header| header.revision);
        assert_eq!((answers.len(), answers[0].watch_id, revision), (1, -1, Some(2)));
    }
}
