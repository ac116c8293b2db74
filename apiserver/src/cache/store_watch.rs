//! The watch of the store that everything here is fed by: all keys of ours, from one revision on.

use std::time::Duration;

use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::metadata::MetadataValue;

use crate::storage::{Storage, compaction, keys};

/// Opening a watch must not take longer.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// The keys watched: all of ours and the compaction key, whose writes move the store's revision too.
fn watched_range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let start = format!("{prefix}/").into_bytes();
    let end = keys::prefix_end(&start);
    let key = compaction::KEY.as_bytes().to_vec();
    let mut behind_key = key.clone();
    behind_key.push(0);
    (start.min(key), end.max(behind_key))
}

/// An open watch.
pub(super) struct StoreWatch {
    /// What comes.
    pub responses: Streaming<WatchResponse>,
    /// The number of the member that answers.
    pub member: usize,
    /// Held open: some servers end the stream with the requests.
    _requests: mpsc::Sender<WatchRequest>,
}

/// Opens it; `previous` is whether events tell the version before.
///
/// # Errors
/// Why not, in words; the member is given up on.
pub(super) async fn open(
    storage: &Storage,
    start_revision: i64,
    previous: bool,
) -> Result<StoreWatch, String> {
    let (mut client, member) = storage.watch_client();
    let (sender, receiver) = mpsc::channel(4);
    let (key, range_end) = watched_range(storage.prefix());
    let create = WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision,
        progress_notify: true,
        prev_kv: previous,
        fragment: true,
        ..WatchCreateRequest::default()
    };
    let message = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    if sender.send(message).await.is_err() {
        return Err("the request stream closed".into());
    }
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    // A member cut off from the others ends the watch instead of staying silent.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let reason = match tokio::time::timeout(OPEN_DEADLINE, client.watch(request)).await {
        Ok(Ok(response)) => {
            return Ok(StoreWatch { responses: response.into_inner(), member, _requests: sender });
        }
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => "no answer".to_owned(),
    };
    storage.give_up_on(member);
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watched_range_covers_our_keys_and_the_compaction_key() {
        for prefix in ["/registry", "zoo"] {
            let (start, end) = watched_range(prefix);
            for key in [format!("{prefix}/pods/a/b"), compaction::KEY.to_owned()] {
                assert!(start.as_slice() <= key.as_bytes() && key.as_bytes() < end.as_slice(), "{key}");
            }
        }
    }
}
