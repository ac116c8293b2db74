//! The workloads whose figure is operations a second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::response_op::Response;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::requests::{self, Methods, key, value};
use crate::grpc::{Connection, RpcError, decode, frame};
use crate::latency::Latencies;
use crate::load::{Outcome, Rate, Timing, Usage, closed_loop};

/// Connections of a workload with many clients. With more than [`CLIENTS`] each has one of its own.
const CONNECTIONS: usize = 10;
/// Clients of the workloads whose number is always the same.
const CLIENTS: usize = 100;
/// Keys that reads and updates are spread over.
const KEYS: u64 = 10_000;
/// Keys that compare-and-swap updates are spread over: few, so that clients meet.
const CONTENDED_KEYS: u64 = 1_000;
const PAGE: i64 = 500;
/// A watcher that is this long without an event that was acknowledged has lost it.
const EVENT_DEADLINE: Duration = Duration::from_secs(60);

/// A workload of operations, sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Puts of 1 KiB.
    Put {
        /// At the same time.
        clients: usize,
    },
    /// Transactions that create a key.
    Create,
    /// Transactions that change a key if it has not changed since it was last seen; counts those that change.
    Update,
    /// Single keys.
    Get {
        /// At the same time.
        clients: usize,
        /// Without asking the quorum.
        serializable: bool,
    },
    /// All of 10,000 keys in pages of 500 at one revision; counts whole lists.
    List,
    /// One writer, watchers of everything it writes; counts events.
    Watch {
        /// Each with a stream of its own.
        watchers: usize,
    },
    /// 40 % status updates, 15 % creates, 10 % deletes, 30 % reads, 5 % pages, with 50 watchers.
    Mix,
}

impl Workload {
    /// What `--only` takes.
    pub const NAMES: &[&str] =
        &["put", "create", "update", "get", "get-serializable", "list", "watch", "mix"];

    /// Those of a name; puts and gets by each number of clients.
    pub fn named(name: &str, clients: &[usize]) -> Vec<Self> {
        let each = |of: fn(usize) -> Self| clients.iter().copied().map(of).collect();
        match name {
            "put" => each(|clients| Self::Put { clients }),
            "create" => vec![Self::Create],
            "update" => vec![Self::Update],
            "get" => each(|clients| Self::Get { clients, serializable: false }),
            "get-serializable" => each(|clients| Self::Get { clients, serializable: true }),
            "list" => vec![Self::List],
            "watch" => vec![Self::Watch { watchers: 100 }],
            "mix" => vec![Self::Mix],
            _ => Vec::new(),
        }
    }

    /// What it is.
    pub fn title(self) -> String {
        match self {
            Self::Put { clients } => format!("put, {clients} clients"),
            Self::Create => format!("create if absent, {CLIENTS} clients"),
            Self::Update => format!("compare-and-swap update, {CLIENTS} clients"),
            Self::Get { clients, serializable: false } => format!("linearizable get, {clients} clients"),
            Self::Get { clients, serializable: true } => format!("serializable get, {clients} clients"),
            Self::List => format!("list of {KEYS} keys in pages of {PAGE}"),
            Self::Watch { watchers } => format!("1 writer, {watchers} watchers: events"),
            Self::Mix => "API server's mix, 50 watchers".to_owned(),
        }
    }

    /// Runs it on a cluster that has nothing else to do.
    ///
    /// # Errors
    /// When nothing succeeds, an answer is wrong, or a member ends.
    pub async fn run(self, cluster: &Cluster, timing: Timing) -> anyhow::Result<Rate> {
        let methods = Arc::new(Methods::new()?);
        match self {
            Self::Put { clients: 1 } => {
                put(cluster, methods, timing, vec![cluster.leader_connection().await?], 1).await
            }
            Self::Put { clients } => {
                let connections = cluster.connections(connections_of(clients)).await?;
                put(cluster, methods, timing, connections, clients).await
            }
            Self::Create => create(cluster, methods, timing).await,
            Self::Update => update(cluster, methods, timing).await,
            Self::Get { clients, serializable } => get(cluster, methods, timing, clients, serializable).await,
            Self::List => list(cluster, methods, timing).await,
            Self::Watch { watchers } => watch(cluster, methods, timing, watchers).await,
            Self::Mix => mix(cluster, methods, timing).await,
        }
    }
}

