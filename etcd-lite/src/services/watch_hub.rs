//! Tells watchers that are up to date what was just applied.
//!
//! A watcher is in the hub exactly when it has been given everything in its range up to `synced_revision`; then the hub sends it what
//! comes next, in order and once. A watcher whose stream cannot take more leaves the hub with the first revision it misses, and its
//! [`super::watch_stream`] brings it up to date from the store's history before it comes back. The hub never waits for a stream.
//!
//! Without watchers it rests: nobody is woken for changes that nobody watches. The first watcher to come wakes it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coracle_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use etcd_lite_core::watch_index::{GroupId, WatchIndex};
use etcd_lite_core::{Event, KeyRange, mutant};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::watch_codec::{EncodedPart, View, WatchFrame};
use crate::member::{Feed, Member};
use crate::metrics::RequestMetrics;

/// Frames waiting for one stream's connection.
const STREAM_FRAMES_MAX: usize = 256;

/// Bytes waiting for one stream's connection, beyond which nothing is added. Frames share their events, so
/// that many slow streams do not hold this much each.
const STREAM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of keys and values told in one go.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The way out of one watch stream.
pub(crate) struct StreamOut {
    frames: mpsc::Sender<Result<WatchFrame, Status>>,
    /// Watchers that left the hub, with the first revision they miss.
    lagging: Mutex<Vec<(i64, i64)>>,
    queue: Arc<QueueState>,
}

/// What both ends of a stream's queue know of it. The connection's end has no more than this, so that the queue ends when
/// nobody is left who could send.
#[derive(Default)]
pub(crate) struct QueueState {
    queued_bytes: AtomicUsize,
    /// Whether the stream has something to send for which there may be no room.
    waits_for_room: AtomicBool,
    /// A watcher left the hub, the connection took a frame that the stream waited for, or the hub got on.
    changed: Notify,
}

impl QueueState {
    /// The connection took a frame.
    pub(crate) fn taken(&self, frame: &WatchFrame) {
        self.queued_bytes.fetch_sub(frame.size_bytes(), Ordering::SeqCst);
        if self.waits_for_room.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }
}

impl StreamOut {
    /// The two ends: for whoever sends, and for the connection.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Result<WatchFrame, Status>>, Arc<QueueState>) {
        Self::with_room(STREAM_FRAMES_MAX)
    }

    /// As [`StreamOut::new`], for so many frames.
    pub(crate) fn with_room(
        frames_max: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Result<WatchFrame, Status>>, Arc<QueueState>) {
        let (frames, receiver) = mpsc::channel(frames_max);
        let queue = Arc::new(QueueState::default());
        let out = Self { frames, lagging: Mutex::new(Vec::new()), queue: Arc::clone(&queue) };
        (Arc::new(out), receiver, queue)
    }

    /// Whether the stream would take a frame now.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.queued_bytes.load(Ordering::SeqCst) < STREAM_BYTES_MAX && self.frames.capacity() > 0
    }

    /// Says whether the stream is to be called when the connection takes a frame. Said before looking for room, so that no frame is taken in
    /// between unheard; while it is not said, frames pass without waking the stream's task.
    pub(crate) fn wait_for_room(&self, waits: bool) {
        self.queue.waits_for_room.store(waits, Ordering::SeqCst);
    }

    /// Sends all frames or none. `false` when there is no room.
    pub(crate) fn try_send(&self, frames: impl ExactSizeIterator<Item = WatchFrame>) -> bool {
        if !self.has_room() {
            return false;
        }
        let Ok(permits) = self.frames.try_reserve_many(frames.len()) else { return false };
        for (permit, frame) in permits.zip(frames) {
            self.queue.queued_bytes.fetch_add(frame.size_bytes(), Ordering::SeqCst);
            permit.send(Ok(frame));
        }
        true
    }

    /// Ends the stream with an error, if there is room to say so.
    pub(crate) fn fail(&self, status: Status) {
        // Without room the stream just ends, which clients take as a lost connection.
        let _ = self.frames.try_send(Err(status));
    }

    /// Waits until a watcher left the hub or the connection took a frame that was waited for.
    pub(crate) async fn changed(&self) {
        self.queue.changed.notified().await;
    }

    /// The connection is gone.
    pub(crate) async fn closed(&self) {
        self.frames.closed().await;
    }

    /// The watchers that left the hub since last asked, with the first revision they miss.
    pub(crate) fn take_lagging(&self) -> Vec<(i64, i64)> {
        std::mem::take(&mut *self.lagging.lock())
    }
}

