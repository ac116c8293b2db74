//! Pods that wait for a scheduler, all at once and then one after the other.
//!
//! The rate is from the first binding to the last of many pods that were there before the scheduler; latencies are of pods that come at a pace
//! it can keep, from their creation's begin until a watcher sees the binding.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::timeout;

use super::nodes;
use super::objects::{self, Kind};
use crate::api::client::Client;
use crate::api::events::Events;
use crate::api::objects::PODS;
use crate::api::system::{Pairing, System};
use crate::component;
use crate::latency::Latencies;
use crate::load::Rate;
use crate::processes::cpu_seconds;

/// A scheduler that binds nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pods that come one after the other.
const PACED: usize = 500;
/// Of them in a second.
const PACE: f64 = 100.0;

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
    scheduler: &Path,
    pairing: &Pairing,
    dir: &Path,
    kind: Kind,
    size: Size,
) -> anyhow::Result<Rate> {
    let (system, _) = System::start(pairing, dir).await?;
    nodes::create(&system, size.nodes, |number| objects::taints(number, kind)).await?;
    system.furnish().await?;
    let client = system.target.connect().await?;
    let pods = (0..size.pods).map(|number| objects::pod(number, kind, size.nodes));
    system.create(PODS, pods).await.context("create pods")?;
    let path = format!("{PODS}?watch=true&fieldSelector=spec.nodeName!%3D");
    let mut bindings = Bindings(Events::open(&client, &path).await?);
    let mut scheduler = component::start(&system, "scheduler", scheduler, &[])?;
    let own = cpu_seconds(std::process::id())?;
    let (mut first, mut last, mut bound) = (None, Instant::now(), 0);
    while bound < size.pods {
        let Ok(found) = timeout(PATIENCE, bindings.next()).await else {
            bail!(
                "{bound} of {} pods are bound, and nothing for {PATIENCE:?}; {}",
                size.pods,
                scheduler.told()
            );
        };
        bound += found?.len();
        last = Instant::now();
        first.get_or_insert((last, bound));
    }
    let (began, before) = first.context("no pod")?;
    let seconds = (last - began).as_secs_f64();
    let load_cores = (cpu_seconds(std::process::id())? - own) / seconds;
    let cpu = scheduler.cpu_seconds()?;
    let latencies = paced(&client, &mut bindings, kind, size).await?;
    Ok(Rate {
        per_second: (size.pods - before) as f64 / seconds,
        cpu_seconds_per_thousand: cpu * 1000.0 / size.pods as f64,
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        resident_mb: scheduler.resident_bytes()? as f64 / 1e6,
        load_cores,
        errors: 0,
    })
}

/// How long pods wait that come one after the other.
async fn paced(
    client: &Client,
    bindings: &mut Bindings,
    kind: Kind,
    size: Size,
) -> anyhow::Result<Latencies> {
    let mut came: HashMap<String, Instant> = HashMap::new();
    let mut latencies = Latencies::default();
    let (mut made, mut tick) = (0, tokio::time::interval(Duration::from_secs_f64(1.0 / PACE)));
    while latencies.count() < PACED as u64 {
        tokio::select! {
            _ = tick.tick(), if made < PACED => {
                let number = size.pods + made;
                came.insert(objects::name(number), Instant::now());
                made += 1;
                let (client, body) = (client.clone(), objects::pod(number, kind, size.nodes));
                tokio::spawn(async move {
                    // One that is refused is never bound, which is told then.
                    let _ = client.post(PODS, body).await;
                });
            }
            found = timeout(PATIENCE, bindings.next()) => {
                for name in found.context("a pod is not bound")?? {
                    let began = came.remove(&name).with_context(|| format!("{name} is bound again"))?;
                    latencies.record(began.elapsed());
                }
            }
        }
    }
    Ok(latencies)
}

/// A watch of bound pods: a pod comes into it when it is bound.
struct Bindings(Events);

impl Bindings {
    /// Names of the next ones, if any.
    async fn next(&mut self) -> anyhow::Result<Vec<String>> {
        let events = self.0.next().await?;
        let bound = events.iter().filter(|event| event["type"] == "ADDED");
        Ok(bound
            .filter_map(|event| event["object"]["metadata"]["name"].as_str())
            .map(str::to_owned)
            .collect())
    }
}
