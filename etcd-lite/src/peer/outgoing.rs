//! Connections to the other members: a stream of raft messages each, snapshots and lease questions as calls of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use component_base::metrics::Registry;
use coracle_proto::peer::peer_client::PeerClient;
use coracle_proto::peer::{
    Envelope, HashKvQuestion, LeaseId, LeaseTime, MemberId, PromoteAnswer, RawRecord, SnapshotHead,
    SnapshotPart,
};
use etcd_lite_core::{Members, Record, Store};
use parking_lot::{Mutex, RwLock};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::channel::{self, Attempt, PeerTls};
use super::metrics::{PeerMetrics, PeersMetrics};
use crate::corruption::KeySpaceHash;
use crate::member::{LeaseTimeToLive, ProposeError};
use crate::raft::driver::Input;
use crate::raft::prepared::Prepared;
use crate::raft_member::{REMOVED, RaftMember};

/// Messages that may wait for a peer; beyond that they are dropped, as on a bad network.
const QUEUE: usize = 4096;
/// Messages sent in one envelope.
const ENVELOPE: usize = 256;
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// The checksum of the largest store is computed within this time.
const HASH_DEADLINE: Duration = Duration::from_secs(7);
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// Between this member's removal and its end, as in etcd: enough for the others to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// A snapshot of the largest store takes this long on a slow network.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(300);
const SNAPSHOT_PART_BYTES: usize = 1 << 20;
/// A large value and its envelope.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// The other members. Who they are follows the members' changes.
pub struct Peers {
    cluster_id: u64,
    own_id: u64,
    /// As the flags have it, until the member knows itself.
    own_urls: Vec<String>,
    tls: Option<PeerTls>,
    peers: RwLock<HashMap<u64, Peer>>,
    members: RwLock<Members>,
    snapshots: Prepared<Announced>,
    inputs: Arc<OnceLock<mpsc::Sender<Input>>>,
    store: OnceLock<Arc<RwLock<Store>>>,
    member: OnceLock<Weak<RaftMember>>,
    has_ended: AtomicBool,
    metrics: PeersMetrics,
    /// Where consensus runs, and the streams to and from the peers.
    runtime: Handle,
    /// Where everything else runs: what takes long must not hold up a heartbeat.
    elsewhere: Handle,
    shutdown: CancellationToken,
}

struct Peer {
    urls: Vec<String>,
    channel: Channel,
    /// Closed when the peer is given up.
    queue: mpsc::Sender<Message>,
    /// Since when there is a connection to it.
    connected: Arc<Mutex<Option<Instant>>>,
    metrics: Arc<PeerMetrics>,
}

/// A store as a snapshot message announces it.
struct Announced {
    term: u64,
    records: Vec<Record>,
}

