//! What operators wait and pay for: the start, memory with nothing and with many pods, many lists at once, and rest.

use std::path::Path;
use std::time::Duration;

use futures::future::try_join_all;

use super::objects;
use super::system::{Pairing, System};
use crate::load::UnderLoad;
use crate::report::{Figure, figure};

/// Memory is read when a server has had this long to come to rest.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a server is watched while it has nothing to do.
const REST: Duration = Duration::from_secs(10);

/// From the server's start until it is ready, on an empty store and again on the one it has furnished; memory and processor time at rest.
///
/// # Errors
/// When it does not start.
pub async fn start(pairing: &Pairing, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let (mut system, first) = System::start(pairing, dir).await?;
    let again = system.restart().await?;
    tokio::time::sleep(SETTLE).await;
    let memory = system.resident_bytes()? as f64 / 1e6;
    let before = system.cpu_seconds()?;
    tokio::time::sleep(REST).await;
    let a_minute = (system.cpu_seconds()? - before) * 60.0 / REST.as_secs_f64();
    Ok(vec![
        figure("first start to /readyz", first.as_secs_f64(), "s"),
        figure("start to /readyz", again.as_secs_f64(), "s"),
        figure("memory idle", memory, "MB"),
        figure("CPU a minute at rest", a_minute, "s"),
    ])
}

/// Memory with so many pods, and what `readers` lists of them at once add to it at its peak.
///
/// # Errors
/// When the server does not start or refuses a request.
pub async fn memory(
    pairing: &Pairing,
    dir: &Path,
    pods: usize,
    readers: usize,
) -> anyhow::Result<Vec<Figure>> {
    let (system, _) = System::start(pairing, dir).await?;
    system.fill(pods).await?;
    tokio::time::sleep(SETTLE).await;
    let before = system.resident_bytes()?;
    system.reset_peak()?;
    let clients = system.connections(readers).await?;
    try_join_all(clients.iter().map(|client| client.get(objects::PODS))).await?;
    let more = system.peak_bytes()?.saturating_sub(before);
    Ok(vec![
        figure(format!("memory with {pods} pods"), before as f64 / 1e6, "MB"),
        figure(format!("more at the peak of {readers} lists of {pods} pods"), more as f64 / 1e6, "MB"),
    ])
}