/// Puts `keys` keys of 1 KiB below `prefix`, 50 a transaction.
///
/// # Errors
/// When a put fails.
pub async fn fill(connection: &Connection, methods: &Methods, prefix: &str, keys: u64) -> anyhow::Result<()> {
    stream::iter((0..keys).step_by(50).map(|first| {
        let puts = (first..keys.min(first + 50)).map(|number| (key(prefix, number), value(number)));
        connection.unary(&methods.txn, requests::put_many(puts))
    }))
    .buffer_unordered(8)
    .try_for_each(|_| async { Ok(()) })
    .await
    .context("fill")
}

/// A number from a client's and an operation's, spread evenly.
fn spread(client: usize, number: u64) -> u64 {
    let mut z = (client as u64)
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What all clients of a workload use.
struct Clients {
    connections: Vec<Connection>,
    methods: Arc<Methods>,
}

impl Clients {
    async fn new(cluster: &Cluster, methods: Arc<Methods>, clients: usize) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { connections: cluster.connections(connections_of(clients)).await?, methods }))
    }

    fn of(&self, client: usize) -> &Connection {
        &self.connections[client % self.connections.len()]
    }
}

fn connections_of(clients: usize) -> usize {
    if clients > CLIENTS { clients } else { CONNECTIONS.min(clients) }
}

async fn put(
    cluster: &Cluster,
    methods: Arc<Methods>,
    timing: Timing,
    connections: Vec<Connection>,
    clients: usize,
) -> anyhow::Result<Rate> {
    let shared = Arc::new(Clients { connections, methods });
    closed_loop(cluster, clients, timing, move |client, number| {
        let shared = Arc::clone(&shared);
        async move {
            let random = spread(client, number);
            let request = requests::put(key("puts", random % KEYS), value(random));
            shared.of(client).unary(&shared.methods.put, request).await?;
            Ok(Outcome::Done)
        }
    })
    .await
}

async fn create(cluster: &Cluster, methods: Arc<Methods>, timing: Timing) -> anyhow::Result<Rate> {
    let shared = Clients::new(cluster, methods, CLIENTS).await?;
    let next = Arc::new(AtomicU64::new(0));
    closed_loop(cluster, CLIENTS, timing, move |client, _| {
        let (shared, next) = (Arc::clone(&shared), Arc::clone(&next));
        async move {
            let number = next.fetch_add(1, Relaxed);
            let request = requests::put_if(key("creates", number), 0, value(number));
            let answer: pb::TxnResponse =
                decode(shared.of(client).unary(&shared.methods.txn, request).await?)?;
            expect(answer.succeeded, "a key that nobody made exists")?;
            Ok(Outcome::Done)
        }
    })
    .await
}

fn expect(holds: bool, otherwise: &str) -> Result<(), RpcError> {
    if holds { Ok(()) } else { Err(RpcError { code: None, message: otherwise.to_owned() }) }
}

/// The revision of the key's last change that an update's answer tells: its own, or that which was in its way.
fn revision_after(answer: &pb::TxnResponse) -> i64 {
    if answer.succeeded {
        return answer.header.as_ref().map_or(0, |header| header.revision);
    }
    match answer.responses.first().and_then(|r| r.response.as_ref()) {
        Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.mod_revision),
        _ => 0,
    }
}

/// Last seen revisions by key number.
fn revisions(keys: u64) -> Arc<Vec<AtomicI64>> {
    Arc::new((0..keys).map(|_| AtomicI64::new(0)).collect())
}

async fn update(cluster: &Cluster, methods: Arc<Methods>, timing: Timing) -> anyhow::Result<Rate> {
    let shared = Clients::new(cluster, methods, CLIENTS).await?;
    let seen = revisions(CONTENDED_KEYS);
    closed_loop(cluster, CLIENTS, timing, move |client, number| {
        let (shared, seen) = (Arc::clone(&shared), Arc::clone(&seen));
        async move {
            let random = spread(client, number);
            let seen = &seen[(random % CONTENDED_KEYS) as usize];
            let request =
                requests::put_if(key("updates", random % CONTENDED_KEYS), seen.load(Relaxed), value(random));
            let answer: pb::TxnResponse =
                decode(shared.of(client).unary(&shared.methods.txn, request).await?)?;
            seen.fetch_max(revision_after(&answer), Relaxed);
            Ok(if answer.succeeded { Outcome::Done } else { Outcome::Again })
        }
    })
    .await
}

