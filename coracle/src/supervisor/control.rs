//! The supervisor's unix socket: one JSON line asks, one JSON line answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{ProcessStatus, Shared};
use crate::layout::Layout;

const DEADLINE: Duration = Duration::from_secs(30);
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// The state of every process.
    Status,
    /// End all processes, then the supervisor; the answer comes when they have ended.
    Stop,
}

/// The answer to every request.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// By process name.
    pub processes: BTreeMap<String, ProcessStatus>,
}

/// Makes the socket, replacing a stale one (the caller holds the lock).
///
/// # Errors
/// The path is too long for a socket, or not writable.
pub fn bind(layout: &Layout) -> anyhow::Result<UnixListener> {
    let path = layout.control_socket();
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Answers requests until the process ends.
pub(super) async fn serve(listener: UnixListener, shared: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = std::sync::Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &shared).await {
                tracing::debug!("control request: {error:#}");
            }
        });
    }
}

async fn answer(stream: UnixStream, shared: &Shared) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let read = BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    if read == 0 {
        return Ok(());
    }
    match serde_json::from_str(&line)? {
        Request::Status => {}
        Request::Stop => {
            shared.stopping.cancel();
            // The asker has its own deadline.
            while shared.board.lock().values().any(|status| status.pid.is_some()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    let reply = Reply { processes: shared.board.lock().clone() };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    Ok(())
}

/// Asks the supervisor of a cluster.
///
/// # Errors
/// No supervisor answers.
pub async fn ask(layout: &Layout, request: &Request) -> anyhow::Result<Reply> {
    tokio::time::timeout(DEADLINE, ask_at(&layout.control_socket(), request))
        .await
        .with_context(|| format!("the supervisor did not answer within {DEADLINE:?}"))?
}

async fn ask_at(path: &Path, request: &Request) -> anyhow::Result<Reply> {
    let stream = UnixStream::connect(path).await.context("no supervisor is running")?;
    let (reader, mut writer) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut line = String::new();
    if BufReader::new(reader).read_line(&mut line).await? == 0 {
        bail!("the supervisor hung up");
    }
    Ok(serde_json::from_str(&line)?)
}