/// How long to gather changes after so many frames were sent. Each frame costs a wake-up and a write on its connection; when many watch the same
/// keys, telling every single change leaves no time for making changes. With few watchers there is no wait.
fn pause_after(frames: usize) -> Duration {
    const FEW: usize = 16;
    const PER_FRAME: Duration = Duration::from_micros(40);
    const MAX: Duration = Duration::from_millis(5);
    if frames < FEW {
        Duration::ZERO
    } else {
        (PER_FRAME * u32::try_from(frames).unwrap_or(u32::MAX)).min(MAX)
    }
}

/// Names a watcher: its stream's number and its id there.
type WatcherKey = (u64, i64);

/// A watcher that is up to date.
pub(crate) struct SyncedWatcher {
    pub(crate) range: KeyRange,
    pub(crate) view: View,
    /// Nothing below this revision is wanted.
    pub(crate) next_revision: i64,
    pub(crate) out: Arc<StreamOut>,
    /// Whether it was sent something since it was last asked about.
    pub(crate) was_sent: Cell<bool>,
}

struct State {
    /// Everything up to here has been told to the watchers in the hub.
    synced_revision: i64,
    index: WatchIndex<WatcherKey>,
    watchers: HashMap<WatcherKey, SyncedWatcher>,
    /// Streams that wait for `synced_revision` to get on, by their number.
    awaiting: HashMap<u64, Arc<QueueState>>,
    next_stream: u64,
    /// There is no watcher, and the feed is not read: `synced_revision` says nothing.
    is_resting: bool,
}

/// The hub of one member.
pub(crate) struct WatchHub<M> {
    member: Arc<M>,
    state: Mutex<State>,
    /// For whoever is to read it next.
    feed: Mutex<Option<broadcast::Receiver<Feed>>>,
    /// The hub rests no more.
    woken: Notify,
    part_bytes_max: usize,
    metrics: Arc<RequestMetrics>,
}

/// What to do next about the feed.
enum Next {
    Go,
    /// Something was lost or replaced: every watcher has to look at the store's history.
    Resync,
    End,
}

impl<M: Member> WatchHub<M> {
    pub(crate) fn new(member: Arc<M>, part_bytes_max: usize, metrics: Arc<RequestMetrics>) -> Self {
        // First the feed, then the revision: what is in both is told apart by its revision.
        let feed = member.feed();
        let synced_revision = member.store().read().revision();
        let state = State {
            synced_revision,
            index: WatchIndex::default(),
            watchers: HashMap::new(),
            awaiting: HashMap::new(),
            next_stream: 0,
            is_resting: false,
        };
        Self {
            member,
            state: Mutex::new(state),
            feed: Mutex::new(Some(feed)),
            woken: Notify::new(),
            part_bytes_max,
            metrics,
        }
    }