async fn get(
    cluster: &Cluster,
    methods: Arc<Methods>,
    timing: Timing,
    clients: usize,
    serializable: bool,
) -> anyhow::Result<Rate> {
    let shared = Clients::new(cluster, methods, clients).await?;
    fill(&cluster.leader_connection().await?, &shared.methods, "gets", KEYS).await?;
    closed_loop(cluster, clients, timing, move |client, number| {
        let shared = Arc::clone(&shared);
        async move {
            let request = requests::get(key("gets", spread(client, number) % KEYS), serializable);
            let answer = shared.of(client).unary(&shared.methods.range, request).await?;
            expect(answer.len() > requests::VALUE_BYTES, "a key is missing")?;
            Ok(Outcome::Done)
        }
    })
    .await
}

/// One page; gives the revision it was read at.
async fn page(
    connection: &Connection,
    methods: &Methods,
    first: u64,
    revision: i64,
) -> Result<i64, RpcError> {
    let request = pb::RangeRequest {
        key: key("lists", first),
        range_end: requests::prefix_end("lists"),
        limit: PAGE,
        revision,
        ..Default::default()
    };
    let answer: pb::RangeResponse = decode(connection.unary(&methods.range, frame(&request)).await?)?;
    expect(answer.kvs.len() as i64 == PAGE, "a page is not full")?;
    expect(answer.count as u64 == KEYS - first, "a page's count is wrong")?;
    Ok(answer.header.map_or(0, |header| header.revision))
}

async fn list(cluster: &Cluster, methods: Arc<Methods>, timing: Timing) -> anyhow::Result<Rate> {
    let shared = Clients::new(cluster, methods, CLIENTS).await?;
    fill(&cluster.leader_connection().await?, &shared.methods, "lists", KEYS).await?;
    closed_loop(cluster, 1, timing, move |_, number| {
        let shared = Arc::clone(&shared);
        async move {
            let connection = shared.of(number as usize);
            let mut revision = 0;
            for first in (0..KEYS).step_by(PAGE as usize) {
                revision = page(connection, &shared.methods, first, revision).await?;
            }
            Ok(Outcome::Done)
        }
    })
    .await
}

/// A watcher's count of events, and how long each took from its write's beginning.
#[derive(Default)]
struct Watched {
    events: u64,
    latencies: Latencies,
}

