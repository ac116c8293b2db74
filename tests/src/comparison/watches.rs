//! A watch stream of one store, and what came on it: answers to its requests in order, and for each watch its events in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::mvccpb::Event;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::normal::{self, Refusal};

/// Longest time until what has to come has come.
const SOON: Duration = Duration::from_secs(15);

/// Something that came for one watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An event.
    Event(Event),
    /// The store ended the watch: what it wants is compacted.
    Ended(pb::WatchResponse),
    /// Events of one revision in two responses, which are not marked as fragments.
    SplitRevision(i64),
    /// A header whose revision is before that of an event below it.
    HeaderBehind(i64),
}

/// What came on a stream and was not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Answers to create and cancel requests, in order.
    control: Vec<pb::WatchResponse>,
    /// Answers to progress requests.
    progress: Vec<pb::WatchResponse>,
    /// By watch id.
    pub(crate) entries: BTreeMap<i64, Vec<Entry>>,
    /// By watch id, the revision of the last event and whether more of it is announced.
    last: BTreeMap<i64, (i64, bool)>,
    /// How the stream ended.
    ended: Option<Refusal>,
}

impl Log {
    fn take_in(&mut self, mut response: pb::WatchResponse) {
        normal::header(&mut response.header);
        let id = response.watch_id;
        if response.compact_revision != 0 {
            self.entries.entry(id).or_default().push(Entry::Ended(response));
        } else if response.created || response.canceled {
            self.last.remove(&id);
            self.control.push(response);
        } else if let Some(first) = response.events.first() {
            let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let entries = self.entries.entry(id).or_default();
            if self.last.get(&id).is_some_and(|(last, more)| !more && *last == revision(first)) {
                entries.push(Entry::SplitRevision(revision(first)));
            }
            let last = response.events.last().map_or(0, revision);
            if response.header.is_none_or(|header| header.revision < last) {
                entries.push(Entry::HeaderBehind(last));
            }
            entries.extend(response.events.into_iter().map(Entry::Event));
            self.last.insert(id, (last, response.fragment));
        } else if id == -1 {
            self.progress.push(response);
        }
        // What remains tells one watch of its progress, when it is time.
    }
}

/// An open stream.
pub(crate) struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    log: Arc<watch::Sender<Log>>,
    reader: JoinHandle<()>,
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl WatchStream {
    pub(crate) fn open(mut client: WatchClient<Channel>) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let log = Arc::new(watch::Sender::new(Log::default()));
        let reader = tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                let end = async {
                    let mut responses = client.watch(ReceiverStream::new(receiver)).await?.into_inner();
                    while let Some(response) = responses.message().await? {
                        log.send_modify(|log| log.take_in(response));
                    }
                    Err::<(), Status>(Status::cancelled("the stream ended without an error"))
                };
                if let Err(status) = end.await {
                    log.send_modify(|log| log.ended = Some(status.into()));
                }
            }
        });
        Self { requests, log, reader }
    }

    /// Sends a request and gives what it is answered. What may have no answer is followed by a progress request, whose answer ends the wait.
    ///
    /// # Errors
    /// The stream ended.
    pub(crate) async fn ask(&self, request: &pb::WatchRequest) -> Result<Vec<pb::WatchResponse>, Refusal> {
        self.send(request.clone()).await?;
        let asks_for_progress = matches!(request.request_union, Some(RequestUnion::ProgressRequest(_)));
        if !asks_for_progress {
            let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
            self.send(pb::WatchRequest { request_union: Some(progress) }).await?;
        }
        let is_answered = self.wait(|log| !log.progress.is_empty()).await;
        let mut answers = Vec::new();
        let mut ended = None;
        self.log.send_modify(|log| {
            answers = std::mem::take(&mut log.control);
            let progress = std::mem::take(&mut log.progress);
            if asks_for_progress {
                answers.extend(progress);
            }
            ended = log.ended.clone();
        });
        match ended {
            Some(ended) => Err(ended),
            None if !is_answered => Err(Refusal {
                code: "none".to_owned(),
                message: format!("no progress in {SOON:?}, but {answers:?}"),
            }),
            None => Ok(answers),
        }
    }

    async fn send(&self, request: pb::WatchRequest) -> Result<(), Refusal> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| {
            self.log.borrow().ended.clone().unwrap_or_else(|| Status::cancelled("the stream ended").into())
        })
    }

    /// Waits until the log is so, and gives whether it became so in time.
    pub(crate) async fn wait(&self, mut is_so: impl FnMut(&Log) -> bool) -> bool {
        let mut log = self.log.subscribe();
        let is_so = log.wait_for(|log| log.ended.is_some() || is_so(log));
        matches!(tokio::time::timeout(SOON, is_so).await, Ok(Ok(log)) if log.ended.is_none())
    }

    /// Takes what came for a watch.
    pub(crate) fn take(&self, watch_id: i64) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.log.send_modify(|log| entries = log.entries.remove(&watch_id).unwrap_or_default());
        entries
    }

    /// The watches for which something came that was not taken.
    pub(crate) fn waiting(&self) -> Vec<i64> {
        self.log.borrow().entries.keys().copied().collect()
    }
}