    /// Tells watchers what is applied, until shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let taken = self.feed.lock().take();
            let Some(feed) = taken else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.woken.notified() => continue,
                }
            };
            if self.follow(feed, &shutdown).await.is_none() {
                return;
            }
        }
    }

    /// Tells watchers what is applied until there is none, or `None` for ever.
    async fn follow(&self, mut feed: broadcast::Receiver<Feed>, shutdown: &CancellationToken) -> Option<()> {
        while !self.rests() {
            let first = tokio::select! {
                () = shutdown.cancelled() => return None,
                item = feed.recv() => item,
            };
            let (events, next) = collect_waiting(first, &mut feed);
            let pause = pause_after(self.tell(&events));
            if !pause.is_zero() {
                tokio::select! {
                    () = shutdown.cancelled() => return None,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            match next {
                Next::Go => {}
                Next::Resync => self.resync(),
                Next::End => return None,
            }
        }
        Some(())
    }

    /// Whether the hub rests from now on.
    fn rests(&self) -> bool {
        let mut state = self.state.lock();
        state.is_resting = state.watchers.is_empty();
        if state.is_resting {
            state.call_awaiting();
        }
        state.is_resting
    }

    /// Begins anew with the present revision.
    fn wake(&self, state: &mut State) {
        *self.feed.lock() = Some(self.member.feed());
        state.synced_revision = self.member.store().read().revision();
        state.is_resting = false;
        self.woken.notify_one();
    }

    /// Tells watchers what waits in the feed, once. For whoever drives the hub by hand instead of [`WatchHub::run`].
    pub(crate) fn tell_waiting(&self) {
        let taken = self.feed.lock().take();
        let Some(mut feed) = taken else { return };
        if self.rests() {
            return;
        }
        let first = match feed.try_recv() {
            Ok(item) => Some(Ok(item)),
            Err(TryRecvError::Lagged(count)) => Some(Err(RecvError::Lagged(count))),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        };
        if let Some(first) = first {
            let (events, next) = collect_waiting(first, &mut feed);
            self.tell(&events);
            if matches!(next, Next::Resync) {
                self.resync();
            }
        }
        *self.feed.lock() = Some(feed);
    }

    /// A number for a new stream.
    pub(crate) fn open_stream(&self) -> u64 {
        let mut state = self.state.lock();
        state.next_stream += 1;
        state.next_stream
    }

    /// A watcher was made; it is given history until it joins.
    pub(crate) fn begin(&self) {
        self.metrics.watchers.inc();
        self.metrics.watchers_behind.inc();
    }

    /// Takes in a watcher that has been given everything below its `next_revision`. `false` when the hub is past that already:
    /// then the history has more for it.
    pub(crate) fn join(
        &self,
        stream: u64,
        watch_id: i64,
        watcher: SyncedWatcher,
    ) -> Result<(), SyncedWatcher> {
        let mut state = self.state.lock();
        if state.is_resting {
            self.wake(&mut state);
        }
        if watcher.next_revision <= state.synced_revision {
            return Err(watcher);
        }
        let key = (stream, watch_id);
        state.index.insert(&watcher.range, key);
        state.watchers.insert(key, watcher);
        self.metrics.watchers_behind.dec();
        Ok(())
    }

    /// A watcher ends, here or still behind; nothing is sent to it from here afterwards.
    pub(crate) fn leave(&self, stream: u64, watch_id: i64) {
        self.metrics.watchers.dec();
        if self.state.lock().remove((stream, watch_id)).is_none() {
            self.metrics.watchers_behind.dec();
        }
    }

    /// Sends a progress notification for the whole stream, if everything up to a revision has been told, all its watchers are in the hub and
    /// there is room. If only the first is missing, the stream is called when that may have changed.
    pub(crate) fn notify_progress_all(
        &self,
        stream: u64,
        revision_min: i64,
        watch_ids: impl Iterator<Item = i64>,
        out: &StreamOut,
    ) -> bool {
        let mut state = self.state.lock();
        if !state.is_resting && state.synced_revision < revision_min {
            state.awaiting.insert(stream, Arc::clone(&out.queue));
            return false;
        }
        let is_synced = |id| state.watchers.contains_key(&(stream, id)) || mutant!(ProgressWhileBehind);
        let all_synced = watch_ids.into_iter().all(is_synced);
        let revision =
            if state.is_resting { self.member.store().read().revision() } else { state.synced_revision };
        all_synced && out.try_send(std::iter::once(self.progress(revision, -1)))
    }

    /// Sends a progress notification to a watcher that was sent nothing since the last call, if it is in the hub.
    pub(crate) fn notify_progress(&self, stream: u64, watch_id: i64) {
        let state = self.state.lock();
        if let Some(watcher) = state.watchers.get(&(stream, watch_id))
            && !watcher.was_sent.replace(false)
            && watcher.next_revision <= state.synced_revision + 1
        {
            watcher.out.try_send(std::iter::once(self.progress(state.synced_revision, watch_id)));
        }
    }

    fn progress(&self, revision: i64, watch_id: i64) -> WatchFrame {
        let revision =
            if mutant!(ProgressAheadOfEvents) { self.member.store().read().revision() } else { revision };
        WatchFrame::of(WatchResponse {
            header: Some(self.header(revision)),
            watch_id,
            ..WatchResponse::default()
        })
    }

    /// A header with the store's revision.
    pub(crate) fn current_header(&self) -> ResponseHeader {
        // The store is let go before the status is asked for, which may look at it too.
        let revision = self.member.store().read().revision();
        self.header(revision)
    }

    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        let status = self.member.status();
        ResponseHeader {
            cluster_id: status.cluster_id,
            member_id: status.member_id,
            revision,
            raft_term: status.term,
        }
    }

    /// Tells watchers in the hub what they want to see of some changes; how many frames that took.
    fn tell(&self, events: &[Event]) -> usize {
        let mut state = self.state.lock();
        // What was told already (after a resync) is not told again.
        let first = events.partition_point(|event| event.version.revision.main <= state.synced_revision);
        let events = &events[first..];
        let Some(last) = events.last() else { return 0 };
        let first_revision = state.synced_revision + 1;
        let last_revision = last.version.revision.main;
        let header = self.header(last_revision);

        let mut events_of_group: BTreeMap<GroupId, Vec<&Event>> = BTreeMap::new();
        for event in events {
            state.index.groups_of(event.version.key(), |group| {
                events_of_group.entry(group).or_default().push(event)
            });
        }
        let mut lagging: Vec<(WatcherKey, i64)> = Vec::new();
        let mut sent_count = 0;
        for (group, events) in &events_of_group {
            let mut encoded: [Option<Vec<EncodedPart>>; View::COUNT] = Default::default();
            for key in state.index.watchers(*group) {
                let Some(watcher) = state.watchers.get(key) else { continue };
                let own;
                let wants_all = watcher.next_revision <= events[0].version.revision.main;
                let parts = if wants_all || mutant!(FutureWatchGetsPast) {
                    encoded[watcher.view.number()].get_or_insert_with(|| {
                        watcher.view.encode(events.iter().copied(), self.part_bytes_max)
                    })
                } else {
                    let wanted = events.iter().filter(|e| e.version.revision.main >= watcher.next_revision);
                    own = watcher.view.encode(wanted.copied(), self.part_bytes_max);
                    &own
                };
                if parts.is_empty() {
                    continue;
                }
                let frames = parts.iter().map(|part| WatchFrame::with_events(header, key.1, part));
                if watcher.out.try_send(frames) {
                    watcher.was_sent.set(true);
                    sent_count += 1;
                } else if mutant!(SlowWatcherLosesEvents) {
                    lagging.push((*key, last_revision + 1));
                } else {
                    lagging.push((*key, first_revision.max(watcher.next_revision)));
                }
            }
        }
        self.metrics.watch_events.inc_by(sent_count);
        self.metrics.watch_watchers_slowed.inc_by(lagging.len() as u64);
        state.synced_revision = last_revision;
        state.call_awaiting();
        self.metrics.watchers_behind.inc_by(lagging.len() as i64);
        for (key, next_revision) in lagging {
            state.send_back(key, next_revision);
        }
        sent_count as usize
    }

    /// Sends every watcher to the history.
    fn resync(&self) {
        let mut state = self.state.lock();
        let first_revision = state.synced_revision + i64::from(!mutant!(ResyncTellsTwice));
        state.synced_revision = self.member.store().read().revision();
        state.call_awaiting();
        let mut all: Vec<(WatcherKey, i64)> = state
            .watchers
            .iter()
            .map(|(key, watcher)| (*key, first_revision.max(watcher.next_revision)))
            .collect();
        all.sort_unstable();
        self.metrics.watchers_behind.inc_by(all.len() as i64);
        for (key, next_revision) in all {
            state.send_back(key, next_revision);
        }
    }
}