/// Opens a watch and gives a task that follows it until an event of `last` (set when the writer ends) or later.
async fn watcher(
    connection: &Connection,
    methods: &Methods,
    prefix: &str,
    clock: Instant,
    last: Arc<AtomicI64>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<Watched>> + Send + use<>> {
    let (sending, mut answers) = connection.stream(&methods.watch, requests::watch(prefix)).await?;
    let created: pb::WatchResponse = decode(answers.next().await?.context("the watch ended")?)?;
    ensure!(created.created, "no confirmation of the watch: {created:?}");
    Ok(async move {
        let _open = sending;
        let (mut watched, mut revision) = (Watched::default(), 0);
        // Time is read once for several events: what the answer waits for is the same for all of them.
        while revision < last.load(Relaxed) {
            let next = tokio::time::timeout(EVENT_DEADLINE, answers.next()).await;
            let message = next.context("no event")??.context("the watch ended")?;
            let answer: pb::WatchResponse = decode(message)?;
            ensure!(!answer.canceled, "cancelled: {}", answer.cancel_reason);
            let now = clock.elapsed();
            for event in &answer.events {
                let Some(kv) = &event.kv else { continue };
                ensure!(kv.mod_revision >= revision, "revision {} after {revision}", kv.mod_revision);
                revision = kv.mod_revision;
                watched.events += 1;
                if let Some(stamp) = requests::stamp(&kv.value) {
                    watched.latencies.record(now.saturating_sub(Duration::from_nanos(stamp)));
                }
            }
        }
        Ok(watched)
    })
}

async fn watch(
    cluster: &Cluster,
    methods: Arc<Methods>,
    timing: Timing,
    watchers: usize,
) -> anyhow::Result<Rate> {
    let clock = Instant::now();
    let last = Arc::new(AtomicI64::new(i64::MAX));
    let connections = cluster.connections(CONNECTIONS).await?;
    let mut tasks = JoinSet::new();
    for number in 0..watchers {
        let connection = &connections[number % connections.len()];
        tasks.spawn(watcher(connection, &methods, "watched", clock, Arc::clone(&last)).await?);
    }
    let writer = cluster.leader_connection().await?;
    let usage = Usage::now(cluster)?;
    let (until, mut writes) = (Instant::now() + timing.measured, 0_u64);
    loop {
        let stamp = clock.elapsed().as_nanos() as u64;
        let ends = Instant::now() >= until;
        let request = requests::put(key("watched", writes % 1_000), requests::value(stamp));
        let answer: pb::PutResponse = decode(writer.unary(&methods.put, request).await?)?;
        writes += 1;
        if ends {
            // Known before the watchers see one more event: the next put is that event.
            let revision = answer.header.map_or(0, |header| header.revision);
            last.store(revision + 1, Relaxed);
            let request = requests::put(key("watched", 0), requests::value(stamp));
            writer.unary(&methods.put, request).await?;
            writes += 1;
            break;
        }
    }
    let mut total = Watched::default();
    while let Some(result) = tasks.join_next().await {
        let watched = result??;
        ensure!(watched.events == writes, "a watcher saw {} of {writes} events", watched.events);
        total.events += watched.events;
        total.latencies.add(&watched.latencies);
    }
    let mut rate = usage.rate(cluster, total.events, &total.latencies, 0)?;
    // CPU counts by writes, so that it can be compared between numbers of watchers.
    rate.cpu_seconds_per_thousand *= watchers as f64;
    Ok(rate)
}

/// Objects that the mix's clients know of: key number and the revision it was last seen at.
#[derive(Default)]
struct Objects(Mutex<HashMap<u64, i64>>);

impl Objects {
    fn with<T>(&self, what: impl FnOnce(&mut HashMap<u64, i64>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn mix(cluster: &Cluster, methods: Arc<Methods>, timing: Timing) -> anyhow::Result<Rate> {
    let shared = Clients::new(cluster, Arc::clone(&methods), CLIENTS).await?;
    fill(&cluster.leader_connection().await?, &methods, "mixed", KEYS).await?;
    let last = Arc::new(AtomicI64::new(i64::MAX));
    let mut watchers = JoinSet::new();
    for number in 0..50 {
        let connection = shared.of(number);
        watchers.spawn(watcher(connection, &methods, "mixed", Instant::now(), Arc::clone(&last)).await?);
    }
    let objects = Arc::new(Objects::default());
    let (created, deleted) = (Arc::new(AtomicU64::new(KEYS)), Arc::new(AtomicU64::new(0)));
    let rate = closed_loop(cluster, 64, timing, move |client, number| {
        let (shared, objects) = (Arc::clone(&shared), Arc::clone(&objects));
        let (created, deleted) = (Arc::clone(&created), Arc::clone(&deleted));
        async move {
            let random = spread(client, number);
            let connection = shared.of(client);
            let (newest, oldest) = (created.load(Relaxed), deleted.load(Relaxed));
            let some = oldest + (random >> 16) % (newest - oldest);
            let seen = |number: u64| objects.with(|known| known.get(&number).copied().unwrap_or(0));
            match random % 100 {
                0..40 => {
                    let request = requests::put_if(key("mixed", some), seen(some), value(random));
                    let answer: pb::TxnResponse =
                        decode(connection.unary(&shared.methods.txn, request).await?)?;
                    objects.with(|known| known.insert(some, revision_after(&answer)));
                    return Ok(if answer.succeeded { Outcome::Done } else { Outcome::Again });
                }
                40..55 => {
                    let new = created.fetch_add(1, Relaxed);
                    let request = requests::put_if(key("mixed", new), 0, value(random));
                    connection.unary(&shared.methods.txn, request).await?;
                }
                55..65 => {
                    let old = deleted.fetch_add(1, Relaxed);
                    let request = requests::delete_if(key("mixed", old), seen(old));
                    let answer: pb::TxnResponse =
                        decode(connection.unary(&shared.methods.txn, request).await?)?;
                    if !answer.succeeded {
                        let request = requests::delete_if(key("mixed", old), revision_after(&answer));
                        connection.unary(&shared.methods.txn, request).await?;
                    }
                    objects.with(|known| known.remove(&old));
                }
                65..95 => {
                    connection.unary(&shared.methods.range, requests::get(key("mixed", some), false)).await?;
                }
                _ => {
                    let request = pb::RangeRequest {
                        key: key("mixed", some),
                        range_end: requests::prefix_end("mixed"),
                        limit: PAGE,
                        ..Default::default()
                    };
                    connection.unary(&shared.methods.range, frame(&request)).await?;
                }
            }
            Ok(Outcome::Done)
        }
    })
    .await?;
    if let Some(ended) = watchers.try_join_next() {
        ended??;
        anyhow::bail!("a watcher ended early");
    }
    Ok(rate)
}
