//! The audit webhook: events are posted as `EventList`s to the server that a kubeconfig file names, in batches behind a bounded queue, or one by one while
//! their requests wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::options::Mode;
use super::queue::{self, Queue, QueuedBytes};
use super::throttle::Throttle;
use super::webhook_options::WebhookOptions;
use crate::extension::kubeconfig::Remote;

/// How often a list is posted that does not arrive.
const ATTEMPTS_MAX: u32 = 5;
/// By how much each wait is longer than the one before.
const BACKOFF_FACTOR: f64 = 1.5;
/// By how much of itself a wait may be longer, so that several servers do not post again in step.
const BACKOFF_JITTER: f64 = 0.2;
/// What one attempt may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Batches on their way at a time: with a server that does not answer, the queue fills up and events are dropped.
const POSTS_MAX: usize = 32;

enum Entry {
    Event(Vec<u8>),
    /// Told when all before it have been posted or given up.
    Flush(oneshot::Sender<()>),
}

/// The way to the server.
pub struct WebhookBackend {
    queue: Queue<Entry>,
    waits: bool,
    poster: Arc<Poster>,
    /// Counts events that found no room.
    overflow: Counter,
}

impl WebhookBackend {
    /// Starts what posts, which ends when the backend is dropped. `overflow` counts events that found no room, `errors` those that did not arrive.
    pub fn start(remote: Remote, options: &WebhookOptions, overflow: Counter, errors: Counter) -> Self {
        let waits = options.audit_webhook_mode != Mode::Batch;
        let (queue, entries, queued_bytes) = queue::bounded(options.audit_webhook_batch_buffer_size.max(1));
        let backoff = options.audit_webhook_initial_backoff.get();
        let poster = Arc::new(Poster { remote, backoff, errors });
        let throttle = (!waits && options.audit_webhook_batch_throttle_enable).then(|| {
            let (qps, burst) =
                (options.audit_webhook_batch_throttle_qps, options.audit_webhook_batch_throttle_burst);
            Throttle::new(qps, burst, Instant::now())
        });
        let sender = Sender {
            entries,
            queued_bytes,
            poster: Arc::clone(&poster),
            events_max: if waits { 1 } else { options.audit_webhook_batch_max_size },
            wait_max: if waits { Duration::ZERO } else { options.audit_webhook_batch_max_wait.get() },
            bytes_max: options
                .audit_webhook_truncate_enabled
                .then_some(options.audit_webhook_truncate_max_batch_size),
            throttle,
            posts: JoinSet::new(),
        };
        tokio::spawn(sender.run());
        Self { queue, waits, poster, overflow }
    }

    /// Hands an event over and, unless in batch mode, waits until it has arrived. Whether it has (in batch mode: will be tried).
    pub async fn write(&self, event: Vec<u8>) -> bool {
        if self.waits { self.poster.post(vec![event]).await } else { self.offer(event) }
    }

    /// Hands an event over if there is room for it. Whether there was.
    pub fn offer(&self, event: Vec<u8>) -> bool {
        let length = event.len();
        let is_taken = self.queue.offer(Entry::Event(event), length);
        if !is_taken {
            self.overflow.inc();
        }
        is_taken
    }

    /// Waits until everything handed over so far has arrived or was given up.
    pub async fn flush(&self) {
        let (done, posted) = oneshot::channel();
        if self.queue.send(Entry::Flush(done), 0).await {
            let _ = posted.await;
        }
    }
}

/// Posts lists of events.
struct Poster {
    remote: Remote,
    backoff: Duration,
    errors: Counter,
}

impl Poster {
    /// Posts events, again and again while they do not arrive. Whether they have.
    async fn post(&self, events: Vec<Vec<u8>>) -> bool {
        let body = list(&events);
        let mut pause = self.backoff;
        for attempt in 1..=ATTEMPTS_MAX {
            match self.remote.post(body.clone(), PATIENCE).await {
                Ok(_) => return true,
                Err(error) if attempt == ATTEMPTS_MAX => {
                    tracing::error!(error, count = events.len(), "events of the audit webhook are lost");
                }
                Err(error) => {
                    tracing::warn!(error, attempt, "the audit webhook did not take events; trying again");
                    tokio::time::sleep(jittered(pause, random_share())).await;
                    pause = pause.mul_f64(BACKOFF_FACTOR);
                }
            }
        }
        self.errors.inc_by(events.len() as u64);
        false
    }
}

