//! One client's watch stream: creates and cancels its watchers, and brings those that start in the past or fell behind up to date.
//!
//! Everything this task sends waits in `pending` first, in order. A watcher joins the hub only when nothing of it is pending, so that
//! the hub's frames come after.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_proto::etcdserverpb::watch_create_request::FilterType;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use etcd_lite_core::{KeyRange, StoreError, mutant};
use futures::stream::{Stream, StreamExt};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::caller::Credentials;
use super::status;
use super::watch_codec::{View, WatchFrame};
use super::watch_hub::{StreamOut, SyncedWatcher, WatchHub};
use crate::member::{Member, ProposeError};

/// Events looked at while the store is locked for reading.
pub(crate) const HISTORY_SCAN_MAX: usize = 10_000;

/// Bytes of keys and values taken from history at a time.
const HISTORY_BYTES_MAX: usize = 1024 * 1024;

/// Frames waiting for room, beyond which no more requests are taken from the client.
const PENDING_FRAMES_MAX: usize = 1024;

/// How long a stream with `hasleader` outlives the leader.
const NO_LEADER_GRACE: Duration = Duration::from_secs(3);

/// What a stream needs from outside.
pub(crate) struct StreamSettings {
    pub(crate) progress_interval: Duration,
    pub(crate) part_bytes_max: usize,
    /// Events looked at in one step of history.
    pub(crate) history_scan_max: usize,
    pub(crate) wants_leader: bool,
    pub(crate) credentials: Credentials,
}

/// One watcher of the stream, in the hub or not.
struct Watcher {
    range: KeyRange,
    view: View,
    progress_notify: bool,
    /// First revision not given to it yet; not kept while it is in the hub.
    next_revision: i64,
}

pub(crate) struct WatchStream<M: Member> {
    number: u64,
    member: Arc<M>,
    hub: Arc<WatchHub<M>>,
    out: Arc<StreamOut>,
    settings: StreamSettings,
    watchers: BTreeMap<i64, Watcher>,
    /// Ids of watches that a compaction ended; as in etcd they stay taken until the client cancels them.
    ended: BTreeSet<i64>,
    /// Watchers that are not in the hub, taken in turn.
    behind: VecDeque<i64>,
    pending: VecDeque<WatchFrame>,
    next_watch_id: i64,
    /// A progress request waits until all watchers are in the hub and have been told everything up to this revision: that of the store when it
    /// came, so that clients find what they have written behind the answer.
    progress_wanted: Option<i64>,
}

impl<M: Member> WatchStream<M> {
    pub(crate) fn new(
        member: Arc<M>,
        hub: Arc<WatchHub<M>>,
        out: Arc<StreamOut>,
        settings: StreamSettings,
    ) -> Self {
        Self {
            number: hub.open_stream(),
            member,
            hub,
            out,
            settings,
            watchers: BTreeMap::new(),
            ended: BTreeSet::new(),
            behind: VecDeque::new(),
            pending: VecDeque::new(),
            next_watch_id: 0,
            progress_wanted: None,
        }
    }

