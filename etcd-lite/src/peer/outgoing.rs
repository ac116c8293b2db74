//! Connections to the other members: a stream of raft messages each, snapshots and lease questions as calls of their own.

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use coracle_proto::peer::peer_client::PeerClient;
use coracle_proto::peer::{
    Envelope, HashKvQuestion, LeaseId, LeaseTime, RawRecord, SnapshotHead, SnapshotPart,
};
use etcd_lite_core::{Record, Store};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::corruption::KeySpaceHash;
use crate::lease_keeper::LeaseKeeper;
use crate::member::{LeaseTimeToLive, MemberInfo, ProposeError};
use crate::options::EtcdUrl;
use crate::raft::driver::Input;
use crate::tls::Reloading;

/// Messages that may wait for a peer; beyond that they are dropped, as on a bad network.
const QUEUE: usize = 4096;
/// Messages sent in one envelope.
const ENVELOPE: usize = 256;
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// The checksum of the largest store is computed within this time.
const HASH_DEADLINE: Duration = Duration::from_secs(7);
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// A snapshot of the largest store takes this long on a slow network.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(300);
const SNAPSHOT_PART_BYTES: usize = 1 << 20;
/// A large value and its envelope.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// How to talk to peers over TLS.
pub type PeerTls = Arc<Reloading<rustls::ClientConfig>>;

/// The other members.
pub struct Peers {
    cluster_id: u64,
    own_id: u64,
    peers: HashMap<u64, Peer>,
    snapshots: Mutex<HashMap<u64, Prepared>>,
    inputs: Arc<OnceLock<SyncSender<Input>>>,
    leases: OnceLock<Arc<LeaseKeeper>>,
    store: OnceLock<Arc<RwLock<Store>>>,
    runtime: tokio::runtime::Handle,
    shutdown: CancellationToken,
}

struct Peer {
    channel: Channel,
    queue: mpsc::Sender<Message>,
    receiver: Mutex<Option<mpsc::Receiver<Message>>>,
}

struct Prepared {
    index: u64,
    term: u64,
    records: Vec<Record>,
}

impl Peers {
    /// Prepares connections to all members but the own one; they are made when the member has started.
    ///
    /// # Errors
    /// A peer URL is malformed.
    pub fn new(
        cluster_id: u64,
        own_id: u64,
        members: &[MemberInfo],
        tls: Option<PeerTls>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let mut peers = HashMap::new();
        let inputs: Arc<OnceLock<SyncSender<Input>>> = Arc::default();
        for member in members.iter().filter(|member| member.id != own_id) {
            let url = member
                .peer_urls
                .first()
                .with_context(|| format!("member {} has no peer URL", member.name))?;
            let channel = channel(url, tls.clone(), member.id, &inputs)
                .with_context(|| format!("peer URL {url} of {}", member.name))?;
            let (queue, receiver) = mpsc::channel(QUEUE);
            peers.insert(member.id, Peer { channel, queue, receiver: Mutex::new(Some(receiver)) });
        }
        Ok(Arc::new(Self {
            cluster_id,
            own_id,
            peers,
            snapshots: Mutex::default(),
            inputs,
            leases: OnceLock::new(),
            store: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
            shutdown,
        }))
    }

    /// The member has started: begins to send, and gives what arrives to `inputs`.
    pub fn connect(self: &Arc<Self>, inputs: SyncSender<Input>, leases: Arc<LeaseKeeper>) {
        // Called once.
        let _ = (self.inputs.set(inputs), self.leases.set(leases));
        for (id, peer) in &self.peers {
            let Some(receiver) = peer.receiver.lock().take() else { continue };
            let (peers, id, channel) = (Arc::clone(self), *id, peer.channel.clone());
            self.runtime.spawn(async move {
                tokio::select! {
                    () = peers.shutdown.cancelled() => {}
                    () = peers.stream(id, channel, receiver) => {}
                }
            });
        }
    }

