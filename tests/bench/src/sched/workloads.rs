//! Pods that wait for a scheduler, all at once and then one after the other.
//!
//! The rate is from the first binding to the last of many pods that were there before the scheduler; latencies are of pods that come at a pace
//! it can keep, from their creation's begin until a watcher sees the binding.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use h2::RecvStream;
use serde_json::Value;
use tokio::time::timeout;

use super::objects::{self, Kind};
use crate::api::client::JSON;
use crate::api::objects::{PODS, furniture};
use crate::api::system::{Pairing, System};
use crate::latency::Latencies;
use crate::load::Rate;
use crate::processes::{Process, cpu_seconds};

/// A scheduler that binds nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pods that come one after the other.
const PACED: usize = 500;
/// Of them in a second.
const PACE: f64 = 100.0;
/// Nodes that are made ready at the same time.
const CONNECTIONS: usize = 4;

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Pods that wait when the scheduler starts.
    pub pods: usize,
}

/// Measures a scheduler on a fresh system.
///
/// # Errors
/// When a program does not start, or a pod is not bound.
pub async fn run(
    scheduler: &PathBuf,
    pairing: &Pairing,
    dir: &Path,
    kind: Kind,
    size: Size,
) -> anyhow::Result<Rate> {
    let (system, _) = System::start(pairing, dir).await?;
    prepare(&system, kind, size).await?;
    let client = system.target.connect().await?;
    let path = format!("{PODS}?watch=true&fieldSelector=spec.nodeName!%3D");
    let (status, stream) = client.open("GET", &path, JSON, Bytes::new()).await?;
    ensure!(status.is_success(), "a watch is answered with {status}");
    let mut bindings = Bindings { stream, buffer: Vec::new() };
    let kubeconfig = system.kubeconfig("scheduler")?.display().to_string();
    let args = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    let log = system.log("scheduler");
    let mut process = Process::start(scheduler, &args, &log)?;
    let own = cpu_seconds(std::process::id())?;
    let (mut first, mut last, mut bound) = (None, Instant::now(), 0);
    while bound < size.pods {
        let Ok(found) = timeout(PATIENCE, bindings.next()).await else {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            bail!(
                "{bound} of {} pods are bound, and nothing for {PATIENCE:?}{}: {}",
                size.pods,
                process.ended().map_or(String::new(), |end| format!("; the scheduler ended with {end}")),
                lines[lines.len().saturating_sub(5)..].join("\n")
            );
        };
        bound += found?.len();
        last = Instant::now();
        first.get_or_insert((last, bound));
    }
    let (began, before) = first.context("no pod")?;
    let seconds = (last - began).as_secs_f64();
    let load_cores = (cpu_seconds(std::process::id())? - own) / seconds;
    let cpu = process.cpu_seconds()?;
    let latencies = paced(&system, &mut bindings, kind, size).await?;
    Ok(Rate {
        per_second: (size.pods - before) as f64 / seconds,
        cpu_seconds_per_thousand: cpu * 1000.0 / size.pods as f64,
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        resident_mb: process.resident_bytes()? as f64 / 1e6,
        load_cores,
        errors: 0,
    })
}

/// Nodes that take pods, and the pods.
async fn prepare(system: &System, kind: Kind, size: Size) -> anyhow::Result<()> {
    let clients = system.connections(CONNECTIONS).await?;
    for (path, body) in furniture() {
        clients[0].post(path, body).await?;
    }
    system.create(objects::NODES, (0..size.nodes).map(objects::node)).await.context("create nodes")?;
    stream::iter((0..size.nodes).map(|number| {
        let client = &clients[number % clients.len()];
        async move {
            let path = format!("{}/{}", objects::NODES, objects::node_name(number));
            let change = objects::node_ready(number, kind);
            client.send("PATCH", &path, "application/merge-patch+json", change).await.map(drop)
        }
    }))
    .buffer_unordered(16)
    .try_collect::<()>()
    .await
    .context("take the first taints off nodes")?;
    let pods = (0..size.pods).map(|number| objects::pod(number, kind, size.nodes));
    system.create(PODS, pods).await.context("create pods")
}

/// How long pods wait that come one after the other.
async fn paced(
    system: &System,
    bindings: &mut Bindings,
    kind: Kind,
    size: Size,
) -> anyhow::Result<Latencies> {
    let client = system.target.connect().await?;
    let mut came: HashMap<String, Instant> = HashMap::new();
    let mut latencies = Latencies::default();
    let (mut made, mut tick) = (0, tokio::time::interval(Duration::from_secs_f64(1.0 / PACE)));
    while latencies.count() < PACED as u64 {
        tokio::select! {
            _ = tick.tick(), if made < PACED => {
                let number = size.pods + made;
                came.insert(format!("pod-{number}"), Instant::now());
                made += 1;
                let (client, body) = (client.clone(), objects::pod(number, kind, size.nodes));
                tokio::spawn(async move {
                    // One that is refused is never bound, which is told then.
                    let _ = client.post(PODS, body).await;
                });
            }
            found = timeout(PATIENCE, bindings.next()) => {
                for name in found.context("a pod is not bound")?? {
                    let began = came.get(&name).with_context(|| format!("{name} is bound twice"))?;
                    latencies.record(began.elapsed());
                    came.remove(&name);
                }
            }
        }
    }
    Ok(latencies)
}

/// The pods that a watch shows as bound.
struct Bindings {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl Bindings {
    /// Names of the next ones. Keeps what it has when it is dropped while it waits.
    async fn next(&mut self) -> anyhow::Result<Vec<String>> {
        loop {
            let mut names = Vec::new();
            let complete = self.buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in self.buffer[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).context("an event")?;
                match event["type"].as_str() {
                    Some("ADDED") => {
                        names.extend(event["object"]["metadata"]["name"].as_str().map(str::to_owned))
                    }
                    Some("MODIFIED" | "BOOKMARK") => {}
                    _ => bail!("a watch of pods says {event}"),
                }
            }
            self.buffer.drain(..complete);
            if !names.is_empty() {
                return Ok(names);
            }
            let piece = self.stream.data().await.context("the watch ended")??;
            // Fails when the stream is over, and then the next piece says why.
            let _ = self.stream.flow_control().release_capacity(piece.len());
            self.buffer.extend_from_slice(&piece);
        }
    }
}