    /// Serves the stream until the client ends it, the connection goes, or shutdown.
    pub(crate) async fn run(
        mut self,
        requests: impl Stream<Item = Result<WatchRequest, Status>>,
        shutdown: CancellationToken,
    ) {
        let mut requests = std::pin::pin!(requests);
        let mut progress_ticks = tokio::time::interval_at(
            Instant::now() + self.settings.progress_interval,
            self.settings.progress_interval,
        );
        progress_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leader = self.member.leader();
        let mut leaderless_until: Option<Instant> = None;
        // A client that has nothing more to ask still gets what it asked for.
        let mut is_asking = true;
        loop {
            self.advance();
            // Work that only waits for others to have a turn.
            let has_more_to_do = self.pending.is_empty() && !self.behind.is_empty() && self.out.has_room();
            let no_leader_deadline = leaderless_until.unwrap_or_else(Instant::now);
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.out.fail(status::of_propose(ProposeError::Stopped));
                    break;
                }
                () = self.out.closed() => break,
                request = requests.next(), if is_asking && self.pending.len() < PENDING_FRAMES_MAX => match request {
                    Some(Ok(request)) => {
                        let permitted = self.check_permitted(&request).await;
                        self.handle(request, permitted);
                    }
                    Some(Err(_)) => break,
                    None => is_asking = false,
                },
                () = self.out.changed() => {}
                _ = progress_ticks.tick() => self.notify_progress(),
                changed = leader.changed(), if self.settings.wants_leader => {
                    if changed.is_err() {
                        break;
                    }
                    leaderless_until = (*leader.borrow_and_update() == 0).then(|| Instant::now() + NO_LEADER_GRACE);
                }
                () = tokio::time::sleep_until(no_leader_deadline), if leaderless_until.is_some() => {
                    self.out.fail(status::of_propose(ProposeError::NoLeader));
                    break;
                }
                () = std::future::ready(()), if has_more_to_do => tokio::task::yield_now().await,
            }
        }
        self.leave();
    }

    /// Nobody watches any more.
    pub(crate) fn leave(&self) {
        for watch_id in self.watchers.keys() {
            self.hub.leave(self.number, *watch_id);
        }
    }

    /// Sends what is pending and, as long as there is room, one step of history for each watcher that is behind.
    pub(crate) fn advance(&mut self) {
        self.out.wait_for_room(true);
        self.send_what_there_is_room_for();
        let is_done = self.pending.is_empty() && self.behind.is_empty() && self.progress_wanted.is_none();
        self.out.wait_for_room(!is_done);
    }

    fn send_what_there_is_room_for(&mut self) {
        for (watch_id, next_revision) in self.out.take_lagging() {
            if let Some(watcher) = self.watchers.get_mut(&watch_id) {
                watcher.next_revision = next_revision;
                self.behind.push_back(watch_id);
            }
        }
        self.flush();
        for _ in 0..self.behind.len() {
            if (!self.pending.is_empty() || !self.out.has_room()) && !mutant!(HubOvertakesHistory) {
                return;
            }
            let Some(watch_id) = self.behind.pop_front() else { break };
            if self.catch_up(watch_id) {
                self.behind.push_back(watch_id);
            }
            self.flush();
        }
        if let Some(revision) = self.progress_wanted.filter(|_| self.pending.is_empty()) {
            let watch_ids = self.watchers.keys().copied();
            if self.hub.notify_progress_all(self.number, revision, watch_ids, &self.out) {
                self.progress_wanted = None;
            }
        }
    }

    fn flush(&mut self) {
        while let Some(frame) = self.pending.pop_front() {
            if !self.out.try_send(std::iter::once(frame.clone())) {
                self.pending.push_front(frame);
                return;
            }
        }
    }

    /// One step of history for a watcher, or its return to the hub. Whether it is still behind.
    fn catch_up(&mut self, watch_id: i64) -> bool {
        let Some(watcher) = self.watchers.get_mut(&watch_id) else { return false };
        let synced = SyncedWatcher {
            range: watcher.range.clone(),
            view: watcher.view,
            next_revision: watcher.next_revision,
            out: Arc::clone(&self.out),
            was_sent: Cell::new(true),
        };
        if self.hub.join(self.number, watch_id, synced).is_ok() {
            return false;
        }
        let (history, compacted) = {
            let store = self.member.store().read();
            let scan_max = self.settings.history_scan_max;
            let history = store.history(&watcher.range, watcher.next_revision, scan_max, HISTORY_BYTES_MAX);
            (history, store.compacted_revision())
        };
        let Ok(history) = history else {
            self.watchers.remove(&watch_id);
            self.hub.leave(self.number, watch_id);
            self.ended.insert(watch_id);
            // As in etcd: without a revision, without words, and with the compacted revision as the reason, which is no reason when it is 0.
            self.pending.push_back(WatchFrame::of(WatchResponse {
                header: Some(self.hub.header(0)),
                watch_id,
                canceled: compacted != 0,
                compact_revision: compacted,
                ..WatchResponse::default()
            }));
            return false;
        };
        watcher.next_revision = history.through + 1;
        let parts = watcher.view.encode(&history.events, self.settings.part_bytes_max);
        let header = self.hub.header(history.through);
        self.pending.extend(parts.iter().map(|part| WatchFrame::with_events(header, watch_id, part)));
        true
    }

    /// Whether the stream's user may read what it wants to watch. As in etcd, a watcher that is there stays when the permission goes.
    async fn check_permitted(&self, request: &WatchRequest) -> Result<(), StoreError> {
        let Some(RequestUnion::CreateRequest(create)) = &request.request_union else { return Ok(()) };
        let caller = self.settings.credentials.caller(&*self.member).await?;
        let key = lowest_if_empty(&create.key);
        self.member.store().read().auth().check_read(caller.as_ref(), &key, &create.range_end)
    }

    pub(crate) fn handle(&mut self, request: WatchRequest, permitted: Result<(), StoreError>) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create, permitted),
            Some(RequestUnion::CancelRequest(cancel)) => {
                let watch_id = cancel.watch_id;
                let is_watching = self.watchers.remove(&watch_id).is_some();
                if is_watching {
                    self.hub.leave(self.number, watch_id);
                    self.behind.retain(|id| *id != watch_id);
                }
                if self.ended.remove(&watch_id) || is_watching {
                    let header = Some(self.hub.current_header());
                    self.pending.push_back(WatchFrame::of(WatchResponse {
                        header,
                        watch_id,
                        canceled: true,
                        ..WatchResponse::default()
                    }));
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_wanted = Some(self.member.store().read().revision());
            }
            None => {}
        }
    }

    fn create(&mut self, create: WatchCreateRequest, permitted: Result<(), StoreError>) {
        let revision = self.member.store().read().revision();
        let header = Some(self.hub.header(revision));
        let range = KeyRange::new(&lowest_if_empty(&create.key), &create.range_end);
        let refusal = if let Err(error) = permitted {
            let status = status::of_store(error);
            Some(format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
        } else if range.is_empty() {
            Some("mvcc: watcher range is empty".to_owned())
        } else if create.watch_id != 0 && self.is_taken(create.watch_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.pending.push_back(WatchFrame::of(WatchResponse {
                header,
                watch_id: -1,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..WatchResponse::default()
            }));
            return;
        }
        let watch_id = if create.watch_id == 0 { self.free_watch_id() } else { create.watch_id };
        let filtered = |filter: FilterType| create.filters.contains(&filter.into());
        let view = View {
            with_previous: create.prev_kv,
            without_puts: filtered(FilterType::Noput),
            without_deletes: filtered(FilterType::Nodelete),
            may_fragment: create.fragment,
        };
        // As in etcd, a negative one is before everything, and refused once something is compacted.
        let next_revision = if create.start_revision == 0 { revision + 1 } else { create.start_revision };
        let progress_notify = create.progress_notify;
        self.hub.begin();
        self.watchers.insert(watch_id, Watcher { range, view, progress_notify, next_revision });
        self.behind.push_back(watch_id);
        self.pending.push_back(WatchFrame::of(WatchResponse {
            header,
            watch_id,
            created: true,
            ..WatchResponse::default()
        }));
    }

    fn is_taken(&self, watch_id: i64) -> bool {
        self.watchers.contains_key(&watch_id) || self.ended.contains(&watch_id)
    }

    fn free_watch_id(&mut self) -> i64 {
        while self.is_taken(self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        self.next_watch_id - 1
    }

    pub(crate) fn notify_progress(&self) {
        for (watch_id, _) in self.watchers.iter().filter(|(_, watcher)| watcher.progress_notify) {
            self.hub.notify_progress(self.number, *watch_id);
        }
    }
}

/// No key means the lowest there is.
fn lowest_if_empty(key: &Bytes) -> Bytes {
    if key.is_empty() { Bytes::from_static(&[0]) } else { key.clone() }
}