    /// Keeps a stream to one peer open for ever.
    async fn stream(&self, id: u64, channel: Channel, mut messages: mpsc::Receiver<Message>) {
        let mut wait = RECONNECT_FIRST;
        loop {
            let (sender, envelopes) = mpsc::channel::<Envelope>(16);
            let mut client = PeerClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut call = std::pin::pin!(client.stream(ReceiverStream::new(envelopes)));
            let forward = async {
                let mut batch = Vec::with_capacity(ENVELOPE);
                while messages.recv_many(&mut batch, ENVELOPE).await > 0 {
                    let encode = |message: Message| message.write_to_bytes().ok().map(Bytes::from);
                    let messages = batch.drain(..).filter_map(encode).collect();
                    let envelope = Envelope { cluster_id: self.cluster_id, from: self.own_id, messages };
                    if sender.send(envelope).await.is_err() {
                        return;
                    }
                }
            };
            let began = tokio::time::Instant::now();
            tokio::select! {
                result = &mut call => {
                    if let Err(status) = result {
                        tracing::debug!(peer = format!("{id:x}"), %status, "stream to a peer ended");
                    }
                }
                () = forward => {}
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
        let peers = Arc::clone(self);
        // Blocks for as long as the driver needs for one round.
        let _ =
            tokio::task::spawn_blocking(move || peers.inputs.get().map(|inputs| inputs.send(input))).await;
    }

    /// Lease timers of this member.
    pub(super) fn leases(&self) -> Option<&Arc<LeaseKeeper>> {
        self.leases.get()
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
        self.peers.keys().copied().collect()
    }

    /// Asks a member for the checksum of its key space at a revision.
    ///
    /// # Errors
    /// It cannot be reached, or it does not have the revision (yet, or any more).
    pub async fn hash_kv(&self, id: u64, revision: i64) -> Result<KeySpaceHash, String> {
        let channel = self.peers.get(&id).map(|peer| peer.channel.clone()).ok_or("no such member")?;
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

    /// The cluster all this belongs to.
    pub(super) fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Sends a message to the member it names.
    pub fn send(self: &Arc<Self>, message: Message) {
        let Some(peer) = self.peers.get(&message.to) else { return };
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.send_snapshot(message, peer.channel.clone());
        } else if peer.queue.try_send(message).is_err() {
            tracing::debug!("dropped a message to a peer: too many wait");
        }
    }

    /// Keeps the records of a snapshot until its announcement is sent to the member.
    pub fn prepare_snapshot(&self, to: u64, index: u64, term: u64, records: Vec<Record>) {
        self.snapshots.lock().insert(to, Prepared { index, term, records });
    }

    fn send_snapshot(self: &Arc<Self>, message: Message, channel: Channel) {
        let (to, peers) = (message.to, Arc::clone(self));
        let Some(prepared) = self.snapshots.lock().remove(&to) else { return };
        self.runtime.spawn(async move {
            let head = SnapshotHead {
                cluster_id: peers.cluster_id,
                index: prepared.index,
                term: prepared.term,
                message: message.write_to_bytes().unwrap_or_default().into(),
            };
            let (sender, receiver) = mpsc::channel(2);
            let feed = tokio::spawn(async move {
                for part in parts(head, prepared.records) {
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
            if !arrived {
                tracing::warn!(peer = format!("{to:x}"), "sending a snapshot failed; consensus tries again");
            }
            peers.input_surely(Input::SnapshotSent { to, arrived }).await;
        });
    }

    fn client(&self, id: u64) -> Result<PeerClient<Channel>, ProposeError> {
        let peer = self.peers.get(&id).ok_or(ProposeError::NoLeader)?;
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
}

fn hand_over(inputs: &OnceLock<SyncSender<Input>>, input: Input) {
    let Some(inputs) = inputs.get() else { return };
    match inputs.try_send(input) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
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

/// A channel that connects when it is needed, and tells the driver whether that works.
fn channel(
    url: &str,
    tls: Option<PeerTls>,
    id: u64,
    inputs: &Arc<OnceLock<SyncSender<Input>>>,
) -> anyhow::Result<Channel> {
    let inputs = Arc::clone(inputs);
    let parsed: EtcdUrl = url.parse()?;
    let (host, port) = (parsed.host().to_owned(), parsed.port());
    let socket = parsed.unix_path().map(str::to_owned);
    let tls = if parsed.is_secure() {
        Some(tls.context("needs --peer-cert-file and --peer-key-file, or --peer-auto-tls")?)
    } else {
        None
    };
    // tonic is given a ready connection, so the URL here only names the authority.
    let authority = match &socket {
        Some(_) => "localhost".to_owned(),
        None if host.contains(':') => format!("[{host}]"),
        None => host.clone(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}:{port}"))?
        .connect_timeout(CONNECT_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(move |_: Uri| {
        let (host, socket, tls, inputs) = (host.clone(), socket.clone(), tls.clone(), Arc::clone(&inputs));
        async move {
            let connected: std::io::Result<Box<dyn Connection>> = match socket {
                Some(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
                None => TcpStream::connect((host.as_str(), port)).await.and_then(|stream| {
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as _)
                }),
            };
            let stream = connected.inspect_err(|error| {
                if error.kind() == std::io::ErrorKind::ConnectionRefused {
                    hand_over(&inputs, Input::Gone(id));
                }
            })?;
            let stream: Box<dyn Connection> = match tls {
                None => stream,
                Some(tls) => {
                    let name = rustls::pki_types::ServerName::try_from(host.clone());
                    let name = name.or_else(|_| "localhost".try_into()).map_err(std::io::Error::other)?;
                    let connector = tokio_rustls::TlsConnector::from(tls.current());
                    let stream = connector.connect(name, stream).await.inspect_err(|error| {
                        tracing::warn!(
                            peer = format!("{id:x}"),
                            remote_addr = format!("{host}:{port}"),
                            %error,
                            "the TLS handshake with a peer failed"
                        );
                    })?;
                    Box::new(stream)
                }
            };
            hand_over(&inputs, Input::Connected(id));
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// A plain or an encrypted connection.
trait Connection: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Connection for T {}