/// A pause made longer by a share, from 0 to 1, of what is added at most. Pure.
fn jittered(pause: Duration, share: f64) -> Duration {
    pause.mul_f64(1.0 + BACKOFF_JITTER * share)
}

/// From 0 to 1.
fn random_share() -> f64 {
    let mut random = [0_u8; 4];
    // Without random bytes all wait the same time.
    let _ = getrandom::fill(&mut random);
    f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
}

/// An `EventList` of events that are JSON.
fn list(events: &[Vec<u8>]) -> Bytes {
    let mut body = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    body.extend(events.join(&b','));
    body.extend(b"]}");
    body.into()
}

/// Makes batches of what is in the queue.
struct Sender {
    entries: mpsc::Receiver<Entry>,
    queued_bytes: QueuedBytes,
    poster: Arc<Poster>,
    events_max: usize,
    wait_max: Duration,
    bytes_max: Option<usize>,
    throttle: Option<Throttle>,
    posts: JoinSet<()>,
}

impl Sender {
    async fn run(mut self) {
        while let Some(first) = self.entries.recv().await {
            let (events, flush) = self.collect(first).await;
            for batch in split(events, self.bytes_max) {
                self.post(batch).await;
            }
            if let Some(done) = flush {
                while self.posts.join_next().await.is_some() {}
                // Who waited may have gone.
                let _ = done.send(());
            }
        }
        while self.posts.join_next().await.is_some() {}
    }

    /// Takes what else is there, or comes soon.
    async fn collect(&mut self, first: Entry) -> (Vec<Vec<u8>>, Option<oneshot::Sender<()>>) {
        let end = tokio::time::Instant::now() + self.wait_max;
        let (mut events, mut next) = (Vec::new(), first);
        loop {
            match next {
                Entry::Event(event) => events.push(event),
                Entry::Flush(done) => return (events, Some(done)),
            }
            if events.len() >= self.events_max {
                return (events, None);
            }
            match tokio::time::timeout_at(end, self.entries.recv()).await {
                Ok(Some(entry)) => next = entry,
                Ok(None) | Err(_) => return (events, None),
            }
        }
    }

    /// Sends a batch on its way, when it is its turn.
    async fn post(&mut self, batch: Vec<Vec<u8>>) {
        if let Some(throttle) = &mut self.throttle {
            let wait = throttle.take(Instant::now());
            tokio::time::sleep(wait).await;
        }
        while self.posts.try_join_next().is_some() {}
        while self.posts.len() >= POSTS_MAX {
            self.posts.join_next().await;
        }
        let (poster, queued_bytes) = (Arc::clone(&self.poster), self.queued_bytes.clone());
        self.posts.spawn(async move {
            let length = batch.iter().map(Vec::len).sum();
            poster.post(batch).await;
            queued_bytes.release(length);
        });
    }
}

/// Batches of at most `bytes_max` bytes, but for single events that are larger. Nothing gives no batch.
fn split(events: Vec<Vec<u8>>, bytes_max: Option<usize>) -> Vec<Vec<Vec<u8>>> {
    let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        match batches.last_mut().filter(|_| bytes_max.is_none_or(|most| bytes + event.len() <= most)) {
            Some(batch) => {
                bytes += event.len();
                batch.push(event);
            }
            None => {
                bytes = event.len();
                batches.push(vec![event]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_split_by_size() {
        let sizes = |bytes_max: Option<usize>| {
            let events = [3, 3, 9, 1, 1].map(|length| vec![b'x'; length]).to_vec();
            let batches = split(events, bytes_max);
            batches.iter().map(|batch| batch.iter().map(Vec::len).collect()).collect::<Vec<Vec<usize>>>()
        };
        assert_eq!(sizes(None), [vec![3, 3, 9, 1, 1]]);
        assert_eq!(sizes(Some(7)), [vec![3, 3], vec![9], vec![1, 1]]);
        assert!(split(Vec::new(), None).is_empty());
    }

    #[test]
    fn pauses_grow_by_a_fifth_at_most() {
        let pause = Duration::from_secs(10);
        assert_eq!((jittered(pause, 0.0), jittered(pause, 1.0)), (pause, Duration::from_secs(12)));
        assert!((0.0..=1.0).contains(&random_share()));
    }

    #[test]
    fn lists_have_upstreams_form() {
        let body = list(&[br#"{"a":1}"#.to_vec(), br#"{"b":2}"#.to_vec()]);
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            body,
            serde_json::json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": [{"a": 1}, {"b": 2}]})
        );
    }
}
