//! What operators wait and pay for: start, memory, disk, restart, and the gap in writing when the leader dies.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use coracle_proto::etcdserverpb as pb;

use super::cluster::{Cluster, Program};
use super::requests::{self, Methods, key, value};
use crate::grpc::{Connection, decode};
use crate::load::{Outcome, Timing, UnderLoad, closed_loop};
use crate::report::{Figure, figure};

/// Memory is read when a member has had this long to come to rest.
const SETTLE: Duration = Duration::from_secs(2);
/// The writes whose acknowledgements show a gap begin this often.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);
/// How long writes run before the leader dies, and after.
const BEFORE_KILL: Duration = Duration::from_secs(1);
const AFTER_KILL: Duration = Duration::from_secs(6);

/// From nothing to every member answering a linearizable read.
///
/// # Errors
/// When a member does not start.
pub async fn start(program: &Program, members: usize, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::new(program, members, dir)?;
    let began = Instant::now();
    cluster.start_all()?;
    cluster.serving().await?;
    Ok(vec![figure("start to serving", began.elapsed().as_secs_f64(), "s")])
}

/// Memory idle and with `keys` keys of 1 KiB, each put by itself, their disk, and the restart with them.
///
/// # Errors
/// When a member does not start, a put fails or a key is missing after the restart.
pub async fn data(program: &Program, members: usize, dir: &Path, keys: u64) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(program, members, dir).await?;
    tokio::time::sleep(SETTLE).await;
    let mut figures = vec![figure("memory idle", cluster.resident_bytes()? as f64 / 1e6, "MB")];
    let began = Instant::now();
    put_each(&cluster, "data", keys).await?;
    figures.push(figure(format!("putting {keys} keys"), began.elapsed().as_secs_f64(), "s"));
    tokio::time::sleep(SETTLE).await;
    let memory = cluster.resident_bytes()? as f64 / 1e6;
    figures.push(figure(format!("memory with {keys} keys"), memory, "MB"));
    figures.push(figure(format!("disk with {keys} keys"), cluster.disk_bytes() as f64 / 1e6, "MB"));
    (0..members).for_each(|member| cluster.kill(member));
    let began = Instant::now();
    cluster.start_all()?;
    cluster.serving().await?;
    figures.push(figure(
        format!("restart with {keys} keys after kill -9"),
        began.elapsed().as_secs_f64(),
        "s",
    ));
    for connection in cluster.connections(members).await? {
        let answer = connection.unary(&Methods::new()?.range, requests::count("data")).await?;
        let count = decode::<pb::RangeResponse>(answer)?.count;
        ensure!(count as u64 == keys, "{count} of {keys} keys are there after the restart");
    }
    Ok(figures)
}

async fn put_each(cluster: &Cluster, prefix: &'static str, keys: u64) -> anyhow::Result<()> {
    use futures::stream::{self, StreamExt, TryStreamExt};
    let methods = Methods::new()?;
    let connections = cluster.connections(10).await?;
    stream::iter((0..keys).map(|number| {
        let connection = &connections[number as usize % connections.len()];
        connection.unary(&methods.put, requests::put(key(prefix, number), value(number)))
    }))
    .buffer_unordered(100)
    .try_for_each(|_| async { Ok(()) })
    .await
    .context("put")
}

/// The longest time between two acknowledged writes when the leader is killed: a write begins every 5 ms at one of the others.
///
/// # Errors
/// When no write succeeds after the kill.
pub async fn failover(program: &Program, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(program, 3, dir).await?;
    let leader = cluster.leader().await?;
    let methods = Arc::new(Methods::new()?);
    let mut survivors = Vec::new();
    for (index, member) in cluster.members.iter().enumerate() {
        if index != leader {
            survivors.push(Connection::open(member.client_port).await?);
        }
    }
    // Elections are of interest, not what a first write costs.
    let warm = Timing { warm_up: Duration::ZERO, measured: Duration::from_millis(500) };
    let (connection, own) = (survivors[0].clone(), Arc::clone(&methods));
    closed_loop(&cluster, 1, warm, move |_, number| {
        let (connection, methods) = (connection.clone(), Arc::clone(&own));
        async move {
            connection.unary(&methods.put, requests::put(key("gap", number), value(number))).await?;
            Ok(Outcome::Done)
        }
    })
    .await?;
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let mut killed = None;
    let mut interval = tokio::time::interval(WRITE_INTERVAL);
    let mut number = 0;
    while began.elapsed() < BEFORE_KILL + AFTER_KILL {
        interval.tick().await;
        if killed.is_none() && began.elapsed() >= BEFORE_KILL {
            cluster.kill(leader);
            killed = Some(Instant::now());
        }
        number += 1;
        let connection = survivors[number as usize % survivors.len()].clone();
        let (methods, acknowledged) = (Arc::clone(&methods), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            let put = connection.unary(&methods.put, requests::put(key("gap", number), value(number)));
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), put).await {
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
        });
    }
    let times = std::mem::take(&mut *acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
    let killed = killed.context("nothing was killed")?;
    ensure!(times.last().is_some_and(|last| *last > killed), "no write succeeded after the kill");
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    Ok(vec![figure("longest write gap after kill -9 of the leader", gap.as_secs_f64(), "s")])
}