impl State {
    fn call_awaiting(&mut self) {
        for (_, queue) in self.awaiting.drain() {
            queue.changed.notify_one();
        }
    }

    fn remove(&mut self, key: WatcherKey) -> Option<SyncedWatcher> {
        let watcher = self.watchers.remove(&key)?;
        self.index.remove(&watcher.range, &key);
        Some(watcher)
    }

    fn send_back(&mut self, key: WatcherKey, next_revision: i64) {
        if let Some(watcher) = self.remove(key) {
            watcher.out.lagging.lock().push((key.1, next_revision));
            watcher.out.queue.changed.notify_one();
        }
    }
}

/// What waits in the feed, with what came first from it.
fn collect_waiting(
    first: Result<Feed, RecvError>,
    feed: &mut broadcast::Receiver<Feed>,
) -> (Vec<Event>, Next) {
    let (mut events, mut bytes) = (Vec::new(), 0);
    let mut next = match first {
        Ok(item) => collect(item, &mut events, &mut bytes),
        Err(RecvError::Lagged(_)) if mutant!(HubIgnoresLag) => Next::Go,
        Err(RecvError::Lagged(_)) => Next::Resync,
        Err(RecvError::Closed) => Next::End,
    };
    while matches!(next, Next::Go) && bytes < BATCH_BYTES_MAX {
        next = match feed.try_recv() {
            Ok(item) => collect(item, &mut events, &mut bytes),
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Lagged(_)) if mutant!(HubIgnoresLag) => Next::Go,
            Err(TryRecvError::Lagged(_)) => Next::Resync,
            Err(TryRecvError::Closed) => Next::End,
        };
    }
    (events, next)
}

fn collect(item: Feed, events: &mut Vec<Event>, bytes: &mut usize) -> Next {
    match item {
        Feed::Applied { events: new, .. } => {
            *bytes += new.iter().map(|event| event.version.size_bytes()).sum::<usize>();
            events.extend(new.iter().cloned());
            Next::Go
        }
        Feed::Replaced => Next::Resync,
    }
}
