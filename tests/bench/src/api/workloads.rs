//! The workloads whose figure is requests or events a second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::client::{APPLY, Client, Failure, JSON, STRATEGIC};
use super::objects;
use super::system::System;
use crate::latency::Latencies;
use crate::load::{Outcome, Rate, Timing, Usage, closed_loop};

/// Clients that write at the same time, as the peer's figures were taken.
const CLIENTS: usize = 16;
/// Connections they share.
const CONNECTIONS: usize = 4;
/// Pods that changes are spread over.
const PODS: usize = 1_000;
/// Watches that share a connection.
const WATCHES_A_CONNECTION: usize = 50;
/// Writers of what is watched.
const WRITERS: usize = 4;
/// A watcher that is this long without an event that was acknowledged has lost it.
const EVENT_DEADLINE: Duration = Duration::from_secs(60);

/// A workload, sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// New pods.
    Create,
    /// A strategic merge patch of the status, as kubelets send it.
    PatchStatus,
    /// A strategic merge patch of an annotation.
    Patch,
    /// Server-side apply of a label by one of several appliers.
    Apply,
    /// Reads of single pods.
    Get,
    /// All pods in one answer.
    List {
        /// How many there are.
        pods: usize,
        /// Whether the server may answer with what it knows already.
        cached: bool,
    },
    /// Events of changed pods to watchers of all pods; counts events.
    Watch {
        /// Each with a request of its own.
        watchers: usize,
    },
}

impl Workload {
    /// What `--only` takes.
    pub const NAMES: &[&str] =
        &["create", "patch-status", "patch", "apply", "get", "list", "list-cached", "watch"];

    /// Those of a name; lists and watches by each size.
    pub fn named(name: &str, pods: &[usize], watchers: &[usize]) -> Vec<Self> {
        let lists = |cached| pods.iter().map(|&pods| Self::List { pods, cached }).collect();
        match name {
            "create" => vec![Self::Create],
            "patch-status" => vec![Self::PatchStatus],
            "patch" => vec![Self::Patch],
            "apply" => vec![Self::Apply],
            "get" => vec![Self::Get],
            "list" => lists(false),
            "list-cached" => lists(true),
            "watch" => watchers.iter().map(|&watchers| Self::Watch { watchers }).collect(),
            _ => Vec::new(),
        }
    }

    /// What it is.
    pub fn title(self) -> &'static str {
        match self {
            Self::Create => "create a pod",
            Self::PatchStatus => "patch a pod's status",
            Self::Patch => "strategic patch of a pod",
            Self::Apply => "server-side apply of a pod",
            Self::Get => "get a pod",
            Self::List { cached: false, .. } => "list pods, consistent",
            Self::List { cached: true, .. } => "list pods, resourceVersion=0",
            Self::Watch { .. } => "events to watchers",
        }
    }

    /// Pods there are, or watchers.
    pub fn size(self) -> usize {
        match self {
            Self::List { pods, .. } => pods,
            Self::Watch { watchers } => watchers,
            _ => PODS,
        }
    }

    /// Pods to be there before.
    pub fn pods(self) -> usize {
        match self {
            Self::Create => 0,
            Self::List { pods, .. } => pods,
            _ => PODS,
        }
    }

    /// Runs it on a system that has its pods and nothing else to do.
    ///
    /// # Errors
    /// When nothing succeeds, an answer is wrong, or the server ends.
    pub async fn run(self, system: &System, timing: Timing) -> anyhow::Result<Rate> {
        match self {
            Self::Create => {
                let next = Arc::new(AtomicU64::new(0));
                requests(system, timing, CLIENTS, move |client, _| {
                    let name = format!("new-{}", next.fetch_add(1, Relaxed));
                    async move { client.post(objects::PODS, objects::pod(&name)).await.map(drop) }
                })
                .await
            }
            Self::PatchStatus => change(system, timing, |_| "/status", STRATEGIC, objects::status).await,
            Self::Patch => change(system, timing, |_| "", STRATEGIC, objects::marked).await,
            Self::Apply => apply(system, timing).await,
            Self::Get => {
                requests(system, timing, CLIENTS, move |client, number| async move {
                    client.get(&path_of(number)).await.map(drop)
                })
                .await
            }
            Self::List { pods, cached } => list(system, timing, pods, cached).await,
            Self::Watch { watchers } => watch(system, timing, watchers).await,
        }
    }
}

fn path_of(number: u64) -> String {
    format!("{}/pod-{}", objects::PODS, number % PODS as u64)
}