impl Peers {
    /// No connections yet; they are made when the member has started, on `runtime`.
    pub fn new(
        cluster_id: u64,
        own_id: u64,
        own_urls: Vec<String>,
        tls: Option<PeerTls>,
        runtime: Handle,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster_id,
            own_id,
            own_urls,
            tls,
            peers: RwLock::default(),
            members: RwLock::default(),
            snapshots: Prepared::default(),
            inputs: Arc::default(),
            store: OnceLock::new(),
            member: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            metrics: PeersMetrics::default(),
            runtime,
            elsewhere: Handle::current(),
            shutdown,
        })
    }

    /// The member has started, with these members: begins to send, and gives what arrives to `inputs`.
    pub fn connect(
        self: &Arc<Self>,
        inputs: mpsc::Sender<Input>,
        member: Weak<RaftMember>,
        members: &Members,
    ) {
        // Called once.
        let _ = (self.inputs.set(inputs), self.member.set(member));
        self.update(members);
    }

    /// Shows on `/metrics` what goes over the connections.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// The members are these now: connects to those that are new or have moved, and gives up those that were removed once what waits
    /// for them is sent. A removed member learns it from any other, see [`Peers::has_left`].
    pub fn update(self: &Arc<Self>, members: &Members) {
        if members.is_removed(self.own_id) {
            self.end_as_removed();
        }
        members.clone_into(&mut self.members.write());
        let mut peers = self.peers.write();
        peers.retain(|id, _| !members.is_removed(*id));
        for member in members.iter().filter(|member| member.id != self.own_id) {
            if peers.get(&member.id).is_none_or(|peer| peer.urls != member.peer_urls) {
                self.open(&mut peers, member.id, &member.peer_urls);
            }
        }
    }

    /// A member that is not known here, because this one is behind, says where it can be answered.
    pub(super) fn meet(self: &Arc<Self>, id: u64, urls: &[String]) {
        if id == self.own_id || urls.is_empty() || self.peers.read().contains_key(&id) {
            return;
        }
        let mut peers = self.peers.write();
        if !peers.contains_key(&id) && !self.has_left(id) {
            self.open(&mut peers, id, urls);
        }
    }

    /// Whether there was such a member and it was removed.
    pub(super) fn has_left(&self, id: u64) -> bool {
        self.members.read().is_removed(id)
    }

    /// This member was removed. The others take what is under way first.
    fn end_as_removed(self: &Arc<Self>) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(
            member = format!("{:x}", self.own_id),
            "{REMOVED}; its data directory is of no use any more and may be removed"
        );
        let shutdown = self.shutdown.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            shutdown.cancel();
        });
    }

    fn open(self: &Arc<Self>, peers: &mut HashMap<u64, Peer>, id: u64, urls: &[String]) {
        let connected: Arc<Mutex<Option<Instant>>> = Arc::default();
        let metrics = Arc::new(self.metrics.of(self.own_id, id));
        let (inputs, since, counted) =
            (Arc::clone(&self.inputs), Arc::clone(&connected), Arc::clone(&metrics));
        let tell = move |attempt| match attempt {
            Attempt::Connected => {
                counted.connected();
                since.lock().get_or_insert_with(Instant::now);
                hand_over(&inputs, Input::Connected(id));
            }
            Attempt::Refused => hand_over(&inputs, Input::Gone(id)),
        };
        let _inside = self.runtime.enter();
        let channel = match channel::open(urls, self.tls.clone(), tell) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(
                    peer = format!("{id:x}"),
                    error = format!("{error:#}"),
                    "this member cannot be reached"
                );
                return;
            }
        };
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (task, own) = (Arc::clone(self), channel.clone());
        let (since, counted) = (Arc::clone(&connected), Arc::clone(&metrics));
        self.runtime.spawn(async move {
            tokio::select! {
                () = task.shutdown.cancelled() => {}
                () = task.stream(id, own, receiver, &since, &counted) => {}
            }
        });
        peers.insert(id, Peer { urls: urls.to_vec(), channel, queue, connected, metrics });
    }

    /// Since when there has been a connection to a member, if there is one.
    pub fn connected_since(&self, id: u64) -> Option<Instant> {
        *self.peers.read().get(&id)?.connected.lock()
    }

    fn peer_urls(&self) -> Vec<String> {
        let members = self.members.read();
        members.get(self.own_id).map_or_else(|| self.own_urls.clone(), |member| member.peer_urls.clone())
    }

    /// Keeps a stream to one peer open until the peer is given up.
    async fn stream(
        self: &Arc<Self>,
        id: u64,
        channel: Channel,
        mut messages: mpsc::Receiver<Message>,
        connected: &Mutex<Option<Instant>>,
        metrics: &PeerMetrics,
    ) {
        let mut wait = RECONNECT_FIRST;
        loop {
            let (sender, envelopes) = mpsc::channel::<Envelope>(16);
            let mut client = PeerClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut call = std::pin::pin!(client.stream(ReceiverStream::new(envelopes)));
            let waiting = &mut messages;
            let forward = async move {
                // Dropped at the end of this block, so that the other side sees the stream's end.
                let sender = sender;
                let mut batch = Vec::with_capacity(ENVELOPE);
                let mut peer_urls = self.peer_urls();
                while waiting.recv_many(&mut batch, ENVELOPE).await > 0 {
                    let encode = |message: Message| message.write_to_bytes().ok().map(Bytes::from);
                    let messages: Vec<Bytes> = batch.drain(..).filter_map(encode).collect();
                    metrics.sent_bytes.inc_by(messages.iter().map(|message| message.len() as u64).sum());
                    let peer_urls = std::mem::take(&mut peer_urls);
                    let envelope =
                        Envelope { cluster_id: self.cluster_id, from: self.own_id, messages, peer_urls };
                    if sender.send(envelope).await.is_err() {
                        return;
                    }
                }
            };
            let began = tokio::time::Instant::now();
            tokio::select! {
                result = &mut call => match result {
                    Ok(ack) if ack.get_ref().is_removed => return self.end_as_removed(),
                    Ok(_) => {}
                    Err(status) => tracing::debug!(peer = format!("{id:x}"), %status, "stream to a peer ended"),
                },
                // The peer is given up, or the call is about to end.
                () = forward => drop(tokio::time::timeout(CALL_DEADLINE, &mut call).await),
            }
            connected.lock().take();
            metrics.disconnected();
            if messages.is_closed() {
                return;
            }
            self.input(Input::Unreachable(id));
            wait =
                if began.elapsed() > RECONNECT_MAX { RECONNECT_FIRST } else { (2 * wait).min(RECONNECT_MAX) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Hands over an input; when the driver is behind by so much, messages are dropped as on a bad network.
    pub(super) fn input(&self, input: Input) {
        hand_over(&self.inputs, input);
    }

    /// Like [`Peers::input`] for what must not be lost; waits for a place.
    pub(super) async fn input_surely(self: &Arc<Self>, input: Input) {
        if let Some(inputs) = self.inputs.get() {
            // Fails when the driver has ended.
            let _ = inputs.send(input).await;
        }
    }

    /// The member, unless it is starting or ending.
    pub(super) fn member(&self) -> Option<Arc<RaftMember>> {
        self.member.get()?.upgrade()
    }

    /// From now on other members are told the checksum of this store.
    pub fn serve_hashes(&self, store: Arc<RwLock<Store>>) {
        // Called once.
        let _ = self.store.set(store);
    }

    /// This member's store, once it has started.
    pub(super) fn store(&self) -> Option<&Arc<RwLock<Store>>> {
        self.store.get()
    }

    /// The other members' ids.
    pub fn others(&self) -> Vec<u64> {
        self.peers.read().keys().copied().collect()
    }

    /// Asks a member for the checksum of its key space at a revision.
    ///
    /// # Errors
    /// It cannot be reached, or it does not have the revision (yet, or any more).
    pub async fn hash_kv(&self, id: u64, revision: i64) -> Result<KeySpaceHash, String> {
        let channel = self.peers.read().get(&id).map(|peer| peer.channel.clone());
        let channel = channel.ok_or("no such member")?;
        let mut client = PeerClient::new(channel);
        let call = client.hash_kv(HashKvQuestion { cluster_id: self.cluster_id, revision });
        let answer = match tokio::time::timeout(HASH_DEADLINE, call).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(status.message().to_owned()),
            Err(_) => return Err(format!("no answer within {HASH_DEADLINE:?}")),
        };
        Ok(KeySpaceHash {
            member_id: id,
            hash: answer.hash,
            revision: answer.revision,
            compacted_revision: answer.compacted_revision,
            current_revision: answer.current_revision,
        })
    }

    /// Where to do what takes long.
    pub(super) fn elsewhere(&self) -> &Handle {
        &self.elsewhere
    }

    /// The cluster all this belongs to.
    pub(super) fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Sends a message to the member it names.
    pub fn send(self: &Arc<Self>, message: Message) {
        let peers = self.peers.read();
        let Some(peer) = peers.get(&message.to) else { return };
        match message.get_msg_type() {
            MessageType::MsgSnapshot => {
                return self.send_snapshot(message, peer.channel.clone(), Arc::clone(&peer.metrics));
            }
            MessageType::MsgHeartbeat => peer.metrics.heartbeat_sent(),
            _ => {}
        }
        if peer.queue.try_send(message).is_err() {
            peer.metrics.sent_failures.inc();
            tracing::debug!("dropped a message to a peer: too many wait");
        }
    }

    /// Messages came from a member.
    pub(super) fn received(&self, from: u64, bytes: usize) {
        if let Some(peer) = self.peers.read().get(&from) {
            peer.metrics.received_bytes.inc_by(bytes as u64);
        }
    }

    /// A member answered a heartbeat.
    pub(super) fn heartbeat_answered(&self, from: u64) {
        if let Some(peer) = self.peers.read().get(&from) {
            peer.metrics.heartbeat_answered();
        }
    }

    /// Keeps the records of a snapshot until its announcement is sent to the member.
    pub fn prepare_snapshot(&self, to: u64, index: u64, term: u64, records: Vec<Record>) {
        self.snapshots.keep(to, index, Announced { term, records });
    }

    fn send_snapshot(self: &Arc<Self>, message: Message, channel: Channel, metrics: Arc<PeerMetrics>) {
        let (to, peers) = (message.to, Arc::clone(self));
        let Some(Announced { term, records }) = self.snapshots.take(&message) else { return };
        let index = message.get_snapshot().get_metadata().index;
        self.elsewhere.spawn(async move {
            let head = SnapshotHead {
                cluster_id: peers.cluster_id,
                index,
                term,
                message: message.write_to_bytes().unwrap_or_default().into(),
            };
            let (sender, receiver) = mpsc::channel(2);
            let feed = tokio::spawn(async move {
                for part in parts(head, records) {
                    if sender.send(part).await.is_err() {
                        return;
                    }
                }
            });
            let mut client = PeerClient::new(channel);
            let sent =
                tokio::time::timeout(SNAPSHOT_DEADLINE, client.install(ReceiverStream::new(receiver))).await;
            feed.abort();
            let arrived = matches!(&sent, Ok(Ok(_)));
            if arrived {
                metrics.snapshots_sent.inc();
            } else {
                metrics.snapshots_failed.inc();
                tracing::warn!(peer = format!("{to:x}"), "sending a snapshot failed; consensus tries again");
            }
            peers.input_surely(Input::SnapshotSent { to, arrived }).await;
        });
    }

    fn client(&self, id: u64) -> Result<PeerClient<Channel>, ProposeError> {
        let peers = self.peers.read();
        let peer = peers.get(&id).ok_or(ProposeError::NoLeader)?;
        Ok(PeerClient::new(peer.channel.clone()))
    }

    /// Renews a lease at the leader.
    ///
    /// # Errors
    /// No leader, or it does not answer.
    pub async fn renew_lease(&self, leader: u64, id: i64) -> Result<Option<LeaseTimeToLive>, ProposeError> {
        let mut client = self.client(leader)?;
        let request = LeaseId { cluster_id: self.cluster_id, id };
        answer(tokio::time::timeout(CALL_DEADLINE, client.renew_lease(request)).await)
    }

    /// Asks the leader for a lease's time.
    ///
    /// # Errors
    /// No leader, or it does not answer.
    pub async fn time_to_live(&self, leader: u64, id: i64) -> Result<Option<LeaseTimeToLive>, ProposeError> {
        let mut client = self.client(leader)?;
        let request = LeaseId { cluster_id: self.cluster_id, id };
        answer(tokio::time::timeout(CALL_DEADLINE, client.time_to_live(request)).await)
    }

    /// Has the leader promote a learner.
    ///
    /// # Errors
    /// No leader, or it does not answer.
    pub async fn promote(
        &self,
        leader: u64,
        id: u64,
        within: Duration,
    ) -> Result<PromoteAnswer, ProposeError> {
        let mut client = self.client(leader)?;
        let request = MemberId { cluster_id: self.cluster_id, id };
        match tokio::time::timeout(within, client.promote(request)).await {
            Err(_) => Err(ProposeError::Timeout),
            Ok(Err(_)) => Err(ProposeError::TimeoutConnectionLost),
            Ok(Ok(response)) => Ok(response.into_inner()),
        }
    }
}

fn hand_over(inputs: &OnceLock<mpsc::Sender<Input>>, input: Input) {
    let Some(inputs) = inputs.get() else { return };
    match inputs.try_send(input) {
        Ok(()) | Err(TrySendError::Closed(_)) => {}
        Err(TrySendError::Full(_)) => tracing::debug!("dropped a peer's message: too many wait"),
    }
}

type Answer = Result<Result<tonic::Response<LeaseTime>, tonic::Status>, tokio::time::error::Elapsed>;

fn answer(result: Answer) -> Result<Option<LeaseTimeToLive>, ProposeError> {
    match result {
        Err(_) => Err(ProposeError::Timeout),
        Ok(Err(_)) => Err(ProposeError::TimeoutConnectionLost),
        Ok(Ok(response)) => match response.into_inner() {
            LeaseTime { leads: false, .. } => Err(ProposeError::LeaderChanged),
            LeaseTime { found: false, .. } => Ok(None),
            LeaseTime { granted_seconds, remaining_seconds, .. } => {
                Ok(Some(LeaseTimeToLive { remaining_seconds, granted_seconds }))
            }
        },
    }
}

/// The snapshot in parts of bounded size, each made when it is sent.
fn parts(head: SnapshotHead, mut records: Vec<Record>) -> impl Iterator<Item = SnapshotPart> {
    records.sort_by_key(Record::key);
    let mut records = records.into_iter().peekable();
    let mut head = Some(head);
    std::iter::from_fn(move || {
        if head.is_none() && records.peek().is_none() {
            return None;
        }
        let (mut part, mut bytes) = (SnapshotPart { head: head.take(), records: Vec::new() }, 0);
        while bytes < SNAPSHOT_PART_BYTES
            && let Some(record) = records.next()
        {
            let raw = RawRecord {
                key: Bytes::copy_from_slice(record.key().as_ref()),
                value: record.value().into(),
            };
            bytes += raw.value.len();
            part.records.push(raw);
        }
        Some(part)
    })
}