/// Clients that send one request after the other; `request` gets a number that no other request has.
async fn requests<F, Fut>(system: &System, timing: Timing, clients: usize, request: F) -> anyhow::Result<Rate>
where
    F: Fn(Client, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send,
{
    let connections = Arc::new(system.connections(CONNECTIONS.min(clients)).await?);
    closed_loop(system, clients, timing, move |client, number| {
        let connection = connections[client % connections.len()].clone();
        let done = request(connection, number * clients as u64 + client as u64);
        async move {
            done.await?;
            Ok(Outcome::Done)
        }
    })
    .await
}

async fn change(
    system: &System,
    timing: Timing,
    subresource: fn(u64) -> &'static str,
    kind: &'static str,
    body: fn(u64) -> Bytes,
) -> anyhow::Result<Rate> {
    requests(system, timing, CLIENTS, move |client, number| async move {
        let path = format!("{}{}", path_of(number), subresource(number));
        client.send("PATCH", &path, kind, body(number)).await.map(drop)
    })
    .await
}

async fn apply(system: &System, timing: Timing) -> anyhow::Result<Rate> {
    requests(system, timing, CLIENTS, move |client, number| async move {
        let path = format!("{}?fieldManager=bench&force=true", path_of(number));
        let body = objects::applied(&format!("pod-{}", number % PODS as u64), number);
        client.send("PATCH", &path, APPLY, body).await.map(drop)
    })
    .await
}

async fn list(system: &System, timing: Timing, pods: usize, cached: bool) -> anyhow::Result<Rate> {
    let path = format!("{}{}", objects::PODS, if cached { "?resourceVersion=0" } else { "" });
    let pieces = system.target.connect().await?.get(&path).await?;
    let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
    let answer: serde_json::Value = serde_json::from_slice(&whole).context("a list")?;
    let found = answer["items"].as_array().map_or(0, Vec::len);
    ensure!(found == pods, "a list of {found} pods in place of {pods}");
    let length = whole.len();
    requests(system, timing, 1, move |client, _| {
        let path = path.clone();
        async move {
            let read: usize = client.get(&path).await?.iter().map(Bytes::len).sum();
            // Nothing writes meanwhile; resource versions may be a digit longer or shorter.
            if read.abs_diff(length) > 64 {
                let message = format!("a list of {read} bytes in place of {length}");
                return Err(Failure { status: None, message });
            }
            Ok(())
        }
    })
    .await
}

/// When each write was sent, by its number.
type Sent = Arc<Mutex<Vec<Instant>>>;

async fn watch(system: &System, timing: Timing, watchers: usize) -> anyhow::Result<Rate> {
    let version = resource_version(system).await?;
    let path = format!("{}?watch=true&resourceVersion={version}", objects::PODS);
    let connections = system.connections(watchers.div_ceil(WATCHES_A_CONNECTION)).await?;
    let sent: Sent = Arc::default();
    let latencies: Arc<Mutex<Latencies>> = Arc::default();
    let (seen, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for watcher in 0..watchers {
        let (client, path) = (connections[watcher % connections.len()].clone(), path.clone());
        let (sent, seen, latencies) = (Arc::clone(&sent), Arc::clone(&seen), Arc::clone(&latencies));
        let (status, mut stream) = client.open("GET", &path, JSON, Bytes::new()).await?;
        ensure!(status.is_success(), "a watch is answered with {status}");
        tasks.spawn(async move {
            while let Some(Ok(piece)) = stream.data().await {
                let now = Instant::now();
                let _ = stream.flow_control().release_capacity(piece.len());
                let events = piece.iter().filter(|byte| **byte == b'\n').count() as u64;
                seen.fetch_add(events, Relaxed);
                if let Some(mark) = mark_in(&piece) {
                    let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).get(mark).copied();
                    if let Some(sent) = sent {
                        latencies.lock().unwrap_or_else(PoisonError::into_inner).record(now - sent);
                    }
                }
            }
        });
    }
    let writers = Arc::new(system.connections(WRITERS).await?);
    let (count, times) = (Arc::clone(&written), Arc::clone(&sent));
    let usage = Usage::now(system)?;
    closed_loop(system, WRITERS, timing, move |writer, _| {
        let (client, count, times) = (writers[writer].clone(), Arc::clone(&count), Arc::clone(&times));
        async move {
            let number = {
                let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
                times.push(Instant::now());
                times.len() as u64 - 1
            };
            client.send("PATCH", &path_of(number), STRATEGIC, objects::marked(number)).await?;
            count.fetch_add(1, Relaxed);
            Ok(Outcome::Done)
        }
    })
    .await?;
    // What was written while the loop ended counts too: every watcher gets all of it, and the time until then is part of the rate.
    let deadline = Instant::now() + EVENT_DEADLINE;
    let expected = || written.load(Relaxed) * watchers as u64;
    while seen.load(Relaxed) < expected() {
        ensure!(Instant::now() < deadline, "{} of {} events came", seen.load(Relaxed), expected());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    usage.rate(system, seen.load(Relaxed), &latencies, 0)
}

/// The number of the last mark in some bytes of events.
fn mark_in(piece: &[u8]) -> Option<usize> {
    let start =
        piece.windows(objects::MARK.len()).rposition(|bytes| bytes == objects::MARK)? + objects::MARK.len();
    let digits = piece[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

async fn resource_version(system: &System) -> anyhow::Result<String> {
    let path = format!("{}?limit=1", objects::PODS);
    let pieces = system.target.connect().await?.get(&path).await?;
    let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
    let answer: serde_json::Value = serde_json::from_slice(&whole).context("a list")?;
    Ok(answer["metadata"]["resourceVersion"].as_str().context("a resource version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_is_found() {
        let event = |number: u64| format!("{{\"annotations\":{{\"example.com/mark\":\"{number}\"}}}}\n");
        assert_eq!(mark_in(format!("{}{}", event(7), event(42)).as_bytes()), Some(42));
        assert_eq!(mark_in(b"{}\n"), None);
    }
}
